//! Endpoints: what a service keeps of one beside its registration in the engine.

use serde::{Deserialize, Serialize};

use crate::application::check_uid;
use crate::public_id::IdKind;
use crate::record::RecordKind;
use crate::resource::{FieldError, Resource};

/// The part of an endpoint that a service keeps. Its scope is the application, its key the endpoint's id in the
/// engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct EndpointEntry {
    /// The owner's id for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl Resource for EndpointEntry {
    const KIND: RecordKind = RecordKind::Endpoint;
    const ID: Option<IdKind> = Some(IdKind::Endpoint);

    fn alias(&self) -> Option<String> {
        self.uid.clone()
    }

    fn check(&self) -> Result<(), FieldError> {
        check_uid(self.uid.as_deref(), IdKind::Endpoint)
    }
}
