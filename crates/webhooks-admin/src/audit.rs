//! The audit log: who changed what, when and from where.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::public_id::IdKind;
use crate::record::RecordKind;
use crate::resource::Resource;

/// The one who makes a change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct Actor {
    /// The id of the key or session; of a token, `jwt:` and its subject; or `service` or `database`.
    pub who: String,
    /// The address of the request.
    pub from: Option<IpAddr>,
}

impl Actor {
    /// Returns the service itself, for changes that no request makes.
    #[must_use]
    pub fn service() -> Self {
        Self { who: "service".to_owned(), from: None }
    }

    /// Returns a person who changes the database itself, and needs no key for that.
    #[must_use]
    pub fn database() -> Self {
        Self { who: "database".to_owned(), from: None }
    }
}

/// A row of the audit log. Its key grows with time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditEntry {
    /// The id of the key or session; of a token, `jwt:` and its subject; or `service` or `database`.
    pub who: String,
    /// The address of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// The thing that was changed, such as `endpoint`.
    pub kind: String,
    /// The application that it belongs to; empty for the service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// Its id.
    pub id: String,
    /// Its state before, without secrets; absent if it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// Its state after, without secrets; absent if it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

impl Resource for AuditEntry {
    const KIND: RecordKind = RecordKind::Audit;
    const ID: Option<IdKind> = Some(IdKind::Audit);
}
