//! Endpoints.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde_json::Value;
use webhooks_admin::{Action, Actor, AdminError, Collection, EndpointEntry, IdKind, Resource as _};
use webhooks_registry::{Endpoint, EndpointError, EndpointQuery, EndpointState, Registration};

use super::endpoint_in::{EndpointIn, EndpointOut, EndpointPatch, check_paused};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Params, Patch, Path};
use crate::find::{App, AppEndpoint};
use crate::paging::{List, list_query};
use crate::parameters::{Order, Page};
use crate::service::Service;

/// The time after which a request has ended for sure.
const LONGEST_REQUEST: Duration = Duration::from_secs(5 * 60);

/// The ids or uids of an application and an endpoint.
pub(crate) type EndpointPath = Path<(String, String)>;

/// Lists the endpoints of an application, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint",
    operation_id = "v1.endpoint.list", tag = "Endpoint", params(Page, Order),
    responses((status = 200, body = List<EndpointOut>)),
)]
pub(crate) async fn list(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    params: Params,
) -> Result<Json<List<EndpointOut>>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadEndpoints).await?;
    Ok(Json(list_of(&service, &app, &params).await?))
}

pub(crate) async fn list_of(
    service: &Service,
    app: &App,
    params: &Params,
) -> Result<List<EndpointOut>, ApiError> {
    let query = list_query(params, true)?;
    let page = service.admin().endpoints(&app.tenant).list(query, Service::now()).await?;
    let mut list = List::new(page, |entry| (entry.id, entry.value.uid));
    let mut shown = Vec::new();
    for (id, uid) in list.take() {
        // An entry without an endpoint is left from a request that did not end.
        if let Some(registration) = service.endpoints(app).get(&id).await? {
            shown.push(EndpointOut::new(&registration, uid));
        }
    }
    Ok(list.with(shown))
}

/// Makes an endpoint.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/endpoint",
    operation_id = "v1.endpoint.create", tag = "Endpoint", request_body = EndpointIn,
    responses((status = 201, body = EndpointOut)),
)]
pub(crate) async fn create(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    Body(input): Body<EndpointIn>,
) -> Result<impl IntoResponse, ApiError> {
    let app = service.app(&caller, &app, Action::ChangeEndpoints).await?;
    Ok((StatusCode::CREATED, Json(add(&service, &caller, &app, &input).await?)))
}

pub(crate) async fn add(
    service: &Service,
    caller: &Caller,
    app: &App,
    input: &EndpointIn,
) -> Result<EndpointOut, ApiError> {
    input.check()?;
    let endpoint = input.endpoint()?;
    check_number(service, app).await?;
    let id = IdKind::Endpoint.generate();
    let (actor, now) = (caller.actor(), Service::now());
    let entry = EndpointEntry { uid: input.uid.clone() };
    // The entry first: it keeps the uid for this endpoint.
    reserve(service, app, &id, entry, &actor).await?;
    if let Err(error) = service.endpoints(app).create(&id, endpoint).await {
        forget(service, app, &id, &actor).await?;
        return Err(error.into());
    }
    // Its application may have been deleted meanwhile, which did not see it.
    if let Some(entry) = &app.entry
        && let Err(error) = service.admin().applications().get(&entry.id, now).await
    {
        forget(service, app, &id, &actor).await?;
        return Err(error.into());
    }
    if input.delivery.paused == Some(true) {
        service.endpoints(app).pause(&id).await?;
    }
    let registration = service.endpoints(app).get(&id).await?;
    let registration = registration.ok_or_else(|| ApiError::unknown("endpoint"))?;
    log(service, app, &actor, (None, Some(&registration))).await?;
    Ok(EndpointOut::new(&registration, input.uid.clone()))
}

/// Checks that an application may have one more endpoint.
async fn check_number(service: &Service, app: &App) -> Result<(), ApiError> {
    let Some(most) = service.limits(&app.tenant).max_endpoints else { return Ok(()) };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let all = EndpointQuery::default();
    if service.endpoints(app).count(all, most).await? < most {
        return Ok(());
    }
    Err(ApiError::conflict(format!("The application has its {most} endpoints already.")))
}

/// Unregisters an endpoint, if it is registered, and deletes its entry after it.
async fn forget(service: &Service, app: &App, id: &str, actor: &Actor) -> Result<(), ApiError> {
    if service.endpoints(app).get(id).await?.is_some() {
        service.endpoints(app).unregister(id).await?;
    }
    Ok(service.admin().endpoints(&app.tenant).delete_any(id, actor, Service::now()).await?)
}

/// Adds the entry of an endpoint. One of the same uid that a request left behind, which did not end, gives
/// way. A young one may belong to a request that goes on.
async fn reserve(
    service: &Service,
    app: &App,
    id: &str,
    entry: EndpointEntry,
    actor: &Actor,
) -> Result<(), ApiError> {
    let (entries, now) = (service.admin().endpoints(&app.tenant), Service::now());
    let added = entries.add(id.to_owned(), entry.clone(), actor, now).await;
    let (Err(AdminError::Exists { .. }), Some(uid)) = (&added, &entry.uid) else {
        return Ok(added.map(drop)?);
    };
    let holder = entries.get(uid, now).await?;
    let is_young = now.saturating_since(holder.created_at) < LONGEST_REQUEST;
    if is_young || service.endpoints(app).get(&holder.id).await?.is_some() {
        return Ok(added.map(drop)?);
    }
    entries.delete(&holder.id, actor, now).await?;
    Ok(entries.add(id.to_owned(), entry, actor, now).await.map(drop)?)
}

/// Returns an endpoint.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}",
    operation_id = "v1.endpoint.get", tag = "Endpoint",
    responses((status = 200, body = EndpointOut)),
)]
pub(crate) async fn read(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
) -> Result<Json<EndpointOut>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadEndpoints).await?;
    Ok(Json(EndpointOut::new(&found.registration, found.uid)))
}

/// Replaces the settings of an endpoint, and keeps its secret; or makes a new one with a new id.
#[utoipa::path(
    put,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}",
    operation_id = "v1.endpoint.update", tag = "Endpoint", request_body = EndpointIn,
    responses((status = 200, body = EndpointOut), (status = 201, body = EndpointOut)),
)]
pub(crate) async fn replace(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    Body(update): Body<EndpointIn>,
) -> Result<impl IntoResponse, ApiError> {
    let app = service.app(&caller, &app, Action::ChangeEndpoints).await?;
    replace_in(&service, &caller, app, &name, &update).await
}

pub(crate) async fn replace_in(
    service: &Service,
    caller: &Caller,
    app: App,
    name: &str,
    update: &EndpointIn,
) -> Result<(StatusCode, Json<EndpointOut>), ApiError> {
    update.check()?;
    ApiError::check_path("endpoint_id", name)?;
    let is_known =
        match service.admin().endpoints(&app.tenant).look_up(name, Service::now()).await? {
            Some(entry) => service.endpoints(&app).get(&entry.id).await?.is_some(),
            None => false,
        };
    if !is_known {
        return Ok((StatusCode::CREATED, Json(add(service, caller, &app, update).await?)));
    }
    let found = service.endpoint_of(app, name).await?;
    let uid = update.uid.clone().map_or(Patch::Clear, Patch::Set);
    let (is_disabled, is_paused) = (Some(update.disabled), update.delivery.paused);
    let change = Change { uid, is_disabled, is_paused };
    let apply = |endpoint| update.apply(endpoint);
    Ok((StatusCode::OK, Json(change.make(service, caller, found, apply).await?)))
}

/// Changes the settings of an endpoint that the body has.
#[utoipa::path(
    patch,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}",
    operation_id = "v1.endpoint.patch", tag = "Endpoint", request_body = EndpointPatch,
    responses((status = 200, body = EndpointOut)),
)]
pub(crate) async fn patch(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    Body(patch): Body<EndpointPatch>,
) -> Result<Json<EndpointOut>, ApiError> {
    patch.check()?;
    let found = service.endpoint(&caller, (&app, &name), Action::ChangeEndpoints).await?;
    let (uid, is_disabled) = (patch.uid.clone(), patch.disabled);
    let change = Change { uid, is_disabled, is_paused: patch.delivery.paused };
    Ok(Json(change.make(&service, &caller, found, |endpoint| patch.apply(endpoint)).await?))
}

/// The parts of a change that are no settings of the endpoint in the engine.
struct Change {
    uid: Patch<String>,
    is_disabled: Option<bool>,
    is_paused: Option<bool>,
}

impl Change {
    async fn make(
        self,
        service: &Service,
        caller: &Caller,
        found: AppEndpoint,
        apply: impl FnMut(Endpoint) -> Result<Endpoint, EndpointError> + Send,
    ) -> Result<EndpointOut, ApiError> {
        let AppEndpoint { app, uid: old_uid, registration: before } = found;
        let was_disabled = matches!(before.state, EndpointState::Disabled(_));
        let will_be_disabled = self.is_disabled.unwrap_or(was_disabled);
        check_paused(self.is_paused, will_be_disabled)?;
        let (id, actor) = (before.id.as_str(), caller.actor());
        let uid = self.uid.apply(old_uid.clone());
        let (entries, now) = (service.admin().endpoints(&app.tenant), Service::now());
        // A uid that is another's is refused before anything is changed, and so is a bad one.
        if let Some(uid) = uid.as_ref().filter(|_| uid != old_uid) {
            let renamed = EndpointEntry { uid: Some(uid.clone()) };
            renamed.check()?;
            if entries.get(uid, now).await.is_ok_and(|holder| holder.id != id) {
                return Err(Collection::exists(id, &renamed).into());
            }
        }
        let endpoints = service.endpoints(&app);
        let mut after = endpoints.update(id, None, apply).await?;
        if uid != old_uid {
            let renamed = |_| EndpointEntry { uid: uid.clone() };
            entries.change(id, &actor, now, renamed).await?;
        }
        // The settings alone do not enable one that the engine has disabled.
        let is_disabled = matches!(after.state, EndpointState::Disabled(_));
        let is_switched = match self.is_disabled {
            Some(true) if !is_disabled => endpoints.disable(id).await?,
            Some(false) if is_disabled => endpoints.enable(id).await?,
            _ => false,
        };
        let is_paused = match self.is_paused {
            Some(true) => endpoints.pause(id).await?,
            Some(false) if !will_be_disabled => endpoints.resume(id).await?,
            _ => false,
        };
        if (is_switched || is_paused)
            && let Some(found) = endpoints.get(id).await?
        {
            after = found;
        }
        log(service, &app, &actor, (Some(&before), Some(&after))).await?;
        Ok(EndpointOut::new(&after, uid))
    }
}

/// Deletes an endpoint.
#[utoipa::path(
    delete,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}",
    operation_id = "v1.endpoint.delete", tag = "Endpoint", responses((status = 204)),
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
) -> Result<StatusCode, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ChangeEndpoints).await?;
    delete_found(&service, &caller, &found).await
}

pub(crate) async fn delete_found(
    service: &Service,
    caller: &Caller,
    found: &AppEndpoint,
) -> Result<StatusCode, ApiError> {
    let actor = caller.actor();
    service.endpoints(&found.app).unregister(found.id().as_str()).await?;
    log(service, &found.app, &actor, (Some(&found.registration), None)).await?;
    let entries = service.admin().endpoints(&found.app.tenant);
    entries.delete(found.id().as_str(), &actor, Service::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Writes a change into the audit log, and tells operational endpoints.
pub(crate) async fn log(
    service: &Service,
    app: &App,
    actor: &Actor,
    (before, after): (Option<&Registration>, Option<&Registration>),
) -> Result<(), ApiError> {
    let id = before.or(after).map(|registration| registration.id.to_string());
    let state = |registration: Option<&Registration>| {
        let shown = registration.map(|found| serde_json::to_value(found.view())).transpose();
        shown.map(|shown| shown.map(without_query))
    };
    let states = state(before).and_then(|before| Ok((before, state(after)?)));
    let states: (Option<Value>, Option<Value>) =
        states.map_err(|error| ApiError::from(AdminError::from(error)))?;
    let thing = ("endpoint", app.tenant.as_str(), id.as_deref().unwrap_or_default());
    service.admin().log(actor, thing, states, Service::now()).await?;
    service.tell_change(&app.tenant, (before, after)).await;
    Ok(())
}

/// Cuts the query off the URL of an endpoint: it may hold a token.
fn without_query(mut shown: Value) -> Value {
    if let Some(url) = shown.get_mut("url")
        && let Some((place, _)) = url.as_str().and_then(|text| text.split_once('?'))
    {
        *url = Value::String(format!("{place}?..."));
    }
    shown
}
