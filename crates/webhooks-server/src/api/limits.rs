//! The limits of an application: endpoints, messages, retention.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_admin::{Action, Limits};

use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::service::Service;

/// The limits of an application; one that is absent or `null` is none. Unknown fields are refused.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LimitsForm {
    /// The most endpoints, 1,000,000 at most; no limit if absent. One more gets 409.
    #[schema(maximum = 1_000_000)]
    max_endpoints: Option<u32>,
    /// The most messages on a day of UTC; no limit if absent. Further ones get 429.
    #[schema(maximum = 1_000_000_000_000_u64)]
    messages_per_day: Option<u64>,
    /// The days after which messages are deleted, 1 to 3,660, if that is sooner than for all applications (30
    /// days unless the service has another time).
    #[schema(minimum = 1, maximum = 3660)]
    retention_days: Option<u32>,
}

impl From<Limits> for LimitsForm {
    fn from(limits: Limits) -> Self {
        let Limits { max_endpoints, messages_per_day, retention_days } = limits;
        Self { max_endpoints, messages_per_day, retention_days }
    }
}

impl From<LimitsForm> for Limits {
    fn from(form: LimitsForm) -> Self {
        let LimitsForm { max_endpoints, messages_per_day, retention_days } = form;
        Self { max_endpoints, messages_per_day, retention_days }
    }
}

/// Returns the limits of an application.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/limits",
    operation_id = "v1.application.get-limits", tag = "Application",
    responses((status = 200, body = LimitsForm)),
)]
pub(crate) async fn read(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
) -> Result<Json<LimitsForm>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadEndpoints).await?;
    let found = service.admin().limits().look_up(app.tenant.as_str(), Service::now()).await?;
    Ok(Json(found.map_or_else(Limits::default, |found| found.value).into()))
}

/// Sets the limits of an application. Other processes follow within ten seconds.
#[utoipa::path(
    put,
    path = "/api/v1/app/{app_id}/limits",
    operation_id = "v1.application.set-limits", tag = "Application", request_body = LimitsForm,
    responses((status = 200, body = LimitsForm)),
)]
pub(crate) async fn replace(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    Body(form): Body<LimitsForm>,
) -> Result<Json<LimitsForm>, ApiError> {
    let app = service.app(&caller, &app, Action::ChangeApplications).await?;
    let limits = Limits::from(form.clone());
    let collection = service.admin().limits();
    collection.put(app.tenant.as_str(), limits.clone(), &caller.actor(), Service::now()).await?;
    service.set_limits(&app.tenant, Some(limits));
    Ok(Json(form))
}

/// Takes away all limits of an application.
#[utoipa::path(
    delete,
    path = "/api/v1/app/{app_id}/limits",
    operation_id = "v1.application.delete-limits", tag = "Application", responses((status = 204)),
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
) -> Result<StatusCode, ApiError> {
    let app = service.app(&caller, &app, Action::ChangeApplications).await?;
    let collection = service.admin().limits();
    collection.delete_any(app.tenant.as_str(), &caller.actor(), Service::now()).await?;
    service.set_limits(&app.tenant, None);
    Ok(StatusCode::NO_CONTENT)
}
