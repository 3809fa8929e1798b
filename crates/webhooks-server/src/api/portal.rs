//! Sessions of an application's own people.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_admin::{Action, Actor, ApiKey, ApiKeyText, Grant, IdKind, Role, check_name};

use super::application::{ApplicationIn, find_or_add};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Object, OptionalBody, Path, object, parse, read_body};
use crate::schema::{Name, RoleName};
use crate::service::Service;

/// How long a session lasts, by default and at most: a week.
const EXPIRY: u32 = 7 * 24 * 60 * 60;

/// How long a one-time token can be exchanged.
const ONE_TIME: Duration = Duration::from_secs(10 * 60);

/// The longest body of an exchange: strangers send it.
const MAX_EXCHANGE: usize = 4 * 1024;

/// The text about a one-time token that is not exchanged.
const NOT_EXCHANGED: &str = "The one-time token is not known: it was used, its ten minutes are over, or its session \
                             has ended. Open a new session.";

/// The most feature flags of a session.
const MAX_FLAGS: usize = 64;

/// A session to open. Unknown fields are refused: a limit that is misspelt must not be dropped.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AccessIn {
    /// The application to make first, if there is none with the id of the path; its `uid` must be that id.
    #[serde(default, deserialize_with = "object")]
    application: Option<ApplicationIn>,
    /// Whether the session may only read; `false` by default.
    #[serde(default)]
    read_only: bool,
    /// The feature flags of the session, at most 64. It sees event types without a flag, and those with one of
    /// these.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Name>>, max_items = 64)]
    feature_flags: Option<Vec<String>>,
    /// The seconds after which the session ends: 1 to 604,800; 604,800 (a week) by default.
    #[schema(minimum = 1, maximum = 604_800)]
    expiry: Option<u32>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccessOut {
    /// The URL of the portal, with the session's key behind `#`.
    url: String,
    /// The session's key, to send as `Authorization: Bearer …`.
    token: String,
    /// A token that can be exchanged once, within ten minutes, for the key of one more session with the same rights
    /// and the same end. Unlike `token`, it may be in a link or a log: it is worth nothing once it was used.
    one_time_token: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct OneTimeTokenIn {
    /// The `oneTimeToken` of the answer that opened a session.
    one_time_token: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct OneTimeTokenOut {
    /// The session's key, to send as `Authorization: Bearer …`.
    token: String,
    /// The rights of the session, in the words of Svix: `ViewBase`, `ViewEndpointSecret`, `ManageEndpoint`,
    /// `ManageEndpointSecret` and `CreateAttempts`.
    capabilities: Vec<&'static str>,
}

/// Opens a session for one application.
#[utoipa::path(
    post,
    path = "/api/v1/auth/app-portal-access/{app_id}",
    operation_id = "v1.authentication.app-portal-access", tag = "Authentication",
    request_body = Option<AccessIn>, responses((status = 200, body = AccessOut)),
)]
pub(crate) async fn access(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    OptionalBody(input): OptionalBody<AccessIn>,
) -> Result<Json<AccessOut>, ApiError> {
    caller.check(Action::ManageKeys, None)?;
    let expiry = input.expiry.unwrap_or(EXPIRY);
    if !(1..=EXPIRY).contains(&expiry) {
        return Err(ApiError::value("expiry", "it is not 1 to 604800 seconds, a week"));
    }
    let flags = input.feature_flags.unwrap_or_default();
    if flags.len() > MAX_FLAGS {
        return Err(ApiError::value("featureFlags", "there are more than 64"));
    }
    flags.iter().try_for_each(|flag| check_name("featureFlags", flag))?;
    let app = find_or_add(&service, &caller, &app, input.application, Action::ManageKeys).await?;
    let (text, now) = (ApiKeyText::generate(), Service::now());
    let grant = if input.read_only {
        Grant::new(Role::Viewer)
    } else {
        Grant::new(Role::Customer).with_secrets()
    };
    let grant = grant.for_application(app.tenant).with_feature_flags(flags);
    let key = ApiKey::new("portal session", text.hash(), grant, now)
        .session()
        .expiring(now + Duration::from_secs(expiry.into()));
    let id = IdKind::ApiKey.generate();
    let session = service.admin().keys().add(id, key, &caller.actor(), now).await?;
    let once = ApiKeyText::generate();
    service.admin().add_one_time_token(&once.hash(), &session.id, now + ONE_TIME, now).await?;
    for text in [&text, &once] {
        service.refused_keys().note_accepted(&text.hash());
    }
    let settings = service.settings();
    let portal = settings.portal_url.clone();
    let portal = portal.unwrap_or_else(|| format!("{}/portal", settings.public_url));
    let url = format!("{portal}#key={}", text.reveal());
    let (token, one_time_token) = (text.reveal().to_owned(), once.reveal().to_owned());
    Ok(Json(AccessOut { url, token, one_time_token }))
}

/// Exchanges a one-time token for the key of a session. It needs no other key.
///
/// A second exchange of the same token is refused, and so is one after its ten minutes or after the end of the
/// session that it came with.
#[utoipa::path(
    post,
    path = "/api/v1/auth/one-time-token",
    operation_id = "v1.authentication.exchange-one-time-token", tag = "Authentication",
    security(()), request_body = OneTimeTokenIn,
    responses((status = 200, body = OneTimeTokenOut), (status = 401), (status = 429)),
)]
pub(crate) async fn exchange(
    State(service): State<Service>,
    request: Request,
) -> Result<Json<OneTimeTokenOut>, ApiError> {
    let from = service.address(request.extensions(), request.headers());
    let body = read_body(request.into_body(), MAX_EXCHANGE).await?;
    let Object(OneTimeTokenIn { one_time_token }) = parse(&body)?;
    let text = ApiKeyText::generate();
    let actor = Actor { from, ..Actor::service() };
    let session = service.guarded(&one_time_token, from, async |hash| {
        let opened = service.admin().exchange(hash, text.hash(), actor, Service::now()).await?;
        opened.ok_or_else(|| ApiError::unauthenticated(NOT_EXCHANGED))
    });
    let session = session.await?;
    service.refused_keys().note_accepted(&text.hash());
    let grant = &session.value.grant;
    let may = |action| grant.check(action, grant.application()).is_ok();
    let capabilities = [
        ("ViewBase", may(Action::ReadEndpoints)),
        ("ViewEndpointSecret", may(Action::ReadSecrets)),
        ("ManageEndpoint", may(Action::ChangeEndpoints)),
        ("ManageEndpointSecret", may(Action::ChangeEndpoints) && may(Action::ReadSecrets)),
        ("CreateAttempts", may(Action::Operate)),
    ];
    let capabilities = capabilities.into_iter().filter(|(_, may)| *may).map(|(word, _)| word);
    let token = text.reveal().to_owned();
    Ok(Json(OneTimeTokenOut { token, capabilities: capabilities.collect() }))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WhoamiOut {
    /// The id of the one application that the caller may act in; absent if it is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    app_id: Option<String>,
    /// The id of the session; absent if the caller has an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    /// The source of the rights: always `Unknown`, the only word of Svix that is true here.
    permission_source: &'static str,
    /// The role of the caller.
    #[schema(value_type = RoleName)]
    role: Role,
}

/// Tells the caller who it is.
#[utoipa::path(
    get,
    path = "/api/v1/auth/whoami",
    operation_id = "v1.authentication.whoami", tag = "Authentication",
    responses((status = 200, body = WhoamiOut)),
)]
pub(crate) async fn whoami(caller: Caller) -> Json<WhoamiOut> {
    Json(WhoamiOut {
        app_id: caller.application().map(ToString::to_string),
        session_id: caller.session().map(str::to_owned),
        permission_source: "Unknown",
        role: caller.grant().role(),
    })
}

/// Ends the session of the caller.
#[utoipa::path(
    post,
    path = "/api/v1/auth/logout",
    operation_id = "v1.authentication.logout", tag = "Authentication", responses((status = 204)),
)]
pub(crate) async fn logout(
    State(service): State<Service>,
    caller: Caller,
) -> Result<StatusCode, ApiError> {
    let Some(session) = caller.session() else {
        return Err(ApiError::bad_request("An API key has no session to end; revoke it."));
    };
    let now = Service::now();
    let revoked = |key: ApiKey| key.revoked(now);
    service.admin().keys().change(session, &caller.actor(), now, revoked).await?;
    Ok(StatusCode::NO_CONTENT)
}
