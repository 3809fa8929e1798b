//! Catching up: what the store has since a time is told, whether or not it was told before.
//!
//! The ids of operational events follow from what happened, so nothing is told twice. It reads the
//! attempts and the rows of the audit log since that time, and no others.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use webhooks_admin::{AuditEntry, Entry, ListQuery};
use webhooks_core::{DeliveryStatus, EndpointId, TenantId, Timestamp};
use webhooks_dispatch::history::{HistoryStore as _, Trouble, TroubleRequest};
use webhooks_dispatch::monitor::MonitorStore as _;
use webhooks_dispatch::store::Failing;
use webhooks_registry::store::StateKind;
use webhooks_registry::{EndpointKey, EndpointQuery, Registration};

use crate::hint::{FAILING_AFTER, Hint, Turn, operational_tenant};
use crate::operational_event::{EndpointNews, TellError, is_application};
use crate::service::Service;

/// Endpoints that may have news.
type Changed = BTreeSet<EndpointKey>;

/// The entries that are read at once.
const STEP: usize = 200;

/// The time within which an attempt is made: one that ended since a time may have started before. No endpoint
/// may have a longer timeout.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(10 * 60);

impl Service {
    /// Tells all that happened since a time, and since there is an operational endpoint.
    pub(crate) async fn catch_up(&self, since: Timestamp) -> Result<(), TellError> {
        let states = vec![StateKind::Active, StateKind::Paused];
        let tenant = Some(operational_tenant());
        let query = EndpointQuery { tenant, states, ..EndpointQuery::default() };
        let listeners = self.engine().endpoints().list(query).await?.items;
        let first = listeners.iter().map(|found| found.revision.created_at).min();
        let Some(first) = first else { return Ok(()) };
        let since = since.max(first);
        let failing = self.catch_up_messages(since).await?;
        let changed = self.catch_up_deletions(since).await?;
        self.catch_up_endpoints(failing.union(&changed), since).await
    }

    /// Tells of endpoints that there are.
    async fn catch_up_endpoints(
        &self,
        keys: impl Iterator<Item = &EndpointKey> + Send,
        since: Timestamp,
    ) -> Result<(), TellError> {
        for key in keys {
            let endpoints = self.engine().endpoints().tenant(key.tenant.clone());
            let Some(found) = endpoints.get(key.id.as_str()).await? else { continue };
            let health = self.engine().monitor().health(vec![key.clone()], 1).await?.pop();
            let failing = health.and_then(|health| health.failing);
            let failing = failing.filter(|failing| self.is_warned_of(failing, since));
            let mut events = Vec::new();
            for news in news_since(&found, failing, since) {
                events.push(self.endpoint_event(key, news).await?);
            }
            self.publish_news(events).await?;
        }
        Ok(())
    }

    fn is_warned_of(&self, failing: &Failing, since: Timestamp) -> bool {
        let warned_after = self.engine().settings().warn_after();
        failing.last >= since && warned_after.is_some_and(|span| failing.tried_for >= span)
    }

    /// Tells of the endpoints that are gone, from the audit log; returns those that were changed.
    async fn catch_up_deletions(&self, since: Timestamp) -> Result<Changed, TellError> {
        let mut query = ListQuery { limit: STEP, is_descending: true, ..ListQuery::default() };
        let mut changed = Changed::new();
        loop {
            let page = self.admin().audit().list(query, Self::now()).await?;
            let (read, mut events) = (page.items.len(), Vec::new());
            let rows = page.items.into_iter().take_while(|row| row.created_at >= since);
            let rows: Vec<Entry<AuditEntry>> = rows.collect();
            let is_end = rows.len() < read || page.is_last;
            for row in rows {
                match changed_endpoint(&row.value) {
                    Some(key) if row.value.after.is_none() => {
                        events.push(self.endpoint_event(&key, EndpointNews::Deleted).await?);
                    }
                    key => changed.extend(key),
                }
            }
            self.publish_news(events).await?;
            if is_end {
                return Ok(changed);
            }
            query = ListQuery { limit: STEP, is_descending: true, iterator: page.next };
        }
    }

    /// Tells of the turns that messages took; returns the endpoints that failed. It reads the attempts since that
    /// time that did not simply succeed.
    async fn catch_up_messages(&self, since: Timestamp) -> Result<Changed, TellError> {
        let mut failing = Changed::new();
        let started = since.saturating_sub(LONGEST_ATTEMPT);
        let mut request = TroubleRequest { since: started, after: None, limit: STEP };
        loop {
            let page = self.engine().history().troubles(request).await?;
            let Some(last) = page.last() else { return Ok(failing) };
            request = request.behind(last);
            let is_late = |found: &&Trouble| found.started_at + found.duration >= since;
            let late = page.iter().filter(is_late).filter(|found| is_application(&found.tenant));
            let failed = late.clone().filter(|found| found.has_failed);
            failing.extend(
                failed.map(|found| EndpointKey::new(found.tenant.clone(), found.endpoint.clone())),
            );
            self.tell(late.filter_map(turn).collect()).await?;
        }
    }
}

/// Returns a hint at the turn that a message may have taken with an attempt.
fn turn(found: &Trouble) -> Option<Hint> {
    let Trouble { delivery, number, status, .. } = *found;
    let is_last = number == found.attempts;
    let turn = match (found.has_failed, status) {
        (false, _) => Turn::Recovered,
        (true, DeliveryStatus::Failed) if is_last => Turn::Exhausted,
        (true, _) if number == found.attempts_before_replay + FAILING_AFTER => Turn::Failing,
        (true, _) => return None,
    };
    Some(Hint::Attempt { delivery, number, turn })
}

/// Returns the news of an endpoint since a time, as far as its present state shows them.
pub(crate) fn news_since(
    found: &Registration,
    failing: Option<Failing>,
    since: Timestamp,
) -> Vec<EndpointNews> {
    let revision = found.revision;
    let mut news = Vec::new();
    if revision.created_at >= since {
        news.push(EndpointNews::Created);
    }
    let is_entered = revision.state_since > revision.created_at && revision.state_since >= since;
    if is_entered && !matches!(found.state.kind(), StateKind::Paused) {
        news.push(EndpointNews::of_state(found));
    }
    // A change of the state has a version, too.
    if revision.updated_at > revision.state_since && revision.updated_at >= since {
        news.push(EndpointNews::Updated { version: revision.version });
    }
    if let Some(failing) = failing {
        news.push(EndpointNews::Failing { since: failing.since });
    }
    news
}

/// Returns the endpoint of an application whose registration a row of the audit log is about.
fn changed_endpoint(row: &AuditEntry) -> Option<EndpointKey> {
    let state = row.after.as_ref().or(row.before.as_ref());
    let is_of = row.kind == "endpoint" && state.is_some_and(is_registration);
    let tenant = TenantId::new(&row.scope).ok().filter(is_application)?;
    is_of.then(|| Some(EndpointKey::new(tenant, EndpointId::new(&row.id).ok()?)))?
}

/// Returns whether a state in the audit log is that of a registration. The entries of endpoints have rows of
/// their own, without a URL.
pub(crate) fn is_registration(state: &Value) -> bool {
    state.get("url").is_some()
}
