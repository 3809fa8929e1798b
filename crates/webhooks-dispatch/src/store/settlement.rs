//! Settlements: where claimed deliveries go, and the attempts that were made.

use std::time::Duration;

use bytes::Bytes;
use webhooks_core::Timestamp;

use super::{Claim, Health};
use crate::response_record::Excerpt;
use crate::transport::ErrorClass;

/// What became of a claimed delivery.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "the engine and tests build it")]
pub struct Settlement {
    /// The claim.
    pub claim: Claim,
    /// Where the delivery goes from here.
    pub outcome: Outcome,
    /// The attempt that was made, if one was.
    pub attempt: Option<Attempt>,
}

/// Where a claimed delivery goes from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a store that misses one would lose deliveries")]
pub enum Outcome {
    /// The endpoint took it.
    Delivered,
    /// It is tried again, not before this time. An ordered endpoint waits as a whole.
    Retrying {
        /// When.
        due_at: Timestamp,
    },
    /// It is given up after its attempts.
    Failed,
    /// It grew older than its endpoint allows, and is given up without an attempt.
    Expired,
    /// Nothing was tried: it is due again as it was.
    Released,
}

/// One HTTP exchange of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it of their columns")]
pub struct Attempt {
    /// When it started.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// The status code of the response, if there was one (RFC 9110 §15).
    pub status_code: Option<u16>,
    /// The kind of failure, if there was no response.
    pub error_class: Option<ErrorClass>,
    /// Why it failed, in a sentence.
    pub error: Option<String>,
    /// The headers of the response that help to understand it and hold no secret, a line each:
    /// `retry-after: 120`.
    pub response_headers: String,
    /// The start of the response's body; of a text, whole characters.
    pub response: Bytes,
}

impl Attempt {
    /// Returns the start of the response's body for people to read.
    pub fn excerpt(&self) -> Excerpt<'_> {
        Excerpt::of(&self.response)
    }
}

/// Says whether a settlement was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the engine must know each")]
#[must_use]
pub enum Settled {
    /// It was kept.
    Recorded {
        /// How the endpoint fares.
        health: Health,
    },
    /// The claim was lost: its lease ended and another took it, or the delivery was cancelled.
    LeaseLost,
}
