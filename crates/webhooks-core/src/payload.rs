//! The JSON that an event carries.

mod finite;
mod readable;

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use thiserror::Error;

/// A JSON value, kept byte for byte as it was given, that every receiver can read.
///
/// JSON itself has no bounds. A payload holds no half of a surrogate pair (`"\ud800"`), no number
/// beyond those of 64-bit floating point (`1e999`), no key that `serde_json` keeps for itself
/// (`"$serde_json::private::RawValue"`), and at most 126 arrays and objects in each other: then a
/// [`serde_json::Value`] can hold the payload and the body that it is in.
///
/// # Example
/// ```
/// use webhooks_core::Payload;
///
/// let payload = Payload::from_json(r#"{"total": 10.00}"#.to_owned())?;
/// assert_eq!(payload.as_str(), r#"{"total": 10.00}"#);
/// assert!(Payload::from_json(r#"{"total": 1e999}"#.to_owned()).is_err());
/// assert!(Payload::from_value(f64::NAN).is_err());
/// # Ok::<(), webhooks_core::PayloadError>(())
/// ```
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Payload(Box<RawValue>);

/// The reason why something cannot be a payload.
///
/// The text does not repeat the payload; the source names the line and column.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The text is not one JSON value, or the value has no JSON form.
    #[error("payload is not valid JSON")]
    Json {
        /// Why, and where.
        source: serde_json::Error,
    },
    /// The value holds a number that JSON cannot write.
    #[error("payload holds {number}{}, and JSON has no form for it", within(field.as_ref()))]
    NotFinite {
        /// The number: infinite, or none.
        number: f64,
        /// The fields of structs that lead to it, joined by dots, if there are any. Keys of maps and
        /// places in lists are not named.
        field: Option<String>,
    },
    /// The text is valid JSON that most programs cannot read.
    #[error("payload is JSON that receivers cannot read")]
    Unreadable {
        /// Why, and where.
        source: serde_json::Error,
    },
}

fn within(field: Option<&String>) -> String {
    field.map_or_else(String::new, |field| format!(" in {field:?}"))
}

impl Payload {
    /// Returns the payload with exactly this JSON text, without the white space around it.
    ///
    /// # Errors
    /// [`PayloadError`] when the text is not one JSON value, or receivers could not read it.
    pub fn from_json(text: String) -> Result<Self, PayloadError> {
        let raw = RawValue::from_string(text).map_err(|source| PayloadError::Json { source })?;
        Self::readable(raw).map_err(|source| PayloadError::Unreadable { source })
    }

    /// Returns the value as JSON.
    ///
    /// A [`serde_json::Value`] made of a number that is infinite or none holds `null` already.
    ///
    /// # Errors
    /// [`PayloadError`] when the value has no JSON form: a map whose keys are not text, a number that
    /// is infinite or none, or a `Serialize` that fails; or when receivers could not read it.
    pub fn from_value(value: impl Serialize) -> Result<Self, PayloadError> {
        let raw = to_raw_value(&value).map_err(|source| PayloadError::Json { source })?;
        // `serde_json` writes `null` for numbers that JSON does not have. The search serializes the
        // value a second time, so it runs only where one of these nulls can be.
        if raw.get().contains("null")
            && let Some((number, field)) = finite::find_other(&value)
        {
            return Err(PayloadError::NotFinite { number, field });
        }
        Self::readable(raw).map_err(|source| PayloadError::Unreadable { source })
    }

    fn readable(raw: Box<RawValue>) -> Result<Self, serde_json::Error> {
        readable::check(raw.get())?;
        Ok(Self(raw))
    }

    /// Returns the payload with a JSON text from a store; it is not checked again.
    pub(crate) fn from_stored(raw: Box<RawValue>) -> Self {
        Self(raw)
    }

    /// Borrows the JSON text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::readable(Box::deserialize(deserializer)?).map_err(D::Error::custom)
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
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::Event;

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
    fn what_no_receiver_could_read_is_refused_and_told_where() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(Payload::from_json(nested(readable::MAX_DEPTH)).is_ok());
        let objects = format!("{}1{}", r#"{"a":"#.repeat(127), "}".repeat(127));
        let private = |key| format!(r#"[{{"a": 1, "{key}": "[1"}}]"#);
        for (text, why) in [
            (r#"{"a": "\ud800"}"#.to_owned(), "hex escape at line 1 column 14"),
            (r#"["\uDE00"]"#.to_owned(), "hex escape"),
            (r#"{"\ud83d\u0041": 1}"#.to_owned(), "hex escape"),
            ("[1,\n 1e999]".to_owned(), "number out of range at line 2 column 6"),
            ("-1e309".to_owned(), "number out of range"),
            ("9".repeat(310), "number out of range"),
            (nested(readable::MAX_DEPTH + 1), "more than 126 arrays and objects in each other"),
            (objects, "more than 126 arrays and objects in each other"),
            (private("$serde_json::private::RawValue"), "a key that serde_json keeps"),
            (private(r"\u0024serde_json::private::RawValue"), "a key that serde_json keeps"),
            (private("$serde_json::private::Number"), "a key that serde_json keeps"),
        ] {
            let error = Payload::from_json(text.clone()).unwrap_err();
            let PayloadError::Unreadable { source } = error else { panic!("{text}: {error:?}") };
            assert!(source.to_string().contains(why), "{text}: {source}");
            assert!(serde_json::from_str::<Payload>(&text).is_err(), "{text}");
            let raw = RawValue::from_string(text).unwrap();
            assert!(Payload::from_value([raw]).is_err());
        }
        for text in [
            r#""\ud83e\uDD80 \\ud800 \u0000""#,
            "[1e308, -0.1e309, 1e-999, 0e999]",
            r#"{"a": "$serde_json::private::Number", "$serde_json": 1}"#,
        ] {
            assert!(Payload::from_json(text.to_owned()).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_number_that_json_has_not_is_refused_by_its_field() {
        #[derive(Serialize)]
        struct Order {
            total: f64,
            parts: Vec<Option<Part>>,
        }
        #[derive(Serialize)]
        struct Part {
            weight: f32,
        }
        let order = |total, weight| Order { total, parts: vec![None, Some(Part { weight })] };
        assert!(Payload::from_value(order(1.5, 2.5)).is_ok(), "a null that is meant is no number");
        for (value, text) in [
            (order(f64::NAN, 1.0), r#"payload holds NaN in "total", and JSON has no form for it"#),
            (
                order(1.0, f32::NEG_INFINITY),
                r#"payload holds -inf in "parts.weight", and JSON has no form for it"#,
            ),
        ] {
            assert_eq!(Payload::from_value(value).unwrap_err().to_string(), text);
        }
        let of_map = std::collections::BTreeMap::from([("card 4111", (1, f64::INFINITY))]);
        let error = Payload::from_value(of_map).unwrap_err();
        assert_eq!(error.to_string(), "payload holds inf, and JSON has no form for it");
    }

    proptest! {
        /// Every accepted payload, alone or in the body of an event, can be read as a `Value`, which
        /// cannot hold everything.
        #[test]
        fn what_is_taken_can_be_read(text in json()) {
            if let Ok(payload) = Payload::from_json(text) {
                let event = Event::new("a", &payload).unwrap();
                prop_assert_eq!(&event.payload, &payload);
                prop_assert!(serde_json::from_str::<Value>(payload.as_str()).is_ok());
                prop_assert!(serde_json::from_str::<Value>(&event.to_json()).is_ok());
            }
        }

        /// Every text that can be read is accepted, except deep ones, because the body needs a level,
        /// and those that are read as something else.
        #[test]
        fn what_can_be_read_is_taken(text in json()) {
            let is_deep = text.matches(['[', '{']).count() > readable::MAX_DEPTH;
            let is_other = text.contains(RAW_VALUE);
            let is_read = serde_json::from_str::<Value>(&text).is_ok();
            prop_assert!(!is_read || is_deep || is_other || Payload::from_json(text).is_ok());
        }
    }

    const RAW_VALUE: &str = "$serde_json::private::RawValue";

    /// Returns texts of which many are JSON, and some such that nobody can read it.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "\"(\\\\u(d[89a-f][0-9a-f]{2}|00[0-9a-f]{2})|[a-z]|\\\\[\\\\nu\"])*\"",
            "-?[0-9]{1,3}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?",
            "[0-9]{300,320}(e-[0-9]{1,2})?",
            "null|true|nul",
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let list = proptest::collection::vec(inner.clone(), 0..4);
            let list = list.prop_map(|items| format!("[{}]", items.join(",")));
            prop_oneof![
                list,
                inner.clone().prop_map(|value| format!("{{\"\\ud800\":{value}}}")),
                inner.clone().prop_map(|value| format!("{{\"a\":{value}}}")),
                inner.clone().prop_map(|value| format!("{{\"{RAW_VALUE}\":{value}}}")),
                (inner, 100..130_usize).prop_map(|(value, n)| format!(
                    "{}{value}{}",
                    "[".repeat(n),
                    "]".repeat(n)
                )),
            ]
        })
    }

    #[test]
    fn debug_does_not_show_the_content() {
        let payload = Payload::from_value("card 4111").unwrap();
        assert_eq!(format!("{payload:?}"), "Payload(11 bytes)");
    }
}
