//! Tokens that open one more session, once.

use serde::{Deserialize, Serialize};
use webhooks_core::Timestamp;

use crate::record::RecordKind;
use crate::resource::Resource;

/// A token that can be exchanged once for the key of a session. Its record's key is the hash of its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OneTimeToken {
    /// The id of the session whose rights and end the new one gets.
    pub(crate) session: String,
    /// The time from which it is refused.
    pub(crate) expires_at: Timestamp,
    /// Whether it was exchanged.
    pub(crate) is_used: bool,
}

impl OneTimeToken {
    pub(crate) fn new(session: &str, expires_at: Timestamp) -> Self {
        Self { session: session.to_owned(), expires_at, is_used: false }
    }
}

impl Resource for OneTimeToken {
    const KIND: RecordKind = RecordKind::OneTimeToken;

    fn expires_at(&self) -> Option<Timestamp> {
        Some(self.expires_at)
    }
}
