//! Applications.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_admin::{Action, AdminError, Application, Entry, IdKind, Resource as _};
use webhooks_core::Timestamp;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Params, Patch, Path};
use crate::find::App;
use crate::idempotent::RequestNumber;
use crate::paging::{List, list_query};
use crate::parameters::{GetIfExists, Order, Page};
use crate::schema::{Metadata, Name, Time};
use crate::service::Service;

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApplicationIn {
    /// The name of the application for people, of 1 to 1,024 bytes.
    #[schema(min_length = 1, max_length = 1024)]
    name: String,
    /// The owner's id for the application, unique in the service; paths take it in place of the id.
    #[schema(value_type = Option<Name>)]
    uid: Option<String>,
    /// Notes of the caller for programs: at most 64 texts by name, of 16 KiB together.
    #[serde(default)]
    #[schema(value_type = Metadata)]
    metadata: BTreeMap<String, String>,
    /// The most messages that may be published per second; no limit if absent. Further ones get 429.
    #[schema(minimum = 1, maximum = 65535)]
    throttle_rate: Option<u16>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApplicationPatch {
    /// The new name of the application for people, of 1 to 1,024 bytes.
    #[schema(min_length = 1, max_length = 1024)]
    name: Option<String>,
    /// The new id of the owner for the application; `null` removes it.
    #[serde(default)]
    #[schema(value_type = Option<Name>)]
    uid: Patch<String>,
    /// The new notes, in place of all old ones: at most 64 texts by name, of 16 KiB together.
    #[schema(value_type = Option<Metadata>)]
    metadata: Option<BTreeMap<String, String>>,
    /// The most messages that may be published per second; `null` or 0 removes the limit.
    #[serde(default)]
    #[schema(value_type = Option<u16>, maximum = 65535)]
    throttle_rate: Patch<u16>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApplicationOut {
    /// The id of the application, which the service made.
    id: String,
    /// The owner's id for the application; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Name>)]
    uid: Option<String>,
    /// The name of the application for people.
    name: String,
    /// Notes of the caller for programs: at most 64 texts by name, of 16 KiB together.
    #[schema(value_type = Metadata)]
    metadata: BTreeMap<String, String>,
    /// The most messages that may be published per second; absent if there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    throttle_rate: Option<u16>,
    /// The time at which it was made.
    #[schema(value_type = Time)]
    created_at: Timestamp,
    /// The time of its last change.
    #[schema(value_type = Time)]
    updated_at: Timestamp,
}

impl From<Entry<Application>> for ApplicationOut {
    fn from(entry: Entry<Application>) -> Self {
        let Application { name, uid, metadata, throttle_rate } = entry.value;
        let (id, created_at, updated_at) = (entry.id, entry.created_at, entry.updated_at);
        Self { id, uid, name, metadata, throttle_rate, created_at, updated_at }
    }
}

impl From<ApplicationIn> for Application {
    fn from(input: ApplicationIn) -> Self {
        let ApplicationIn { name, uid, metadata, throttle_rate } = input;
        Self { name, uid, metadata, throttle_rate }
    }
}

impl ApplicationPatch {
    fn apply(&self, to: Application) -> Application {
        Application {
            name: self.name.clone().unwrap_or(to.name),
            uid: self.uid.apply(to.uid),
            metadata: self.metadata.clone().unwrap_or(to.metadata),
            // 0 means no limit, as the reference has it.
            throttle_rate: self.throttle_rate.apply(to.throttle_rate).filter(|rate| *rate > 0),
        }
    }
}

/// Lists the applications, the oldest first.
#[utoipa::path(
    get,
    path = "/api/v1/app",
    operation_id = "v1.application.list", tag = "Application", params(Page, Order),
    responses((status = 200, body = List<ApplicationOut>)),
)]
pub(crate) async fn list(
    State(service): State<Service>,
    caller: Caller,
    params: Params,
) -> Result<Json<List<ApplicationOut>>, ApiError> {
    caller.check(Action::ReadEndpoints, None)?;
    let query = list_query(&params, false)?;
    let page = service.admin().applications().list(query, Service::now()).await?;
    Ok(Json(List::new(page, ApplicationOut::from)))
}

/// Makes an application.
#[utoipa::path(
    post,
    path = "/api/v1/app",
    operation_id = "v1.application.create", tag = "Application", params(GetIfExists),
    request_body = ApplicationIn,
    responses((status = 200, body = ApplicationOut), (status = 201, body = ApplicationOut)),
)]
pub(crate) async fn create(
    State(service): State<Service>,
    caller: Caller,
    params: Params,
    number: RequestNumber,
    Body(input): Body<ApplicationIn>,
) -> Result<impl IntoResponse, ApiError> {
    caller.check(Action::ChangeApplications, None)?;
    let gets_existing = params.flag("get_if_exists")?.unwrap_or_default();
    let uid = input.uid.clone();
    match (add(&service, &caller, input, number).await, uid) {
        (Err(AdminError::Exists { .. }), Some(uid)) if gets_existing => {
            let found = service.admin().applications().get(&uid, Service::now()).await?;
            Ok((StatusCode::OK, Json(ApplicationOut::from(found))))
        }
        (added, _) => Ok((StatusCode::CREATED, Json(added?.into()))),
    }
}

async fn add(
    service: &Service,
    caller: &Caller,
    input: ApplicationIn,
    number: RequestNumber,
) -> Result<Entry<Application>, AdminError> {
    let applications = service.admin().applications();
    number.add(applications, IdKind::Application, input.into(), &caller.actor()).await
}

/// Finds an application, or makes the one of the request if there is none.
pub(crate) async fn find_or_add(
    service: &Service,
    caller: &Caller,
    name: &str,
    input: Option<ApplicationIn>,
    action: Action,
) -> Result<App, ApiError> {
    // One that is not valid is refused also where it is not needed.
    input.clone().map_or(Ok(()), |input| Application::from(input).check())?;
    // A key of one application learns nothing of others, not even by what it may make.
    if let Some(input) = input
        && caller.application().is_none()
        && let Err(AdminError::NotFound(_)) =
            service.admin().applications().get(name, Service::now()).await
    {
        caller.check(Action::ChangeApplications, None)?;
        if input.uid.as_deref() != Some(name) {
            return Err(ApiError::value("application", "its uid is not the one of the path"));
        }
        match add(service, caller, input, RequestNumber::default()).await {
            // Another request was faster.
            Ok(_) | Err(AdminError::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    service.app(caller, name, action).await
}

/// Returns an application.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}",
    operation_id = "v1.application.get", tag = "Application",
    responses((status = 200, body = ApplicationOut)),
)]
pub(crate) async fn read(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<ApplicationOut>, ApiError> {
    let app = service.app(&caller, &name, Action::ReadEndpoints).await?;
    let entry = app.entry.ok_or_else(|| ApiError::unknown("application"))?;
    Ok(Json(entry.into()))
}

/// Replaces an application, or makes it with a new id.
#[utoipa::path(
    put,
    path = "/api/v1/app/{app_id}",
    operation_id = "v1.application.update", tag = "Application", request_body = ApplicationIn,
    responses((status = 200, body = ApplicationOut), (status = 201, body = ApplicationOut)),
)]
pub(crate) async fn replace(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
    Body(input): Body<ApplicationIn>,
) -> Result<impl IntoResponse, ApiError> {
    caller.check(Action::ChangeApplications, None)?;
    ApiError::check_path("app_id", &name)?;
    let (actor, now) = (caller.actor(), Service::now());
    let replaced = |_| Application::from(input.clone());
    match service.admin().applications().change(&name, &actor, now, replaced).await {
        // A new one, with a new id.
        Err(AdminError::NotFound(_)) => Ok((
            StatusCode::CREATED,
            Json(add(&service, &caller, input, RequestNumber::default()).await?.into()),
        )),
        changed => Ok((StatusCode::OK, Json(ApplicationOut::from(changed?)))),
    }
}

/// Changes the fields of an application that the body has.
#[utoipa::path(
    patch,
    path = "/api/v1/app/{app_id}",
    operation_id = "v1.application.patch", tag = "Application", request_body = ApplicationPatch,
    responses((status = 200, body = ApplicationOut)),
)]
pub(crate) async fn patch(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
    Body(patch): Body<ApplicationPatch>,
) -> Result<Json<ApplicationOut>, ApiError> {
    let app = service.app(&caller, &name, Action::ChangeApplications).await?;
    let (actor, now) = (caller.actor(), Service::now());
    let applications = service.admin().applications();
    let changed =
        applications.change(app.tenant.as_str(), &actor, now, |to| patch.apply(to)).await?;
    Ok(Json(changed.into()))
}

/// Deletes an application, after its endpoints.
///
/// The content of its messages is deleted in the background; nobody can read it meanwhile.
#[utoipa::path(
    delete,
    path = "/api/v1/app/{app_id}",
    operation_id = "v1.application.delete", tag = "Application", responses((status = 204)),
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let app = service.app(&caller, &name, Action::ChangeApplications).await?;
    let (id, actor) = (app.tenant.as_str(), caller.actor());
    service.admin().delete_application(id, &actor, Service::now()).await?;
    // At once, so that nothing more is delivered; a failure is made good by the task.
    if let Err(error) = service.delete_endpoints(&app.tenant).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "endpoints are deleted later");
    }
    service.finish_deletions();
    Ok(StatusCode::NO_CONTENT)
}
