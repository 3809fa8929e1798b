//! Resources: the typed content of records.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use webhooks_core::Timestamp;

use crate::public_id::IdKind;
use crate::record::RecordKind;

/// The longest uid and the longest name of an event type, in bytes.
const MAX_NAME: usize = 256;

/// The most entries of metadata, and the bytes of all keys and values together.
const MAX_METADATA: (usize, usize) = (64, 16 * 1024);

/// The reason why a field is not valid. It does not repeat the value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
#[non_exhaustive]
pub struct FieldError {
    /// The name of the field in JSON.
    pub field: &'static str,
    /// The reason, a sentence without its end.
    pub reason: String,
}

impl FieldError {
    /// Returns the error of a field.
    pub fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }
}

/// The content of a record.
pub trait Resource: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Its kind.
    const KIND: RecordKind;

    /// The kind of the ids that are its keys. No alias looks like one, so a name tells which of the two it
    /// is. `None` if its keys are no ids; then it has no alias.
    const ID: Option<IdKind> = None;

    /// Returns whether a record can have this key. An iterator of another list has none.
    fn is_key(key: &str) -> bool {
        Self::ID.is_none_or(|kind| kind.number(key).is_ok())
    }

    /// Returns the second key by which it is found.
    fn alias(&self) -> Option<String> {
        None
    }

    /// Checks its fields.
    ///
    /// # Errors
    /// [`FieldError`] of the first that is not valid.
    fn check(&self) -> Result<(), FieldError> {
        Ok(())
    }

    /// Returns what the audit log shows of it: nothing secret.
    ///
    /// # Errors
    /// The error of its serialization.
    fn shown(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }

    /// Returns the time from which it counts as absent.
    fn expires_at(&self) -> Option<Timestamp> {
        None
    }
}

/// A resource as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry<R> {
    /// Its key.
    pub id: String,
    /// Its content.
    pub value: R,
    /// Its version, from 1.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl<R> Entry<R> {
    /// Returns an entry that is made now.
    pub fn new(id: String, value: R, now: Timestamp) -> Self {
        Self { id, value, version: 1, created_at: now, updated_at: now }
    }
}

/// Checks a uid or name: 1 to 256 of A-Z, a-z, 0-9, `-`, `_` and `.`.
///
/// # Errors
/// [`FieldError`] for anything else.
pub fn check_name(field: &'static str, name: &str) -> Result<(), FieldError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(FieldError::new(field, "it is not 1 to 256 of A-Z, a-z, 0-9, -, _ and ."))
}

/// Checks notes for programs: at most 64 entries, of 16 KiB together.
///
/// # Errors
/// [`FieldError`] when there are more.
pub fn check_metadata<'m>(
    metadata: impl IntoIterator<Item = (&'m String, &'m String)>,
) -> Result<(), FieldError> {
    let (mut entries, mut bytes) = (0, 0);
    for (key, value) in metadata {
        entries += 1;
        bytes += key.len() + value.len();
    }
    if entries <= MAX_METADATA.0 && bytes <= MAX_METADATA.1 {
        return Ok(());
    }
    Err(FieldError::new("metadata", "there are more than 64 entries, or more than 16 KiB in all"))
}
