//! Changes of endpoints that are under way.
//!
//! An endpoint lies in the engine, so a change of it and its row in the audit log are two writes. The record
//! of the change is there before both, and goes with the second one. If the process dies in between, the record
//! is left, and whoever finds it writes the row.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use webhooks_core::{TenantId, Timestamp};

use crate::admin::Admin;
use crate::audit::Actor;
use crate::collection::{AdminError, Collection, ListQuery, audit_row};
use crate::public_id::IdKind;
use crate::record::{RecordChange, RecordKind};
use crate::resource::{Entry, Resource};

/// The kind of endpoints in the audit log.
const KIND: &str = "endpoint";

/// The most changes that are found at once.
const MAX_FOUND: usize = 1_000;

/// A change of an endpoint that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct EndpointChange {
    /// The id of the key or session that makes it.
    pub who: String,
    /// The address of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// The application of the endpoint.
    pub application: TenantId,
    /// The id of the endpoint.
    pub endpoint: String,
    /// The state of the endpoint before, without secrets; absent if it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
}

impl Resource for EndpointChange {
    const KIND: RecordKind = RecordKind::EndpointChange;
}

impl Admin {
    /// Adds a change, before the endpoint is changed.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn begin_endpoint_change(
        &self,
        change: EndpointChange,
        now: Timestamp,
    ) -> Result<Entry<EndpointChange>, AdminError> {
        let entry = Entry::new(IdKind::Audit.generate(), change, now);
        let insert = RecordChange::Insert(self.endpoint_changes().record(&entry)?);
        self.records.write(vec![insert], now).await?;
        Ok(entry)
    }

    /// Deletes a change and writes its row into the audit log, in one write. `states` are those of the endpoint
    /// before and after, without secrets; `None` if it was not changed, which has no row.
    ///
    /// # Errors
    /// [`AdminError::Changed`] when somebody else did this, and [`AdminError`] when the store fails.
    pub async fn end_endpoint_change(
        &self,
        change: &Entry<EndpointChange>,
        states: Option<(Option<Value>, Option<Value>)>,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        Ok(self.records.write(self.end_of(change, states, now)?, now).await?)
    }

    /// As [`end_endpoint_change`](Self::end_endpoint_change), for an endpoint that is not there: its entry is
    /// deleted in the same write. So a request that makes the endpoint meanwhile learns by the end of its
    /// change whether the entry is left.
    ///
    /// # Errors
    /// [`AdminError::Changed`] when somebody else did this, and [`AdminError`] when the store fails.
    pub async fn end_absent_endpoint_change(
        &self,
        change: &Entry<EndpointChange>,
        states: Option<(Option<Value>, Option<Value>)>,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let EndpointChange { application, endpoint, .. } = &change.value;
        let mut changes = self.end_of(change, states, now)?;
        let entries = self.endpoints(application);
        if let Some(entry) = entries.look_up(endpoint, now).await? {
            let states = (Some(entry.value.shown()?), None);
            let thing = (KIND, application.as_str(), endpoint.as_str());
            changes.push(RecordChange::Delete(entries.place(entry.id)));
            changes.push(audit_row(&Actor::service(), thing, states, now)?);
        }
        Ok(self.records.write(changes, now).await?)
    }

    fn end_of(
        &self,
        change: &Entry<EndpointChange>,
        states: Option<(Option<Value>, Option<Value>)>,
        now: Timestamp,
    ) -> Result<Vec<RecordChange>, AdminError> {
        let EndpointChange { who, from, application, endpoint, .. } = &change.value;
        let mut changes = vec![
            // It is replaced first: that fails if it is gone.
            RecordChange::Replace(self.endpoint_changes().record_after(change, now)?),
            RecordChange::Delete(self.endpoint_changes().place(change.id.clone())),
        ];
        if let Some(states) = states {
            let actor = Actor { who: who.clone(), from: *from };
            let thing = (KIND, application.as_str(), endpoint.as_str());
            changes.push(audit_row(&actor, thing, states, now)?);
        }
        Ok(changes)
    }

    /// Returns changes that began at a time or before and are still under way, the oldest first.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn left_endpoint_changes(
        &self,
        begun_until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Entry<EndpointChange>>, AdminError> {
        let query = ListQuery { limit: MAX_FOUND, ..ListQuery::default() };
        let mut found = self.endpoint_changes().list(query, now).await?.items;
        found.retain(|change| change.created_at <= begun_until);
        Ok(found)
    }

    fn endpoint_changes(&self) -> Collection<'_, EndpointChange> {
        self.collection(String::new())
    }
}
