//! Example messages, for trying an endpoint.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use webhooks_admin::{Action, AdminError, EventTypeInfo, IdKind};
use webhooks_core::{Event, EventId, EventType};
use webhooks_dispatch::Publication;

use super::endpoint::EndpointPath;
use super::event_type::sees;
use super::message_out::{MessageOut, record};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::idempotent::RequestNumber;
use crate::schema::EventTypeName;
use crate::service::Service;

/// The event type that every service has for this.
const PING: &str = "svix.ping";

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExampleIn {
    /// The event type whose example is sent. `svix.ping` needs none; others need `examples` in their newest
    /// schema.
    #[schema(value_type = EventTypeName)]
    event_type: String,
}

/// Publishes an example of an event type to one endpoint, whatever it subscribes to.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/send-example",
    operation_id = "v1.endpoint.send-example", tag = "Endpoint", request_body = ExampleIn,
    responses((status = 200, body = MessageOut)),
)]
pub(crate) async fn send(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    number: RequestNumber,
    Body(input): Body<ExampleIn>,
) -> Result<impl IntoResponse, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ChangeEndpoints).await?;
    caller.check(Action::Operate, Some(&found.app.tenant))?;
    let event_type =
        EventType::new(&input.event_type).map_err(|error| ApiError::value("eventType", error))?;
    let payload = if input.event_type == PING {
        json!({ "success": true })
    } else {
        match service.admin().event_types().get(&input.event_type, Service::now()).await {
            Ok(found) if !sees(&caller, &found.value) => {
                return Err(ApiError::unknown("event type"));
            }
            Ok(found) => example(&found.value).ok_or_else(|| {
                ApiError::value("eventType", "its schema has no example; add `examples` to it")
            })?,
            Err(AdminError::NotFound(_)) => return Err(ApiError::unknown("event type")),
            Err(error) => return Err(error.into()),
        }
    };
    let id = EventId::new(&number.id(IdKind::Event));
    let id = id.map_err(|_unreadable| ApiError::unavailable())?;
    let event = Event::new(event_type, payload)
        .map_err(|error| ApiError::value("eventType", error))?
        .id(id)
        .tenant(found.app.tenant.clone());
    let publication = Publication::new(&event).only([found.id().clone()]);
    service.engine().publish(publication).await?;
    let shown = record(&service, &found.app, &event.id).await?;
    Ok((StatusCode::OK, Json(MessageOut::new(&shown, true))))
}

/// Returns the first example of the newest schema (JSON Schema 2020-12, Validation §9.5).
fn example(info: &EventTypeInfo) -> Option<Value> {
    let schema = info.newest_schema()?;
    let found = schema.get("examples").and_then(|examples| examples.get(0));
    found.or_else(|| schema.get("example")).filter(|example| example.is_object()).cloned()
}
