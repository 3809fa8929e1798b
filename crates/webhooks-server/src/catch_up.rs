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

/// The entries of the audit log, and the endpoints, of a step.
const STEP: usize = 200;

/// The troubles of a step: fewer than the hints that are told before each step, so that these are not missed meanwhile.
const PAGE: usize = 100;

/// The time within which an attempt is made: one that ended since a time may have started before. No endpoint
/// may have a longer timeout.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(10 * 60);

/// A catch-up under way. It is made in short steps, between which hints are told and the watermark is written; a step
/// that fails is made again, and none before it.
#[derive(Debug)]
pub(crate) struct CatchUp {
    /// The time from which on it tells.
    since: Timestamp,
    /// The next page of troubles; `None` at the end.
    troubles: Option<TroubleRequest>,
    /// The next page of the audit log; `None` at the end.
    audit: Option<ListQuery>,
    /// The endpoints that have failed or were changed, and that it has not told of.
    changed: Changed,
}

impl CatchUp {
    fn since(since: Timestamp) -> Self {
        let started = since.saturating_sub(LONGEST_ATTEMPT);
        Self {
            since,
            troubles: Some(TroubleRequest { since: started, after: None, limit: PAGE }),
            audit: Some(ListQuery { limit: STEP, is_descending: true, ..ListQuery::default() }),
            changed: Changed::new(),
        }
    }

    /// Returns one that has nothing to tell.
    fn nothing(since: Timestamp) -> Self {
        Self { since, troubles: None, audit: None, changed: Changed::new() }
    }
}

impl Service {
    /// Begins to tell all that happened since a time, and since there is an operational endpoint.
    pub(crate) async fn begin_catch_up(&self, since: Timestamp) -> Result<CatchUp, TellError> {
        let states = vec![StateKind::Active, StateKind::Paused];
        let tenant = Some(operational_tenant());
        let query = EndpointQuery { tenant, states, ..EndpointQuery::default() };
        let listeners = self.engine().endpoints().list(query).await?.items;
        let first = listeners.iter().map(|found| found.revision.created_at).min();
        Ok(match first {
            Some(first) => CatchUp::since(since.max(first)),
            None => CatchUp::nothing(since),
        })
    }

    /// Makes the next step of a catch-up; returns whether it is over.
    pub(crate) async fn go_on(&self, catch_up: &mut CatchUp) -> Result<bool, TellError> {
        if let Some(request) = catch_up.troubles {
            catch_up.troubles = self.catch_up_messages(request, catch_up).await?;
        } else if let Some(query) = catch_up.audit.clone() {
            catch_up.audit = self.catch_up_deletions(query, catch_up).await?;
        } else {
            let keys: Vec<EndpointKey> = catch_up.changed.iter().take(STEP).cloned().collect();
            self.catch_up_endpoints(&keys, catch_up.since).await?;
            for key in &keys {
                catch_up.changed.remove(key);
            }
            return Ok(catch_up.changed.is_empty());
        }
        Ok(false)
    }

    /// Tells of endpoints that there are.
    async fn catch_up_endpoints(
        &self,
        keys: &[EndpointKey],
        since: Timestamp,
    ) -> Result<(), TellError> {
        if keys.is_empty() {
            return Ok(());
        }
        let health = self.engine().monitor().health(keys.to_vec(), 1).await?;
        let mut events = Vec::new();
        for (key, health) in keys.iter().zip(health) {
            let endpoints = self.engine().endpoints().tenant(key.tenant.clone());
            let Some(found) = endpoints.get(key.id.as_str()).await? else { continue };
            let failing = health.failing.filter(|failing| self.is_warned_of(failing, since));
            for news in news_since(&found, failing, since) {
                events.push(self.endpoint_event(key, news).await?);
            }
        }
        self.publish_news(events).await
    }

    fn is_warned_of(&self, failing: &Failing, since: Timestamp) -> bool {
        let warned_after = self.engine().settings().warn_after();
        failing.last >= since && warned_after.is_some_and(|span| failing.tried_for >= span)
    }

    /// Tells of the endpoints that are gone, from a page of the audit log, and notes those that were changed;
    /// returns the request for the next page.
    async fn catch_up_deletions(
        &self,
        query: ListQuery,
        catch_up: &mut CatchUp,
    ) -> Result<Option<ListQuery>, TellError> {
        let page = self.admin().audit().list(query, Self::now()).await?;
        let (read, mut events) = (page.items.len(), Vec::new());
        let rows = page.items.into_iter().take_while(|row| row.created_at >= catch_up.since);
        let rows: Vec<Entry<AuditEntry>> = rows.collect();
        let is_end = rows.len() < read || page.is_last;
        for row in rows {
            match changed_endpoint(&row.value) {
                Some(key) if row.value.after.is_none() => {
                    events.push(self.endpoint_event(&key, EndpointNews::Deleted).await?);
                }
                key => catch_up.changed.extend(key),
            }
        }
        self.publish_news(events).await?;
        let next = ListQuery { limit: STEP, is_descending: true, iterator: page.next };
        Ok((!is_end).then_some(next))
    }

    /// Tells of the turns that messages took, from a page of the attempts that did not simply succeed, and notes
    /// the endpoints that failed; returns the request for the next page.
    async fn catch_up_messages(
        &self,
        request: TroubleRequest,
        catch_up: &mut CatchUp,
    ) -> Result<Option<TroubleRequest>, TellError> {
        let since = catch_up.since;
        let page = self.engine().history().troubles(request).await?;
        let Some(last) = page.last() else { return Ok(None) };
        let is_late = |found: &&Trouble| found.started_at + found.duration >= since;
        let late = page.iter().filter(is_late).filter(|found| is_application(&found.tenant));
        let failed = late.clone().filter(|found| found.has_failed);
        catch_up.changed.extend(
            failed.map(|found| EndpointKey::new(found.tenant.clone(), found.endpoint.clone())),
        );
        self.tell(late.filter_map(turn).collect()).await?;
        Ok(Some(request.behind(last)))
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
