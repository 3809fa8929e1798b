//! Telling operational endpoints what happened: each hint is checked against the store, and published.

use std::time::Duration;

use webhooks_core::{Event, TenantId};
use webhooks_dispatch::Publication;
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::history::{AttemptRecord, Cursor, DeliveryRecord, HistoryStore as _, Query};
use webhooks_registry::store::StateKind;
use webhooks_registry::{DisableReason, EndpointKey, EndpointQuery, Registration};

use crate::attempt_id::attempt_id;
use crate::hint::{FAILING_AFTER, Hint, Turn, operational_tenant};
use crate::operational_event::{
    AttemptData, EndpointData, EndpointNews, MessageData, TellError, is_application, turn_id,
};
use crate::service::{Listeners, Service};

/// How long it is taken for granted that there is an operational endpoint, or none. Another process may have
/// made one.
const REMEMBERED: Duration = Duration::from_secs(2);

/// The attempts of a message that are looked at for a failure that was told.
const LOOKED_BACK: usize = 100;

impl Service {
    /// Returns whether there is an operational endpoint that is not disabled. Otherwise nothing is told.
    pub(crate) async fn is_listened_to(&self) -> Result<bool, TellError> {
        let now = SystemClock.monotonic();
        let Listeners { known, changes } = *self.listeners();
        if let Some((is_listened_to, at)) = known
            && now.saturating_since(at) < REMEMBERED
        {
            return Ok(is_listened_to);
        }
        let states = vec![StateKind::Active, StateKind::Paused];
        let query = EndpointQuery { states, ..EndpointQuery::default() };
        let endpoints = self.engine().endpoints().tenant(operational_tenant());
        let is_listened_to = endpoints.count(query, 1).await? > 0;
        let mut listeners = self.listeners();
        // Not if a request has changed them since.
        if listeners.changes == changes {
            listeners.known = Some((is_listened_to, now));
        }
        Ok(is_listened_to)
    }

    /// Tells of a change that a request made to an endpoint of an application. If that is not possible now,
    /// the task that tells does it from the store.
    pub(crate) async fn tell_change(
        &self,
        tenant: &TenantId,
        states: (Option<&Registration>, Option<&Registration>),
    ) {
        let told = async {
            if is_application(tenant) {
                return self.tell_states(states).await;
            }
            // A new endpoint is told of all that happens from now on, even if the process dies now.
            self.forget_listeners();
            let now = Self::now();
            Ok(self.admin().add_watermark(self.process(), now, now).await?)
        };
        if let Err(error) = told.await {
            self.metrics().hints().miss();
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "operational endpoints are told later");
        }
    }

    fn forget_listeners(&self) {
        let mut listeners = self.listeners();
        listeners.known = None;
        listeners.changes += 1;
    }

    async fn tell_states(
        &self,
        states: (Option<&Registration>, Option<&Registration>),
    ) -> Result<(), TellError> {
        let (before, after) = states;
        let Some(known) = after.or(before) else { return Ok(()) };
        if !self.is_listened_to().await? {
            return Ok(());
        }
        let mut events = Vec::new();
        for news in changes(states) {
            events.push(self.endpoint_event(&known.key(), news).await?);
        }
        self.publish_news(events).await
    }

    /// Publishes events. Those that were published before are left as they are.
    pub(crate) async fn publish_news(&self, events: Vec<Event>) -> Result<(), TellError> {
        if events.is_empty() {
            return Ok(());
        }
        // A conflict is an event that was told before in other words, such as another uid.
        let events: Vec<Publication> = events.iter().map(Publication::new).collect();
        let _told = self.engine().publish_all(events).await?;
        Ok(())
    }

    /// Tells of what hints are at.
    pub(crate) async fn tell(&self, hints: Vec<Hint>) -> Result<(), TellError> {
        // A recovery looks for a failure that was told.
        let is_recovery = |hint: &Hint| matches!(hint, Hint::Attempt { turn: Turn::Recovered, .. });
        let (recoveries, first): (Vec<Hint>, Vec<Hint>) = hints.into_iter().partition(is_recovery);
        for hints in [first, recoveries] {
            let mut events = Vec::new();
            for hint in hints {
                events.extend(self.event_of(hint).await?);
            }
            self.publish_news(events).await?;
        }
        Ok(())
    }

    async fn event_of(&self, hint: Hint) -> Result<Option<Event>, TellError> {
        match hint {
            Hint::Attempt { delivery, number, turn } => {
                let Some(found) = self.engine().history().delivery(delivery).await? else {
                    return Ok(None);
                };
                let is_turn = match turn {
                    Turn::Exhausted => true,
                    Turn::Failing => number == found.attempts_before_replay + FAILING_AFTER,
                    Turn::Recovered => self.has_told_failure(&found, number).await?,
                };
                let attempt = self.engine().history().attempt(delivery, number).await?;
                match attempt.filter(|_| is_turn) {
                    Some(attempt) => Ok(Some(self.message_event(turn, &attempt).await?)),
                    None => Ok(None),
                }
            }
            Hint::Disabled { endpoint: key, fail_since } => {
                let endpoints = self.engine().endpoints().tenant(key.tenant.clone());
                let found = endpoints.get(key.id.as_str()).await?;
                // It may have been enabled or deleted since, which is told, too.
                let Some(found) = found.filter(|found| !found.state.is_open()) else {
                    return Ok(None);
                };
                let mut news = EndpointNews::of_state(&found);
                if let EndpointNews::Disabled { fail_since: known, .. } = &mut news {
                    *known = fail_since;
                }
                Ok(Some(self.endpoint_event(&key, news).await?))
            }
            Hint::Failing { endpoint, since } => {
                let news = EndpointNews::Failing { since };
                Ok(Some(self.endpoint_event(&endpoint, news).await?))
            }
        }
    }

    /// Returns whether a failure of a delivery was told that an attempt made good: one since the success
    /// before.
    async fn has_told_failure(
        &self,
        delivery: &DeliveryRecord,
        number: u32,
    ) -> Result<bool, TellError> {
        // Too few failures, and none before a replay.
        if delivery.attempts_before_replay == 0 && number <= FAILING_AFTER {
            return Ok(false);
        }
        let after = Some(Cursor { key: delivery.id.as_u64(), attempt: number });
        let (delivery, limit) = (Some(delivery.id), LOOKED_BACK);
        let query = Query { delivery, after, limit, ..Query::default() };
        for before in self.engine().history().attempts(query).await?.items {
            if before.attempt.error.is_none() {
                return Ok(false);
            }
            let id = turn_id(before.delivery, before.number)?;
            if self.engine().history().event(operational_tenant(), id).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn message_event(&self, turn: Turn, found: &AttemptRecord) -> Result<Event, TellError> {
        let AttemptRecord { delivery, event, tenant, endpoint, number, attempt, .. } = found;
        let message = self.engine().history().event(tenant.clone(), event.clone()).await?;
        let data = MessageData {
            app_id: tenant.to_string(),
            app_uid: self.app_uid(tenant).await?,
            msg_id: event.to_string(),
            msg_event_id: message.and_then(|found| found.event().ok()?.source),
            endpoint_id: endpoint.to_string(),
            last_attempt: AttemptData {
                id: attempt_id(*delivery, *number),
                response_status_code: attempt.status_code.unwrap_or_default(),
                timestamp: attempt.started_at,
            },
        };
        turn.event((*delivery, *number), data)
    }

    /// Returns the event that tells news of an endpoint.
    pub(crate) async fn endpoint_event(
        &self,
        key: &EndpointKey,
        news: EndpointNews,
    ) -> Result<Event, TellError> {
        let (fail_since, trigger) = match news {
            EndpointNews::Failing { since } => (Some(since), None),
            EndpointNews::Disabled { reason: DisableReason::Manual, .. } => (None, Some("manual")),
            EndpointNews::Disabled { fail_since, .. } => (fail_since, Some("automatic")),
            _ => (None, None),
        };
        let entries = self.admin().endpoints(&key.tenant);
        let entry = entries.look_up(key.id.as_str(), Self::now()).await?;
        let endpoint_uid = entry.and_then(|entry| entry.value.uid);
        let data = EndpointData {
            app_id: key.tenant.to_string(),
            app_uid: self.app_uid(&key.tenant).await?,
            endpoint_id: key.id.to_string(),
            endpoint_uid,
            fail_since,
            trigger,
        };
        news.event(key, data)
    }

    async fn app_uid(&self, tenant: &TenantId) -> Result<Option<String>, TellError> {
        let found = self.admin().applications().look_up(tenant.as_str(), Self::now()).await?;
        Ok(found.and_then(|entry| entry.value.uid))
    }
}

/// Returns the news that a change makes.
fn changes(states: (Option<&Registration>, Option<&Registration>)) -> Vec<EndpointNews> {
    let (before, after) = match states {
        (None, None) => return Vec::new(),
        (None, Some(_)) => return vec![EndpointNews::Created],
        (Some(_), None) => return vec![EndpointNews::Deleted],
        (Some(before), Some(after)) => (before, after),
    };
    let mut news = Vec::new();
    let has_same_settings = before.endpoint.has_same_settings(&after.endpoint)
        && before.endpoint.has_same_secrets(&after.endpoint);
    if !has_same_settings {
        news.push(EndpointNews::Updated { version: after.revision.version });
    }
    if before.state.is_open() != after.state.is_open() {
        news.push(EndpointNews::of_state(after));
    }
    news
}
