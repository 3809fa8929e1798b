//! Test messages: one attempt to one endpoint, whose result the answer has.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use webhooks_admin::Action;
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::history::{AttemptRecord, HistoryStore as _, Query};

use super::attempt_out::{AttemptOut, AttemptShower};
use super::endpoint::EndpointPath;
use super::message::MessageIn;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::find::AppEndpoint;
use crate::idempotent::RequestNumber;
use crate::service::Service;

/// How long the answer waits for the attempt: longer than one takes by default.
const PATIENCE: Duration = Duration::from_secs(30);

/// The time between two looks at the history.
const LOOK: Duration = Duration::from_millis(50);

/// The looks at the history for each at the reports of the workers, which tell whether the endpoint rests.
const LOOKS_PER_REPORT: u32 = 20;

/// The rest that is worth a wait: a rate limit of one attempt per second makes such pauses.
const SHORT_REST: Duration = Duration::from_secs(2);

/// Publishes a message to one endpoint, whatever it subscribes to, and answers with the first attempt.
///
/// The answer waits for it, 30 seconds at most, and not while the endpoint rests after failures. After that it
/// is an error, and the message is delivered as soon as it can be.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/msg/test-attempt",
    operation_id = "v1.message.test-attempt", tag = "Message", request_body = MessageIn,
    responses((status = 201, body = AttemptOut), (status = 429)),
)]
pub(crate) async fn send(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    number: RequestNumber,
    Body(input): Body<MessageIn>,
) -> Result<impl IntoResponse, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::Publish).await?;
    caller.check(Action::Operate, Some(&found.app.tenant))?;
    let event = input.event()?;
    if input.is_scheduled() {
        return Err(ApiError::value("deliverAt", "a test is made at once; leave it out"));
    }
    if rests(&service, &found) {
        let told =
            "The endpoint rests after failures, or because it asked for it; try again later.";
        return Err(ApiError::conflict(told));
    }
    service.check_payload(&event).await?;
    service.pass(&found.app)?;
    let event = input.event_of(event, &found.app, number.number())?;
    let publication = input.publication(&event).only([found.id().clone()]);
    let reserved = service.reserve(&found.app.tenant, &[publication.id()]).await?;
    let published = service.engine().publish(publication).await;
    service.note_publish(published.as_ref().err());
    let published = published?;
    reserved.accept(&[&published]);
    let id = published.event;
    service.end_content(input.content_end(&found.app, &id)).await?;
    let query = Query {
        tenant: Some(found.app.tenant.clone()),
        endpoint: Some(found.id().clone()),
        event: Some(id.clone()),
        limit: 1,
        ..Query::default()
    };
    let Some(made) = wait(&service, &found, query).await? else {
        let told = format!(
            "No attempt was made: the endpoint rests or was slow. The message {id} is delivered later."
        );
        return Err(ApiError::conflict(told));
    };
    let sees_content = caller.may(Action::ReadPayloads, &found.app.tenant);
    let mut shower = AttemptShower::new(&service, &found.app, sees_content);
    Ok((StatusCode::CREATED, Json(shower.show(made, None).await?)))
}

/// Waits for the attempt that a query finds; `None` if none is made soon.
async fn wait(
    service: &Service,
    found: &AppEndpoint,
    query: Query,
) -> Result<Option<AttemptRecord>, ApiError> {
    let deadline = SystemClock.monotonic() + PATIENCE;
    for look in 1_u32.. {
        let made = service.engine().history().attempts(query.clone()).await?.items.pop();
        let is_over = SystemClock.monotonic() >= deadline;
        // The reports cost more than the history.
        let rests = || look.is_multiple_of(LOOKS_PER_REPORT) && rests(service, found);
        if made.is_some() || is_over || rests() {
            return Ok(made);
        }
        SystemClock.sleep(LOOK).await;
    }
    Ok(None)
}

/// Returns whether this process makes no attempt for an endpoint for longer than [`SHORT_REST`].
fn rests(service: &Service, found: &AppEndpoint) -> bool {
    let number = found.registration.number;
    let reports = service.engine().reports();
    let mut endpoints = reports.iter().flat_map(|report| &report.endpoints);
    endpoints.any(|found| {
        found.number == number && found.rests_for.is_some_and(|rest| rest > SHORT_REST)
    })
}
