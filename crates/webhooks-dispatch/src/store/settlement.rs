//! Settlements: the outcomes of claimed deliveries, and their attempts.

use std::time::Duration;

use bytes::Bytes;
use webhooks_core::Timestamp;

use super::{Claim, Health};
use crate::response_record::Excerpt;
use crate::transport::ErrorClass;

/// The outcome of a claimed delivery, with its attempt.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "the engine and tests build it")]
pub struct Settlement {
    /// The claim.
    pub claim: Claim,
    /// The outcome.
    pub outcome: Outcome,
    /// The attempt. `None` if the outcome is [`Expired`](Outcome::Expired) or
    /// [`Released`](Outcome::Released).
    pub attempt: Option<Attempt>,
}

/// The outcome of a claimed delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a store that misses one would lose deliveries")]
pub enum Outcome {
    /// The endpoint took it.
    Delivered,
    /// It is tried again, not before this time. An ordered endpoint waits as a whole.
    Retrying {
        /// The time at which the retry is due.
        due_at: Timestamp,
    },
    /// It failed, and is not tried again: no retry is left, or none would help.
    Failed,
    /// It grew older than its endpoint allows, and is cancelled without an attempt.
    Expired,
    /// The claim is released without an attempt: the delivery is due again as it was.
    Released,
}

/// An attempt of a delivery, as stores record it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it of their columns")]
pub struct Attempt {
    /// The time at which it started.
    pub started_at: Timestamp,
    /// The time that it took.
    pub duration: Duration,
    /// The status code of the response, if there was one (RFC 9110 §15).
    pub status_code: Option<u16>,
    /// The kind of failure, if there was no response.
    pub error_class: Option<ErrorClass>,
    /// The reason why it failed, in a sentence.
    pub error: Option<String>,
    /// The headers of the response that help to understand it and hold no secret, one per line:
    /// `retry-after: 120`.
    pub response_headers: String,
    /// The start of the response's body; if it is a text, whole characters.
    pub response: Bytes,
}

impl Attempt {
    /// Returns the start of the response's body for people to read.
    pub fn excerpt(&self) -> Excerpt<'_> {
        Excerpt::of(&self.response)
    }
}

/// The answer of a store to a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the engine must know each")]
#[must_use]
pub enum Settled {
    /// The outcome was recorded.
    Recorded {
        /// The health of the endpoint, from [`Health::after`].
        health: Health,
    },
    /// The claim holds no longer: its lease ended, it was settled before, its delivery was
    /// cancelled, or its endpoint was unregistered or disabled.
    LeaseLost,
}
