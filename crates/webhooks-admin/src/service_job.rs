//! Jobs of the service itself: long work that no worker of the engine does.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use webhooks_core::{TenantId, Timestamp};

use crate::public_id::IdKind;
use crate::record::RecordKind;
use crate::resource::Resource;

/// A job of the service, from its start until its result is forgotten. Its key is the id of a background
/// task, with a number that is larger than those of the engine's jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers build and change it")]
pub struct ServiceJob {
    /// The application that it belongs to; `None` for a job over all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<TenantId>,
    /// Its work.
    pub work: ServiceWork,
    /// Its state.
    pub state: ServiceJobState,
    /// Its result, or the reason why it failed; `null` while it runs.
    #[serde(default)]
    pub result: Value,
    /// The time at which it is forgotten.
    pub until: Timestamp,
}

/// The work of a job of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ServiceWork {
    /// Publishes a message to each application.
    Broadcast(Box<Broadcast>),
    /// Deletes the content of all events of the job's application that were accepted before the end of
    /// `until`.
    ExpungeAll {
        /// The time of the request.
        until: Timestamp,
    },
    /// Lists the event types that the endpoints of each application subscribe to.
    ListSubscriptions,
    /// Counts the deliveries of applications.
    CountDeliveries {
        /// The start of the time, inclusive.
        since: Timestamp,
        /// The end of the time, exclusive.
        until: Timestamp,
        /// The ids of the applications; all if `None`.
        applications: Option<Vec<String>>,
    },
}

impl ServiceWork {
    /// Returns the work without a payload, once it is done: content may be deleted, and must not stay here.
    #[must_use]
    pub fn forgotten(self) -> Self {
        match self {
            Self::Broadcast(message) => {
                Self::Broadcast(Box::new(Broadcast { payload: String::new(), ..*message }))
            }
            work => work,
        }
    }
}

/// A message for each application.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct Broadcast {
    /// The name of its type.
    pub event_type: String,
    /// Its payload, as JSON.
    pub payload: String,
    /// The owner's id for it, in each application.
    pub event_id: Option<String>,
    /// Its channels.
    pub channels: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// The time before which it is not delivered.
    pub deliver_at: Option<Timestamp>,
    /// The hours after which its content is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_hours: Option<u32>,
}

impl fmt::Debug for Broadcast {
    /// Leaves out the payload, which may be private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast").field("event_type", &self.event_type).finish_non_exhaustive()
    }
}

/// The state of a job of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a state that a server ignores must not compile")]
pub enum ServiceJobState {
    /// A process works on it, or the next one will that starts.
    Running,
    /// It has ended, and has a result.
    Finished,
    /// It could not go on; its result tells why.
    Failed,
}

impl Resource for ServiceJob {
    const KIND: RecordKind = RecordKind::ServiceJob;
    const ID: Option<IdKind> = Some(IdKind::Task);

    /// Returns all except the result, which may be long, and a payload, which may be private.
    fn shown(&self) -> serde_json::Result<Value> {
        let work = match &self.work {
            ServiceWork::Broadcast(message) => json!({ "broadcast": message.event_type }),
            work => serde_json::to_value(work)?,
        };
        Ok(json!({ "work": work, "state": self.state }))
    }

    fn expires_at(&self) -> Option<Timestamp> {
        Some(self.until)
    }
}
