//! The audit log.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use webhooks_admin::{Action, AuditEntry, Entry};
use webhooks_core::Timestamp;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Params;
use crate::paging::{List, list_query};
use crate::parameters::Page;
use crate::schema::Time;
use crate::service::Service;

#[derive(Serialize, ToSchema)]
pub(crate) struct AuditOut {
    id: String,
    #[schema(value_type = Time)]
    timestamp: Timestamp,
    /// The id of the key or session, `jwt:` and the subject of a token, or `service`.
    who: String,
    /// The address of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    kind: String,
    /// The application that the thing belongs to.
    scope: String,
    /// The id of the thing.
    thing: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
}

impl From<Entry<AuditEntry>> for AuditOut {
    fn from(entry: Entry<AuditEntry>) -> Self {
        let Entry { id, created_at: timestamp, value, .. } = entry;
        let AuditEntry { who, from, kind, scope, id: thing, before, after, .. } = value;
        let from = from.map(|address| address.to_string());
        Self { id, timestamp, who, from, kind, scope, thing, before, after }
    }
}

/// Lists the changes, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/audit-log",
    operation_id = "v1.audit-log.list", tag = "Audit Log", params(Page),
    responses((status = 200, body = List<AuditOut>)),
)]
pub(crate) async fn list(
    State(service): State<Service>,
    caller: Caller,
    params: Params,
) -> Result<Json<List<AuditOut>>, ApiError> {
    caller.check(Action::ReadAudit, None)?;
    let page = service.admin().audit().list(list_query(&params, true)?, Service::now()).await?;
    Ok(Json(List::new(page, AuditOut::from)))
}
