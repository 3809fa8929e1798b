//! Whether an endpoint gets deliveries now, and what holds them back.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use webhooks_admin::Action;
use webhooks_core::Timestamp;
use webhooks_dispatch::monitor::{EndpointHealth, MonitorStore as _, RestReason, Sending};
use webhooks_dispatch::store::StoreError;
use webhooks_registry::{EndpointState, Registration};

use super::endpoint::EndpointPath;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Path;
use crate::schema::{HealthState, HoldReason, Time};
use crate::service::Service;

#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointHealthOut {
    /// The word for it: `sending`; `probing` if one delivery is sent, and the others wait for its result; `held` if
    /// nothing is sent for a time; `paused` or `disabled`.
    #[schema(value_type = HealthState)]
    state: &'static str,
    /// The reason, for some states. `held`: `failures` in a row, a `pause` that the endpoint asked for, or its
    /// `rateLimit`. `disabled`: `manual`, `gone` (it answered 410) or `failing` (for too long).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<HoldReason>)]
    reason: Option<&'static str>,
    /// The time of the next attempt, for `held`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Time>)]
    until: Option<Timestamp>,
    /// The failures in a row, for `held` and `probing`: those that the worker has seen which has seen the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    failures: Option<u32>,
    /// The number of workers that hold deliveries back, for `held`. Others may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<u32>,
    /// The time of the first failure since the last success; absent if it does not fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Time>)]
    failing_since: Option<Timestamp>,
}

impl EndpointHealthOut {
    fn new(endpoint: EndpointState, sending: Sending) -> Self {
        let state = |state, reason| Self { state, reason, ..Self::default() };
        match (endpoint, sending) {
            (EndpointState::Disabled(reason), _) => state("disabled", Some(reason.as_str())),
            (EndpointState::Paused, _) => state("paused", None),
            (EndpointState::Active, Sending::Free) => state("sending", None),
            (EndpointState::Active, Sending::Probing { failures }) => {
                Self { failures: Some(failures), ..state("probing", None) }
            }
            (EndpointState::Active, Sending::Held { by, until, failures, workers }) => {
                let (until, workers) = (Some(until), Some(workers));
                let failures = Some(failures).filter(|failures| *failures > 0);
                Self { until, failures, workers, ..state("held", Some(word(by))) }
            }
        }
    }
}

fn word(by: RestReason) -> &'static str {
    match by {
        RestReason::Failures => "failures",
        RestReason::RateLimit => "rateLimit",
        _ => "pause",
    }
}

/// Returns the health of an endpoint as the store knows it; that of a healthy one if the store cannot tell.
pub(super) async fn stored(
    service: &Service,
    registration: &Registration,
) -> Result<EndpointHealth, StoreError> {
    match service.engine().monitor().health(vec![registration.key()], 1).await {
        Err(StoreError::Unsupported { .. }) => Ok(EndpointHealth::default()),
        health => Ok(health?.pop().unwrap_or_default()),
    }
}

/// Tells whether an endpoint gets deliveries now, and what holds them back.
///
/// Workers count failures for themselves. Those of this process are asked; those of other processes report, so the
/// answer may be five seconds late about them.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/health",
    operation_id = "v1.endpoint.get-health", tag = "Endpoint",
    responses((status = 200, body = EndpointHealthOut)),
)]
pub(crate) async fn read(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): EndpointPath,
) -> Result<Json<EndpointHealthOut>, ApiError> {
    let found = service.endpoint(&caller, (&app, &name), Action::ReadEndpoints).await?;
    let registration = &found.registration;
    let sending = service.engine().sending(registration.number).await?;
    let failing_since = stored(&service, registration).await?.failing.map(|failing| failing.since);
    let shown = EndpointHealthOut::new(registration.state, sending);
    Ok(Json(EndpointHealthOut { failing_since, ..shown }))
}
