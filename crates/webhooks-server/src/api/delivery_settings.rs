//! How messages are delivered to an endpoint: settings that Svix does not have, in a field of their own.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_core::RetryPolicy;
use webhooks_registry::{BodyFormat, Endpoint, EndpointState, RateLimit, Registration};

use crate::error::ApiError;
use crate::extract::Patch;

/// The most retries of a schedule.
const MAX_RETRIES: usize = 50;

/// The longest period of a rate, in seconds: a day.
const MAX_PERIOD: u32 = 86_400;

/// The longest attempt, in seconds.
const MAX_TIMEOUT: u32 = 600;

/// The largest age of a message that is delivered, in seconds: a leap year.
const MAX_AGE: u32 = 31_622_400;

/// The longest delay of a schedule: 30 days, in seconds.
const MAX_DELAY: u64 = 30 * 24 * 60 * 60;

/// How messages are delivered. A field that is absent stays as it is, `null` sets the default.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DeliveryIn {
    /// The seconds before each retry, at most 50; an empty list means no retry, and `null` the schedule of the
    /// event type or the service.
    #[serde(default)]
    #[schema(value_type = Option<Vec<u64>>, max_items = 50)]
    retry_schedule: Patch<Vec<u64>>,
    /// Whether each message waits until the one before it has ended; `false` by default.
    ordered: Option<bool>,
    /// Whether messages wait until this is `false` again; `false` by default.
    pub(crate) paused: Option<bool>,
    /// The seconds in which `throttleRate` messages may be sent: 1 to 86,400; 1 by default.
    #[serde(default)]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 86_400)]
    throttle_period_secs: Patch<u32>,
    /// The seconds that an attempt may take: 1 to 600; 30 by default.
    #[serde(default)]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 600)]
    timeout_secs: Patch<u32>,
    /// The most attempts at the same time: 1 to 1,024; 32 by default.
    #[serde(default)]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_024)]
    max_in_flight: Patch<NonZeroU32>,
    /// The seconds after which a message is no longer delivered: 1 to 31,622,400; 604,800 (a week) by default.
    #[serde(default)]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 31_622_400)]
    max_age_secs: Patch<u32>,
    /// The body that is sent; `payload` by default.
    body: Option<BodyForm>,
}

/// How messages are delivered.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeliveryOut {
    /// The seconds before each retry; absent if the event type or the service has the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_schedule: Option<Vec<u64>>,
    /// Whether each message waits until the one before it has ended.
    ordered: bool,
    /// Whether messages wait.
    paused: bool,
    /// The seconds in which `throttleRate` messages may be sent.
    throttle_period_secs: u64,
    /// The seconds that an attempt may take.
    timeout_secs: u64,
    /// The most attempts at the same time.
    max_in_flight: u32,
    /// The seconds after which a message is no longer delivered.
    max_age_secs: u64,
    /// The body that is sent.
    body: BodyForm,
}

/// The body of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum BodyForm {
    /// The payload, byte for byte.
    Payload,
    /// An object with the id, the type, the time and the payload.
    Event,
    /// A CloudEvent of version 1.0 in structured mode, with the payload as its `data`.
    CloudEvent,
    /// A CloudEvent of version 1.0 in binary mode: the payload, and the attributes as headers.
    CloudEventBinary,
}

impl DeliveryIn {
    /// Checks what the engine would not refuse.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        if let Patch::Set(schedule) = &self.retry_schedule {
            check_schedule("delivery", schedule)?;
        }
        for (field, seconds, most) in [
            ("throttlePeriodSecs", &self.throttle_period_secs, MAX_PERIOD),
            ("timeoutSecs", &self.timeout_secs, MAX_TIMEOUT),
            ("maxAgeSecs", &self.max_age_secs, MAX_AGE),
        ] {
            if matches!(seconds, Patch::Set(seconds) if !(1..=most).contains(seconds)) {
                let reason = format!("it must be 1 to {most} seconds");
                return Err(ApiError::field(["body", "delivery", field], reason, "value_error"));
            }
        }
        Ok(())
    }

    /// Returns the endpoint with these settings.
    pub(crate) fn apply(&self, mut endpoint: Endpoint) -> Endpoint {
        let fresh = |value: &Patch<u32>, default: Duration, old: Duration| match value {
            Patch::Keep => old,
            Patch::Clear => default,
            Patch::Set(seconds) => Duration::from_secs(u64::from(*seconds)),
        };
        match &self.retry_schedule {
            Patch::Keep => {}
            Patch::Clear => endpoint.retry = None,
            Patch::Set(schedule) => endpoint.retry = Some(policy(schedule)),
        }
        endpoint.ordered = self.ordered.unwrap_or(endpoint.ordered);
        endpoint.timeout = fresh(&self.timeout_secs, Duration::from_secs(30), endpoint.timeout);
        let week = Duration::from_secs(7 * 24 * 60 * 60);
        endpoint.max_age = fresh(&self.max_age_secs, week, endpoint.max_age);
        match self.max_in_flight {
            Patch::Keep => {}
            Patch::Clear => endpoint.max_in_flight = DEFAULT_IN_FLIGHT,
            Patch::Set(flights) => endpoint.max_in_flight = flights,
        }
        if let Some(limit) = endpoint.rate_limit {
            let per = fresh(&self.throttle_period_secs, Duration::from_secs(1), limit.per);
            endpoint.rate_limit = Some(RateLimit { per, ..limit });
        }
        match self.body {
            None => endpoint,
            Some(BodyForm::Payload) => endpoint.body(BodyFormat::Payload),
            Some(BodyForm::Event) => endpoint.body(BodyFormat::Event),
            Some(BodyForm::CloudEvent) => endpoint.body(BodyFormat::CloudEvent),
            Some(BodyForm::CloudEventBinary) => endpoint.body(BodyFormat::CloudEventBinary),
        }
    }
}

/// The default of attempts at the same time, as `Endpoint` has it.
const DEFAULT_IN_FLIGHT: NonZeroU32 = NonZeroU32::new(32).unwrap();

impl DeliveryOut {
    pub(crate) fn new(registration: &Registration) -> Self {
        let Registration { endpoint, state, .. } = registration;
        let per = endpoint.rate_limit.map_or(Duration::from_secs(1), |limit| limit.per);
        Self {
            retry_schedule: endpoint.retry.as_ref().map(schedule),
            ordered: endpoint.ordered,
            paused: matches!(state, EndpointState::Paused),
            throttle_period_secs: per.as_secs(),
            timeout_secs: endpoint.timeout.as_secs(),
            max_in_flight: endpoint.max_in_flight.get(),
            max_age_secs: endpoint.max_age.as_secs(),
            body: match endpoint.body {
                BodyFormat::Payload => BodyForm::Payload,
                BodyFormat::CloudEvent => BodyForm::CloudEvent,
                BodyFormat::CloudEventBinary => BodyForm::CloudEventBinary,
                BodyFormat::Event => BodyForm::Event,
            },
        }
    }
}

/// Checks the delays of a schedule, in seconds.
pub(crate) fn check_schedule(field: &str, schedule: &[u64]) -> Result<(), ApiError> {
    if schedule.len() > MAX_RETRIES {
        return Err(ApiError::value(field, "the schedule has more than 50 retries"));
    }
    if schedule.iter().any(|delay| *delay > MAX_DELAY) {
        return Err(ApiError::value(field, "a delay of the schedule is longer than 30 days"));
    }
    Ok(())
}

/// Returns the retry policy of a schedule.
pub(crate) fn policy(schedule: &[u64]) -> RetryPolicy {
    RetryPolicy::schedule(schedule.iter().copied().map(Duration::from_secs))
}

/// Returns the schedule of a retry policy.
fn schedule(policy: &RetryPolicy) -> Vec<u64> {
    policy.delays().take(MAX_RETRIES).map(|delay| delay.as_secs()).collect()
}
