//! The things of a service, by kind, over any record store.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;
use webhooks_core::{TenantId, Timestamp};

use crate::api_key::{ApiKey, ApiKeyHash};
use crate::application::Application;
use crate::audit::{Actor, AuditEntry};
use crate::endpoint_entry::EndpointEntry;
use crate::event_type_info::EventTypeInfo;
use crate::idempotency::{Answer, Begin, HELD, IdempotentRequest, KEPT, KeptAnswer, hex};
use crate::public_id::IdKind;
use crate::record::{
    Record, RecordChange, RecordError, RecordName, RecordPlace, RecordQuery, RecordStore,
};
use crate::resource::{Entry, FieldError, Resource};

/// How often a change is tried again when somebody else makes one at the same time.
const TRIES: usize = 8;

/// The most entries of a page.
const MAX_LIMIT: usize = 1_000;

/// How old the time of a key's last use may be. Each use in between costs no write.
const USE_PRECISION: Duration = Duration::from_secs(5 * 60);

/// The reason why a call failed. Nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Another one has this id, name or uid.
    #[error("there is another one of this id, name or uid")]
    Exists,
    /// There is none.
    #[error("there is none of this id, name or uid")]
    NotFound,
    /// Others changed it at the same time, again and again.
    #[error("it was changed at the same time; try again")]
    Changed,
    /// A field is not valid.
    #[error(transparent)]
    Invalid(#[from] FieldError),
    /// What is stored cannot be read.
    #[error("a record of the service is damaged")]
    Damaged(#[from] serde_json::Error),
    /// The store failed.
    #[error("the store is not available")]
    Unavailable {
        /// The reason.
        source: RecordError,
    },
}

impl From<RecordError> for AdminError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Exists { .. } => Self::Exists,
            RecordError::Changed { .. } => Self::Changed,
            source @ RecordError::Unavailable { .. } => Self::Unavailable { source },
        }
    }
}

/// The order of a page, and its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct ListQuery {
    /// The most entries, up to 1,000.
    pub limit: usize,
    /// The key behind which it begins, in its order; `prev:` and a key for the page before that key.
    pub iterator: Option<String>,
    /// Whether the newest comes first, or the last by name.
    pub is_descending: bool,
}

impl ListQuery {
    /// Returns whether it asks for the page before a key.
    pub fn is_back(&self) -> bool {
        self.iterator.as_ref().is_some_and(|iterator| iterator.starts_with(BACK))
    }
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers read it")]
pub struct ListPage<T> {
    /// The entries.
    pub items: Vec<T>,
    /// The iterator of the next page; of an empty page, none.
    pub next: Option<String>,
    /// The iterator of the page before, if the page was not asked for without an iterator.
    pub previous: Option<String>,
    /// Whether nothing follows.
    pub is_last: bool,
}

/// The mark of an iterator that leads back. No key has a colon.
const BACK: &str = "prev:";

/// What a service has: applications, event types, endpoints' entries, keys, the audit log, and the answers
/// to requests with idempotency keys. Clones share it.
#[derive(Clone)]
pub struct Admin {
    records: Arc<dyn RecordStore>,
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

    /// Returns the keys, by id.
    pub fn keys(&self) -> Collection<'_, ApiKey> {
        self.collection(String::new())
    }

    /// Returns the audit log.
    pub fn audit(&self) -> Collection<'_, AuditEntry> {
        self.collection(String::new())
    }

    fn collection<R>(&self, scope: String) -> Collection<'_, R> {
        Collection { admin: self, scope, kind: PhantomData }
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
        let row = self.audit_row(actor, (kind, scope, id), (before, after), now)?;
        Ok(self.records.write(vec![row], now).await?)
    }

    fn audit_row(
        &self,
        actor: &Actor,
        (kind, scope, id): (&str, &str, &str),
        (before, after): (Option<Value>, Option<Value>),
        now: Timestamp,
    ) -> Result<RecordChange, AdminError> {
        let Actor { who, from } = actor.clone();
        let (kind, scope, id) = (kind.to_owned(), scope.to_owned(), id.to_owned());
        let value = AuditEntry { who, from, kind, scope, id, before, after };
        let id = IdKind::Audit.generate();
        let entry = Entry { id, value, version: 1, created_at: now, updated_at: now };
        Ok(RecordChange::Insert(self.audit().record(&entry)?))
    }

    /// Asks whether a request with an idempotency key is the first, and keeps its place for a minute if it
    /// is.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn begin(
        &self,
        request: &IdempotentRequest,
        now: Timestamp,
    ) -> Result<Begin, AdminError> {
        let answers = self.collection::<KeptAnswer>(String::new());
        let held = KeptAnswer { body: request.body_hash(), answer: None, until: Some(now + HELD) };
        let id = request.record_key();
        let entry = Entry { id, value: held, version: 1, created_at: now, updated_at: now };
        let insert = RecordChange::Insert(answers.record(&entry)?);
        match self.records.write(vec![insert], now).await {
            Ok(()) => return Ok(Begin::First),
            Err(RecordError::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let found = answers.find(RecordName::Key(entry.id), now).await?;
        Ok(match found.map(|found| found.value) {
            Some(kept) if kept.body != entry.value.body => Begin::OtherBody,
            Some(KeptAnswer { answer: Some(answer), .. }) => Begin::Answered(answer),
            // It is gone since, and the next try is the first.
            Some(_) | None => Begin::InProgress,
        })
    }

    /// Keeps the answer to a request that was the first for a day; without an answer, the next is the first.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn finish(
        &self,
        request: &IdempotentRequest,
        answer: Option<Answer>,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let answers = self.collection::<KeptAnswer>(String::new());
        let key = request.record_key();
        let Some(answer) = answer else {
            let forget = RecordChange::Delete(answers.place(key));
            return Ok(self.records.write(vec![forget], now).await?);
        };
        let until = Some(now + KEPT);
        let value = KeptAnswer { body: request.body_hash(), answer: Some(answer), until };
        let entry = Entry { id: key, value, version: 1, created_at: now, updated_at: now };
        let place = RecordChange::Delete(answers.place(entry.id.clone()));
        let insert = RecordChange::Insert(answers.record(&entry)?);
        Ok(self.records.write(vec![place, insert], now).await?)
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

/// The resources of one kind within one scope. Every change writes a row of the audit log with it.
#[derive(Debug)]
pub struct Collection<'a, R> {
    admin: &'a Admin,
    scope: String,
    kind: PhantomData<fn() -> R>,
}

impl<R: Resource> Collection<'_, R> {
    /// Returns one by its key or, if none has it, by its alias.
    ///
    /// # Errors
    /// [`AdminError::NotFound`] when there is none.
    pub async fn get(&self, name: &str, now: Timestamp) -> Result<Entry<R>, AdminError> {
        let by_key = self.find(RecordName::Key(name.to_owned()), now).await?;
        let found = match by_key {
            None => self.find(RecordName::Alias(name.to_owned()), now).await?,
            found => found,
        };
        found.ok_or(AdminError::NotFound)
    }

    pub(crate) async fn find(
        &self,
        name: RecordName,
        now: Timestamp,
    ) -> Result<Option<Entry<R>>, AdminError> {
        let found = self.admin.records.get(R::KIND, self.scope.clone(), name, now).await?;
        found.map(entry).transpose()
    }

    /// Adds one under a key.
    ///
    /// # Errors
    /// [`AdminError::Exists`] when the key or alias is taken, and [`AdminError::Invalid`].
    pub async fn add(
        &self,
        id: String,
        value: R,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Entry<R>, AdminError> {
        value.check()?;
        let entry = Entry { id, value, version: 1, created_at: now, updated_at: now };
        let insert = RecordChange::Insert(self.record(&entry)?);
        self.write(insert, &entry.id, (None, Some(&entry.value)), actor, now).await?;
        Ok(entry)
    }

    /// Changes one; `change` may be called again if somebody else changes it at the same time.
    ///
    /// # Errors
    /// [`AdminError::NotFound`] when there is none, [`AdminError::Exists`] when its new alias is taken,
    /// [`AdminError::Invalid`], and [`AdminError::Changed`] after many tries.
    pub async fn change(
        &self,
        name: &str,
        actor: &Actor,
        now: Timestamp,
        change: impl Fn(R) -> R + Send + Sync,
    ) -> Result<Entry<R>, AdminError> {
        let mut tries = 0;
        loop {
            let before = self.get(name, now).await?;
            let value = change(before.value.clone());
            value.check()?;
            let mut after = Entry { value, ..before.clone() };
            let replace = RecordChange::Replace(self.record_after(&after, now)?);
            let states = (Some(&before.value), Some(&after.value));
            tries += 1;
            match self.write(replace, &after.id, states, actor, now).await {
                Err(AdminError::Changed) if tries < TRIES => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    (after.version, after.updated_at) = (before.version + 1, now);
                    return Ok(after);
                }
            }
        }
    }

    /// Deletes one.
    ///
    /// # Errors
    /// [`AdminError::NotFound`] when there is none.
    pub async fn delete(
        &self,
        name: &str,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let before = self.get(name, now).await?;
        let delete = RecordChange::Delete(self.place(before.id.clone()));
        self.write(delete, &before.id, (Some(&before.value), None), actor, now).await
    }

    /// Returns a page, in the order of the keys.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn list(
        &self,
        query: ListQuery,
        now: Timestamp,
    ) -> Result<ListPage<Entry<R>>, AdminError> {
        let ListQuery { limit, iterator, is_descending } = query;
        let limit = limit.min(MAX_LIMIT);
        let (is_back, after) = match &iterator {
            Some(iterator) => match iterator.strip_prefix(BACK) {
                Some(key) => (true, Some(key.to_owned())),
                None => (false, Some(iterator.clone())),
            },
            None => (false, None),
        };
        let (kind, scope) = (R::KIND, self.scope.clone());
        let is_descending = is_descending != is_back;
        // One more shows whether there is a further page.
        let query = RecordQuery { kind, scope, after, is_descending, limit: limit + 1, now };
        let mut records = self.admin.records.list(query).await?;
        let is_more = records.len() > limit;
        records.truncate(limit);
        if is_back {
            records.reverse();
        }
        let items = records.into_iter().map(entry).collect::<Result<Vec<Entry<R>>, _>>()?;
        let previous = items.first().filter(|_| iterator.is_some());
        let previous = previous.map(|first| format!("{BACK}{}", first.id));
        let next = items.last().map(|last| last.id.clone());
        // The page from which it was called back follows.
        Ok(ListPage { items, next, previous, is_last: !is_more && !is_back })
    }

    async fn write(
        &self,
        change: RecordChange,
        id: &str,
        (before, after): (Option<&R>, Option<&R>),
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let state = |value: Option<&R>| value.map(R::shown).transpose();
        let states = (state(before)?, state(after)?);
        let row = self.admin.audit_row(actor, (R::KIND.as_str(), &self.scope, id), states, now)?;
        Ok(self.admin.records.write(vec![change, row], now).await?)
    }

    fn place(&self, key: String) -> RecordPlace {
        RecordPlace { kind: R::KIND, scope: self.scope.clone(), key }
    }

    fn record(&self, entry: &Entry<R>) -> Result<Record, AdminError> {
        Ok(Record {
            place: self.place(entry.id.clone()),
            alias: entry.value.alias(),
            version: entry.version,
            created_at: entry.created_at,
            updated_at: entry.updated_at,
            expires_at: entry.value.expires_at(),
            body: serde_json::to_string(&entry.value)?,
        })
    }

    /// Returns the record that replaces that of the entry's version.
    fn record_after(&self, entry: &Entry<R>, now: Timestamp) -> Result<Record, AdminError> {
        let record = self.record(entry)?;
        Ok(Record { version: record.version + 1, updated_at: now, ..record })
    }
}

fn entry<R: Resource>(record: Record) -> Result<Entry<R>, AdminError> {
    let Record { place, version, created_at, updated_at, body, .. } = record;
    let value = serde_json::from_str(&body)?;
    Ok(Entry { id: place.key, value, version, created_at, updated_at })
}
