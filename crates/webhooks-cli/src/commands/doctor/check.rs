//! A check of the doctor: what was found, and what mends it.

use serde::Serialize;

use crate::failure::Failure;

/// The state of what was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It is as it should be.
    Ok,
    /// It is not, and one thing alone suffers from it, or it is not certain.
    Warning,
    /// It is not.
    Failed,
    /// It could not be checked, or there was nothing to check.
    Skipped,
}

/// A check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) state: State,
    pub(super) found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mend: Option<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), mend: None }
    }

    pub(super) fn failed(
        name: &'static str,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { name, state: State::Failed, found: found.into(), mend: Some(mend.into()) }
    }

    pub(super) fn warning(
        name: &'static str,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { name, state: State::Warning, found: found.into(), mend: Some(mend.into()) }
    }

    pub(super) fn skipped(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Skipped, found: found.into(), mend: None }
    }

    /// Returns the check that ended in a failure, with its hint or `mend`.
    pub(super) fn failure(name: &'static str, failure: &Failure, mend: &str) -> Self {
        Self::failed(name, failure.one_line(), failure.hint_text().unwrap_or(mend))
    }

    pub(super) fn is_failed(&self) -> bool {
        self.state == State::Failed
    }
}
