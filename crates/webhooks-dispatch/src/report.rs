//! The report of a worker about itself, for other processes to read.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use webhooks_core::Timestamp;
use webhooks_registry::EndpointNumber;

use crate::gauges::Gauges;

/// A report of a worker about itself. Stores keep its JSON, so that other processes can read it.
///
/// # Example
/// ```
/// use webhooks_dispatch::observer::WorkerReport;
/// use webhooks_dispatch::{Engine, FnTransport, MemoryStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::new(MemoryStore::new(), FnTransport::new(|_, _, _, _| async { (200, "") }));
/// let worker = engine.start();
/// let reports = engine.reports();
/// assert_eq!(reports[0].gauges.slots, 256);
/// assert_eq!(WorkerReport::from_json(&reports[0].to_json())?, reports[0]);
/// # drop(worker);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerReport {
    /// The time at which the worker started.
    pub started_at: Timestamp,
    /// The time of the report.
    pub at: Timestamp,
    /// The numbers of the worker.
    pub gauges: Gauges,
    /// The endpoints with a breaker that is not closed, a rest, or attempts in flight: at most
    /// [`MAX_ENDPOINTS`](Self::MAX_ENDPOINTS), those with open breakers first.
    pub endpoints: Vec<EndpointReport>,
}

/// The part of a [`WorkerReport`] about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EndpointReport {
    /// The number of the endpoint: the field `number` of an
    /// [`EndpointView`](webhooks_registry::EndpointView).
    #[serde(with = "number")]
    pub number: EndpointNumber,
    /// The number of attempts in flight.
    pub in_flight: u32,
    /// The number of deliveries that are claimed, and wait in the lane.
    pub waiting: u32,
    /// The state of the circuit breaker.
    #[serde(flatten)]
    pub breaker: BreakerState,
    /// The number of failures in a row, as the circuit breaker counts them.
    #[serde(default)]
    pub failures: u32,
    /// The time until the worker makes the next attempt for the endpoint, if it must rest.
    #[serde(rename = "rests_for_ms", default, with = "optional_milliseconds")]
    pub rests_for: Option<Duration>,
    /// The reason for this rest.
    #[serde(default)]
    pub rests_by: Option<RestReason>,
    /// The number of attempts that the rate limit allows at once; `None` without a rate limit.
    #[serde(default)]
    pub tokens: Option<u32>,
}

/// The reason why a worker makes no attempt for an endpoint for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RestReason {
    /// Its circuit breaker is open.
    Failures,
    /// It asked for a pause, with `Retry-After` or 410, or the transport had no room for a connection
    /// to it, which is a pause of a second.
    Pause,
    /// Its rate limit is used up.
    RateLimit,
}

/// The state of an endpoint's circuit breaker in a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "breaker", rename_all = "lowercase")]
#[non_exhaustive]
pub enum BreakerState {
    /// Attempts are made.
    Closed,
    /// No attempt is made.
    Open {
        /// The time for which it is still open.
        #[serde(rename = "open_for_ms", with = "milliseconds")]
        remaining: Duration,
    },
    /// Attempts are made one at a time: the next success closes it, and the next failure opens it.
    Probing,
}

/// An error: a text is no report of a worker.
#[derive(Debug, Error)]
#[error("this is no report of a worker, or one of another version")]
pub struct WorkerReportError {
    source: serde_json::Error,
}

impl WorkerReport {
    /// The largest number of endpoints in a report.
    pub const MAX_ENDPOINTS: usize = 1_000;

    /// Returns the report as JSON. Durations are whole milliseconds.
    #[must_use]
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "numbers, times and words can all be written"
    )]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a report is serializable")
    }

    /// Returns the report that [`to_json`](Self::to_json) wrote. Fields of later versions are
    /// ignored.
    ///
    /// # Errors
    /// [`WorkerReportError`] when the text is no report.
    pub fn from_json(json: &str) -> Result<Self, WorkerReportError> {
        serde_json::from_str(json).map_err(|source| WorkerReportError { source })
    }
}

/// The JSON of an endpoint's number.
mod number {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::EndpointNumber;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
    pub(super) fn serialize<S: Serializer>(
        number: &EndpointNumber,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(number.as_u64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<EndpointNumber, D::Error> {
        Ok(EndpointNumber::from_u64(u64::deserialize(deserializer)?))
    }
}

/// The JSON of a duration.
mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(deserializer)?))
    }
}

/// The JSON of a duration that may be missing.
mod optional_milliseconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde asks for this signature")]
    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::milliseconds::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> WorkerReport {
        let resting = EndpointReport {
            number: EndpointNumber::from_u64(7),
            in_flight: 0,
            waiting: 0,
            breaker: BreakerState::Open { remaining: Duration::from_millis(1_500) },
            failures: 5,
            rests_for: Some(Duration::from_secs(2)),
            rests_by: Some(RestReason::Pause),
            tokens: None,
        };
        let breaker = BreakerState::Probing;
        let probed =
            EndpointReport { breaker, in_flight: 1, rests_for: None, rests_by: None, ..resting };
        let breaker = BreakerState::Closed;
        let busy = EndpointReport { breaker, failures: 0, waiting: 9, tokens: Some(3), ..probed };
        WorkerReport {
            started_at: Timestamp::UNIX_EPOCH,
            at: Timestamp::from_unix_seconds(60),
            gauges: Gauges { workers: 1, in_flight: 2, open_breakers: 2, ..Gauges::default() },
            endpoints: vec![resting, probed, busy],
        }
    }

    #[test]
    fn its_json_is_read_back_and_can_be_read_by_people() {
        let json = report().to_json();
        assert_eq!(WorkerReport::from_json(&json).unwrap(), report());
        let open = concat!(
            r#"{"number":7,"in_flight":0,"waiting":0,"breaker":"open","open_for_ms":1500,"#,
            r#""failures":5,"rests_for_ms":2000,"rests_by":"pause","tokens":null}"#
        );
        let start =
            r#"{"started_at":"1970-01-01T00:00:00Z","at":"1970-01-01T00:01:00Z","gauges":{"#;
        assert!(json.starts_with(start) && json.contains(open), "{json}");
    }

    #[test]
    fn reports_of_other_versions_are_read_and_other_texts_refused() {
        let later = report().to_json().replace(r#""in_flight":"#, r#""new":[],"in_flight":"#);
        assert_eq!(WorkerReport::from_json(&later).unwrap(), report());
        let earlier = report().to_json().replace(r#","open_breakers":2"#, "");
        assert_eq!(WorkerReport::from_json(&earlier).unwrap().gauges.open_breakers, 0);
        for text in ["", "{}", "[]", "null", r#"{"at": 1}"#] {
            let error = WorkerReport::from_json(text).unwrap_err();
            assert_eq!(
                error.to_string(),
                "this is no report of a worker, or one of another version"
            );
        }
    }
}
