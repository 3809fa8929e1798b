//! The rows of endpoints in the audit log: each change begins and ends with a call of these.

use serde_json::Value;
use webhooks_admin::{Actor, AdminError, EndpointChange, Entry};
use webhooks_registry::{EndpointStoreError, Registration};

use crate::error::ApiError;
use crate::find::App;
use crate::service::Service;

/// Notes that an endpoint is to be changed, or made. If the process dies before [`log`], another one finds
/// out how far it went, and writes the row.
pub(crate) async fn begin(
    service: &Service,
    app: &App,
    actor: Actor,
    (id, before): (&str, Option<&Registration>),
) -> Result<Entry<EndpointChange>, ApiError> {
    let before = before.map(shown).transpose().map_err(AdminError::from)?;
    let (Actor { who, from }, application) = (actor, app.tenant.clone());
    let change = EndpointChange { who, from, application, endpoint: id.to_owned(), before };
    Ok(service.admin().begin_endpoint_change(change, Service::now()).await?)
}

/// Takes the note of a change back if the engine refused the change. It stays if nobody knows whether the
/// endpoint was changed: another process finds out.
pub(crate) async fn noted<T>(
    service: &Service,
    change: &Entry<EndpointChange>,
    done: Result<T, EndpointStoreError>,
) -> Result<T, ApiError> {
    match done {
        Ok(done) => Ok(done),
        Err(error) => {
            if !matches!(error, EndpointStoreError::Unavailable { .. }) {
                take_back(service, change).await;
            }
            Err(error.into())
        }
    }
}

/// Takes the note of a change back that was not made, or undone.
pub(crate) async fn take_back(service: &Service, change: &Entry<EndpointChange>) {
    match service.admin().end_endpoint_change(change, None, Service::now()).await {
        Ok(()) | Err(AdminError::Changed) => {}
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the note of a change that was not made is left");
        }
    }
}

/// Writes a change into the audit log, and tells operational endpoints. Returns whether this request ended the
/// change: it may have been so slow that another process took it for dead, and did so.
pub(crate) async fn log(
    service: &Service,
    change: &Entry<EndpointChange>,
    (before, after): (Option<&Registration>, Option<&Registration>),
) -> Result<bool, ApiError> {
    let state = |state: Option<&Registration>| state.map(shown).transpose();
    let states = state(before).and_then(|before| Ok((before, state(after)?)));
    let states = states.map_err(AdminError::from)?;
    let ended = service.admin().end_endpoint_change(change, Some(states), Service::now()).await;
    let is_own = match ended {
        Ok(()) => true,
        Err(AdminError::Changed) => false,
        Err(error) => return Err(error.into()),
    };
    service.tell_change(&change.value.application, (before, after)).await;
    Ok(is_own)
}

/// Returns what the audit log shows of an endpoint.
pub(crate) fn shown(registration: &Registration) -> serde_json::Result<Value> {
    let mut shown = serde_json::to_value(registration.view())?;
    // The query of a URL may hold a token.
    if let Some(url) = shown.get_mut("url")
        && let Some((place, _)) = url.as_str().and_then(|text| text.split_once('?'))
    {
        *url = Value::String(format!("{place}?..."));
    }
    Ok(shown)
}
