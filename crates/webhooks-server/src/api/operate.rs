//! The work of operators with deliveries: resend, count.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_admin::Action;
use webhooks_core::{DeliveryId, DeliveryStatus, EventId, Timestamp};
use webhooks_dispatch::Replay;
use webhooks_dispatch::history::{DeliveryRecord, HistoryStore as _, Query};
use webhooks_dispatch::monitor::{MonitorStore as _, RestReason, Sending, Statistics};
use webhooks_dispatch::store::OperationError;

use super::endpoint::EndpointPath;
use super::endpoint_health;
use super::message_out::record;
use super::status::Status;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{OptionalBody, Params, Path};
use crate::find::AppEndpoint;
use crate::parameters::Since;
use crate::schema::{Empty, RateLimitWord, StatusNumber, Time};
use crate::service::Service;

/// The most statuses that a resend names: all that there are.
const MAX_STATUSES: usize = 5;

/// The most operations of a resend whose delivery changes its status each time.
const TRIES: usize = 4;

#[derive(Deserialize, ToSchema)]
pub(crate) struct ResendIn {
    /// The statuses of which the delivery must have one; all if absent. If it has another one, nothing is sent, and
    /// the answer is 409 with the code `other_status`.
    #[schema(value_type = Option<Vec<StatusNumber>>, min_items = 1, max_items = 5)]
    statuses: Option<Vec<u8>>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct StatsOut {
    /// The deliveries that succeeded.
    success: u64,
    /// The deliveries that wait for their first attempt.
    pending: u64,
    /// The deliveries that failed and will be tried again.
    sending: u64,
    /// The deliveries whose last attempt failed.
    fail: u64,
    /// The deliveries that were cancelled.
    canceled: u64,
    /// The seconds for which the first delivery is due that should have been attempted; 0 if none is late.
    #[serde(rename = "lateSecs")]
    late_secs: u64,
    /// The time of the first failure since the last success; absent if it does not fail.
    #[serde(rename = "failingSince", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Time>)]
    failing_since: Option<Timestamp>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct RateLimitOut {
    /// The word for it: `RateLimited` if deliveries wait for the rate limit, else `Ok`.
    #[schema(value_type = RateLimitWord)]
    status: &'static str,
}

/// Delivers a message to an endpoint once more.
///
/// A retry that waits is made now, and the schedule of retries starts anew: an attempt that fails does
/// not end them. If an attempt is under way, no other one is made. A paused endpoint gets the message
/// when it is resumed. An endpoint that is held back for its failures gets one delivery at once, the one
/// that is due first; the others follow if that succeeds.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/msg/{msg_id}/endpoint/{endpoint_id}/resend",
    operation_id = "v1.message-attempt.resend", tag = "Message Attempt", request_body = Option<ResendIn>,
    responses((status = 202, body = Empty)),
)]
pub(crate) async fn resend(
    State(service): State<Service>,
    caller: Caller,
    Path((app, message, endpoint)): Path<(String, String, String)>,
    OptionalBody(input): OptionalBody<ResendIn>,
) -> Result<impl IntoResponse, ApiError> {
    let found = service.endpoint(&caller, (&app, &endpoint), Action::Operate).await?;
    let event = record(&service, &found.app, &Service::message_id(&found.app, &message)?).await?;
    let delivery = delivery(&service, &found, &event.summary.id).await?;
    match input.statuses()? {
        Some(statuses) => send_again_if(&service, &delivery, &statuses).await?,
        None => send_again(&service, delivery.id).await?,
    }
    let thing = ("message", found.app.tenant.as_str(), &*event.summary.id.to_string());
    let to = serde_json::json!({ "resentTo": found.id().as_str() });
    service.admin().log(&caller.actor(), thing, (None, Some(to)), Service::now()).await?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))))
}

/// Cancels the delivery of a message to an endpoint, unless it has ended.
///
/// An attempt that is under way may still reach the endpoint.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/msg/{msg_id}/endpoint/{endpoint_id}/cancel",
    operation_id = "v1.message-attempt.cancel", tag = "Message Attempt",
    responses((status = 204)),
)]
pub(crate) async fn cancel(
    State(service): State<Service>,
    caller: Caller,
    Path((app, message, endpoint)): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let found = service.endpoint(&caller, (&app, &endpoint), Action::Operate).await?;
    let event = record(&service, &found.app, &Service::message_id(&found.app, &message)?).await?;
    let delivery = delivery(&service, &found, &event.summary.id).await?;
    service.engine().cancel(delivery.id).await?;
    let thing = ("message", found.app.tenant.as_str(), &*event.summary.id.to_string());
    let of = serde_json::json!({ "cancelledFor": found.id().as_str() });
    service.admin().log(&caller.actor(), thing, (None, Some(of)), Service::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the delivery of a message to an endpoint.
async fn delivery(
    service: &Service,
    found: &AppEndpoint,
    event: &EventId,
) -> Result<DeliveryRecord, ApiError> {
    let query = Query {
        tenant: Some(found.app.tenant.clone()),
        endpoint: Some(found.id().clone()),
        event: Some(event.clone()),
        limit: 1,
        ..Query::default()
    };
    let delivery = service.engine().history().deliveries(query).await?.items.pop();
    delivery.ok_or_else(|| {
        ApiError::conflict(
            "The message did not go to this endpoint: it does not want its type or channel, or came \
             later.",
        )
    })
}

/// Tells whether deliveries to an endpoint wait for its rate limit.
///
/// Workers of other processes are a few seconds late.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/rate-limit-status",
    operation_id = "v1.endpoint.get-throttling-status", tag = "Endpoint",
    responses((status = 200, body = RateLimitOut)),
)]
pub(crate) async fn rate_limit(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
) -> Result<Json<RateLimitOut>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadEvents).await?;
    let is_limited = found.registration.endpoint.rate_limit.is_some() && {
        let sending = service.engine().sending(found.registration.number).await?;
        matches!(sending, Sending::Held { by: RestReason::RateLimit, .. })
    };
    let status = if is_limited { "RateLimited" } else { "Ok" };
    Ok(Json(RateLimitOut { status }))
}

/// Replays a delivery that has ended, and tries one now that waits for its retry.
async fn send_again(service: &Service, delivery: DeliveryId) -> Result<(), ApiError> {
    match service.engine().replay(Replay::Delivery(delivery)).await {
        Ok(_replayed) => return Ok(()),
        Err(OperationError::WrongStatus { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match service.engine().try_now(delivery).await {
        // Due now, or under way. To a paused endpoint it goes when the endpoint is resumed.
        Ok(_tried) => Ok(()),
        // It has ended since the replay was refused.
        Err(OperationError::WrongStatus { .. }) => {
            service.engine().replay(Replay::Delivery(delivery)).await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Sends a delivery again if it has one of these statuses.
///
/// The store looks at the status again in the transaction that changes it: it tries only a delivery that waits, so
/// one that was delivered meanwhile is refused. The one window is that of a delivery that has ended. Between the
/// read before this and the replay, which follow each other at once, another request would have to replay it, and
/// an attempt would have to end it in another status.
async fn send_again_if(
    service: &Service,
    found: &DeliveryRecord,
    statuses: &[DeliveryStatus],
) -> Result<(), ApiError> {
    let (delivery, mut status) = (found.id, found.status);
    for _try in 0..TRIES {
        if !statuses.contains(&status) {
            let detail = format!("Nothing was sent: the status of the delivery is {status}.");
            return Err(ApiError::other_status(detail));
        }
        let waits = matches!(status, DeliveryStatus::Pending | DeliveryStatus::Retrying);
        let sent = if waits {
            service.engine().try_now(delivery).await.map(drop)
        } else {
            service.engine().replay(Replay::Delivery(delivery)).await.map(drop)
        };
        match sent {
            Err(OperationError::WrongStatus { status: now, .. }) => status = now,
            sent => return sent.map_err(ApiError::from),
        }
    }
    Err(ApiError::conflict("It was changed at the same time; try again."))
}

impl ResendIn {
    /// Returns the statuses that the delivery may have; nothing if it may have any.
    fn statuses(self) -> Result<Option<Vec<DeliveryStatus>>, ApiError> {
        let Some(numbers) = self.statuses else { return Ok(None) };
        if !(1..=MAX_STATUSES).contains(&numbers.len()) {
            return Err(ApiError::value("statuses", "it does not have 1 to 5 statuses"));
        }
        let statuses: Option<Vec<_>> = numbers.into_iter().map(Status::delivery_status).collect();
        statuses.map(Some).ok_or_else(|| ApiError::value("statuses", "one of them is not 0 to 4"))
    }
}

/// Counts the deliveries of an endpoint by status.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/stats",
    operation_id = "v1.endpoint.get-stats", tag = "Endpoint", params(Since),
    responses((status = 200, body = StatsOut)),
)]
pub(crate) async fn stats(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
    params: Params,
) -> Result<Json<StatsOut>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadEvents).await?;
    let (since, until) = (params.time("since")?, params.time("until")?);
    let count =
        |since: Timestamp| service.engine().monitor().statistics(found.registration.key(), since);
    let since = count(since.unwrap_or(Timestamp::UNIX_EPOCH)).await?;
    let later = match until {
        Some(until) => count(until).await?,
        None => Statistics::default(),
    };
    let health = endpoint_health::stored(&service, &found.registration).await?;
    let due = health.queue.oldest_servable_at;
    let late = due.map_or(Duration::ZERO, |due| Service::now().saturating_since(due));
    Ok(Json(StatsOut {
        success: since.delivered.saturating_sub(later.delivered),
        pending: since.pending.saturating_sub(later.pending),
        sending: since.retrying.saturating_sub(later.retrying),
        fail: since.failed.saturating_sub(later.failed),
        canceled: since.cancelled.saturating_sub(later.cancelled),
        late_secs: late.as_secs(),
        failing_since: health.failing.map(|failing| failing.since),
    }))
}
