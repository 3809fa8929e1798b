//! Whether an endpoint gets deliveries: active, paused or disabled.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Whether an endpoint gets deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "stores and engines must know each")]
pub enum EndpointState {
    /// It gets what is published.
    Active,
    /// What is published waits until it is resumed.
    Paused,
    /// It gets nothing, and nothing is stored for it.
    Disabled(DisableReason),
}

/// Why an endpoint was disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DisableReason {
    /// Nothing but failures for too long.
    Failing,
    /// It answered 410 Gone.
    Gone,
    /// Somebody asked for it.
    Manual,
}

impl DisableReason {
    /// Returns the word that stores keep.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Gone => "gone",
            Self::Manual => "manual",
        }
    }

    /// Returns the reason of a word; that of any other word is [`Manual`](Self::Manual).
    pub fn from_word(word: &str) -> Self {
        match word {
            "failing" => Self::Failing,
            "gone" => Self::Gone,
            _ => Self::Manual,
        }
    }
}

/// What an operator, or an engine, does to an endpoint's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "stores must know each")]
pub enum StateChange {
    /// Stops deliveries, and cancels those that wait.
    Disable(DisableReason),
    /// Makes a disabled endpoint active.
    Enable,
    /// Lets what is published wait. It grows older meanwhile: `max_age` goes on.
    Pause,
    /// Delivers what has waited since the endpoint was paused.
    Resume,
}

/// Says that a disabled endpoint can be neither paused nor resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the endpoint is disabled; enable it first")]
#[non_exhaustive]
pub struct IsDisabled;

impl EndpointState {
    /// Returns whether deliveries are stored for it.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Disabled(_))
    }

    /// Returns why it is disabled, if it is.
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

    /// Returns the word that stores keep: `active`, `paused` or `disabled`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled(_) => "disabled",
        }
    }

    /// Returns the state that stores keep as two words; the second says why it is disabled.
    pub fn from_words(state: &str, reason: Option<&str>) -> Self {
        match state {
            "active" => Self::Active,
            "paused" => Self::Paused,
            _ => Self::Disabled(reason.map_or(DisableReason::Manual, DisableReason::from_word)),
        }
    }
}
