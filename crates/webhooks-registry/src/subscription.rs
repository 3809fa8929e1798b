//! Subscriptions: the events that an endpoint gets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use webhooks_core::{EventType, EventTypeError, excerpt};

/// A pattern for event types: one type (`user.created`), a subtree (`user.*`) or all (`*`).
///
/// A subtree includes every type below its root, at any depth, except the root itself.
///
/// # Example
/// ```
/// use webhooks_core::EventType;
/// use webhooks_registry::Subscription;
///
/// let subscription = Subscription::new("user.*")?;
/// assert!(subscription.matches(&EventType::new("user.email.changed")?));
/// assert!(!subscription.matches(&EventType::new("user")?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Subscription(String);

/// The reason why a text is not a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("subscription {subscription:?} is neither '*', an event type, nor an event type and '.*'")]
pub struct SubscriptionError {
    subscription: String,
    source: EventTypeError,
}

impl Subscription {
    /// Returns the subscription that this text stands for.
    ///
    /// # Errors
    /// [`SubscriptionError`] when it is neither `*`, nor an event type, nor one followed by `.*`.
    pub fn new(text: &str) -> Result<Self, SubscriptionError> {
        let root = text.strip_suffix(".*").unwrap_or(text);
        if text != "*" {
            EventType::new(root)
                .map_err(|source| SubscriptionError { subscription: excerpt(text), source })?;
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the subscription to all events.
    pub fn all() -> Self {
        Self("*".to_owned())
    }

    /// Borrows the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the pattern matches this type.
    pub fn matches(&self, event_type: &EventType) -> bool {
        event_type.patterns().any(|pattern| pattern == self.0)
    }
}

impl From<Subscription> for String {
    fn from(subscription: Subscription) -> Self {
        subscription.0
    }
}

impl TryFrom<String> for Subscription {
    type Error = SubscriptionError;

    fn try_from(text: String) -> Result<Self, SubscriptionError> {
        Self::new(&text)
    }
}

impl FromStr for Subscription {
    type Err = SubscriptionError;

    fn from_str(text: &str) -> Result<Self, SubscriptionError> {
        Self::new(text)
    }
}

impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_never_match_is_refused() {
        for text in ["", "user.", ".*", "user*", "*.created", "user.*.created", "user.**", "**"] {
            let error = Subscription::new(text).unwrap_err();
            assert!(error.to_string().contains("is neither '*'"), "{error}");
        }
    }

    #[test]
    fn an_error_keeps_the_start_of_a_long_text_alone() {
        let error = Subscription::new(&"x".repeat(1000)).unwrap_err();
        assert_eq!(error.subscription, format!("{}…", "x".repeat(63)));
    }
}
