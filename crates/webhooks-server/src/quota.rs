//! Limits and retry schedules: read from the records again and again, so that a publish looks them up in
//! memory, and the counts of messages, which are stored.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use webhooks_admin::{AdminError, Collection, Entry, Limits, Resource, Usage};
use webhooks_core::{EventId, EventType, RetryPolicy, TenantId, Timestamp};
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::history::HistoryStore as _;
use webhooks_dispatch::{PublishStatus, Published};

use crate::error::ApiError;
use crate::overrides::Count;
use crate::service::Service;

/// The time after which what another process changed holds here, too.
const REFRESH: Duration = Duration::from_secs(10);

/// The time after which counted messages are stored. A process that is killed forgets those since.
const COUNT: Duration = Duration::from_secs(1);

const DAY: u64 = 24 * 60 * 60;

/// The records of one step.
const STEP: usize = 1_000;

impl Service {
    /// Returns the limits of an application.
    pub(crate) fn limits(&self, tenant: &TenantId) -> Limits {
        self.overrides().with(|known| known.limits.get(tenant).cloned()).unwrap_or_default()
    }

    /// Returns the time for which what belongs to the messages of an application is stored.
    pub(crate) fn retention(&self, tenant: &TenantId) -> Duration {
        let of_all = self.engine().settings().retention;
        let days = self.limits(tenant).retention_days;
        days.map_or(of_all, |days| of_all.min(days_of(days.into())))
    }

    /// Sets the limits of an application, for this process at once.
    pub(crate) fn set_limits(&self, tenant: &TenantId, limits: Option<Limits>) {
        let days = limits.as_ref().and_then(|limits| limits.retention_days);
        self.engine().retain(tenant.clone(), days.map(|days| days_of(days.into())));
        self.overrides().with(|known| {
            known.changes += 1;
            match limits {
                Some(limits) => known.limits.insert(tenant.clone(), limits),
                None => known.limits.remove(tenant),
            }
        });
    }

    /// Sets the retry schedule of an event type, for this process at once.
    pub(crate) fn set_schedule(&self, event_type: &EventType, seconds: Option<&[u64]>) {
        let delays = seconds.map(|seconds| seconds.iter().copied().map(Duration::from_secs));
        self.engine().retry_by_type(event_type.clone(), delays.map(RetryPolicy::schedule));
        self.overrides().with(|known| {
            known.changes += 1;
            match seconds {
                Some(_) => known.schedules.insert(event_type.clone()),
                None => known.schedules.remove(event_type),
            }
        });
    }

    /// Reserves places among the messages of an application's day for those that it is to publish. One that
    /// the store has needs none: publishing it again changes nothing.
    pub(crate) async fn reserve(
        &self,
        tenant: &TenantId,
        ids: &[&EventId],
    ) -> Result<Reserved, ApiError> {
        let now = Self::now();
        let day = now.as_unix_seconds() / DAY;
        let reserved =
            |messages| Reserved { service: self.clone(), tenant: tenant.clone(), day, messages };
        let Some(most) = self.limits(tenant).messages_per_day else { return Ok(reserved(0)) };
        self.read_count(tenant, day, now).await?;
        let wanted = ids.len() as u64;
        if self.take(tenant, wanted, most).is_ok() {
            return Ok(reserved(wanted));
        }
        let rest = Duration::from_secs((day + 1) * DAY - now.as_unix_seconds());
        let mut fresh = HashSet::new();
        for id in ids {
            let found = self.engine().history().event(tenant.clone(), EventId::clone(id)).await?;
            if found.is_none() {
                fresh.insert(*id);
            }
            // The others need not be looked up, whatever is released meanwhile.
            if fresh.len() as u64 > self.free(tenant, most) {
                return Err(ApiError::used_up(most, rest));
            }
        }
        match self.take(tenant, fresh.len() as u64, most) {
            Ok(()) => Ok(reserved(fresh.len() as u64)),
            Err(Full) => Err(ApiError::used_up(most, rest)),
        }
    }

    /// Reads the number of an application's messages on a day, unless it is known.
    async fn read_count(
        &self,
        tenant: &TenantId,
        day: u64,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let is_of_day = |count: &Count| count.day == day;
        if self.overrides().with(|known| known.counts.get(tenant).is_some_and(is_of_day)) {
            return Ok(());
        }
        let usage = self.admin().usage(tenant).look_up(&day.to_string(), now).await?;
        let stored = usage.map_or(0, |found| found.value.messages);
        self.overrides().with(|known| {
            let count = known.counts.entry(tenant.clone()).or_default();
            if count.day != day {
                *count = Count { day, stored, ..Count::default() };
            }
        });
        Ok(())
    }

    /// Takes places of an application's day.
    fn take(&self, tenant: &TenantId, messages: u64, most: u64) -> Result<(), Full> {
        self.overrides().with(|known| {
            let count = known.counts.entry(tenant.clone()).or_default();
            if count.all() + messages > most {
                return Err(Full);
            }
            count.reserved += messages;
            Ok(())
        })
    }

    fn free(&self, tenant: &TenantId, most: u64) -> u64 {
        let all = |count: &Count| count.all();
        most.saturating_sub(self.overrides().with(|known| known.counts.get(tenant).map_or(0, all)))
    }

    /// Reads all limits and schedules, and sets those that are new or gone.
    pub(crate) async fn refresh(&self) -> Result<(), AdminError> {
        let changes = self.overrides().with(|known| known.changes);
        let limits = all(self.admin().limits()).await?;
        let limits: HashMap<TenantId, Limits> = limits
            .into_iter()
            .filter_map(|entry| Some((TenantId::new(&entry.id).ok()?, entry.value)))
            .collect();
        let schedules = all(self.admin().retry_schedules()).await?;
        let (old, old_types, later) = self
            .overrides()
            .with(|known| (known.limits.clone(), known.schedules.clone(), known.changes));
        if later != changes {
            // A request has changed one meanwhile: what was read may be older.
            return Ok(());
        }
        for tenant in old.keys().filter(|tenant| !limits.contains_key(*tenant)) {
            self.set_limits(tenant, None);
        }
        for (tenant, limits) in limits.into_iter().filter(|(of, new)| old.get(of) != Some(new)) {
            self.set_limits(&tenant, Some(limits));
        }
        let mut types = BTreeSet::new();
        for entry in schedules {
            if let Ok(event_type) = EventType::new(&entry.id) {
                self.set_schedule(&event_type, Some(&entry.value.seconds));
                types.insert(event_type);
            }
        }
        for event_type in old_types.difference(&types) {
            self.set_schedule(event_type, None);
        }
        Ok(())
    }

    /// Stores the counts since the last time.
    async fn store_counts(&self) -> Result<(), AdminError> {
        let counts = self.overrides().with(|known| {
            let fresh = known.counts.iter().filter(|(_, count)| count.fresh > 0);
            fresh.map(|(tenant, count)| (tenant.clone(), *count)).collect::<Vec<_>>()
        });
        for (tenant, Count { day, fresh, .. }) in counts {
            let now = Self::now();
            let counted = |before: Option<Usage>| {
                let messages = before.map_or(0, |before| before.messages) + fresh;
                Ok::<_, AdminError>(Usage { messages, counted_at: now })
            };
            let usage = self.admin().usage(&tenant).advance(&day.to_string(), now, counted).await?;
            self.overrides().with(|known| {
                if let Some(count) = known.counts.get_mut(&tenant).filter(|count| count.day == day)
                {
                    count.stored = usage.messages;
                    count.fresh = count.fresh.saturating_sub(fresh);
                }
            });
        }
        Ok(())
    }

    /// Keeps what is known up to date, as long as the service is used.
    pub(crate) fn follow_overrides(&self) {
        let service = self.downgrade();
        tokio::spawn(async move {
            let mut refreshed_at = None;
            while let Some(service) = service.upgrade() {
                let now = SystemClock.monotonic();
                let is_old = refreshed_at.is_none_or(|at| now.saturating_since(at) >= REFRESH);
                let refreshed = if is_old { service.refresh().await } else { Ok(()) };
                refreshed_at = if is_old { Some(now) } else { refreshed_at };
                if let Err(error) = refreshed.and(service.store_counts().await) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "limits are not up to date");
                }
                drop(service);
                SystemClock.sleep(COUNT).await;
            }
        });
    }
}

/// The places of a day are used up.
struct Full;

/// Places among the messages of an application's day, for those that are being published. Places that
/// [`accept`](Self::accept) does not use are free again.
#[must_use = "the messages count once they are accepted"]
pub(crate) struct Reserved {
    service: Service,
    tenant: TenantId,
    day: u64,
    messages: u64,
}

impl Reserved {
    /// Counts the messages that are new in the store.
    pub(crate) fn accept(self, published: &[&Published]) {
        let is_new = |published: &&&Published| published.status == PublishStatus::Created;
        let accepted = published.iter().filter(is_new).count() as u64;
        self.with_count(|count, messages| count.fresh += accepted.min(messages));
    }

    fn with_count(&self, act: impl FnOnce(&mut Count, u64)) {
        if self.messages > 0 {
            self.service.overrides().with(|known| {
                // A new day has a count of its own.
                let count = known.counts.get_mut(&self.tenant);
                if let Some(count) = count.filter(|count| count.day == self.day) {
                    act(count, self.messages);
                }
            });
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.with_count(|count, messages| {
            count.reserved = count.reserved.saturating_sub(messages);
        });
    }
}

/// Returns the time of as many days.
fn days_of(days: u64) -> Duration {
    Duration::from_secs(days * DAY)
}

/// Reads all records of a collection.
async fn all<R: Resource>(collection: Collection<'_, R>) -> Result<Vec<Entry<R>>, AdminError> {
    let (mut found, mut walk) = (Vec::new(), collection.walk(STEP));
    while let Some(page) = walk.next(Timestamp::now()).await? {
        found.extend(page);
    }
    Ok(found)
}
