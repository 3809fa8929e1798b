//! The secret with which an endpoint's deliveries are signed.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_admin::Action;

use super::endpoint::EndpointPath;
use super::endpoint_in::secret;
use crate::auth::Caller;
use crate::endpoint_log::{begin, log, noted};
use crate::error::ApiError;
use crate::extract::{OptionalBody, Path};
use crate::find::AppEndpoint;
use crate::schema::SecretText;
use crate::service::Service;

/// How long the old secret signs beside the new one, by default: a day.
const GRACE: u32 = 24 * 60 * 60;

/// The longest time for that: a week.
const MAX_GRACE: u32 = 7 * GRACE;

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RotateIn {
    /// The new secret; the service makes one if it is absent.
    #[schema(value_type = Option<SecretText>)]
    key: Option<String>,
    /// The seconds for which older secrets sign, too: 0 to 604,800; 86,400 (a day) by default.
    #[schema(maximum = 604_800)]
    grace_period_seconds: Option<u32>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct SecretOut {
    /// The secret that signs deliveries: `whsec_` and base64.
    key: String,
}

/// Returns the newest secret of an endpoint.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/secret",
    operation_id = "v1.endpoint.get-secret", tag = "Endpoint",
    responses((status = 200, body = SecretOut)),
)]
pub(crate) async fn read(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
) -> Result<Json<SecretOut>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadSecrets).await?;
    newest(&found)
}

pub(crate) fn newest(found: &AppEndpoint) -> Result<Json<SecretOut>, ApiError> {
    let newest = found.registration.endpoint.live_secrets(Service::now()).next();
    let newest = newest.ok_or_else(|| ApiError::unknown("secret"))?;
    Ok(Json(SecretOut { key: newest.dangerous_text().to_owned() }))
}

/// Sets a new secret; the old one signs beside it for a while.
///
/// The answer has the new one: newer client libraries of Svix read it there, older ones read nothing.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/secret/rotate",
    operation_id = "v1.endpoint.rotate-secret", tag = "Endpoint", request_body = Option<RotateIn>,
    responses((status = 200, body = SecretOut)),
)]
pub(crate) async fn rotate(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    OptionalBody(input): OptionalBody<RotateIn>,
) -> Result<Json<SecretOut>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ChangeEndpoints).await?;
    rotate_found(&service, &caller, &found, &input).await
}

pub(crate) async fn rotate_found(
    service: &Service,
    caller: &Caller,
    found: &AppEndpoint,
    input: &RotateIn,
) -> Result<Json<SecretOut>, ApiError> {
    let grace = input.grace_period_seconds.unwrap_or(GRACE);
    if grace > MAX_GRACE {
        return Err(ApiError::value("gracePeriodSeconds", "it is more than 604800, a week"));
    }
    // A caller who brings the key knows it.
    if input.key.is_none() {
        caller.check(Action::ReadSecrets, Some(&found.app.tenant))?;
    }
    let new = input.key.as_deref().map(|text| secret("key", text)).transpose()?;
    let grace = Duration::from_secs(grace.into());
    let (endpoints, id) = (service.endpoints(&found.app), found.id().as_str());
    let before = Some(&*found.registration);
    let change = begin(service, &found.app, caller.actor(), (id, before)).await?;
    let rotated = endpoints.rotate_secret(id, new, grace).await;
    let new = noted(service, &change, rotated).await?;
    if let Some(after) = endpoints.get(id).await? {
        log(service, &change, (before, Some(&*after))).await?;
    }
    Ok(Json(SecretOut { key: new.dangerous_text().to_owned() }))
}
