//! Whether the service is well.

use axum::extract::State;
use http::StatusCode;
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::monitor::MonitorStore as _;

use crate::error::ApiError;
use crate::service::Service;

/// Answers that the service runs.
#[utoipa::path(
    get,
    path = "/api/v1/health/ping",
    operation_id = "v1.health.ping", tag = "Health", responses((status = 204)), security(()),
)]
pub(crate) async fn ping() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Answers that the service can accept events and deliver them: the store writes, and a worker runs.
///
/// A process that starts no worker needs none.
#[utoipa::path(
    get,
    path = "/api/v1/health",
    operation_id = "v1.health.get", tag = "Health",
    responses((status = 204), (status = 503)), security(()),
)]
pub(crate) async fn check(State(service): State<Service>) -> Result<StatusCode, ApiError> {
    let (gauges, metrics) = (service.engine().gauges(), service.metrics());
    if gauges.workers == 0 && metrics.had_worker() {
        return Err(ApiError::no_worker());
    }
    service.engine().monitor().ping().await?;
    // The store may still write and have no room for events, or refuse what workers ask.
    let is_down = service.refuses() || metrics.store_is_down(SystemClock.monotonic());
    if is_down { Err(ApiError::unavailable()) } else { Ok(StatusCode::NO_CONTENT) }
}
