//! The cause that a diagnosis finds.

use webhooks_receive::body_change::BodyChange;

use super::key_form::KeyForm;

/// The cause for which a webhook does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Algorithm,
    BodyChanged(BodyChange),
    BodyEmpty,
    DuplicateHeader,
    HeaderForm,
    HeaderName,
    IdAndTimestampSwapped,
    KeyForm(KeyForm),
    MissingHeader,
    MissingUrl,
    OtherScheme,
    SignedParts,
    TimestampForm,
    TimestampNew,
    TimestampOld,
    TimestampUnit,
    Unknown,
    UnusableKey,
}

impl Cause {
    /// Returns the name, for programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Algorithm => "algorithm",
            Self::BodyChanged(_) => "body_changed",
            Self::BodyEmpty => "body_empty",
            Self::DuplicateHeader => "duplicate_header",
            Self::HeaderForm => "header_form",
            Self::HeaderName => "header_name",
            Self::IdAndTimestampSwapped => "id_and_timestamp_swapped",
            Self::KeyForm(_) => "key_form",
            Self::MissingHeader => "missing_header",
            Self::MissingUrl => "missing_url",
            Self::OtherScheme => "other_scheme",
            Self::SignedParts => "signed_parts",
            Self::TimestampForm => "timestamp_form",
            Self::TimestampNew => "timestamp_new",
            Self::TimestampOld => "timestamp_old",
            Self::TimestampUnit => "timestamp_unit",
            Self::Unknown => "unknown",
            Self::UnusableKey => "unusable_key",
        }
    }
}

/// The reason why a webhook does not verify, and what to do.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) cause: Cause,
    pub(crate) text: String,
    pub(crate) advice: String,
}

impl Finding {
    pub(crate) fn new(cause: Cause, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { cause, text: text.into(), advice: advice.into() }
    }
}
