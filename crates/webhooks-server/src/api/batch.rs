//! Many messages in one request, and in one commit.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use webhooks_admin::Action;
use webhooks_dispatch::{Publication, PublishStatus};

use super::cloud_event::{CloudEvent, Mode};
use super::message::MessageIn;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Object, Path, parse, read_body};
use crate::idempotent::RequestNumber;
use crate::service::Service;
use crate::trace::RequestTrace;

/// The most messages of a request.
const MAX_MESSAGES: usize = 1_000;

#[derive(Serialize, ToSchema)]
pub(crate) struct BatchOut {
    /// The outcomes: one per message, in the same order.
    data: Vec<BatchItem>,
}

#[derive(Serialize, ToSchema)]
struct BatchItem {
    /// The id of the message.
    id: String,
    /// The outcome: `created`, `duplicate` (it is there with the same content), or `conflict` (its eventId has
    /// other content).
    status: &'static str,
}

/// Publishes messages: an array of them or of CloudEvents, or one per line (`application/x-ndjson`). If one is not valid, none is
/// published.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/msg/batch",
    operation_id = "v1.message.create-batch", tag = "Message",
    request_body(content(
        (Vec<MessageIn> = "application/json"),
        (Vec<Object> = "application/cloudevents-batch+json"),
        (String = "application/x-ndjson"),
    )),
    responses((status = 202, body = BatchOut), (status = 409), (status = 413), (status = 429)),
)]
pub(crate) async fn create(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    request_number: RequestNumber,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    let app = service.app(&caller, &app, Action::Publish).await?;
    let is_events = Mode::of(request.headers()) == Some(Mode::Batch);
    let is_lines = has_lines(request.headers());
    let mut trace = RequestTrace::read(&service, request.headers());
    let body = read_body(request.into_body(), service.settings().max_request).await?;
    let messages: Vec<Object<MessageIn>> = if is_events {
        CloudEvent::batch(&body)?.into_iter().map(|event| Object(event.into())).collect()
    } else if is_lines {
        let lines = body.split(|byte| *byte == b'\n');
        let lines = lines.map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        // One more than allowed shows that there are too many.
        let lines = lines.take(MAX_MESSAGES + 1).enumerate();
        let read = |(number, line)| parse(line).map_err(|error| error.in_message(number));
        lines.map(read).collect::<Result<_, _>>()?
    } else {
        parse(&body)?
    };
    if messages.len() > MAX_MESSAGES {
        return Err(ApiError::field(["body"], "there are more than 1000 messages", "value_error"));
    }
    service.pass_all(&app, messages.len())?;
    let mut publications: Vec<Publication> = Vec::with_capacity(messages.len());
    for (number, Object(message)) in messages.iter().enumerate() {
        let event = message.event().map_err(|error| error.in_message(number))?;
        service.check_payload_in(&event, Some(number)).await?;
        let event = message.event_of(event, &app, request_number.of_part(number));
        let event = event.map_err(|error| error.in_message(number))?;
        publications.push(trace.with(message.publication(&event)));
    }
    let ids: Vec<_> = publications.iter().map(Publication::id).collect();
    let reserved = service.reserve(&app.tenant, &ids).await?;
    let published = service.engine().publish_all(publications).await;
    service.note_publish(published.as_ref().err());
    let published = published?;
    trace.accepted(&app.tenant, published.len(), None);
    reserved.accept(&published.iter().flatten().collect::<Vec<_>>());
    let ends = messages.iter().zip(&published).filter_map(|(Object(message), published)| {
        message.content_end(&app, &published.as_ref().ok()?.event)
    });
    service.end_content(ends).await?;
    let data = published.into_iter().map(|outcome| match outcome {
        Ok(published) => {
            let is_new = published.status == PublishStatus::Created;
            let status = if is_new { "created" } else { "duplicate" };
            BatchItem { id: published.event.to_string(), status }
        }
        Err(conflict) => BatchItem { id: conflict.event.to_string(), status: "conflict" },
    });
    Ok((StatusCode::ACCEPTED, Json(BatchOut { data: data.collect() })))
}

fn has_lines(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value: &HeaderValue| value.to_str().ok());
    media.is_some_and(|media| media.trim_start().starts_with("application/x-ndjson"))
}
