//! The JSON that an event carries.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use thiserror::Error;

/// A JSON value, kept byte for byte as it was given.
///
/// # Example
/// ```
/// use webhooks_core::Payload;
///
/// let payload = Payload::from_json(r#"{"total": 10.00}"#.to_owned())?;
/// assert_eq!(payload.as_str(), r#"{"total": 10.00}"#);
/// # Ok::<(), webhooks_core::PayloadError>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Payload(Box<RawValue>);

/// Says that a payload is not JSON, or cannot become JSON.
///
/// The text does not repeat the payload; the source names line and column.
#[derive(Debug, Error)]
#[error("payload is not valid JSON")]
pub struct PayloadError {
    #[from]
    source: serde_json::Error,
}

impl Payload {
    /// Returns the payload with exactly this JSON text, without the white space around it.
    ///
    /// # Errors
    /// [`PayloadError`] when the text is not one JSON value.
    pub fn from_json(text: String) -> Result<Self, PayloadError> {
        Ok(Self(RawValue::from_string(text)?))
    }

    /// Returns the value as JSON.
    ///
    /// # Errors
    /// [`PayloadError`] when the value has no JSON form: a map whose keys are not text, or a
    /// `Serialize` that fails.
    pub fn from_value(value: impl Serialize) -> Result<Self, PayloadError> {
        Ok(Self(to_raw_value(&value)?))
    }

    /// Borrows the JSON text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Payload {
    /// Compares the texts: `1.0` and `1.00` differ.
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    /// Writes the length alone: payloads are private to sender and receiver.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.as_str().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kept_byte_for_byte() {
        let text = r#"{"b":1,  "a":1.00, "é":"\u00e9", "n":12345678901234567890123}"#;
        let payload = Payload::from_json(text.to_owned()).unwrap();
        assert_eq!(payload.as_str(), text);
        assert_eq!(Payload::from_value(&payload).unwrap(), payload);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["", "{", "{} {}", "nul", "'a'"] {
            assert!(Payload::from_json(text.to_owned()).is_err(), "{text:?}");
        }
        let keys_are_no_text = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(Payload::from_value(keys_are_no_text).is_err());
    }

    #[test]
    fn debug_does_not_show_the_content() {
        let payload = Payload::from_value("card 4111").unwrap();
        assert_eq!(format!("{payload:?}"), "Payload(11 bytes)");
    }
}
