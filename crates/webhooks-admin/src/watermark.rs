//! Watermarks: how far processes have told operational endpoints what happened.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use webhooks_core::Timestamp;

use crate::record::RecordKind;
use crate::resource::Resource;

/// How long a watermark is kept: as long as the history that could be told.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The time until which a process of the service has told operational endpoints what happened. Its key is the
/// process; the time of its last change says when the process lived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Watermark {
    /// All that the process did before is told.
    pub told_until: Timestamp,
}

impl Watermark {
    pub(crate) fn new(told_until: Timestamp) -> Self {
        Self { told_until }
    }
}

impl Resource for Watermark {
    const KIND: RecordKind = RecordKind::Watermark;

    fn expires_at(&self) -> Option<Timestamp> {
        Some(self.told_until + KEPT)
    }
}
