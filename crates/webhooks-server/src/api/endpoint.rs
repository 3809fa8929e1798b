//! Endpoints.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use webhooks_admin::{
    Action, Actor, AdminError, Collection, EndpointChange, EndpointEntry, Entry, IdKind,
    Resource as _,
};
use webhooks_registry::{
    Endpoint, EndpointError, EndpointQuery, EndpointState, EndpointStoreError,
};

use super::endpoint_in::{EndpointIn, EndpointOut, EndpointPatch, check_paused};
use crate::auth::Caller;
use crate::endpoint_log::{begin, log, noted, take_back};
use crate::error::ApiError;
use crate::extract::{Body, Params, Patch, Path};
use crate::find::{App, AppEndpoint};
use crate::idempotent::RequestNumber;
use crate::left_changes::LONGEST_REQUEST;
use crate::paging::{List, list_query};
use crate::parameters::{Order, Page};
use crate::service::Service;

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
    number: RequestNumber,
    Body(input): Body<EndpointIn>,
) -> Result<impl IntoResponse, ApiError> {
    let app = service.app(&caller, &app, Action::ChangeEndpoints).await?;
    Ok((StatusCode::CREATED, Json(add(&service, &caller, &app, &input, number).await?)))
}

pub(crate) async fn add(
    service: &Service,
    caller: &Caller,
    app: &App,
    input: &EndpointIn,
    number: RequestNumber,
) -> Result<EndpointOut, ApiError> {
    input.check()?;
    let endpoint = input.endpoint()?;
    let id = number.id(IdKind::Endpoint);
    let (actor, is_keyed) = (caller.actor(), number.number().is_some());
    let new = New { service, app, id: &id, uid: input.uid.as_ref(), actor: &actor, is_keyed };
    // A process that was killed may have registered it.
    let is_there = number.is_again() && service.endpoints(app).get(&id).await?.is_some();
    let change = if is_there {
        // That process noted the change, which is found.
        None
    } else {
        check_number(service, app).await?;
        new.make(endpoint).await?
    };
    // Its application may have been deleted meanwhile, which did not see it.
    if let Some(entry) = &app.entry
        && let Err(error) = service.admin().applications().get(&entry.id, Service::now()).await
    {
        // While its application is there, an endpoint that another run may have made stays.
        if !is_keyed || matches!(error, AdminError::NotFound(_)) {
            new.forget().await?;
            if let Some(change) = &change {
                take_back(service, change).await;
            }
        }
        return Err(error.into());
    }
    if input.delivery.paused == Some(true) {
        service.endpoints(app).pause(&id).await?;
    }
    let registration = service.endpoints(app).get(&id).await?;
    let registration = registration.ok_or_else(|| ApiError::unknown("endpoint"))?;
    let is_own = match &change {
        Some(change) => log(service, change, (None, Some(&registration))).await?,
        None => false,
    };
    // Another process that took this request, or an earlier run of it, for dead may have deleted the entry.
    if !is_own || is_keyed {
        new.restore().await?;
    }
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

/// An endpoint that is to be made.
struct New<'r> {
    service: &'r Service,
    app: &'r App,
    id: &'r str,
    uid: Option<&'r String>,
    actor: &'r Actor,
    /// Whether other runs of the request make it, too, under the same id.
    is_keyed: bool,
}

impl New<'_> {
    /// Makes it, and returns the note of that; `None` if another run of the request has made it.
    async fn make(&self, endpoint: Endpoint) -> Result<Option<Entry<EndpointChange>>, ApiError> {
        let endpoints = self.service.endpoints(self.app);
        let change = self.begin().await?;
        // The entry first: it keeps the uid for this endpoint.
        self.reserve_for(&change).await?;
        let error = match endpoints.create(self.id, endpoint).await {
            Ok(()) => return Ok(Some(change)),
            Err(error) => error,
        };
        let is_unclear = matches!(error, EndpointStoreError::Unavailable { .. });
        if self.is_keyed && is_unclear {
            // The next run goes on, or another process finds the note.
            return Err(error.into());
        }
        if self.is_keyed && endpoints.get(self.id).await?.is_some() {
            take_back(self.service, &change).await;
            return Ok(None);
        }
        self.forget().await?;
        take_back(self.service, &change).await;
        Err(error.into())
    }

    async fn begin(&self) -> Result<Entry<EndpointChange>, ApiError> {
        begin(self.service, self.app, self.actor.clone(), (self.id, None)).await
    }

    /// Unregisters it, if it is registered, and deletes its entry after it.
    async fn forget(&self) -> Result<(), ApiError> {
        let endpoints = self.service.endpoints(self.app);
        if endpoints.get(self.id).await?.is_some() {
            endpoints.unregister(self.id).await?;
        }
        let entries = self.service.admin().endpoints(&self.app.tenant);
        Ok(entries.delete_any(self.id, self.actor, Service::now()).await?)
    }

    /// Adds the entry, or takes the note back. The note stays as long as the entry may be there: another
    /// process finds both.
    async fn reserve_for(&self, change: &Entry<EndpointChange>) -> Result<(), ApiError> {
        let reserved = self.reserve().await;
        if reserved.is_err() {
            let entries = self.service.admin().endpoints(&self.app.tenant);
            if let Ok(None) = entries.look_up(self.id, Service::now()).await {
                take_back(self.service, change).await;
            }
        }
        reserved
    }

    /// Adds the entry. One of the same uid that a request left behind, which did not end, gives way. A young
    /// one may belong to a request that goes on.
    async fn reserve(&self) -> Result<(), ApiError> {
        let Self { service, app, id, actor, .. } = *self;
        let (entries, now) = (service.admin().endpoints(&app.tenant), Service::now());
        let entry = EndpointEntry { uid: self.uid.cloned() };
        let added = entries.add(id.to_owned(), entry.clone(), actor, now).await;
        if matches!(added, Err(AdminError::Exists { .. }))
            && entries.look_up(id, now).await?.is_some()
        {
            // Another run of the request added it.
            return Ok(());
        }
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

    /// Adds the entry again if it is gone, and writes the row that is missing then. If the uid is another's by
    /// now, the endpoint is unregistered.
    async fn restore(&self) -> Result<(), ApiError> {
        let entries = self.service.admin().endpoints(&self.app.tenant);
        if entries.look_up(self.id, Service::now()).await?.is_some() {
            return Ok(());
        }
        // Somebody may have deleted it at once.
        let found = self.service.endpoints(self.app).get(self.id).await?;
        let registration = found.ok_or_else(|| ApiError::unknown("endpoint"))?;
        let change = self.begin().await?;
        if let Err(error) = self.reserve().await {
            self.forget().await?;
            take_back(self.service, &change).await;
            return Err(error);
        }
        log(self.service, &change, (None, Some(&registration))).await?;
        Ok(())
    }
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
        return Ok((
            StatusCode::CREATED,
            Json(add(service, caller, &app, update, RequestNumber::default()).await?),
        ));
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
        let begun = begin(service, &app, actor.clone(), (id, Some(&before))).await?;
        let updated = endpoints.update(id, None, apply).await;
        let mut after = noted(service, &begun, updated).await?;
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
        log(service, &begun, (Some(&before), Some(&after))).await?;
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
    let (actor, id) = (caller.actor(), found.id().as_str());
    let change = begin(service, &found.app, actor.clone(), (id, Some(&found.registration))).await?;
    let unregistered = service.endpoints(&found.app).unregister(id).await;
    noted(service, &change, unregistered).await?;
    log(service, &change, (Some(&found.registration), None)).await?;
    let entries = service.admin().endpoints(&found.app.tenant);
    // Another process may have found the change, if this one was very slow.
    entries.delete_any(id, &actor, Service::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}
