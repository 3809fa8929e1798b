//! API keys: made, listed, renamed and ended by an administrator.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_admin::{Action, AdminError, ApiKey, ApiKeyText, Entry, Grant, IdKind, Role};
use webhooks_core::Timestamp;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, OptionalBody, Params, Path};
use crate::idempotent::RequestNumber;
use crate::paging::{List, list_query};
use crate::parameters::{Order, Page};
use crate::schema::{Name, RoleName, Time};
use crate::service::Service;

/// The longest time after which a key ends that is told to: three days.
const MAX_EXPIRY: u32 = 3 * 24 * 60 * 60;

/// The longest time that a key is made for: a year.
const MAX_LIFE: u32 = 365 * 24 * 60 * 60;

/// The keys that one step of a search looks at.
const STEP: usize = 1_000;

/// A key to make. Unknown fields are refused: a limit that is misspelt must not be dropped.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct KeyIn {
    /// The name of the key for people, of 1 to 256 bytes.
    #[schema(min_length = 1, max_length = 256)]
    name: String,
    /// The role of the key, which says what it may do.
    #[schema(value_type = RoleName)]
    role: Role,
    /// The id or uid of the one application that the key is for; it is for all if absent.
    #[schema(value_type = Option<Name>)]
    application: Option<String>,
    /// Whether payloads and responses are shown to the key; `true` by default.
    sees_payloads: Option<bool>,
    /// Whether secrets of endpoints are shown to the key; `true` by default for `admin`, `false` for all others.
    sees_secrets: Option<bool>,
    /// The time from which the key is refused; never if absent.
    #[schema(value_type = Option<Time>)]
    expires_at: Option<Timestamp>,
    /// Scopes of Svix. The list must be empty: a role says what the key may do.
    #[serde(default)]
    #[schema(max_items = 0)]
    scopes: Vec<String>,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct KeyUpdate {
    /// The new name of the key for people, of 1 to 256 bytes.
    #[schema(min_length = 1, max_length = 256)]
    name: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExpireIn {
    /// The seconds until the end: 0 to 259,200 (three days); 0 by default.
    #[serde(default)]
    #[schema(maximum = 259_200)]
    expiry: Option<u32>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyOut {
    /// The id of the key.
    id: String,
    /// The text of the key, to send as `Authorization: Bearer …`. Only the answer that makes the key has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// The start of the key's text.
    censored_token: &'static str,
    /// The name of the key for people.
    name: String,
    /// The role of the key.
    #[schema(value_type = RoleName)]
    role: Role,
    /// The id of the one application that the key is for; absent if it is for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<String>,
    /// Whether payloads and responses are shown to the key.
    sees_payloads: bool,
    /// Whether secrets of endpoints are shown to the key.
    sees_secrets: bool,
    /// The time at which it was made.
    #[schema(value_type = Time)]
    created_at: Timestamp,
    /// The time from which the key is refused; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Time>)]
    expires_at: Option<Timestamp>,
    /// The time of the key's last use, at most five minutes off; absent if it was never used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Time>)]
    last_used_at: Option<Timestamp>,
}

/// A key for messages. Unknown fields are refused: a limit that is misspelt must not be dropped.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageKeyIn {
    /// The name of the key for people, of 1 to 256 bytes.
    #[schema(min_length = 1, max_length = 256)]
    name: String,
    /// The seconds after which the key ends: 1 to 31,536,000 (a year); never if absent.
    #[schema(minimum = 1, maximum = 31_536_000)]
    expiry: Option<u32>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenOut {
    /// The id of the key.
    id: String,
    /// The text of the key, to send as `Authorization: Bearer …`. This answer alone has it.
    token: String,
    /// The name of the key for people.
    name: String,
    /// The time at which it was made.
    #[schema(value_type = Time)]
    created_at: Timestamp,
    /// The time from which the key is refused; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Time>)]
    expires_at: Option<Timestamp>,
}

impl KeyOut {
    /// Returns a key, with its text if it was just made.
    fn new(entry: Entry<ApiKey>, text: Option<&ApiKeyText>) -> Self {
        let ApiKey { name, grant, created_at, expires_at, revoked_at, used_at, .. } = entry.value;
        Self {
            id: entry.id,
            token: text.map(|text| text.reveal().to_owned()),
            censored_token: "whkey_...",
            name,
            role: grant.role(),
            application: grant.application().map(ToString::to_string),
            sees_payloads: grant.check(Action::ReadPayloads, grant.application()).is_ok(),
            sees_secrets: grant.check(Action::ReadSecrets, grant.application()).is_ok(),
            created_at,
            expires_at: match (expires_at, revoked_at) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
            last_used_at: used_at,
        }
    }
}

/// Makes a key; this answer alone has its text.
#[utoipa::path(
    post,
    path = "/api/v1/management/authentication/{environment_id}/api-token",
    operation_id = "v1.management.authentication.create-api-token", tag = "API Key",
    request_body = KeyIn, responses((status = 200, body = KeyOut), (status = 404)),
)]
pub(crate) async fn create(
    State(service): State<Service>,
    caller: Caller,
    number: RequestNumber,
    Body(input): Body<KeyIn>,
) -> Result<Json<KeyOut>, ApiError> {
    caller.check(Action::ManageKeys, None)?;
    if !input.scopes.is_empty() {
        return Err(ApiError::value(
            "scopes",
            "give a role instead: admin, operator, viewer, publisher, poller, customer",
        ));
    }
    let mut grant = Grant::new(input.role);
    if let Some(name) = &input.application {
        let app = service.app(&caller, name, Action::ManageKeys).await?;
        grant = grant.for_application(app.tenant);
    }
    if input.sees_payloads == Some(false) {
        grant = grant.without_payloads();
    }
    if input.sees_secrets == Some(true) {
        grant = grant.with_secrets();
    }
    for (name, asked, is_given) in [
        ("seesPayloads", input.sees_payloads, grant.sees_payloads()),
        ("seesSecrets", input.sees_secrets, grant.sees_secrets()),
    ] {
        if asked.is_some_and(|asked| asked != is_given) {
            return Err(ApiError::value(name, "the role does not allow this choice"));
        }
    }
    let (text, now) = (ApiKeyText::generate(), Service::now());
    let mut key = ApiKey::new(input.name, text.hash(), grant, now);
    key.expires_at = input.expires_at;
    let (id, actor, keys) = (number.id(IdKind::ApiKey), caller.actor(), service.admin().keys());
    let entry = match keys.add(id.clone(), key, &actor, now).await {
        // Its first text is lost, unless it was used.
        Err(AdminError::Exists { .. }) if number.is_again() => {
            let before = keys.get(&id, now).await?;
            if before.value.used_at.is_some() {
                return Err(ApiError::conflict(
                    "A request with this idempotency key made a key, which is in use.",
                ));
            }
            let mut after = before.clone();
            after.value.hash = text.hash();
            // The version that was read alone is replaced: a first use in between keeps the old text.
            keys.put_all(vec![(id, Some(before), after.value.clone())], &actor, now).await?;
            after
        }
        added => added?,
    };
    service.refused_keys().note_accepted(&text.hash());
    Ok(Json(KeyOut::new(entry, Some(&text))))
}

/// Adds a key that was made now.
pub(super) async fn add(
    service: &Service,
    caller: &Caller,
    key: ApiKey,
    text: &ApiKeyText,
) -> Result<TokenOut, ApiError> {
    let (id, now) = (IdKind::ApiKey.generate(), key.created_at);
    let Entry { id, value, .. } = service.admin().keys().add(id, key, &caller.actor(), now).await?;
    service.refused_keys().note_accepted(&text.hash());
    let (token, name, expires_at) = (text.reveal().to_owned(), value.name, value.expires_at);
    Ok(TokenOut { id, token, name, created_at: now, expires_at })
}

/// Makes a key that can only publish the messages of one application, and read what became of them.
///
/// It is a key with the role `publisher` like others: it is in their list, and can be ended.
#[utoipa::path(
    post,
    path = "/api/v1/auth/app/{app_id}/create-message-token",
    operation_id = "v1.authentication.create-message-token", tag = "Authentication",
    request_body = MessageKeyIn, responses((status = 200, body = TokenOut)),
)]
pub(crate) async fn create_for_messages(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    Body(MessageKeyIn { name, expiry }): Body<MessageKeyIn>,
) -> Result<Json<TokenOut>, ApiError> {
    caller.check(Action::ManageKeys, None)?;
    let app = service.app(&caller, &app, Action::ManageKeys).await?;
    let expiry = check_expiry(expiry)?;
    let (text, now) = (ApiKeyText::generate(), Service::now());
    let grant = Grant::new(Role::Publisher).for_application(app.tenant);
    let mut key = ApiKey::new(name, text.hash(), grant, now);
    key.expires_at = expiry.map(|expiry| now + expiry);
    Ok(Json(add(&service, &caller, key, &text).await?))
}

/// Returns the time after which a key ends, if it does.
pub(super) fn check_expiry(expiry: Option<u32>) -> Result<Option<Duration>, ApiError> {
    if expiry.is_some_and(|expiry| !(1..=MAX_LIFE).contains(&expiry)) {
        return Err(ApiError::value("expiry", "it is not 1 to 31536000 seconds, a year"));
    }
    Ok(expiry.map(|expiry| Duration::from_secs(expiry.into())))
}

/// Lists keys, without sessions of the portal.
#[utoipa::path(
    get,
    path = "/api/v1/management/authentication/{environment_id}/api-token",
    operation_id = "v1.management.authentication.list-api-tokens", tag = "API Key",
    params(Page, Order), responses((status = 200, body = List<KeyOut>)),
)]
pub(crate) async fn list(
    State(service): State<Service>,
    caller: Caller,
    params: Params,
) -> Result<Json<List<KeyOut>>, ApiError> {
    caller.check(Action::ManageKeys, None)?;
    let page = service.admin().keys().list(list_query(&params, false)?, Service::now()).await?;
    let mut list = List::new(page, |entry| entry);
    let keys = list.take().into_iter().filter(|entry: &Entry<ApiKey>| !entry.value.is_session);
    let keys = keys.map(|entry| KeyOut::new(entry, None)).collect();
    Ok(Json(list.with(keys)))
}

/// Returns a key.
#[utoipa::path(
    get,
    path = "/api/v1/management/authentication/{environment_id}/api-token/{key_id}",
    operation_id = "v1.management.authentication.get-api-token", tag = "API Key",
    responses((status = 200, body = KeyOut)),
)]
pub(crate) async fn read(
    State(service): State<Service>,
    caller: Caller,
    Path((_environment, id)): Path<(String, String)>,
) -> Result<Json<KeyOut>, ApiError> {
    caller.check(Action::ManageKeys, None)?;
    let found = service.admin().keys().get(known(&id)?, Service::now()).await;
    Ok(Json(KeyOut::new(found?, None)))
}

/// Renames a key.
#[utoipa::path(
    method(put, patch),
    path = "/api/v1/management/authentication/{environment_id}/api-token/{key_id}",
    operation_id = "v1.management.authentication.update-api-token", tag = "API Key",
    request_body = KeyUpdate, responses((status = 200, body = KeyOut)),
)]
pub(crate) async fn rename(
    State(service): State<Service>,
    caller: Caller,
    Path((_environment, id)): Path<(String, String)>,
    Body(KeyUpdate { name }): Body<KeyUpdate>,
) -> Result<Json<KeyOut>, ApiError> {
    caller.check(Action::ManageKeys, None)?;
    let renamed = |key| ApiKey { name: name.clone(), ..key };
    let keys = service.admin().keys();
    let changed = keys.change(known(&id)?, &caller.actor(), Service::now(), renamed).await;
    Ok(Json(KeyOut::new(changed?, None)))
}

/// Ends a key, now or in some seconds.
#[utoipa::path(
    post,
    path = "/api/v1/management/authentication/{environment_id}/api-token/{key_id}/expire",
    operation_id = "v1.management.authentication.expire-api-token", tag = "API Key",
    request_body = Option<ExpireIn>, responses((status = 204), (status = 409)),
)]
pub(crate) async fn expire(
    State(service): State<Service>,
    caller: Caller,
    Path((_environment, id)): Path<(String, String)>,
    OptionalBody(input): OptionalBody<ExpireIn>,
) -> Result<StatusCode, ApiError> {
    caller.check(Action::ManageKeys, None)?;
    let (delay, now) = (delay(input.expiry)?, Service::now());
    // So that one key is left with which the mistake can be mended.
    if caller.actor().who == id {
        return Err(ApiError::conflict("A key cannot end itself; use another administrator's."));
    }
    let keys = service.admin().keys();
    let ended = keys.change(known(&id)?, &caller.actor(), now, |key| ended(key, delay, now)).await;
    ended?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends keys of an application, in some time.
pub(super) async fn end_keys(
    service: &Service,
    caller: &Caller,
    delay: Duration,
    is_meant: impl Fn(&ApiKey) -> bool,
) -> Result<(), ApiError> {
    let (keys, now) = (service.admin().keys(), Service::now());
    let mut walk = service.admin().keys().walk(STEP);
    while let Some(page) = walk.next(now).await? {
        for entry in page.into_iter().filter(|entry| is_meant(&entry.value)) {
            let ended = |key| ended(key, delay, now);
            keys.change(&entry.id, &caller.actor(), now, ended).await?;
        }
    }
    Ok(())
}

/// Ends all sessions of an application.
#[utoipa::path(
    post,
    path = "/api/v1/auth/app/{app_id}/expire-all",
    operation_id = "v1.authentication.expire-all", tag = "Authentication", request_body = Option<ExpireIn>,
    responses((status = 204)),
)]
pub(crate) async fn expire_sessions(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    OptionalBody(input): OptionalBody<ExpireIn>,
) -> Result<StatusCode, ApiError> {
    caller.check(Action::ManageKeys, None)?;
    let app = service.app(&caller, &app, Action::ManageKeys).await?;
    let is_of = |key: &ApiKey| key.is_session && key.grant.application() == Some(&app.tenant);
    end_keys(&service, &caller, delay(input.expiry)?, is_of).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An alias of a key is the hash of its text, and must not lead to it.
fn known(id: &str) -> Result<&str, ApiError> {
    let is_id = IdKind::ApiKey.number(id).is_ok();
    is_id.then_some(id).ok_or_else(|| ApiError::unknown("API key"))
}

fn delay(expiry: Option<u32>) -> Result<Duration, ApiError> {
    let seconds = expiry.unwrap_or_default();
    if seconds > MAX_EXPIRY {
        return Err(ApiError::value("expiry", "it is more than 259200 seconds, three days"));
    }
    Ok(Duration::from_secs(seconds.into()))
}

/// Returns a key that ends after a delay, if it does not end earlier.
fn ended(key: ApiKey, delay: Duration, now: Timestamp) -> ApiKey {
    if delay.is_zero() {
        return key.revoked(now);
    }
    let at = now + delay;
    let expires_at = Some(key.expires_at.map_or(at, |before| before.min(at)));
    ApiKey { expires_at, ..key }
}
