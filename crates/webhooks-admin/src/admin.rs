//! The things of a service, by kind, over any record store.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use webhooks_core::{TenantId, Timestamp};

use crate::api_key::{ApiKey, ApiKeyHash};
use crate::application::{Application, Deletion};
use crate::audit::{Actor, AuditEntry};
use crate::collection::{AdminError, Collection, ListQuery, TRIES, audit_row};
use crate::content_end::ContentEnd;
use crate::endpoint_entry::EndpointEntry;
use crate::event_type_info::EventTypeInfo;
use crate::idempotency::hex;
use crate::limits::{Limits, RetrySchedule, Usage};
use crate::one_time_token::OneTimeToken;
use crate::poller::{Consumer, Poller};
use crate::poller_attempt::PollerAttempt;
use crate::public_id::IdKind;
use crate::record::{RecordChange, RecordError, RecordName, RecordStore};
use crate::resource::{Entry, Resource as _};
use crate::service_job::ServiceJob;
use crate::watermark::Watermark;

mod poller_attempts;
mod sessions;

/// How old the time of a key's last use may be. Each use in between costs no write.
const USE_PRECISION: Duration = Duration::from_secs(5 * 60);

/// The most watermarks that are read: far more than a service has processes.
const MAX_WATERMARKS: usize = 1_000;

/// The things that a service keeps: applications, event types, endpoints' entries, keys, the audit log, and
/// the answers to requests with idempotency keys. Clones share it.
#[derive(Clone)]
pub struct Admin {
    pub(crate) records: Arc<dyn RecordStore>,
}

impl Admin {
    /// Returns what a store keeps.
    pub fn new(records: impl RecordStore) -> Self {
        Self { records: Arc::new(records) }
    }

    /// Returns the applications, by id and uid.
    pub fn applications(&self) -> Collection<'_, Application> {
        self.collection(String::new())
    }

    /// Returns the event types, by name.
    pub fn event_types(&self) -> Collection<'_, EventTypeInfo> {
        self.collection(String::new())
    }

    /// Returns the entries of an application's endpoints, by id and uid.
    pub fn endpoints(&self, application: &TenantId) -> Collection<'_, EndpointEntry> {
        self.collection(application.to_string())
    }

    /// Returns the limits of applications, by the ids of these.
    pub fn limits(&self) -> Collection<'_, Limits> {
        self.collection(String::new())
    }

    /// Returns the retry schedules of event types, by the names of these.
    pub fn retry_schedules(&self) -> Collection<'_, RetrySchedule> {
        self.collection(String::new())
    }

    /// Returns the numbers of messages of an application, by day.
    pub fn usage(&self, application: &TenantId) -> Collection<'_, Usage> {
        self.collection(application.to_string())
    }

    /// Returns the pollers of an application, by id and uid.
    pub fn pollers(&self, application: &TenantId) -> Collection<'_, Poller> {
        self.collection(application.to_string())
    }

    /// Returns the consumers of a poller, by name.
    pub fn consumers(&self, application: &TenantId, poller: &str) -> Collection<'_, Consumer> {
        self.collection(format!("{application}/{poller}"))
    }

    /// Returns the attempts that the readers of an application's pollers reported, those at the oldest messages
    /// first.
    pub fn poller_attempts(&self, application: &TenantId) -> Collection<'_, PollerAttempt> {
        self.collection(application.to_string())
    }

    /// Returns the keys, by id.
    pub fn keys(&self) -> Collection<'_, ApiKey> {
        self.collection(String::new())
    }

    /// Adds the first key of a service that has none; returns whether it did. Of processes that do so at once, one
    /// does: the id of the first key is always the same.
    ///
    /// # Errors
    /// [`AdminError::Invalid`], and [`AdminError::Unavailable`] when the store fails.
    pub async fn add_first_key(&self, key: ApiKey, now: Timestamp) -> Result<bool, AdminError> {
        match self.keys().add(IdKind::ApiKey.id(0), key, &Actor::service(), now).await {
            Ok(_) => Ok(true),
            Err(AdminError::Exists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the audit log.
    pub fn audit(&self) -> Collection<'_, AuditEntry> {
        self.collection(String::new())
    }

    /// Returns the deletions of applications that go on, by the ids of these.
    pub fn deletions(&self) -> Collection<'_, Deletion> {
        self.collection(String::new())
    }

    /// Returns the jobs of the service itself, the ids of which grow with time.
    pub fn jobs(&self) -> Collection<'_, ServiceJob> {
        self.collection(String::new())
    }

    fn one_time_tokens(&self) -> Collection<'_, OneTimeToken> {
        self.collection(String::new())
    }

    /// Returns the ends of events' content, the first to come first.
    pub fn content_ends(&self) -> Collection<'_, ContentEnd> {
        self.collection(String::new())
    }

    /// Adds ends of events' content, in one write.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn add_content_ends(
        &self,
        ends: impl IntoIterator<Item = ContentEnd>,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let collection = self.content_ends();
        let mut changes = Vec::new();
        for end in ends {
            let entry = Entry::new(end.key(), end, now);
            // It may be there: the same request came twice.
            changes.push(RecordChange::Delete(collection.place(entry.id.clone())));
            changes.push(RecordChange::Insert(collection.record(&entry)?));
        }
        Ok(self.records.write(changes, now).await?)
    }

    /// Deletes ends of events' content, in one write.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn forget_content_ends(
        &self,
        ends: impl IntoIterator<Item = ContentEnd>,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let collection = self.content_ends();
        let places = ends.into_iter().map(|end| collection.place(end.key()));
        Ok(self.records.write(places.map(RecordChange::Delete).collect(), now).await?)
    }

    /// Deletes an application, and adds its [`Deletion`] in the same write.
    ///
    /// # Errors
    /// [`AdminError::NotFound`] when there is none.
    pub async fn delete_application(
        &self,
        name: &str,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let before = self.applications().get(name, now).await?;
        let (id, value) = (before.id.clone(), Deletion {});
        let deletion = Entry::new(id, value, now);
        let states = (Some(before.value.shown()?), None);
        let changes = vec![
            RecordChange::Insert(self.deletions().record(&deletion)?),
            RecordChange::Delete(self.applications().place(before.id.clone())),
            audit_row(actor, ("application", "", &before.id), states, now)?,
        ];
        Ok(self.records.write(changes, now).await?)
    }

    /// Adds or replaces event types by their names, all of them or none.
    ///
    /// # Errors
    /// [`AdminError::Invalid`] when one is not valid, and [`AdminError::Changed`] when others change them at
    /// the same time, again and again.
    pub async fn put_event_types(
        &self,
        wanted: &BTreeMap<String, EventTypeInfo>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let event_types = self.event_types();
        for _ in 0..TRIES {
            let mut all = Vec::with_capacity(wanted.len());
            for (name, value) in wanted {
                let before = event_types.look_up(name, now).await?;
                all.push((name.clone(), before, value.clone()));
            }
            match event_types.put_all(all, actor, now).await {
                // Another request was faster.
                Err(AdminError::Changed) => {}
                written => return written,
            }
        }
        Err(AdminError::Changed)
    }

    pub(crate) fn collection<R>(&self, scope: String) -> Collection<'_, R> {
        Collection { records: &self.records, scope, kind: PhantomData }
    }

    /// Returns the key with this hash, whether or not it is accepted now, and notes its use.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn use_key(
        &self,
        hash: &ApiKeyHash,
        now: Timestamp,
    ) -> Result<Option<Entry<ApiKey>>, AdminError> {
        let found = self.keys().find(RecordName::Alias(hex(hash.as_bytes())), now).await?;
        let Some(entry) = found else { return Ok(None) };
        let is_old = entry.value.used_at.is_none_or(|at| now.saturating_since(at) > USE_PRECISION);
        if is_old && entry.value.check(now).is_ok() {
            let mut used = entry.clone();
            used.value.used_at = Some(now);
            // The next use notes it if this one cannot.
            let replaced = RecordChange::Replace(self.keys().record_after(&used, now)?);
            let _noted = self.records.write(vec![replaced], now).await;
        }
        Ok(Some(entry))
    }

    /// Adds a row to the audit log, for a change of something that has no record here. `before` and
    /// `after` must hold no secret.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn log(
        &self,
        actor: &Actor,
        (kind, scope, id): (&str, &str, &str),
        (before, after): (Option<Value>, Option<Value>),
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let row = audit_row(actor, (kind, scope, id), (before, after), now)?;
        Ok(self.records.write(vec![row], now).await?)
    }

    /// Returns the watermarks of all processes, up to a thousand.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn watermarks(&self, now: Timestamp) -> Result<Vec<Entry<Watermark>>, AdminError> {
        let query = ListQuery { limit: MAX_WATERMARKS, ..ListQuery::default() };
        Ok(self.all_watermarks().list(query, now).await?.items)
    }

    /// Adds the watermark of a process, unless it has one.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn add_watermark(
        &self,
        process: &str,
        told_until: Timestamp,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let first =
            |before: Option<Watermark>| Ok(before.unwrap_or_else(|| Watermark::new(told_until)));
        self.all_watermarks().advance(process, now, first).await.map(drop)
    }

    /// Moves the watermark of a process, which it may not have yet. It never goes back.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn move_watermark(
        &self,
        process: &str,
        told_until: Timestamp,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let later = |before: Option<Watermark>| {
            let before = before.map_or(told_until, |before| before.told_until);
            Ok(Watermark::new(before.max(told_until)))
        };
        self.all_watermarks().advance(process, now, later).await.map(drop)
    }

    /// Deletes the watermark of a process, if it has one.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn delete_watermark(&self, process: &str, now: Timestamp) -> Result<(), AdminError> {
        let place = self.all_watermarks().place(process.to_owned());
        Ok(self.records.write(vec![RecordChange::Delete(place)], now).await?)
    }

    /// Deletes the watermark of a process that counts as dead, as it was read; returns whether it was still the same.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn delete_dead_watermark(
        &self,
        dead: &Entry<Watermark>,
        now: Timestamp,
    ) -> Result<bool, AdminError> {
        let watermarks = self.all_watermarks();
        let changes = vec![
            // It is replaced first: that fails if the process has moved it since.
            RecordChange::Replace(watermarks.record_after(dead, now)?),
            RecordChange::Delete(watermarks.place(dead.id.clone())),
        ];
        match self.records.write(changes, now).await {
            Ok(()) => Ok(true),
            Err(RecordError::Changed { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn all_watermarks(&self) -> Collection<'_, Watermark> {
        self.collection(String::new())
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}
