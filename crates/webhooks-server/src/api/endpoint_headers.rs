//! The headers that an endpoint adds to its deliveries.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_admin::Action;
use webhooks_registry::{Endpoint, EndpointError};

use super::endpoint::EndpointPath;
use crate::auth::Caller;
use crate::endpoint_log::{begin, log, noted};
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::find::AppEndpoint;
use crate::schema::Headers;
use crate::service::Service;

/// Headers whose values are secrets more often than not. Their values are shown to nobody.
const SENSITIVE: [&str; 6] =
    ["authorization", "cookie", "x-api-key", "x-auth-token", "x-authorization", "api-key"];

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct HeadersIn {
    /// The headers that each delivery gets, in place of all old ones: values by name, at most 32.
    #[schema(value_type = Headers)]
    headers: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeadersPatch {
    /// The headers to set: values by name. `null` removes a header.
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    // Newer client libraries name here what older ones set to `null`.
    /// The names of headers to remove.
    #[serde(default)]
    delete_headers: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HeadersOut {
    /// The headers that each delivery gets, without sensitive ones.
    #[schema(value_type = Headers)]
    headers: BTreeMap<String, String>,
    /// The names of headers whose values are not shown, such as `authorization`.
    sensitive: Vec<String>,
}

/// Returns the headers that an endpoint adds to its deliveries.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/headers",
    operation_id = "v1.endpoint.get-headers", tag = "Endpoint",
    responses((status = 200, body = HeadersOut)),
)]
pub(crate) async fn read(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
) -> Result<Json<HeadersOut>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadEndpoints).await?;
    Ok(Json(shown(&caller, &found)))
}

pub(crate) fn shown(caller: &Caller, found: &AppEndpoint) -> HeadersOut {
    // Any header may hold a secret.
    let sees_values = caller.may(Action::ReadSecrets, &found.app.tenant);
    let (mut headers, mut sensitive) = (BTreeMap::new(), Vec::new());
    for (name, value) in found.registration.endpoint.headers() {
        match value.to_str() {
            Ok(value) if sees_values && !SENSITIVE.contains(&name.as_str()) => {
                headers.insert(name.to_string(), value.to_owned());
            }
            _ => sensitive.push(name.to_string()),
        }
    }
    HeadersOut { headers, sensitive }
}

/// Replaces the headers that an endpoint adds to its deliveries.
#[utoipa::path(
    put,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/headers",
    operation_id = "v1.endpoint.update-headers", tag = "Endpoint", request_body = HeadersIn,
    responses((status = 204)),
)]
pub(crate) async fn replace(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    Body(input): Body<HeadersIn>,
) -> Result<StatusCode, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ChangeEndpoints).await?;
    replace_found(&service, &caller, found, &input).await
}

pub(crate) async fn replace_found(
    service: &Service,
    caller: &Caller,
    found: AppEndpoint,
    input: &HeadersIn,
) -> Result<StatusCode, ApiError> {
    let replaced = |endpoint: Endpoint| add(endpoint.without_headers(), &input.headers);
    change(service, caller, found, replaced).await
}

/// Sets some headers, and removes those that are `null`.
#[utoipa::path(
    patch,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/headers",
    operation_id = "v1.endpoint.patch-headers", tag = "Endpoint", request_body = HeadersPatch,
    responses((status = 204)),
)]
pub(crate) async fn patch(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    Body(input): Body<HeadersPatch>,
) -> Result<StatusCode, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ChangeEndpoints).await?;
    let patched = |endpoint: Endpoint| {
        let mut headers = texts(endpoint.headers());
        for (name, value) in &input.headers {
            let name = name.to_ascii_lowercase();
            match value {
                Some(value) => headers.insert(name, value.clone()),
                None => headers.remove(&name),
            };
        }
        for name in &input.delete_headers {
            headers.remove(&name.to_ascii_lowercase());
        }
        add(endpoint.without_headers(), &headers)
    };
    change(&service, &caller, found, patched).await
}

/// Changes an endpoint, and logs it.
pub(super) async fn change(
    service: &Service,
    caller: &Caller,
    found: AppEndpoint,
    apply: impl FnMut(Endpoint) -> Result<Endpoint, EndpointError> + Send,
) -> Result<StatusCode, ApiError> {
    let AppEndpoint { app, registration: before, .. } = found;
    let id = before.id.as_str();
    let change = begin(service, &app, caller.actor(), (id, Some(&before))).await?;
    let updated = service.endpoints(&app).update(id, None, apply).await;
    let after = noted(service, &change, updated).await?;
    log(service, &change, (Some(&before), Some(&after))).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn add(endpoint: Endpoint, headers: &BTreeMap<String, String>) -> Result<Endpoint, EndpointError> {
    headers.iter().try_fold(endpoint, |endpoint, (name, value)| endpoint.header(name, value))
}

fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
