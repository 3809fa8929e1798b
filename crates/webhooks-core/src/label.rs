//! Labels of events: channels, by which endpoints filter, and tags, by which people find them.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::IdError;
use crate::id::name;
use crate::text::parsed_from_text;

/// The most channels, and the most tags, of an event or an endpoint.
const MAX_LABELS: usize = 16;

/// The reason why labels cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LabelError {
    /// A label is malformed.
    #[error("a {kind} is malformed")]
    Malformed {
        /// The kind: channel or tag.
        kind: &'static str,
        /// The reason.
        source: IdError,
    },
    /// There are more than 16.
    #[error("there are {count} {kind}s; at most {MAX_LABELS} are allowed")]
    TooMany {
        /// The kind: channel or tag.
        kind: &'static str,
        /// The number found.
        count: usize,
    },
}

/// Writes a label: 1 to 128 of `A-Z a-z 0-9 _ . : -`, cheap to clone.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        name! {
            $(#[$doc])*
            $name, "label", "A-Z, a-z, 0-9, '_', '.', ':' and '-'", '_' '.' ':' '-'
        }

        impl $name {
            /// Returns the labels with these texts, sorted and each once.
            ///
            /// # Errors
            /// [`LabelError`] when one is malformed, or there are more than 16.
            pub fn list<S: AsRef<str>>(
                texts: impl IntoIterator<Item = S>,
            ) -> Result<Vec<Self>, LabelError> {
                // One more than allowed shows that there are too many, however long the list is.
                let bounded = texts.into_iter().take(MAX_LABELS + 1);
                let labels = bounded.map(|text| Self::new(text.as_ref()));
                let mut labels = labels.collect::<Result<Vec<_>, _>>().map_err(|source| {
                    LabelError::Malformed { kind: $kind, source }
                })?;
                Self::check_count(&labels)?;
                labels.sort();
                labels.dedup();
                Ok(labels)
            }

            /// Returns an error if there are more than 16.
            ///
            /// # Errors
            /// [`LabelError::TooMany`] then.
            pub fn check_count(labels: &[Self]) -> Result<(), LabelError> {
                let count = labels.len();
                if count > MAX_LABELS {
                    return Err(LabelError::TooMany { kind: $kind, count });
                }
                Ok(())
            }
        }

        parsed_from_text!($name, IdError);
    };
}

label! {
    /// A channel of an event: a filter beside the event type, such as one project of a tenant.
    ///
    /// An endpoint without channels gets the events of all channels. An endpoint with channels gets
    /// the events that have at least one of them.
    ///
    /// # Example
    /// ```
    /// use webhooks_core::Channel;
    ///
    /// assert_eq!(Channel::new("project:17")?.as_str(), "project:17");
    /// # Ok::<(), webhooks_core::IdError>(())
    /// ```
    Channel, "channel"
}

label! {
    /// A tag of an event, by which people find it. It changes nothing for endpoints.
    ///
    /// # Example
    /// ```
    /// use webhooks_core::Tag;
    ///
    /// let tags = Tag::list(["import", "2026-11", "import"])?;
    /// assert_eq!(tags, [Tag::new("2026-11")?, Tag::new("import")?]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Tag, "tag"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded_and_each_label_is_checked() {
        let names = |count| (0..count).map(|n| format!("c-{n}"));
        assert_eq!(Channel::list(names(16)).unwrap().len(), 16);
        let mut read = 0;
        let error = Channel::list(names(1_000).inspect(|_| read += 1)).unwrap_err();
        assert_eq!(error.to_string(), "there are 17 channels; at most 16 are allowed");
        assert_eq!(read, 17);
        let error = Tag::list(["fine", "not fine"]).unwrap_err();
        assert_eq!(error.to_string(), "a tag is malformed");
    }
}
