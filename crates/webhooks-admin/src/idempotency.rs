//! Idempotency: the first answer again, for a request that is made again with the same key.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use webhooks_core::Timestamp;

use crate::record::RecordKind;
use crate::resource::Resource;

/// How long an answer is kept.
pub(crate) const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a request without an answer keeps others with its key out: longer than a request takes.
pub(crate) const HELD: Duration = Duration::from_secs(60);

/// A request that is made once for all that have its key.
#[derive(Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct IdempotentRequest<'r> {
    /// The caller and the place: the same key elsewhere is another request.
    pub scope: &'r str,
    /// The key that the caller chose.
    pub key: &'r str,
    /// Its body.
    pub body: &'r [u8],
}

/// The answer to a request.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// The state of a request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a case that a server ignores must not compile")]
pub enum Begin {
    /// It is to be carried out; the place is kept for its answer.
    Run(Run),
    /// It was answered.
    Answered(Answer),
    /// The first is still being answered.
    InProgress,
    /// The first had another body.
    OtherBody,
}

/// A request that is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "servers build it")]
pub struct Run {
    /// The number of the request, from which the ids of what it makes follow. It grows with time.
    pub number: u128,
    /// Whether the request was begun before, and nobody knows how far that went: what it makes may be there.
    pub is_again: bool,
    /// The version of the record that keeps the place of this run; 0 if there is no record.
    pub version: u64,
}

/// The end of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a case that is ignored must not compile")]
pub enum End {
    /// It was carried out.
    Answered(Answer),
    /// It was refused: nothing was changed, and the next one may have another body.
    Refused,
    /// It may have been carried out, in part or as a whole, and has no answer that is kept. The next one goes on
    /// with its number.
    Open,
}

impl fmt::Debug for IdempotentRequest<'_> {
    /// Leaves out the body, which may be private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotentRequest").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    /// Leaves out the body, which may be private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// The record of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptAnswer {
    /// The hash of the request's body.
    pub(crate) body: String,
    pub(crate) answer: Option<Answer>,
    /// Its number, as the id of a task.
    pub(crate) number: String,
    /// The time until which others are kept out, while it has no answer.
    pub(crate) held_until: Timestamp,
    /// The time at which it is forgotten.
    pub(crate) until: Timestamp,
}

impl Resource for KeptAnswer {
    const KIND: RecordKind = RecordKind::Idempotency;

    fn expires_at(&self) -> Option<Timestamp> {
        Some(self.until)
    }
}

impl IdempotentRequest<'_> {
    /// Returns the key of its record. Its scope is in it: a scope may be a secret.
    pub(crate) fn record_key(&self) -> String {
        hex(&hash(&[self.scope.as_bytes(), self.key.as_bytes()]))
    }

    pub(crate) fn body_hash(&self) -> String {
        hex(&hash(&[self.body]))
    }
}

/// Returns a number of 128 bits that no other texts have: a hash of them.
pub fn number_of(texts: &[&str]) -> u128 {
    let texts: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
    hash(&texts).first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

/// Returns the hash of texts. Each comes with its length, so that no two lists have one hash.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}
