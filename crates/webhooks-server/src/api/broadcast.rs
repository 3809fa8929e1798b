//! One message for each application, in the background.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use webhooks_admin::{Action, ServiceWork};

use super::message::MessageIn;
use super::task::TaskOut;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Body;
use crate::idempotent::RequestNumber;
use crate::service::Service;

/// Publishes a message to each application that there is, in the background.
///
/// It goes on after a restart, and no application gets the message twice. Rates and daily numbers of messages do
/// not count here.
#[utoipa::path(
    post,
    path = "/api/v1/msg/broadcast",
    operation_id = "v1.message.broadcast", tag = "Message", request_body = MessageIn,
    responses((status = 202, body = TaskOut)),
)]
pub(crate) async fn create(
    State(service): State<Service>,
    caller: Caller,
    number: RequestNumber,
    Body(input): Body<MessageIn>,
) -> Result<impl IntoResponse, ApiError> {
    caller.check(Action::Publish, None)?;
    let event = input.event()?;
    service.engine().check(input.scheduled(&event)).await?;
    service.check_payload(&event).await?;
    let work = ServiceWork::Broadcast(Box::new(input.broadcast()));
    let job = service.start_job(work, None, &caller.actor(), number).await?;
    Ok((StatusCode::ACCEPTED, Json(TaskOut::from(&job))))
}
