//! Event types.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};
use webhooks_admin::{Action, AdminError, Entry, EventTypeInfo, SchemaEnforcement};
use webhooks_core::Timestamp;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Params, Patch, Path};
use crate::idempotent::RequestNumber;
use crate::paging::{BACK, List, list_query};
use crate::parameters::{EventTypeFilter, Expunge, Order, Page};
use crate::schema::{Enforcement, EventTypeName, Name, Schemas, Time};
use crate::service::Service;

/// An event type, as requests bring it.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventTypeIn {
    // Read when one is made; the path has it when one is replaced.
    /// The name: parts of letters, digits, `_` and `-` that are joined by dots, such as `user.created`. A
    /// request that replaces it ignores this field.
    #[schema(value_type = EventTypeName, required)]
    pub(crate) name: Option<String>,
    /// The description for people, of 16 KiB at most.
    #[schema(max_length = 16384)]
    description: String,
    /// Whether it is left out of lists; `false` by default. Messages may still have it.
    #[serde(default)]
    archived: bool,
    /// Whether it should not be used any more, as a note; `false` by default.
    #[serde(default)]
    deprecated: bool,
    /// JSON Schemas of the payload by version, such as `{"1": {…}}`, of 512 KiB together at most. The largest
    /// number is the newest.
    #[schema(value_type = Option<Schemas>)]
    schemas: Option<BTreeMap<String, Value>>,
    /// The feature flag that a session needs to see it; all see it if absent.
    #[schema(value_type = Option<Name>)]
    feature_flag: Option<String>,
    /// The name of the group in which people see it; none if absent.
    #[schema(value_type = Option<Name>)]
    group_name: Option<String>,
    /// The treatment of a message that does not match the newest schema; `off` by default.
    #[serde(default)]
    #[schema(value_type = Enforcement)]
    schema_enforcement: SchemaEnforcement,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventTypePatch {
    /// The new description for people, of 16 KiB at most.
    #[schema(max_length = 16384)]
    description: Option<String>,
    /// Whether it is left out of lists.
    archived: Option<bool>,
    /// Whether it should not be used any more, as a note.
    deprecated: Option<bool>,
    /// The new JSON Schemas by version, in place of all old ones; `null` removes all.
    #[serde(default)]
    #[schema(value_type = Option<Schemas>)]
    schemas: Patch<BTreeMap<String, Value>>,
    /// The feature flag that a session needs to see it; `null` lets all see it.
    #[serde(default)]
    #[schema(value_type = Option<Name>)]
    feature_flag: Patch<String>,
    /// The name of the group in which people see it; `null` for none.
    #[serde(default)]
    #[schema(value_type = Option<Name>)]
    group_name: Patch<String>,
    /// The treatment of a message that does not match the newest schema.
    #[schema(value_type = Option<Enforcement>)]
    schema_enforcement: Option<SchemaEnforcement>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventTypeOut {
    /// The name, such as `user.created`.
    #[schema(value_type = EventTypeName)]
    name: String,
    /// The description for people.
    description: String,
    /// Whether it is left out of lists.
    archived: bool,
    /// Whether it should not be used any more, as a note.
    deprecated: bool,
    /// JSON Schemas of the payload by version; absent if there are none or a list does not show them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Schemas>)]
    schemas: Option<BTreeMap<String, Value>>,
    /// The feature flag that a session needs to see it; absent if all see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Name>)]
    feature_flag: Option<String>,
    /// The name of the group in which people see it; absent if it is in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Name>)]
    group_name: Option<String>,
    /// The treatment of a message that does not match the newest schema.
    #[schema(value_type = Enforcement)]
    schema_enforcement: SchemaEnforcement,
    /// The time at which it was made.
    #[schema(value_type = Time)]
    created_at: Timestamp,
    /// The time of its last change.
    #[schema(value_type = Time)]
    updated_at: Timestamp,
}

/// The fields of [`EventTypeIn`] without the name, which the path has.
pub(crate) enum EventTypeUpdate {}

impl utoipa::PartialSchema for EventTypeUpdate {
    fn schema() -> RefOr<Schema> {
        let mut schema = <EventTypeIn as utoipa::PartialSchema>::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.properties.remove("name");
            object.required.retain(|name| name != "name");
        }
        schema
    }
}

impl ToSchema for EventTypeUpdate {}

impl From<Entry<EventTypeInfo>> for EventTypeOut {
    fn from(entry: Entry<EventTypeInfo>) -> Self {
        let EventTypeInfo { description, archived, deprecated, schemas, .. } = entry.value;
        let EventTypeInfo { feature_flag, group_name, schema_enforcement, .. } = entry.value;
        Self {
            name: entry.id,
            description,
            archived,
            deprecated,
            schemas,
            feature_flag,
            group_name,
            schema_enforcement,
            created_at: entry.created_at,
            updated_at: entry.updated_at,
        }
    }
}

impl From<EventTypeIn> for EventTypeInfo {
    fn from(update: EventTypeIn) -> Self {
        let EventTypeIn { description, archived, deprecated, schemas, .. } = update;
        let EventTypeIn { feature_flag, group_name, schema_enforcement, .. } = update;
        Self {
            description,
            archived,
            deprecated,
            schemas,
            feature_flag,
            group_name,
            schema_enforcement,
        }
    }
}

impl EventTypePatch {
    fn apply(&self, to: EventTypeInfo) -> EventTypeInfo {
        EventTypeInfo {
            description: self.description.clone().unwrap_or(to.description),
            archived: self.archived.unwrap_or(to.archived),
            deprecated: self.deprecated.unwrap_or(to.deprecated),
            schemas: self.schemas.apply(to.schemas),
            feature_flag: self.feature_flag.apply(to.feature_flag),
            group_name: self.group_name.apply(to.group_name),
            schema_enforcement: self.schema_enforcement.unwrap_or(to.schema_enforcement),
        }
    }
}

/// Lists the event types by name.
#[utoipa::path(
    get,
    path = "/api/v1/event-type",
    operation_id = "v1.event-type.list", tag = "Event Type", params(Page, Order, EventTypeFilter),
    responses((status = 200, body = List<EventTypeOut>)),
)]
pub(crate) async fn list(
    State(service): State<Service>,
    caller: Caller,
    params: Params,
) -> Result<Json<List<EventTypeOut>>, ApiError> {
    caller.check(Action::ReadEventTypes, None)?;
    let has_archived = params.flag("include_archived")?.unwrap_or_default();
    let has_schemas = params.flag("with_content")?.unwrap_or_default();
    let mut query = list_query(&params, false)?;
    let wanted = query.limit;
    let (event_types, now) = (service.admin().event_types(), Service::now());
    // Archived and hidden ones are passed over; there are few event types.
    let mut found = Vec::new();
    let mut page = event_types.list(query.clone(), now).await?;
    let previous = page.previous.take();
    loop {
        let kept = page
            .items
            .drain(..)
            .filter(|entry| (has_archived || !entry.value.archived) && sees(&caller, &entry.value));
        found.extend(kept);
        if found.len() >= wanted || page.is_last || page.next.is_none() || query.is_back() {
            break;
        }
        query.iterator = page.next.take();
        query.limit = wanted - found.len();
        page = event_types.list(query.clone(), now).await?;
    }
    // No iterator names an event type that is hidden.
    let first = found.first().filter(|_| previous.is_some());
    page.previous = first.map(|first| format!("{BACK}{}", first.id));
    page.next = found.last().map(|last| last.id.clone());
    page.items = found;
    Ok(Json(List::new(page, |entry| {
        let out = EventTypeOut::from(entry);
        EventTypeOut { schemas: out.schemas.filter(|_| has_schemas), ..out }
    })))
}

/// Returns whether a caller sees an event type, by its feature flag.
pub(crate) fn sees(caller: &Caller, info: &EventTypeInfo) -> bool {
    caller.grant().sees_feature(info.feature_flag.as_deref())
}

/// Makes an event type.
#[utoipa::path(
    post,
    path = "/api/v1/event-type",
    operation_id = "v1.event-type.create", tag = "Event Type", request_body = EventTypeIn,
    responses((status = 201, body = EventTypeOut)),
)]
pub(crate) async fn create(
    State(service): State<Service>,
    caller: Caller,
    number: RequestNumber,
    Body(input): Body<EventTypeIn>,
) -> Result<impl IntoResponse, ApiError> {
    caller.check(Action::ChangeEventTypes, None)?;
    let name = input.name.clone();
    let name = name.ok_or_else(|| ApiError::value("name", "it is missing"))?;
    EventTypeInfo::check_name(&name)?;
    let (actor, now) = (caller.actor(), Service::now());
    let event_types = service.admin().event_types();
    let entry = match event_types.add(name.clone(), input.clone().into(), &actor, now).await {
        // One that was archived is made anew.
        Err(AdminError::Exists { .. })
            if event_types.get(&name, now).await.is_ok_and(|found| found.value.archived) =>
        {
            let anew = |_| EventTypeInfo::from(input.clone());
            event_types.change(&name, &actor, now, anew).await?
        }
        Err(taken @ AdminError::Exists { .. }) if number.is_again() => {
            let found = event_types.get(&name, now).await?;
            let is_made = found.value == EventTypeInfo::from(input);
            is_made.then_some(found).ok_or(taken)?
        }
        added => added?,
    };
    service.schemas().forget();
    Ok((StatusCode::CREATED, Json(EventTypeOut::from(entry))))
}

/// Returns an event type.
#[utoipa::path(
    get,
    path = "/api/v1/event-type/{event_type_name}",
    operation_id = "v1.event-type.get", tag = "Event Type",
    responses((status = 200, body = EventTypeOut)),
)]
pub(crate) async fn read(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<EventTypeOut>, ApiError> {
    caller.check(Action::ReadEventTypes, None)?;
    let found = service.admin().event_types().get(&name, Service::now()).await?;
    if !sees(&caller, &found.value) {
        return Err(ApiError::unknown("event type"));
    }
    Ok(Json(found.into()))
}

/// Replaces an event type, or makes it.
#[utoipa::path(
    put,
    path = "/api/v1/event-type/{event_type_name}",
    operation_id = "v1.event-type.update", tag = "Event Type", request_body = EventTypeUpdate,
    responses((status = 200, body = EventTypeOut), (status = 201, body = EventTypeOut)),
)]
pub(crate) async fn replace(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
    Body(update): Body<EventTypeIn>,
) -> Result<impl IntoResponse, ApiError> {
    caller.check(Action::ChangeEventTypes, None)?;
    EventTypeInfo::check_name(&name)?;
    let (actor, now) = (caller.actor(), Service::now());
    let event_types = service.admin().event_types();
    let replaced = |_| EventTypeInfo::from(update.clone());
    let (status, entry) = match event_types.change(&name, &actor, now, replaced).await {
        Err(AdminError::NotFound(_)) => {
            (StatusCode::CREATED, event_types.add(name, update.into(), &actor, now).await?)
        }
        changed => (StatusCode::OK, changed?),
    };
    service.schemas().forget();
    Ok((status, Json(EventTypeOut::from(entry))))
}

/// Changes the fields of an event type that the body has.
#[utoipa::path(
    patch,
    path = "/api/v1/event-type/{event_type_name}",
    operation_id = "v1.event-type.patch", tag = "Event Type", request_body = EventTypePatch,
    responses((status = 200, body = EventTypeOut)),
)]
pub(crate) async fn patch(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
    Body(patch): Body<EventTypePatch>,
) -> Result<Json<EventTypeOut>, ApiError> {
    caller.check(Action::ChangeEventTypes, None)?;
    let (actor, now) = (caller.actor(), Service::now());
    let event_types = service.admin().event_types();
    let changed = event_types.change(&name, &actor, now, |to| patch.apply(to)).await?;
    service.schemas().forget();
    Ok(Json(changed.into()))
}

/// Archives an event type or, with `expunge`, deletes it.
#[utoipa::path(
    delete,
    path = "/api/v1/event-type/{event_type_name}",
    operation_id = "v1.event-type.delete", tag = "Event Type", params(Expunge),
    responses((status = 204)),
)]
pub(crate) async fn delete(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Result<StatusCode, ApiError> {
    caller.check(Action::ChangeEventTypes, None)?;
    let (actor, now) = (caller.actor(), Service::now());
    let event_types = service.admin().event_types();
    if params.flag("expunge")?.unwrap_or_default() {
        event_types.delete(&name, &actor, now).await?;
    } else {
        let archive = |to| EventTypeInfo { archived: true, ..to };
        event_types.change(&name, &actor, now, archive).await?;
    }
    service.schemas().forget();
    Ok(StatusCode::NO_CONTENT)
}
