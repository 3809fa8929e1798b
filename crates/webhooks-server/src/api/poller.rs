//! Pollers: made, listed, changed and deleted, with keys of their own.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_admin::{Action, ApiKey, ApiKeyText, Entry, Grant, IdKind, Poller, Role};
use webhooks_core::Timestamp;
use webhooks_registry::Subscription;

use super::key::{TokenOut, add, check_expiry, end_keys};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, OptionalBody, Params, Path};
use crate::find::App;
use crate::idempotent::RequestNumber;
use crate::paging::{List, list_query};
use crate::parameters::{Order, Page};
use crate::schema::{Label, Name, Pattern, Time};
use crate::service::Service;

/// How long an older key still works after a new one was made, by default and at most, in seconds.
const OLD_EXPIRY: (u32, u32) = (5 * 60, 24 * 60 * 60);

/// The longest time after which a temporary poller is gone, in seconds: a day.
const MAX_EXPIRY: u32 = 24 * 60 * 60;

/// The ids or uids of an application and a poller.
pub(crate) type PollerPath = Path<(String, String)>;

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PollerIn {
    /// The owner's id for the poller, unique in the application; paths take it in place of the id.
    #[schema(value_type = Option<Name>)]
    uid: Option<String>,
    /// The description for people, of 4 KiB at most; empty by default.
    #[serde(default)]
    #[schema(max_length = 4096)]
    description: String,
    /// The event types that it wants, such as `user.created` or `user.*`; all if absent. At most 256.
    #[schema(value_type = Option<Vec<Pattern>>, min_items = 1, max_items = 256)]
    event_types: Option<Vec<String>>,
    /// The channels of which it wants messages; all messages if absent. At most 16.
    #[schema(value_type = Option<Vec<Label>>, min_items = 1, max_items = 16)]
    channels: Option<Vec<String>>,
    /// The seconds from now after which the poller is gone: 1 to 86,400 (a day). It stays if this is absent. A reader
    /// that may die makes such a poller, and replaces it in good time by one with the same settings.
    #[schema(minimum = 1, maximum = 86_400)]
    expiry_secs: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PollerOut {
    /// The id of the poller, which the service made.
    id: String,
    /// The owner's id for the poller; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Name>)]
    uid: Option<String>,
    /// The description for people.
    description: String,
    /// The event types that it wants; absent if it wants all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Pattern>>)]
    event_types: Option<Vec<String>>,
    /// The channels of which it wants messages; absent if it wants all messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Label>>)]
    channels: Option<Vec<String>>,
    /// The time from which it is gone; absent if it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Time>)]
    expires_at: Option<Timestamp>,
    /// The time at which it was made.
    #[schema(value_type = Time)]
    created_at: Timestamp,
    /// The time of its last change.
    #[schema(value_type = Time)]
    updated_at: Timestamp,
}

/// Unknown fields are refused: a limit that is misspelt must not be dropped.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PollerRotateIn {
    /// The seconds after which the new key ends: 1 to 31,536,000 (a year); never if absent.
    #[schema(minimum = 1, maximum = 31_536_000)]
    expiry: Option<u32>,
    /// The seconds for which older keys of the poller still work: 0 to 86,400 (a day); 300 by default.
    #[schema(maximum = 86_400)]
    old_token_expiry: Option<u32>,
}

impl PollerIn {
    fn poller(self) -> Result<Poller, ApiError> {
        let Self { uid, description, event_types, channels, expiry_secs } = self;
        for (name, list) in [("eventTypes", &event_types), ("channels", &channels)] {
            if list.as_ref().is_some_and(Vec::is_empty) {
                let reason = "it is empty; leave it out to get everything";
                return Err(ApiError::value(name, reason));
            }
        }
        let event_types = event_types.unwrap_or_default();
        for pattern in &event_types {
            Subscription::new(pattern).map_err(|error| ApiError::value("eventTypes", error))?;
        }
        if expiry_secs.is_some_and(|seconds| !(1..=MAX_EXPIRY).contains(&seconds)) {
            return Err(ApiError::value("expirySecs", "it is not 1 to 86400, a day"));
        }
        let after = expiry_secs.map(|seconds| Duration::from_secs(seconds.into()));
        let expires_at = after.map(|after| Service::now() + after);
        let channels = channels.unwrap_or_default();
        Ok(Poller { uid, description, event_types, channels, expires_at })
    }
}

impl From<Entry<Poller>> for PollerOut {
    fn from(entry: Entry<Poller>) -> Self {
        let Poller { uid, description, event_types, channels, expires_at } = entry.value;
        Self {
            id: entry.id,
            uid,
            description,
            event_types: Some(event_types).filter(|types| !types.is_empty()),
            channels: Some(channels).filter(|channels| !channels.is_empty()),
            expires_at,
            created_at: entry.created_at,
            updated_at: entry.updated_at,
        }
    }
}

/// Finds a poller. A key of another poller does not learn of it.
pub(super) async fn find(
    service: &Service,
    caller: &Caller,
    (app, name): (&str, &str),
    action: Action,
) -> Result<(App, Entry<Poller>), ApiError> {
    let app = service.app(caller, app, action).await?;
    let found = service.admin().pollers(&app.tenant).get(name, Service::now()).await?;
    match caller.grant().poller() {
        Some(own) if own != found.id => Err(ApiError::unknown("poller")),
        _ => Ok((app, found)),
    }
}

/// Lists the pollers of an application, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/polling-endpoint",
    operation_id = "v1.poller.list", tag = "Poller", params(Page, Order),
    responses((status = 200, body = List<PollerOut>)),
)]
pub(crate) async fn list(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    params: Params,
) -> Result<Json<List<PollerOut>>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadEndpoints).await?;
    let query = list_query(&params, true)?;
    let page = service.admin().pollers(&app.tenant).list(query, Service::now()).await?;
    Ok(Json(List::new(page, PollerOut::from)))
}

/// Makes a poller.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/polling-endpoint",
    operation_id = "v1.poller.create", tag = "Poller", request_body = PollerIn,
    responses((status = 201, body = PollerOut)),
)]
pub(crate) async fn create(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    number: RequestNumber,
    Body(input): Body<PollerIn>,
) -> Result<impl IntoResponse, ApiError> {
    let app = service.app(&caller, &app, Action::ChangeEndpoints).await?;
    let (poller, pollers) = (input.poller()?, service.admin().pollers(&app.tenant));
    let added = number.add(pollers, IdKind::Poller, poller, &caller.actor()).await?;
    Ok((StatusCode::CREATED, Json(PollerOut::from(added))))
}

/// Returns a poller.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/polling-endpoint/{sink_id}",
    operation_id = "v1.poller.get", tag = "Poller", responses((status = 200, body = PollerOut)),
)]
pub(crate) async fn read(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): PollerPath,
) -> Result<Json<PollerOut>, ApiError> {
    let (_, found) = find(&service, &caller, (&app, &name), Action::ReadEndpoints).await?;
    Ok(Json(found.into()))
}

/// Replaces the settings of a poller. Its consumers keep their places.
#[utoipa::path(
    put,
    path = "/api/v1/app/{app_id}/polling-endpoint/{sink_id}",
    operation_id = "v1.poller.update", tag = "Poller", request_body = PollerIn,
    responses((status = 200, body = PollerOut)),
)]
pub(crate) async fn replace(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): PollerPath,
    Body(input): Body<PollerIn>,
) -> Result<Json<PollerOut>, ApiError> {
    let (app, found) = find(&service, &caller, (&app, &name), Action::ChangeEndpoints).await?;
    let (poller, actor) = (input.poller()?, caller.actor());
    let pollers = service.admin().pollers(&app.tenant);
    let replaced = |_| poller.clone();
    let changed = pollers.change(&found.id, &actor, Service::now(), replaced).await;
    Ok(Json(changed?.into()))
}

/// Deletes a poller, with the places of its consumers and its keys.
#[utoipa::path(
    delete,
    path = "/api/v1/app/{app_id}/polling-endpoint/{sink_id}",
    operation_id = "v1.poller.delete", tag = "Poller", responses((status = 204)),
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): PollerPath,
) -> Result<StatusCode, ApiError> {
    let (app, found) = find(&service, &caller, (&app, &name), Action::ChangeEndpoints).await?;
    let (actor, now) = (caller.actor(), Service::now());
    service.admin().pollers(&app.tenant).delete_any(&found.id, &actor, now).await?;
    service.admin().consumers(&app.tenant, &found.id).delete_all(&actor, now).await?;
    let is_of = |key: &ApiKey| key.grant.poller() == Some(&found.id) && key.check(now).is_ok();
    end_keys(&service, &caller, Duration::ZERO, is_of).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a key that can only pull the messages of the poller; this answer alone has its text.
#[utoipa::path(
    post,
    path = "/api/v1/auth/app/{app_id}/poller/{sink_id}/token/rotate",
    operation_id = "v1.authentication.rotate-poller-token", tag = "Authentication",
    request_body = Option<PollerRotateIn>, responses((status = 201, body = TokenOut)),
)]
pub(crate) async fn rotate(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): PollerPath,
    OptionalBody(input): OptionalBody<PollerRotateIn>,
) -> Result<impl IntoResponse, ApiError> {
    caller.check(Action::ManageKeys, None)?;
    let (app, poller) = find(&service, &caller, (&app, &name), Action::ManageKeys).await?;
    let PollerRotateIn { expiry, old_token_expiry } = input;
    let expiry = check_expiry(expiry)?;
    let old_expiry = old_token_expiry.unwrap_or(OLD_EXPIRY.0);
    if old_expiry > OLD_EXPIRY.1 {
        return Err(ApiError::value("oldTokenExpiry", "it is more than 86400 seconds, a day"));
    }
    let (text, now) = (ApiKeyText::generate(), Service::now());
    let is_of = |key: &ApiKey| key.grant.poller() == Some(&poller.id) && key.check(now).is_ok();
    end_keys(&service, &caller, Duration::from_secs(old_expiry.into()), is_of).await?;
    let grant = Grant::new(Role::Poller).for_application(app.tenant).for_poller(&poller.id);
    let mut key = ApiKey::new(format!("poller {}", poller.id), text.hash(), grant, now);
    key.expires_at = expiry.map(|expiry| now + expiry);
    Ok((StatusCode::CREATED, Json(add(&service, &caller, key, &text).await?)))
}
