//! Applications: the customers of a service, each with endpoints and events of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::public_id::IdKind;
use crate::record::RecordKind;
use crate::resource::{FieldError, Resource, check_metadata, check_name};

/// The longest name in bytes.
const MAX_NAME: usize = 1_024;

/// A customer of a service. Its key is the id of the tenant that has its endpoints and events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct Application {
    /// Its name for people.
    pub name: String,
    /// The owner's id for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its owner's notes for programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The most events per second that it may publish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle_rate: Option<u16>,
}

impl Resource for Application {
    const KIND: RecordKind = RecordKind::Application;
    const ID: Option<IdKind> = Some(IdKind::Application);

    fn alias(&self) -> Option<String> {
        self.uid.clone()
    }

    fn check(&self) -> Result<(), FieldError> {
        if !(1..=MAX_NAME).contains(&self.name.len()) {
            return Err(FieldError::new("name", "it has not 1 to 1024 bytes"));
        }
        if self.throttle_rate == Some(0) {
            return Err(FieldError::new("throttleRate", "it is 0; leave it out for no limit"));
        }
        check_uid(self.uid.as_deref(), IdKind::Application)?;
        check_metadata(&self.metadata)
    }
}

/// The deletion of an application, under its id, from the time when nobody finds it any more until its
/// endpoints and its content are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Deletion {}

impl Resource for Deletion {
    const KIND: RecordKind = RecordKind::Deletion;
}

/// Checks an owner's id. One that looks like an id of ours would lead to another thing.
pub(crate) fn check_uid(uid: Option<&str>, kind: IdKind) -> Result<(), FieldError> {
    let Some(uid) = uid else { return Ok(()) };
    check_name("uid", uid)?;
    if kind.number(uid).is_ok() {
        return Err(FieldError::new("uid", "it looks like an id that this service makes"));
    }
    Ok(())
}
