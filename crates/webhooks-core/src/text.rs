//! Conversions and errors of the types that are parsed from text.

/// The part of a refused text that an error keeps, in characters: enough to recognize it in a log.
const EXCERPT_CHARACTERS: usize = 64;

/// Returns the start of a refused text, as errors keep it: at most 64 characters, of which the last
/// is `…` if there were more.
///
/// # Example
/// ```
/// use webhooks_core::excerpt;
///
/// assert_eq!(excerpt("user created"), "user created");
/// assert_eq!(excerpt(&"x".repeat(1_000_000)), format!("{}…", "x".repeat(63)));
/// ```
pub fn excerpt(text: &str) -> String {
    if text.chars().nth(EXCERPT_CHARACTERS).is_none() {
        return text.to_owned();
    }
    text.chars().take(EXCERPT_CHARACTERS - 1).chain(['…']).collect()
}

/// Implements conversions from text, and the text as the serialized form, for a type with
/// `new(&str) -> Result<Self, Error>` and `Display`. All conversions call `new`.
macro_rules! parsed_from_text {
    ($name:ident, $error:ident) => {
        impl std::str::FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $error;

            fn try_from(text: &str) -> Result<Self, $error> {
                Self::new(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use parsed_from_text;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_past_64_characters_and_not_within_one() {
        let fits = "é".repeat(64);
        assert_eq!(excerpt(&fits), fits);
        assert_eq!(excerpt(&format!("{fits}é")), format!("{}…", "é".repeat(63)));
    }
}
