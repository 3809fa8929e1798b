//! The state of an endpoint: active, paused or disabled.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The state of an endpoint, which decides whether it gets deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "stores and engines must know each")]
pub enum EndpointState {
    /// Published events are delivered.
    Active,
    /// Published events wait until the endpoint is resumed.
    Paused,
    /// Nothing is delivered, and nothing is stored for it.
    Disabled(DisableReason),
}

/// The reason why an endpoint was disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DisableReason {
    /// All its deliveries failed for too long.
    Failing,
    /// It answered 410 Gone.
    Gone,
    /// Somebody disabled it.
    Manual,
}

impl DisableReason {
    /// Returns the word that stores use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Gone => "gone",
            Self::Manual => "manual",
        }
    }

    /// Returns the reason of a word; [`Manual`](Self::Manual) for an unknown one.
    pub fn from_word(word: &str) -> Self {
        match word {
            "failing" => Self::Failing,
            "gone" => Self::Gone,
            _ => Self::Manual,
        }
    }
}

/// A change that an operator or an engine makes to an endpoint's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "stores must know each")]
pub enum StateChange {
    /// Stops deliveries, and cancels those that wait.
    Disable(DisableReason),
    /// Makes a disabled endpoint active.
    Enable,
    /// Makes published events wait. They grow older meanwhile: `max_age` still counts.
    Pause,
    /// Makes a paused endpoint active, and delivers the events that have waited.
    Resume,
}

/// The error of a disabled endpoint: it can be neither paused nor resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the endpoint is disabled; enable it first")]
#[non_exhaustive]
pub struct IsDisabled;

impl EndpointState {
    /// Returns whether deliveries are stored for it.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Disabled(_))
    }

    /// Returns the reason why it is disabled, if it is.
    pub fn disabled(self) -> Option<DisableReason> {
        match self {
            Self::Disabled(reason) => Some(reason),
            Self::Active | Self::Paused => None,
        }
    }

    /// Returns the state after a change; `None` if that changes nothing.
    ///
    /// # Errors
    /// [`IsDisabled`] when a disabled endpoint is to be paused or resumed.
    ///
    /// # Example
    /// ```
    /// use webhooks_registry::{EndpointState, store::StateChange};
    ///
    /// let paused = EndpointState::Active.after(StateChange::Pause)?;
    /// assert_eq!(paused, Some(EndpointState::Paused));
    /// assert_eq!(EndpointState::Active.after(StateChange::Enable)?, None);
    /// # Ok::<(), webhooks_registry::store::IsDisabled>(())
    /// ```
    pub fn after(self, change: StateChange) -> Result<Option<Self>, IsDisabled> {
        match (self, change) {
            (Self::Disabled(_), StateChange::Pause | StateChange::Resume) => Err(IsDisabled),
            (Self::Disabled(_), StateChange::Enable) => Ok(Some(Self::Active)),
            (Self::Active | Self::Paused, StateChange::Disable(reason)) => {
                Ok(Some(Self::Disabled(reason)))
            }
            (Self::Active, StateChange::Pause) => Ok(Some(Self::Paused)),
            (Self::Paused, StateChange::Resume) => Ok(Some(Self::Active)),
            (Self::Disabled(_), StateChange::Disable(_))
            | (Self::Active, StateChange::Enable | StateChange::Resume)
            | (Self::Paused, StateChange::Enable | StateChange::Pause) => Ok(None),
        }
    }

    /// Returns the word that stores use: `active`, `paused` or `disabled`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled(_) => "disabled",
        }
    }

    /// Returns the state that stores write as two words; the second is the reason why it is disabled.
    pub fn from_words(state: &str, reason: Option<&str>) -> Self {
        match state {
            "active" => Self::Active,
            "paused" => Self::Paused,
            _ => Self::Disabled(reason.map_or(DisableReason::Manual, DisableReason::from_word)),
        }
    }
}
