//! Outcomes of claimed deliveries, and the attempts that led to them.

use std::time::Duration;

use bytes::Bytes;
use webhooks_core::Timestamp;

use crate::response_record::Excerpt;
use crate::transport::ErrorClass;

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
    /// The time at which it started, by the wall clock with all its steps. The request was signed
    /// with this time.
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
