//! Changes of endpoints that a killed process has left: each gets its row in the audit log and is told, and the
//! entry of an endpoint that is not there is deleted.

use std::time::Duration;

use serde_json::Value;
use webhooks_admin::{AdminError, AuditEntry, EndpointChange, Entry, ListQuery};
use webhooks_core::EndpointId;
use webhooks_registry::EndpointKey;

use crate::catch_up::{is_registration, news_since};
use crate::endpoint_log::shown;
use crate::operational_event::{EndpointNews, TellError, is_application};
use crate::service::Service;

/// The time after which a request has ended for sure.
pub(crate) const LONGEST_REQUEST: Duration = Duration::from_secs(5 * 60);

/// The time between two looks.
const PAUSE: Duration = Duration::from_secs(60);

/// The rows of the audit log that are read at once.
const STEP: usize = 200;

impl Service {
    /// Ends the changes that are left, in a task of its own, as long as the service is used.
    pub(crate) fn follow_changes(&self) {
        self.repeat(PAUSE, "changes that are left are logged later", |service| async move {
            service.end_left_changes().await
        });
    }

    async fn end_left_changes(&self) -> Result<(), TellError> {
        let now = Self::now();
        let begun_until = now.saturating_sub(LONGEST_REQUEST);
        for change in self.admin().left_endpoint_changes(begun_until, now).await? {
            self.end_left_change(&change).await?;
        }
        Ok(())
    }

    async fn end_left_change(&self, change: &Entry<EndpointChange>) -> Result<(), TellError> {
        let EndpointChange { application, endpoint, before, .. } = &change.value;
        let found = self.engine().endpoints().tenant(application.clone()).get(endpoint).await?;
        let after = found.as_deref().map(shown).transpose().map_err(AdminError::from)?;
        // Another request may have changed the endpoint since: it found what this one left.
        let after = match self.next_row(change).await? {
            Some(row) => row.before,
            None => after,
        };
        let version = |state: &Option<Value>| state.as_ref().map(|state| state["version"].clone());
        let is_changed = version(before) != version(&after);
        let states = is_changed.then(|| (before.clone(), after.clone()));
        // The news first: if the process dies here, this is done again.
        if is_changed && is_application(application) && self.is_listened_to().await? {
            let key = EndpointKey::new(application.clone(), EndpointId::new(endpoint)?);
            let news = match &found {
                Some(found) => news_since(found, None, change.created_at),
                None if before.is_some() => vec![EndpointNews::Deleted],
                None => Vec::new(),
            };
            let mut events = Vec::new();
            for news in news {
                events.push(self.endpoint_event(&key, news).await?);
            }
            self.publish_news(events).await?;
        }
        let (admin, now) = (self.admin(), Self::now());
        let ended = match &found {
            Some(_) => admin.end_endpoint_change(change, states, now).await,
            // Its uid is free again.
            None => admin.end_absent_endpoint_change(change, states, now).await,
        };
        match ended {
            // Another process was faster.
            Ok(()) | Err(AdminError::Changed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the first row in the audit log of an endpoint's registration since a change of it began.
    ///
    /// It reads the rows of that time: a few minutes of the log, because a service that runs leaves no change for
    /// longer, and the log does not grow while no service runs.
    async fn next_row(
        &self,
        change: &Entry<EndpointChange>,
    ) -> Result<Option<AuditEntry>, AdminError> {
        let mut query = ListQuery { limit: STEP, is_descending: true, ..ListQuery::default() };
        let mut first = None;
        loop {
            let page = self.admin().audit().list(query, Self::now()).await?;
            let is_end = page.is_last
                || page.items.last().is_none_or(|row| row.created_at < change.created_at);
            let rows = page.items.into_iter().filter(|row| row.created_at >= change.created_at);
            let mut rows = rows.filter(|row| is_row_of(&row.value, &change.value));
            if let Some(row) = rows.next_back() {
                first = Some(row.value);
            }
            if is_end {
                return Ok(first);
            }
            query = ListQuery { limit: STEP, is_descending: true, iterator: page.next };
        }
    }
}

fn is_row_of(row: &AuditEntry, change: &EndpointChange) -> bool {
    let is_of = row.scope == change.application.as_str() && row.id == change.endpoint;
    let state = row.before.as_ref().or(row.after.as_ref());
    row.kind == "endpoint" && is_of && state.is_some_and(is_registration)
}
