//! Figures for Prometheus.

use axum::extract::State;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use webhooks_admin::Action;
use webhooks_dispatch::monitor::MonitorStore as _;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::metrics::Present;
use crate::service::Service;

/// The deliveries that are counted at most: the text says so.
const MAX_COUNTED: u64 = 1_000_000;

/// Answers with the counters of this process since it started, and the state of the store's queue.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics.get", tag = "Health",
    responses((status = 200, body = String, content_type = "text/plain")),
)]
pub(crate) async fn scrape(
    State(service): State<Service>,
    caller: Caller,
) -> Result<impl IntoResponse, ApiError> {
    caller.check(Action::ReadEvents, None)?;
    let monitor = service.engine().monitor();
    let depth = monitor.depth(None, MAX_COUNTED).await?;
    let late = depth.oldest_servable_at.map(|due| Service::now().saturating_since(due));
    let present = Present {
        gauges: service.engine().gauges(),
        waiting: depth.waiting,
        late: late.unwrap_or_default(),
        activity: monitor.activity().await?,
    };
    let mut text = String::new();
    let written = service.metrics().write(&mut text, &present);
    written.map_err(|_full| ApiError::unavailable())?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}
