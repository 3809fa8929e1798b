//! Event types from OpenAPI documents, and back.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use webhooks_admin::{
    Action, AdminError, Entry, EventTypeInfo, IdKind, Resource as _, SchemaEnforcement,
};
use webhooks_core::Timestamp;

use super::event_type::sees;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::event_type_document::{Described, Fault, read, write};
use crate::extract::Body;
use crate::schema::{Enforcement, EventTypeName, Name, Schemas, TaskStatus, Time};
use crate::service::Service;

/// The most event types that one import changes, those that it archives included.
const MAX_CHANGES: usize = 2_000;

/// The most bytes of schemas that one export has.
const MAX_EXPORT: usize = 8 * 1024 * 1024;

/// How often an import is tried when event types are changed at the same time.
const TRIES: usize = 8;

/// The event types that one read brings.
const STEP: usize = 250;

/// An import: `spec` or `specRaw`.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImportIn {
    /// Whether the answer only tells what would be changed; `false` by default.
    #[serde(default)]
    dry_run: bool,
    /// Whether event types that the document does not have are archived; `false` by default.
    #[serde(default)]
    replace_all: bool,
    /// The OpenAPI document. Give this or `specRaw`.
    #[schema(value_type = Option<Object>)]
    spec: Option<Map<String, Value>>,
    /// The OpenAPI document as a text of YAML or JSON, of 2 MiB at most.
    #[schema(max_length = 2_097_152)]
    spec_raw: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ImportOut {
    /// The event types that the import concerns.
    data: ImportData,
}

#[derive(Serialize, ToSchema)]
struct ImportData {
    /// The names of event types that were changed, made or archived.
    #[schema(value_type = Vec<EventTypeName>)]
    modified: Vec<String>,
    /// The event types as they would be after the import; present only in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    to_modify: Option<Vec<PlannedOut>>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PlannedOut {
    /// The name.
    #[schema(value_type = EventTypeName)]
    name: String,
    /// The description for people.
    description: String,
    /// Whether it would be left out of lists.
    archived: bool,
    /// Whether it should not be used any more, as a note.
    deprecated: bool,
    /// JSON Schemas of the payload by version; absent if there are none.
    #[schema(value_type = Option<Schemas>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    schemas: Option<BTreeMap<String, Value>>,
    /// The feature flag that a session needs to see it; absent if all see it.
    #[schema(value_type = Option<Name>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    feature_flag: Option<String>,
    /// The name of the group in which people see it; absent if it is in none.
    #[schema(value_type = Option<Name>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    group_name: Option<String>,
    /// The treatment of a message that does not match the newest schema.
    #[schema(value_type = Enforcement)]
    schema_enforcement: SchemaEnforcement,
}

/// An export, in the form of a task that has finished.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportOut {
    /// An id like that of a task. There is no such task to ask for.
    id: String,
    /// The state: always `finished`.
    #[schema(value_type = TaskStatus)]
    status: &'static str,
    /// The kind of the task.
    task: &'static str,
    /// The time of the export.
    #[schema(value_type = Time)]
    updated_at: Timestamp,
    /// The result.
    data: ExportData,
}

#[derive(Serialize, ToSchema)]
struct ExportData {
    /// The OpenAPI document, with the event types as its webhooks.
    #[schema(value_type = Object)]
    spec: Value,
}

/// A change of an event type: its name, the entry before and the value after.
type Planned = (String, Option<Entry<EventTypeInfo>>, EventTypeInfo);

impl PlannedOut {
    fn new((name, _, info): Planned) -> Self {
        let EventTypeInfo { description, archived, deprecated, schemas, .. } = info;
        let EventTypeInfo { feature_flag, group_name, schema_enforcement, .. } = info;
        Self {
            name,
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

/// Makes event types of the webhooks of an OpenAPI document, all of them or none.
#[utoipa::path(
    post,
    path = "/api/v1/event-type/import/openapi",
    operation_id = "v1.event-type.import-openapi", tag = "Event Type", request_body = ImportIn,
    responses((status = 200, body = ImportOut)),
)]
pub(crate) async fn import(
    State(service): State<Service>,
    caller: Caller,
    Body(input): Body<ImportIn>,
) -> Result<Json<ImportOut>, ApiError> {
    caller.check(Action::ChangeEventTypes, None)?;
    let ImportIn { dry_run, replace_all, spec, spec_raw } = input;
    let field = if spec.is_some() { "spec" } else { "specRaw" };
    // A large document takes a while.
    let described = tokio::task::spawn_blocking(move || describe(field, spec, spec_raw));
    let described = described.await.map_err(|_panic| ApiError::unavailable())??;
    let mut tries = 0;
    loop {
        let now = Service::now();
        let planned = plan(&service, field, &described, replace_all, now).await?;
        if dry_run {
            let to_modify = Some(planned.into_iter().map(PlannedOut::new).collect());
            return Ok(Json(ImportOut { data: ImportData { modified: Vec::new(), to_modify } }));
        }
        let modified = planned.iter().map(|(name, ..)| name.clone()).collect();
        tries += 1;
        match service.admin().event_types().put_all(planned, &caller.actor(), now).await {
            Err(AdminError::Changed) if tries < TRIES => {}
            written => {
                service.schemas().forget();
                written?;
                return Ok(Json(ImportOut { data: ImportData { modified, to_modify: None } }));
            }
        }
    }
}

/// Reads the event types of a document.
fn describe(
    field: &str,
    spec: Option<Map<String, Value>>,
    spec_raw: Option<String>,
) -> Result<Vec<Described>, ApiError> {
    let document = match (spec, spec_raw) {
        (Some(spec), None) => Value::Object(spec),
        // JSON is YAML, too.
        (None, Some(text)) => serde_saphyr::from_str(&text).map_err(|error| {
            let at =
                error.location().map_or_else(String::new, |at| format!(" at line {}", at.line()));
            ApiError::value(field, format!("it is not YAML or JSON{at}, or it is too large"))
        })?,
        _ => return Err(ApiError::bad_request("Give spec or specRaw, and not both.")),
    };
    let described = read(&document).map_err(|Fault { place, reason }| {
        let loc = ["body".to_owned(), field.to_owned()].into_iter().chain(place);
        ApiError::field(loc, reason, "value_error")
    })?;
    let mut names = BTreeSet::new();
    for event_type in &described {
        let name = &*event_type.name;
        let fault = |reason: &str| {
            ApiError::field(["body", field, "webhooks", name], reason, "value_error")
        };
        EventTypeInfo::check_name(name).map_err(|error| fault(&error.reason))?;
        if !names.insert(name) {
            return Err(fault("it is there twice"));
        }
    }
    Ok(described)
}

/// Returns the changes that an import makes now.
async fn plan(
    service: &Service,
    field: &str,
    described: &[Described],
    replaces_all: bool,
    now: Timestamp,
) -> Result<Vec<Planned>, ApiError> {
    let event_types = service.admin().event_types();
    let mut planned = Vec::new();
    for described in described {
        let before = event_types.look_up(&described.name, now).await?;
        let after = described.onto(before.as_ref().map(|before| &before.value));
        after.check().map_err(|error| {
            let loc = ["body", field, "webhooks", &described.name, error.field];
            ApiError::field(loc, error.reason, "value_error")
        })?;
        if before.as_ref().is_none_or(|before| before.value != after) {
            planned.push((described.name.clone(), before, after));
        }
    }
    if replaces_all {
        let kept: BTreeSet<&str> = described.iter().map(|described| &*described.name).collect();
        for_each(service, now, |entry| {
            if !entry.value.archived && !kept.contains(&*entry.id) {
                let after = EventTypeInfo { archived: true, ..entry.value.clone() };
                planned.push((entry.id.clone(), Some(entry), after));
            }
            if planned.len() > MAX_CHANGES {
                return Err(ApiError::conflict("It would change more than 2000 event types."));
            }
            Ok(())
        })
        .await?;
    }
    Ok(planned)
}

/// Calls `visit` with each event type, by name.
pub(super) async fn for_each(
    service: &Service,
    now: Timestamp,
    mut visit: impl FnMut(Entry<EventTypeInfo>) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut walk = service.admin().event_types().walk(STEP);
    while let Some(page) = walk.next(now).await? {
        page.into_iter().try_for_each(&mut visit)?;
    }
    Ok(())
}

/// Returns the event types that are not archived as an OpenAPI document, which can be imported again.
///
/// The answer has the form of a task that has finished. There is no such task to ask for later.
#[utoipa::path(
    post,
    path = "/api/v1/event-type/export/openapi",
    operation_id = "v1.event-type.export-openapi", tag = "Event Type",
    responses((status = 202, body = ExportOut)),
)]
pub(crate) async fn export(
    State(service): State<Service>,
    caller: Caller,
) -> Result<impl IntoResponse, ApiError> {
    caller.check(Action::ReadEventTypes, None)?;
    let (mut found, mut bytes, now) = (Vec::new(), 0, Service::now());
    for_each(&service, now, |entry| {
        bytes += entry.value.schemas_len();
        if bytes > MAX_EXPORT {
            let detail = "The schemas have more than 8 MiB; read the event types by name.";
            return Err(ApiError::conflict(detail));
        }
        if !entry.value.archived && sees(&caller, &entry.value) {
            found.push(entry);
        }
        Ok(())
    })
    .await?;
    let data = ExportData { spec: write(&found) };
    let (id, status) = (IdKind::Task.generate(), "finished");
    // Client libraries read the words that they know alone.
    let out = ExportOut { id, status, task: "sdk.generate", updated_at: now, data };
    Ok((StatusCode::ACCEPTED, Json(out)))
}
