//! Operational endpoints: the URLs to which the service sends what happens to endpoints and messages.
//!
//! They are endpoints of a tenant that is no application, for administrators alone.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;

use super::endpoint::{add, delete_found, list_of, replace_in};
use super::endpoint_headers::{HeadersIn, HeadersOut, replace_found, shown};
use super::endpoint_in::{EndpointIn, EndpointOut};
use super::endpoint_secret::{RotateIn, SecretOut, newest, rotate_found};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, OptionalBody, Params, Path};
use crate::find::AppEndpoint;
use crate::idempotent::RequestNumber;
use crate::paging::List;
use crate::parameters::{Order, Page};
use crate::service::Service;

async fn find(service: &Service, caller: &Caller, name: &str) -> Result<AppEndpoint, ApiError> {
    service.endpoint_of(Service::operational(caller)?, name).await
}

/// Lists the operational endpoints, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/operational-webhook/endpoint",
    operation_id = "v1.operational-webhook.endpoint.list", tag = "Webhook Endpoint",
    params(Page, Order),
    responses((status = 200, body = List<EndpointOut>), (status = 404)),
)]
pub(crate) async fn list(
    State(service): State<Service>,
    caller: Caller,
    params: Params,
) -> Result<Json<List<EndpointOut>>, ApiError> {
    let owner = Service::operational(&caller)?;
    Ok(Json(list_of(&service, &owner, &params).await?))
}

/// Makes an operational endpoint. It is told what happens from now on.
#[utoipa::path(
    post,
    path = "/api/v1/operational-webhook/endpoint",
    operation_id = "v1.operational-webhook.endpoint.create", tag = "Webhook Endpoint",
    request_body = EndpointIn, responses((status = 201, body = EndpointOut), (status = 404)),
)]
pub(crate) async fn create(
    State(service): State<Service>,
    caller: Caller,
    number: RequestNumber,
    Body(input): Body<EndpointIn>,
) -> Result<impl IntoResponse, ApiError> {
    let owner = Service::operational(&caller)?;
    input.without_channels()?;
    Ok((StatusCode::CREATED, Json(add(&service, &caller, &owner, &input, number).await?)))
}

/// Returns an operational endpoint.
#[utoipa::path(
    get,
    path = "/api/v1/operational-webhook/endpoint/{endpoint_id}",
    operation_id = "v1.operational-webhook.endpoint.get", tag = "Webhook Endpoint",
    responses((status = 200, body = EndpointOut)),
)]
pub(crate) async fn read(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<EndpointOut>, ApiError> {
    let found = find(&service, &caller, &name).await?;
    Ok(Json(EndpointOut::new(&found.registration, found.uid)))
}

/// Replaces the settings of an operational endpoint, and keeps its secret; or makes a new one with a new id.
#[utoipa::path(
    put,
    path = "/api/v1/operational-webhook/endpoint/{endpoint_id}",
    operation_id = "v1.operational-webhook.endpoint.upsert", tag = "Webhook Endpoint",
    request_body = EndpointIn,
    responses((status = 200, body = EndpointOut), (status = 201, body = EndpointOut)),
)]
pub(crate) async fn replace(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
    Body(update): Body<EndpointIn>,
) -> Result<impl IntoResponse, ApiError> {
    let owner = Service::operational(&caller)?;
    update.without_channels()?;
    replace_in(&service, &caller, owner, &name, &update).await
}

/// Deletes an operational endpoint.
#[utoipa::path(
    delete,
    path = "/api/v1/operational-webhook/endpoint/{endpoint_id}",
    operation_id = "v1.operational-webhook.endpoint.delete", tag = "Webhook Endpoint",
    responses((status = 204)),
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let found = find(&service, &caller, &name).await?;
    delete_found(&service, &caller, &found).await
}

/// Returns the newest secret of an operational endpoint.
#[utoipa::path(
    get,
    path = "/api/v1/operational-webhook/endpoint/{endpoint_id}/secret",
    operation_id = "v1.operational-webhook.endpoint.get-secret", tag = "Webhook Endpoint",
    responses((status = 200, body = SecretOut)),
)]
pub(crate) async fn secret(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<SecretOut>, ApiError> {
    newest(&find(&service, &caller, &name).await?)
}

/// Sets a new secret of an operational endpoint; the old one signs beside it for a while.
#[utoipa::path(
    post,
    path = "/api/v1/operational-webhook/endpoint/{endpoint_id}/secret/rotate",
    operation_id = "v1.operational-webhook.endpoint.rotate-secret", tag = "Webhook Endpoint",
    request_body = Option<RotateIn>, responses((status = 200, body = SecretOut)),
)]
pub(crate) async fn rotate(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
    OptionalBody(input): OptionalBody<RotateIn>,
) -> Result<Json<SecretOut>, ApiError> {
    let found = find(&service, &caller, &name).await?;
    rotate_found(&service, &caller, &found, &input).await
}

/// Returns the headers that an operational endpoint adds to its deliveries.
#[utoipa::path(
    get,
    path = "/api/v1/operational-webhook/endpoint/{endpoint_id}/headers",
    operation_id = "v1.operational-webhook.endpoint.get-headers", tag = "Webhook Endpoint",
    responses((status = 200, body = HeadersOut)),
)]
pub(crate) async fn headers(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<HeadersOut>, ApiError> {
    let found = find(&service, &caller, &name).await?;
    Ok(Json(shown(&caller, &found)))
}

/// Replaces the headers that an operational endpoint adds to its deliveries.
#[utoipa::path(
    put,
    path = "/api/v1/operational-webhook/endpoint/{endpoint_id}/headers",
    operation_id = "v1.operational-webhook.endpoint.set-headers", tag = "Webhook Endpoint",
    request_body = HeadersIn, responses((status = 204)),
)]
pub(crate) async fn replace_headers(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
    Body(input): Body<HeadersIn>,
) -> Result<StatusCode, ApiError> {
    let found = find(&service, &caller, &name).await?;
    replace_found(&service, &caller, found, &input).await
}
