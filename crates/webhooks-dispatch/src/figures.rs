//! For operators: figures of endpoints over time, which stores count in the commits that they make
//! anyway.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use webhooks_core::{TenantId, Timestamp};
use webhooks_registry::{EndpointKey, EndpointNumber};

use crate::store::{Attempt, Outcome, Settlement};
use crate::transport::ErrorClass;

/// The time for which figures are kept by the minute, and the time for which they are kept by the hour.
pub const KEPT: (Duration, Duration) =
    (Duration::from_secs(48 * 60 * 60), Duration::from_secs(90 * 24 * 60 * 60));

/// A minute, the span of new figures, and an hour, that of old ones.
pub const SPANS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(60 * 60));

/// The figures of a span of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Deliveries that came into being: with their events, or by a replay of missed events.
    pub accepted: u64,
    /// Deliveries that the endpoint took.
    pub delivered: u64,
    /// Deliveries that failed: no retry was left, or none would have helped.
    pub failed: u64,
    /// Deliveries that were cancelled for any reason.
    pub cancelled: u64,
    /// Attempts that failed, by class.
    pub failures: BTreeMap<FailureClass, u64>,
    /// The times that attempts took.
    pub durations: Durations,
}

/// The class of a failed attempt: the kind of error, or the first digit of the response's status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "an attempt has a response or an error")]
pub enum FailureClass {
    /// There was no response.
    Error(ErrorClass),
    /// The first digit of the status code of a response that was no success, such as 5 for 503.
    Status(u8),
}

/// A histogram of the times that attempts took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durations {
    counts: [u64; BUCKETS],
}

/// The number of buckets.
const BUCKETS: usize = 12;

/// The upper bounds of the buckets in milliseconds, inclusive; the last bucket has none.
const BOUNDS: [u64; BUCKETS - 1] = [10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000];

impl Durations {
    /// Returns the upper bounds of the buckets, each with the number of attempts in it. The last bucket
    /// has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = BOUNDS.into_iter().map(Duration::from_millis).map(Some).chain([None]);
        bounds.zip(self.counts)
    }

    /// Returns the number of attempts.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns an upper bound for the time within which a part of the attempts ended: `0.99` for the
    /// 99th percentile. `None` if there are none, or they took longer than the highest bound.
    pub fn percentile(&self, part: f64) -> Option<Duration> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an estimate of a count, which is not negative"
        )]
        let rank = ((self.count() as f64 * part.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut sum = 0;
        let (bound, _) = self.buckets().find(|(_, count)| {
            sum += count;
            sum >= rank
        })?;
        bound
    }

    fn add(&mut self, bucket: usize, count: u64) {
        if let Some(found) = self.counts.get_mut(bucket) {
            *found = found.saturating_add(count);
        }
    }
}

/// The kind of a figure, as stores record it: a word such as `delivered`, `failure:timeout`,
/// `failure:5xx` or `within:50ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FigureKind {
    /// [`Figures::accepted`].
    Accepted,
    /// [`Figures::delivered`].
    Delivered,
    /// [`Figures::failed`].
    Failed,
    /// [`Figures::cancelled`].
    Cancelled,
    /// One of [`Figures::failures`].
    Failure(FailureClass),
    /// The number of a bucket of [`Figures::durations`], from 0.
    Within(u8),
}

impl FigureKind {
    /// Returns the kind of a word, if it is one.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "accepted" => return Some(Self::Accepted),
            "delivered" => return Some(Self::Delivered),
            "failed" => return Some(Self::Failed),
            "cancelled" => return Some(Self::Cancelled),
            _ => {}
        }
        if let Some(bound) = word.strip_prefix("within:") {
            let bucket = (0..BUCKETS).find(|bucket| bound_word(*bucket) == bound)?;
            return u8::try_from(bucket).ok().map(Self::Within);
        }
        let class = word.strip_prefix("failure:")?;
        Some(Self::Failure(match class.strip_suffix("xx") {
            Some(digit) => FailureClass::Status(digit.parse().ok()?),
            None => FailureClass::Error(ErrorClass::from_word(class)),
        }))
    }

    /// Returns the kinds for which a settlement counts that was recorded: those of its attempt, and
    /// that of the end of its delivery.
    pub fn of(settlement: &Settlement) -> impl Iterator<Item = Self> + use<> {
        let Settlement { attempt, outcome, .. } = settlement;
        let end = match outcome {
            Outcome::Delivered => Some(Self::Delivered),
            Outcome::Failed => Some(Self::Failed),
            Outcome::Expired => Some(Self::Cancelled),
            Outcome::Retrying { .. } | Outcome::Released => None,
        };
        let within = attempt.as_ref().map(|attempt| Self::within(attempt.duration));
        let class = attempt.as_ref().and_then(|attempt| FailureClass::of(attempt, *outcome));
        [within, class.map(Self::Failure), end].into_iter().flatten()
    }

    /// Returns the bucket of an attempt that took this time.
    pub fn within(duration: Duration) -> Self {
        let bucket = BOUNDS.partition_point(|bound| Duration::from_millis(*bound) < duration);
        Self::Within(u8::try_from(bucket).unwrap_or(u8::MAX))
    }
}

/// The word of a bucket: `50ms`, or `more` for the last one.
fn bound_word(bucket: usize) -> String {
    BOUNDS.get(bucket).map_or_else(|| "more".to_owned(), |bound| format!("{bound}ms"))
}

impl fmt::Display for FigureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Delivered => f.write_str("delivered"),
            Self::Failed => f.write_str("failed"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Failure(FailureClass::Error(class)) => write!(f, "failure:{}", class.as_str()),
            Self::Failure(FailureClass::Status(digit)) => write!(f, "failure:{digit}xx"),
            Self::Within(bucket) => write!(f, "within:{}", bound_word(usize::from(*bucket))),
        }
    }
}

impl Figures {
    /// Adds to the figure of a kind.
    pub fn add(&mut self, kind: FigureKind, count: u64) {
        let figure = match kind {
            FigureKind::Accepted => &mut self.accepted,
            FigureKind::Delivered => &mut self.delivered,
            FigureKind::Failed => &mut self.failed,
            FigureKind::Cancelled => &mut self.cancelled,
            FigureKind::Failure(class) => self.failures.entry(class).or_default(),
            FigureKind::Within(bucket) => return self.durations.add(usize::from(bucket), count),
        };
        *figure = figure.saturating_add(count);
    }

    /// Returns the number of attempts.
    pub fn attempts(&self) -> u64 {
        self.durations.count()
    }
}

/// Returns the start of the span that a time belongs to: of its minute or hour, one of [`SPANS`], or of
/// its day.
pub fn start_of(time: Timestamp, span: Duration) -> Timestamp {
    let seconds = span.as_secs().max(1);
    Timestamp::from_unix_seconds(time.as_unix_seconds() / seconds * seconds)
}

/// Figures that a store has counted and not recorded yet: counts by endpoint, minute and kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FiguresTally {
    counts: BTreeMap<(EndpointNumber, Timestamp, FigureKind), u64>,
}

/// A count of a [`FiguresTally`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores read it")]
pub struct FigureCount {
    /// The endpoint.
    pub endpoint: EndpointNumber,
    /// The start of the minute.
    pub at: Timestamp,
    /// The kind.
    pub kind: FigureKind,
    /// The number to add.
    pub count: u64,
}

impl FiguresTally {
    /// Counts deliveries of a kind.
    pub fn count(
        &mut self,
        endpoint: EndpointNumber,
        kind: FigureKind,
        count: u64,
        now: Timestamp,
    ) {
        *self.counts.entry((endpoint, start_of(now, SPANS.0), kind)).or_default() += count;
    }

    /// Counts a settlement that was recorded: its attempt, and the end of its delivery.
    pub fn settled(&mut self, endpoint: EndpointNumber, settlement: &Settlement, now: Timestamp) {
        for kind in FigureKind::of(settlement) {
            self.count(endpoint, kind, 1, now);
        }
    }

    /// Returns whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Takes all counts, ordered by endpoint and time.
    pub fn take(&mut self) -> impl Iterator<Item = FigureCount> + use<> {
        let counts = std::mem::take(&mut self.counts).into_iter();
        counts.map(|((endpoint, at, kind), count)| FigureCount { endpoint, at, kind, count })
    }

    /// Forgets all counts: the transaction that they belong to was rolled back.
    pub fn clear(&mut self) {
        self.counts.clear();
    }
}

impl FailureClass {
    /// Returns the class of an attempt after which a delivery has this outcome; `None` for a success.
    pub fn of(attempt: &Attempt, outcome: Outcome) -> Option<Self> {
        if outcome == Outcome::Delivered {
            return None;
        }
        let status = attempt.status_code.and_then(|code| u8::try_from(code / 100).ok());
        let error = attempt.error_class.unwrap_or(ErrorClass::Other);
        Some(status.map_or(Self::Error(error), Self::Status))
    }
}

/// The figures to read: of one endpoint, of a tenant's endpoints, or of all.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers and tests build it")]
pub struct FiguresQuery {
    /// Those of this tenant's endpoints.
    pub tenant: Option<TenantId>,
    /// Those of this endpoint.
    pub endpoint: Option<EndpointKey>,
    /// The start of the time, inclusive. A minute or an hour counts as a whole if it starts within the
    /// time, so begin at a full minute.
    pub since: Timestamp,
    /// The end of the time, exclusive.
    pub until: Timestamp,
    /// The spans of time that are added up.
    pub step: FiguresStep,
}

/// The spans of time whose figures are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "stores must know each")]
pub enum FiguresStep {
    /// Minutes. Figures that are older than 48 hours are in the first minute of their hour.
    Minute,
    /// Hours.
    Hour,
    /// Days, in UTC.
    Day,
    /// The whole time; it counts as beginning at [`FiguresQuery::since`].
    Whole,
}

impl FiguresQuery {
    /// Returns the start of the step that a time belongs to.
    pub fn step_of(&self, at: Timestamp) -> Timestamp {
        let step = match self.step {
            FiguresStep::Minute => SPANS.0,
            FiguresStep::Hour => SPANS.1,
            FiguresStep::Day => 24 * SPANS.1,
            FiguresStep::Whole => return self.since,
        };
        start_of(at, step)
    }
}

/// The figures of a step of time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct FiguresRow {
    /// The start of the step.
    pub at: Timestamp,
    /// The figures.
    pub figures: Figures,
}

/// Adds up counts by the steps of a query; returns the steps that have any, the earliest first. For
/// stores, which read counts by endpoint, minute and kind.
pub fn by_step(
    query: &FiguresQuery,
    counts: impl IntoIterator<Item = (Timestamp, FigureKind, u64)>,
) -> Vec<FiguresRow> {
    let mut steps: BTreeMap<Timestamp, Figures> = BTreeMap::new();
    for (at, kind, count) in counts {
        steps.entry(query.step_of(at)).or_default().add(kind, count);
    }
    steps.into_iter().map(|(at, figures)| FiguresRow { at, figures }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_back_from_its_word() {
        let plain = [
            FigureKind::Accepted,
            FigureKind::Delivered,
            FigureKind::Failed,
            FigureKind::Cancelled,
        ];
        let buckets = (0..12).map(FigureKind::Within);
        let failures = [
            FailureClass::Status(3),
            FailureClass::Status(5),
            FailureClass::Error(ErrorClass::Timeout),
            FailureClass::Error(ErrorClass::BlockedAddress),
        ];
        let kinds = plain.into_iter().chain(buckets).chain(failures.map(FigureKind::Failure));
        for kind in kinds {
            assert_eq!(FigureKind::from_word(&kind.to_string()), Some(kind));
        }
        assert_eq!(FigureKind::within(Duration::from_millis(50)).to_string(), "within:50ms");
        assert_eq!(FigureKind::within(Duration::from_micros(50_001)).to_string(), "within:100ms");
        assert_eq!(FigureKind::within(Duration::MAX).to_string(), "within:more");
        for word in ["", "within:", "within:51ms", "failure", "received", "failure:xx"] {
            assert_eq!(FigureKind::from_word(word), None, "{word:?}");
        }
    }

    #[test]
    fn a_percentile_is_the_bound_of_the_bucket_that_it_falls_into() {
        let mut figures = Figures::default();
        assert_eq!(figures.durations.percentile(0.5), None);
        for _ in 0..99 {
            figures.add(FigureKind::within(Duration::from_millis(7)), 1);
        }
        figures.add(FigureKind::within(Duration::from_secs(60)), 1);
        assert_eq!(figures.durations.percentile(0.0), Some(Duration::from_millis(10)));
        assert_eq!(figures.durations.percentile(0.99), Some(Duration::from_millis(10)));
        assert_eq!(figures.durations.percentile(1.0), None, "the last bucket has no bound");
        assert_eq!(figures.attempts(), 100);
    }
}
