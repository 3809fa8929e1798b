//! Event types and the patterns that match them.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::once;
use std::sync::Arc;

use thiserror::Error;

use crate::text::parsed_from_text;

/// The largest event type, in bytes. It travels in a header and is an index key in stores.
const MAX_LEN: usize = 128;

/// The kind of thing that happened: a dotted name such as `user.created`.
///
/// The grammar is `[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*`, at most 128 bytes: that of Standard
/// Webhooks 1.0, "Event types", and `-`. Upper and lower case differ.
///
/// # Example
/// ```
/// use webhooks_core::EventType;
///
/// let event_type = EventType::new("user.created")?;
/// let patterns: Vec<_> = event_type.patterns().collect();
/// assert_eq!(patterns, ["*", "user.*", "user.created"]);
/// # Ok::<(), webhooks_core::EventTypeError>(())
/// ```
#[derive(Clone)]
pub struct EventType(Repr);

#[derive(Clone)]
enum Repr {
    Static(&'static str),
    Shared(Arc<str>),
}

/// The reason why a text is not an event type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EventTypeError {
    /// The text is empty, starts or ends with `.`, or contains `..`.
    #[error("event type {event_type:?} has an empty part; write names joined by single '.'")]
    EmptyPart {
        /// The text as it was given.
        event_type: String,
    },
    /// The text is longer than 128 bytes.
    #[error("event type has {len} bytes; at most {MAX_LEN} are allowed")]
    TooLong {
        /// The length found, in bytes.
        len: usize,
    },
    /// A character is not allowed.
    #[error(
        "event type {event_type:?} contains {character:?}; allowed are A-Z, a-z, 0-9, '_', '-' and '.'"
    )]
    Character {
        /// The text as it was given.
        event_type: String,
        /// The first character at fault.
        character: char,
    },
}

impl EventType {
    /// Something was created.
    pub const CREATED: Self = Self(Repr::Static("created"));
    /// Something was changed.
    pub const UPDATED: Self = Self(Repr::Static("updated"));
    /// Something was deleted.
    pub const DELETED: Self = Self(Repr::Static("deleted"));
    /// Something else, which the payload describes.
    pub const CUSTOM: Self = Self(Repr::Static("custom"));

    /// Returns the event type with this name.
    ///
    /// # Errors
    /// [`EventTypeError`] when the text does not follow the grammar or is longer than 128 bytes.
    pub fn new(text: &str) -> Result<Self, EventTypeError> {
        if text.len() > MAX_LEN {
            return Err(EventTypeError::TooLong { len: text.len() });
        }
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if let Some(character) = text.chars().find(|&c| !is_allowed(c)) {
            return Err(EventTypeError::Character { event_type: text.to_owned(), character });
        }
        if text.split('.').any(str::is_empty) {
            return Err(EventTypeError::EmptyPart { event_type: text.to_owned() });
        }
        Ok(Self(Repr::Shared(text.into())))
    }

    /// Borrows the name.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static(text) => text,
            Repr::Shared(text) => text,
        }
    }

    /// Returns every pattern that matches this type, from the widest: `*`, then each subtree
    /// (`a.*`, `a.b.*`), then the name itself.
    ///
    /// An endpoint gets an event exactly if one of its patterns is in this list. A subtree does
    /// not include its own root: `user.*` does not match `user`.
    pub fn patterns(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let text = self.as_str();
        let subtrees = text.match_indices('.').map(|(dot, _)| {
            let (parent, _) = text.split_at(dot);
            Cow::Owned([parent, ".*"].concat())
        });
        once(Cow::Borrowed("*")).chain(subtrees).chain(once(Cow::Borrowed(text)))
    }
}

impl PartialEq for EventType {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for EventType {}

impl PartialOrd for EventType {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for EventType {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for EventType {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventType({self})")
    }
}

parsed_from_text!(EventType, EventTypeError);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bad_types_are_refused_with_the_reason() {
        let check = |text: &str, reason: &str| {
            assert_eq!(EventType::new(text).unwrap_err().to_string(), reason);
        };
        for text in ["", ".", "a.", ".a", "a..b"] {
            let reason =
                format!("event type {text:?} has an empty part; write names joined by single '.'");
            check(text, &reason);
        }
        check(&"x".repeat(129), "event type has 129 bytes; at most 128 are allowed");
        check(
            "user created",
            "event type \"user created\" contains ' '; allowed are A-Z, a-z, 0-9, '_', '-' and '.'",
        );
    }

    /// Decides part by part, the way a reader of the documentation would.
    fn matches_naively(pattern: &str, event_type: &str) -> bool {
        let pattern: Vec<&str> = pattern.split('.').collect();
        let parts: Vec<&str> = event_type.split('.').collect();
        match pattern.split_last() {
            Some((&"*", prefix)) => parts.len() > prefix.len() && parts.starts_with(prefix),
            _ => pattern == parts,
        }
    }

    proptest! {
        /// Few letters and few parts, so that patterns often match.
        #[test]
        fn patterns_agree_with_a_naive_matcher(
            event_type in "[ab](\\.[ab]){0,3}",
            pattern in "([ab]\\.){0,3}([ab]|\\*)",
        ) {
            let listed = EventType::new(&event_type).unwrap().patterns().any(|p| p == pattern);
            prop_assert_eq!(listed, matches_naively(&pattern, &event_type));
        }

        #[test]
        fn the_grammar_is_accepted_and_kept(text in "[A-Za-z0-9_-]{1,9}(\\.[A-Za-z0-9_-]{1,9}){0,9}") {
            prop_assert_eq!(EventType::new(&text).unwrap().to_string(), text);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            prop_assert!(EventType::new(&text).map_or(true, |found| found.as_str() == text));
        }
    }
}
