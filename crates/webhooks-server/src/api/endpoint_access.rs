//! Access to endpoints that need more than a signature: OAuth 2.0, client certificates, own authorities.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_admin::Action;
use webhooks_registry::auth::{ClientCredentials, EndpointTls, SecretIn};
use webhooks_registry::{Endpoint, EndpointUrl};

use super::endpoint::EndpointPath;
use super::endpoint_headers::change;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::find::AppEndpoint;
use crate::schema::{Empty, Url};
use crate::service::Service;

/// The start of a block of PEM (RFC 7468 §2).
const BEGIN: &str = "-----BEGIN ";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum GrantType {
    ClientCredentials,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum AuthMethod {
    ClientSecretBasic,
    ClientSecretPost,
}

/// Unknown fields are refused: what they ask for would not be done.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct OauthIn {
    /// The flow of OAuth 2.0 (RFC 6749); only client credentials (§4.4) are supported.
    #[serde(rename = "grantType")]
    _grant_type: GrantType,
    /// The place of the secret in a request for a token: a header (`clientSecretBasic`) or the body
    /// (`clientSecretPost`).
    auth_method: AuthMethod,
    /// The id of the client at the authorization server.
    client_id: String,
    /// The secret of the client. If it is absent, the present one stays, provided that `tokenUrl` does not
    /// change.
    client_secret: Option<String>,
    /// The URL at which tokens are fetched.
    #[schema(value_type = Url)]
    token_url: String,
    /// The scopes that are asked for; none by default.
    scopes: Option<Vec<String>>,
    /// Further parameters of the request for a token; `audience` is the only one.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    extra_params: Option<ExtraParams>,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExtraParams {
    /// The audience of the tokens, for servers that ask for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OauthConfig {
    /// The flow of OAuth 2.0.
    grant_type: GrantType,
    /// The place of the secret in a request for a token.
    auth_method: AuthMethod,
    /// The id of the client at the authorization server.
    client_id: String,
    /// The URL at which tokens are fetched.
    #[schema(value_type = Url)]
    token_url: String,
    /// The scopes that are asked for; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    /// Further parameters of the request for a token; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    extra_params: Option<ExtraParams>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct OauthOut {
    /// Whether deliveries to the endpoint carry a token.
    enabled: bool,
    /// The way in which tokens are fetched, without the secret; `null` if none are.
    config: Option<OauthConfig>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct MtlsOut {
    /// Whether deliveries to the endpoint present a client certificate.
    enabled: bool,
    /// An empty object if they do, since certificate and key are never shown; `null` if not.
    #[schema(value_type = Option<Empty>)]
    config: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MtlsIn {
    /// The certificates, the client's own first, and its private key, as PEM of 64 KiB at most.
    #[schema(max_length = 65_536)]
    identity: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ca {
    /// The certificates of the only authorities that are trusted for this endpoint, as PEM of 64 KiB at most;
    /// `null` for the usual ones.
    #[schema(max_length = 65_536)]
    cert: Option<String>,
}

impl OauthConfig {
    fn of(found: &AppEndpoint) -> Option<Self> {
        let credentials = found.registration.endpoint.client_credentials.as_deref()?;
        let ClientCredentials { token_url, client_id, scope, audience, secret_in, .. } =
            credentials;
        let scopes = scope.as_ref();
        Some(Self {
            grant_type: GrantType::ClientCredentials,
            auth_method: match secret_in {
                SecretIn::Body => AuthMethod::ClientSecretPost,
                SecretIn::Header => AuthMethod::ClientSecretBasic,
            },
            client_id: client_id.clone(),
            token_url: token_url.to_string(),
            scopes: scopes.map(|scope| scope.split(' ').map(str::to_owned).collect()),
            extra_params: audience.clone().map(|audience| ExtraParams { audience: Some(audience) }),
        })
    }
}

impl OauthIn {
    fn credentials(self, old: Option<&ClientCredentials>) -> Result<ClientCredentials, ApiError> {
        let Self { auth_method, client_id, client_secret, token_url, scopes, .. } = self;
        let token_url = EndpointUrl::new(&token_url);
        let token_url = token_url.map_err(|error| ApiError::value("tokenUrl", error))?;
        // A secret does not go to another place than the one that it was given for.
        let old = old.filter(|old| old.token_url == token_url);
        let old = old.map(ClientCredentials::dangerous_client_secret);
        let secret = client_secret.as_deref().or(old).filter(|secret| !secret.is_empty());
        let secret = secret.ok_or_else(|| ApiError::value("clientSecret", "it is missing"))?;
        let mut credentials = ClientCredentials::new(token_url, &client_id, secret);
        if auth_method == AuthMethod::ClientSecretPost {
            credentials = credentials.secret_in_body();
        }
        if let Some(scopes) = scopes.filter(|scopes| !scopes.is_empty()) {
            credentials = credentials.scope(&scopes.join(" "));
        }
        if let Some(audience) = self.extra_params.and_then(|params| params.audience) {
            credentials = credentials.audience(&audience);
        }
        Ok(credentials)
    }
}

/// Returns how an endpoint's tokens are fetched; 404 if it needs none.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/oauth",
    operation_id = "v1.endpoint.get-oauth", tag = "Endpoint",
    responses((status = 200, body = OauthConfig)),
)]
pub(crate) async fn read_oauth(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
) -> Result<Json<OauthConfig>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadEndpoints).await?;
    OauthConfig::of(&found).map(Json).ok_or_else(|| ApiError::unknown("OAuth configuration"))
}

/// Returns whether an endpoint needs a token, and how it is fetched.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/oauth-config",
    operation_id = "v1.endpoint.get-oauth-2", tag = "Endpoint",
    responses((status = 200, body = OauthOut)),
)]
pub(crate) async fn read_oauth_state(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
) -> Result<Json<OauthOut>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadEndpoints).await?;
    let config = OauthConfig::of(&found);
    Ok(Json(OauthOut { enabled: config.is_some(), config }))
}

/// Sets how an endpoint's tokens are fetched: by client credentials of OAuth 2.0.
#[utoipa::path(
    put,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/oauth",
    operation_id = "v1.endpoint.set-oauth-config", tag = "Endpoint", request_body = OauthIn,
    responses((status = 204)),
)]
pub(crate) async fn set_oauth(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    Body(input): Body<OauthIn>,
) -> Result<StatusCode, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ChangeEndpoints).await?;
    let old = found.registration.endpoint.client_credentials.clone();
    let credentials = input.credentials(old.as_deref())?;
    let set = |endpoint: Endpoint| endpoint.client_credentials(credentials.clone());
    change(&service, &caller, found, set).await
}

/// Makes an endpoint need no token.
#[utoipa::path(
    delete,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/oauth",
    operation_id = "v1.endpoint.delete-oauth-config", tag = "Endpoint", responses((status = 204)),
)]
pub(crate) async fn delete_oauth(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
) -> Result<StatusCode, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ChangeEndpoints).await?;
    let unset = |mut endpoint: Endpoint| {
        endpoint.client_credentials = None;
        Ok(endpoint)
    };
    change(&service, &caller, found, unset).await
}

/// Returns the settings of an endpoint's client certificate, which have no field; 404 if it gets none.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/mtls",
    operation_id = "v1.endpoint.get-mtls", tag = "Endpoint",
    responses((status = 200, body = Empty)),
)]
pub(crate) async fn read_mtls(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
) -> Result<Json<BTreeMap<String, String>>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadEndpoints).await?;
    let is_set = has_certificate(&found);
    is_set.then(|| Json(BTreeMap::new())).ok_or_else(|| ApiError::unknown("mTLS configuration"))
}

/// Returns whether an endpoint gets a client certificate.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/mtls-config",
    operation_id = "v1.endpoint.get-mtls-2", tag = "Endpoint",
    responses((status = 200, body = MtlsOut)),
)]
pub(crate) async fn read_mtls_state(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
) -> Result<Json<MtlsOut>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadEndpoints).await?;
    let enabled = has_certificate(&found);
    Ok(Json(MtlsOut { enabled, config: enabled.then(BTreeMap::new) }))
}

/// Sets the client certificate that an endpoint gets. Nobody can read the key again.
#[utoipa::path(
    put,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/mtls",
    operation_id = "v1.endpoint.set-mtls-config", tag = "Endpoint", request_body = MtlsIn,
    responses((status = 204)),
)]
pub(crate) async fn set_mtls(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    Body(MtlsIn { identity }): Body<MtlsIn>,
) -> Result<StatusCode, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ChangeEndpoints).await?;
    let (chain, key) = blocks(&identity);
    if chain.is_empty() || key.is_empty() {
        let reason = "it has no certificate and key: give both as PEM, one after the other";
        return Err(ApiError::value("identity", reason));
    }
    let set = |endpoint: Endpoint| {
        let tls = endpoint.tls.as_deref().cloned().unwrap_or_default();
        endpoint.tls(tls.client_certificate(&chain, &key))
    };
    change(&service, &caller, found, set).await.map_err(|error| error.in_field("identity"))
}

/// Makes an endpoint get no client certificate.
#[utoipa::path(
    delete,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/mtls",
    operation_id = "v1.endpoint.delete-mtls-config", tag = "Endpoint", responses((status = 204)),
)]
pub(crate) async fn delete_mtls(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
) -> Result<StatusCode, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ChangeEndpoints).await?;
    let unset = |mut endpoint: Endpoint| {
        let roots = endpoint.tls.as_deref().and_then(|tls| tls.roots.clone());
        let only_roots = roots.map(|roots| EndpointTls::default().pinned_roots(&roots));
        endpoint.tls = only_roots.map(Arc::new);
        Ok(endpoint)
    };
    change(&service, &caller, found, unset).await
}

/// Returns the authorities that are trusted for an endpoint, if they are its own.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/ca",
    operation_id = "v1.endpoint.get-server-ca", tag = "Endpoint",
    responses((status = 200, body = Ca)),
)]
pub(crate) async fn read_ca(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
) -> Result<Json<Ca>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadEndpoints).await?;
    let tls = found.registration.endpoint.tls.as_deref();
    Ok(Json(Ca { cert: tls.and_then(|tls| tls.roots.clone()) }))
}

/// Sets the only authorities that are trusted for an endpoint.
#[utoipa::path(
    put,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/ca",
    operation_id = "v1.endpoint.set-server-ca", tag = "Endpoint", request_body = Ca,
    responses((status = 204)),
)]
pub(crate) async fn set_ca(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    Body(Ca { cert }): Body<Ca>,
) -> Result<StatusCode, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ChangeEndpoints).await?;
    let set = |mut endpoint: Endpoint| {
        let mut tls = endpoint.tls.as_deref().cloned().unwrap_or_default();
        tls.roots.clone_from(&cert);
        if tls == EndpointTls::default() {
            endpoint.tls = None;
            return Ok(endpoint);
        }
        endpoint.tls(tls)
    };
    change(&service, &caller, found, set).await.map_err(|error| error.in_field("cert"))
}

fn has_certificate(found: &AppEndpoint) -> bool {
    let tls = found.registration.endpoint.tls.as_deref();
    tls.is_some_and(|tls| tls.dangerous_client_certificate().is_some())
}

/// Returns the blocks of certificates and those of keys in a PEM text.
fn blocks(pem: &str) -> (String, String) {
    let (mut chain, mut key) = (String::new(), String::new());
    for block in pem.split(BEGIN).skip(1) {
        let place = if block.starts_with("CERTIFICATE") { &mut chain } else { &mut key };
        place.push_str(BEGIN);
        place.push_str(block);
    }
    (chain, key)
}
