//! The events of which operational endpoints are told, as client libraries of Svix read them.
//!
//! Their ids follow from what happened, so that an event that is published twice is one event.

use serde::Serialize;
use webhooks_admin::{AdminError, IdKind, number_of};
use webhooks_core::{DeliveryId, Event, EventError, EventId, IdError, TenantId, Timestamp};
use webhooks_dispatch::PublishError;
use webhooks_dispatch::store::StoreError;
use webhooks_registry::{
    DisableReason, EndpointKey, EndpointState, EndpointStoreError, Registration,
};

use crate::attempt_id::attempt_id;
use crate::hint::{Turn, operational_tenant};

/// The reason why operational endpoints are not told of something now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TellError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Endpoints(#[from] EndpointStoreError),
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Id(#[from] IdError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The news of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndpointNews {
    Created,
    /// Its settings have a new version.
    Updated {
        version: u64,
    },
    Deleted,
    Enabled {
        since: Timestamp,
    },
    Disabled {
        since: Timestamp,
        reason: DisableReason,
        /// The time of the first failure since the last success, as far as it is known.
        fail_since: Option<Timestamp>,
    },
    /// It has failed for a while.
    Failing {
        since: Timestamp,
    },
}

impl EndpointNews {
    /// Returns the state of an endpoint as news.
    pub(crate) fn of_state(registration: &Registration) -> Self {
        let since = registration.revision.state_since;
        match registration.state {
            EndpointState::Disabled(reason) => Self::Disabled { since, reason, fail_since: None },
            EndpointState::Active | EndpointState::Paused => Self::Enabled { since },
        }
    }

    fn event_type(self) -> &'static str {
        match self {
            Self::Created => "endpoint.created",
            Self::Updated { .. } => "endpoint.updated",
            Self::Deleted => "endpoint.deleted",
            Self::Enabled { .. } => "endpoint.enabled",
            Self::Disabled { .. } => "endpoint.disabled",
            Self::Failing { .. } => "endpoint.failing",
        }
    }

    /// Returns the number that no other news of this type has for the endpoint.
    fn number(self) -> u64 {
        match self {
            Self::Created | Self::Deleted => 0,
            Self::Updated { version } => version,
            Self::Enabled { since } | Self::Disabled { since, .. } | Self::Failing { since } => {
                since.as_unix_microseconds()
            }
        }
    }

    /// Returns the event.
    pub(crate) fn event(self, key: &EndpointKey, data: EndpointData) -> Result<Event, TellError> {
        let (event_type, number) = (self.event_type(), self.number().to_string());
        let number = number_of(&[event_type, key.tenant.as_str(), key.id.as_str(), &number]);
        event(event_type, number, data)
    }
}

/// The data of an event about an endpoint. Secrets are never in it, and neither is the URL, which may hold one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointData {
    pub(crate) app_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app_uid: Option<String>,
    pub(crate) endpoint_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint_uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fail_since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trigger: Option<&'static str>,
}

/// The data of an event about a message on its way to an endpoint.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageData {
    pub(crate) app_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app_uid: Option<String>,
    pub(crate) msg_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) msg_event_id: Option<String>,
    pub(crate) endpoint_id: String,
    pub(crate) last_attempt: AttemptData,
}

/// The attempt in the data of an event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttemptData {
    pub(crate) id: String,
    /// 0 if there was no response.
    pub(crate) response_status_code: u16,
    pub(crate) timestamp: Timestamp,
}

impl Turn {
    fn event_type(self) -> &'static str {
        match self {
            Self::Exhausted => "message.attempt.exhausted",
            Self::Failing => "message.attempt.failing",
            Self::Recovered => "message.attempt.recovered",
        }
    }

    /// Returns the event.
    pub(crate) fn event(
        self,
        (delivery, number): (DeliveryId, u32),
        data: MessageData,
    ) -> Result<Event, TellError> {
        event(self.event_type(), turn_number(delivery, number), data)
    }
}

/// Returns the id of the event about an attempt: there is one at most.
pub(crate) fn turn_id(delivery: DeliveryId, number: u32) -> Result<EventId, TellError> {
    Ok(EventId::new(&IdKind::Event.id(turn_number(delivery, number)))?)
}

fn turn_number(delivery: DeliveryId, number: u32) -> u128 {
    number_of(&["message.attempt", &attempt_id(delivery, number)])
}

/// Returns the event of a number.
fn event(event_type: &str, number: u128, data: impl Serialize) -> Result<Event, TellError> {
    #[derive(Serialize)]
    struct News<'n, D> {
        r#type: &'n str,
        data: D,
    }
    let id = EventId::new(&IdKind::Event.id(number))?;
    let event = Event::new(event_type, News { r#type: event_type, data })?;
    Ok(event.id(id).tenant(operational_tenant()))
}

/// Returns whether a tenant is an application's.
pub(crate) fn is_application(tenant: &TenantId) -> bool {
    *tenant != operational_tenant()
}
