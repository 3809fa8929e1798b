//! The service as a whole: its settings, and its event types in one document.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use webhooks_admin::{Action, EventTypeInfo, Resource as _};
use webhooks_core::{EventType, Timestamp};

use super::event_type::{EventTypeIn, EventTypeOut};
use super::event_type_openapi::for_each;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Body;
use crate::schema::Time;
use crate::service::Service;

/// The version of the document.
const VERSION: u8 = 1;

/// The most bytes of the event types of an export.
const MAX_EXPORT: usize = 16 * 1024 * 1024;

/// The most event types that one request imports.
const MAX_IMPORT: usize = 1_000;

/// The abilities of the service, in the words of Svix. No request changes them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the form of Svix")]
pub(crate) struct SettingsOut {
    /// Whether messages have channels: yes.
    enable_channels: bool,
    /// Whether messages have tags: yes.
    enable_message_tags: bool,
    /// Whether there are streams: no.
    enable_message_stream: bool,
    /// Whether there are integrations: no.
    enable_integration_management: bool,
    /// Whether there are transformations: no.
    enable_transformations: bool,
    /// Whether the playground of Svix is offered: no.
    show_use_svix_play: bool,
    /// Whether a payload is deleted once it was delivered: no.
    wipe_successful_payload: bool,
    /// The kinds of endpoints besides HTTP: none.
    #[schema(value_type = Vec<String>)]
    advanced_endpoint_types: [&'static str; 0],
}

const SETTINGS: SettingsOut = SettingsOut {
    enable_channels: true,
    enable_message_tags: true,
    enable_message_stream: false,
    enable_integration_management: false,
    enable_transformations: false,
    show_use_svix_play: false,
    wipe_successful_payload: false,
    advanced_endpoint_types: [],
};

/// The settings and event types of a service.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EnvironmentOut {
    /// The version of this form.
    version: u8,
    /// The time of the export.
    #[schema(value_type = Time)]
    created_at: Timestamp,
    /// The event types, those that are archived included.
    event_types: Vec<EventTypeOut>,
    /// The abilities of the service.
    settings: SettingsOut,
    /// The connectors: always empty, since there are none.
    #[schema(value_type = Vec<Object>, max_items = 0)]
    connectors: [(); 0],
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EnvironmentIn {
    /// The event types to add or replace, at most 1,000; none are deleted.
    #[schema(max_items = 1000)]
    event_types: Option<Vec<EventTypeIn>>,
    /// The abilities of the service. Each must be as it is here, or `null`: the service cannot change them.
    #[schema(value_type = Option<Object>)]
    settings: Option<BTreeMap<String, Value>>,
    /// The connectors. The list must be empty, since there are none.
    #[schema(value_type = Option<Vec<Object>>, max_items = 0)]
    connectors: Option<Vec<IgnoredAny>>,
}

/// Returns the abilities of the service.
#[utoipa::path(
    get,
    path = "/api/v1/environment/settings",
    operation_id = "v1.environment.get-settings", tag = "Environment",
    responses((status = 200, body = SettingsOut)),
)]
pub(crate) async fn settings(caller: Caller) -> Result<Json<SettingsOut>, ApiError> {
    // The people of an application see by them what their pages can offer.
    caller.check(Action::ReadEventTypes, None)?;
    Ok(Json(SETTINGS))
}

/// Returns all event types, archived ones included, in a document that another service can import.
#[utoipa::path(
    post,
    path = "/api/v1/environment/export",
    operation_id = "v1.environment.export", tag = "Environment",
    responses((status = 200, body = EnvironmentOut), (status = 409)),
)]
pub(crate) async fn export(
    State(service): State<Service>,
    caller: Caller,
) -> Result<Json<EnvironmentOut>, ApiError> {
    caller.check(Action::ReadEventTypes, None)?;
    // Not for keys of one application: a session sees some event types alone.
    caller.check(Action::ReadEvents, None)?;
    let (mut event_types, mut bytes, created_at) = (Vec::new(), 0, Service::now());
    for_each(&service, created_at, |entry| {
        bytes += entry.value.schemas_len() + entry.id.len() + entry.value.description.len();
        if bytes > MAX_EXPORT {
            return Err(ApiError::conflict(
                "The event types have more than 16 MiB; read them page by page, with \
                 /api/v1/event-type?with_content=true&include_archived=true.",
            ));
        }
        event_types.push(EventTypeOut::from(entry));
        Ok(())
    })
    .await?;
    let (settings, connectors) = (SETTINGS, []);
    Ok(Json(EnvironmentOut { version: VERSION, created_at, event_types, settings, connectors }))
}

/// Adds and replaces the event types of a document: all of them, or none if anything in it is refused.
#[utoipa::path(
    post,
    path = "/api/v1/environment/import",
    operation_id = "v1.environment.import", tag = "Environment", request_body = EnvironmentIn,
    responses((status = 204)),
)]
pub(crate) async fn import(
    State(service): State<Service>,
    caller: Caller,
    Body(input): Body<EnvironmentIn>,
) -> Result<StatusCode, ApiError> {
    caller.check(Action::ChangeEventTypes, None)?;
    if input.connectors.is_some_and(|connectors| !connectors.is_empty()) {
        return Err(ApiError::value("connectors", "this service does not offer connectors"));
    }
    check_settings(&input.settings.unwrap_or_default())?;
    let event_types = input.event_types.unwrap_or_default();
    if event_types.len() > MAX_IMPORT {
        return Err(ApiError::value(
            "eventTypes",
            "there are more than 1000; import them in parts",
        ));
    }
    let mut wanted = BTreeMap::new();
    for (number, event_type) in event_types.into_iter().enumerate() {
        let fault = |field: &str, reason: String| {
            let loc = ["body", "eventTypes", &number.to_string(), field].map(str::to_owned);
            ApiError::field(loc, reason, "value_error")
        };
        let Some(name) = event_type.name.clone() else {
            return Err(fault("name", "it is missing".to_owned()));
        };
        EventType::new(&name).map_err(|error| fault("name", error.to_string()))?;
        let info = EventTypeInfo::from(event_type);
        info.check().map_err(|error| fault(error.field, error.reason))?;
        if wanted.insert(name, info).is_some() {
            return Err(fault("name", "another one before has this name".to_owned()));
        }
    }
    service.admin().put_event_types(&wanted, &caller.actor(), Service::now()).await?;
    service.schemas().forget();
    Ok(StatusCode::NO_CONTENT)
}

/// Checks that nothing is asked for that would not come true.
fn check_settings(wanted: &BTreeMap<String, Value>) -> Result<(), ApiError> {
    let own = serde_json::to_value(SETTINGS).unwrap_or_default();
    for (name, value) in wanted {
        if !value.is_null() && own.get(name) != Some(value) {
            let reason = "this service does not offer it, or has another value; leave it out";
            return Err(ApiError::field(["body", "settings", name], reason, "value_error"));
        }
    }
    Ok(())
}
