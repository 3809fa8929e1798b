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
    /// The id of the row.
    id: String,
    /// The time of the change.
    #[schema(value_type = Time)]
    timestamp: Timestamp,
    /// The id of the key or session that made the change; `jwt:` and the subject of a token; `service`; or `database`
    /// for a key that `webhooks key create --database` made.
    who: String,
    /// The IP address of the request; absent if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// The kind of the thing, such as `application` or `endpoint`.
    kind: String,
    /// The id of the application that the thing belongs to; empty if it belongs to the service.
    scope: String,
    /// The id of the thing, or its name.
    thing: String,
    /// The state before the change, without secrets; absent if the thing was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// The state after the change, without secrets; absent if the thing was deleted.
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
