//! The retry schedules of event types.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_admin::{Action, RetrySchedule};
use webhooks_core::EventType;

use super::delivery_settings::check_schedule;
use super::event_type::sees;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Path};
use crate::service::Service;

/// The most nanoseconds beside whole seconds.
const MAX_NANOS: u32 = 999_999_999;

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ScheduleForm {
    /// The time before each retry, at most 50; `null` or absent for the schedule of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 50)]
    retry_schedule: Option<Vec<Delay>>,
}

/// A time before a retry.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Delay {
    /// The whole seconds, at most 2,592,000 (30 days); 0 by default.
    #[serde(default)]
    #[schema(maximum = 2_592_000)]
    secs: u64,
    /// The nanoseconds beyond them, at most 999,999,999; 0 by default. They are not counted.
    #[serde(default)]
    #[schema(maximum = 999_999_999)]
    nanos: u32,
}

/// Returns the retry schedule of an event type.
#[utoipa::path(
    get,
    path = "/api/v1/event-type/{event_type_name}/retry-schedule",
    operation_id = "v1.event-type.get-retry-schedule", tag = "Event Type",
    responses((status = 200, body = ScheduleForm)),
)]
pub(crate) async fn read(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<ScheduleForm>, ApiError> {
    caller.check(Action::ReadEventTypes, None)?;
    known(&service, &caller, &name).await?;
    let found = service.admin().retry_schedules().look_up(&name, Service::now()).await?;
    let delay = |secs| Delay { secs, nanos: 0 };
    let retry_schedule = found.map(|found| found.value.seconds.into_iter().map(delay).collect());
    Ok(Json(ScheduleForm { retry_schedule }))
}

/// Sets the retry schedule of an event type, for endpoints that have none of their own. Other processes
/// follow within ten seconds.
#[utoipa::path(
    put,
    path = "/api/v1/event-type/{event_type_name}/retry-schedule",
    operation_id = "v1.event-type.set-retry-schedule", tag = "Event Type",
    request_body = ScheduleForm, responses((status = 200, body = ScheduleForm)),
)]
pub(crate) async fn replace(
    State(service): State<Service>,
    caller: Caller,
    Path(name): Path<String>,
    Body(form): Body<ScheduleForm>,
) -> Result<Json<ScheduleForm>, ApiError> {
    caller.check(Action::ChangeEventTypes, None)?;
    let event_type = known(&service, &caller, &name).await?;
    let (schedules, actor, now) =
        (service.admin().retry_schedules(), caller.actor(), Service::now());
    let Some(delays) = &form.retry_schedule else {
        schedules.delete_any(&name, &actor, now).await?;
        service.set_schedule(&event_type, None);
        return Ok(Json(form));
    };
    if delays.iter().any(|delay| delay.nanos > MAX_NANOS) {
        return Err(ApiError::value("retrySchedule", "nanos is more than 999999999"));
    }
    let seconds: Vec<u64> = delays.iter().map(|delay| delay.secs).collect();
    check_schedule("retrySchedule", &seconds)?;
    schedules.put(&name, RetrySchedule { seconds: seconds.clone() }, &actor, now).await?;
    service.set_schedule(&event_type, Some(&seconds));
    Ok(Json(form))
}

/// Checks that there is an event type, which the caller sees.
async fn known(service: &Service, caller: &Caller, name: &str) -> Result<EventType, ApiError> {
    let found = service.admin().event_types().get(name, Service::now()).await?;
    if !sees(caller, &found.value) {
        return Err(ApiError::unknown("event type"));
    }
    EventType::new(&found.id).map_err(|_unreadable| ApiError::unknown("event type"))
}
