//! The resources of one kind, in pages, with every change in the audit log.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde_json::Value;
use thiserror::Error;
use webhooks_core::Timestamp;

use crate::audit::{Actor, AuditEntry};
use crate::public_id::IdKind;
use crate::record::{
    Record, RecordChange, RecordError, RecordKind, RecordName, RecordPlace, RecordQuery,
    RecordStore,
};
use crate::resource::{Entry, FieldError, Resource};

/// How often a change is tried again when somebody else makes one at the same time.
pub(crate) const TRIES: usize = 8;

/// The most entries of a page.
const MAX_LIMIT: usize = 1_000;

/// The reason why a call failed. Nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Another one has this name or uid.
    #[error("another {} has the {field} {name:?}", kind.thing())]
    Exists {
        /// The kind of both.
        kind: RecordKind,
        /// The field that is taken: `uid`, `name` or `id`.
        field: &'static str,
        /// Its value.
        name: String,
    },
    /// There is none.
    #[error("there is no such {}", .0.thing())]
    NotFound(RecordKind),
    /// No page of the list has this iterator.
    #[error("no page of this list has this iterator")]
    NoPage,
    /// Others changed it at the same time, again and again.
    #[error("it was changed at the same time; try again")]
    Changed,
    /// A field is not valid.
    #[error(transparent)]
    Invalid(#[from] FieldError),
    /// A stored record cannot be read.
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
            RecordError::Exists { .. } | RecordError::Changed { .. } => Self::Changed,
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

/// The resources of one kind within one scope. Every change writes a row of the audit log with it.
pub struct Collection<'a, R> {
    pub(crate) records: &'a Arc<dyn RecordStore>,
    pub(crate) scope: String,
    pub(crate) kind: PhantomData<fn() -> R>,
}

/// A walk through all resources of a collection.
#[derive(Debug)]
pub struct Walk<C> {
    collection: C,
    /// The next page; `None` at the end.
    query: Option<ListQuery>,
}

impl<R: Resource> Walk<Collection<'_, R>> {
    /// Returns the next ones; `None` at the end. Those that are added or deleted meanwhile may
    /// be among them.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails. The next call tries again.
    pub async fn next(&mut self, now: Timestamp) -> Result<Option<Vec<Entry<R>>>, AdminError> {
        let Some(query) = &self.query else { return Ok(None) };
        let page = self.collection.list(query.clone(), now).await?;
        let next = page.next.filter(|_| !page.is_last);
        let limit = query.limit;
        self.query =
            next.map(|next| ListQuery { limit, iterator: Some(next), ..ListQuery::default() });
        Ok(Some(page.items))
    }
}

impl<R: Resource> Collection<'_, R> {
    /// Returns one by its key or its alias.
    ///
    /// # Errors
    /// [`AdminError::NotFound`] when there is none.
    pub async fn get(&self, name: &str, now: Timestamp) -> Result<Entry<R>, AdminError> {
        self.look_up(name, now).await?.ok_or(AdminError::NotFound(R::KIND))
    }

    /// Returns one by its key or its alias, if there is one.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn look_up(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<Entry<R>>, AdminError> {
        let is_alias = R::ID.is_some_and(|kind| kind.number(name).is_err());
        let of = if is_alias { RecordName::Alias } else { RecordName::Key };
        self.find(of(name.to_owned()), now).await
    }

    pub(crate) async fn find(
        &self,
        name: RecordName,
        now: Timestamp,
    ) -> Result<Option<Entry<R>>, AdminError> {
        let found = self.records.get(R::KIND, self.scope.clone(), name, now).await?;
        found.map(entry).transpose()
    }

    /// Adds a resource under a key.
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
        let entry = Entry::new(id, value, now);
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

    /// Adds a resource under a key, or replaces the one that is there.
    ///
    /// # Errors
    /// [`AdminError::Invalid`], and [`AdminError::Changed`] when others do the same at the same time.
    pub async fn put(
        &self,
        key: &str,
        value: R,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Entry<R>, AdminError> {
        match self.change(key, actor, now, |_| value.clone()).await {
            Err(AdminError::NotFound(_)) => self.add(key.to_owned(), value, actor, now).await,
            changed => changed,
        }
    }

    /// Puts a value in the place of one that may be absent, without a row in the audit log: for a state
    /// that changes at every use. `next` may be called again, as with [`change`](Self::change).
    ///
    /// # Errors
    /// The first error of `next`, and [`AdminError::Changed`] after many tries.
    pub async fn advance<E: From<AdminError>>(
        &self,
        key: &str,
        now: Timestamp,
        next: impl Fn(Option<R>) -> Result<R, E> + Send + Sync,
    ) -> Result<R, E> {
        for _ in 0..TRIES {
            let before = self.find(RecordName::Key(key.to_owned()), now).await?;
            let value = next(before.as_ref().map(|before| before.value.clone()))?;
            let change = self.succeed(key, before, value.clone(), now)?;
            match self.records.write(vec![change], now).await {
                Ok(()) => return Ok(value),
                Err(RecordError::Exists { .. } | RecordError::Changed { .. }) => {}
                Err(error) => return Err(AdminError::from(error).into()),
            }
        }
        Err(AdminError::Changed.into())
    }

    /// Adds and replaces several in one write: each under its key, in place of the entry that it was made from,
    /// or as a new one.
    ///
    /// # Errors
    /// [`AdminError::Changed`] when one was added, changed or deleted meanwhile, and [`AdminError::Invalid`].
    /// Then nothing was written.
    pub async fn put_all(
        &self,
        all: Vec<(String, Option<Entry<R>>, R)>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let mut changes = Vec::with_capacity(2 * all.len());
        for (id, before, value) in all {
            value.check()?;
            let states = (
                before.as_ref().map(|before| before.value.shown()).transpose()?,
                Some(value.shown()?),
            );
            let change = self.succeed(&id, before, value, now)?;
            changes.push(change);
            changes.push(audit_row(actor, (R::KIND.as_str(), &self.scope, &id), states, now)?);
        }
        match self.records.write(changes, now).await {
            Err(RecordError::Exists { .. }) => Err(AdminError::Changed),
            written => Ok(written?),
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

    /// Deletes one, if it is there.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn delete_any(
        &self,
        name: &str,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        match self.delete(name, actor, now).await {
            Err(AdminError::NotFound(_)) => Ok(()),
            deleted => deleted,
        }
    }

    /// Returns the change that puts a value in the place of an entry, or adds it if there is none.
    fn succeed(
        &self,
        key: &str,
        before: Option<Entry<R>>,
        value: R,
        now: Timestamp,
    ) -> Result<RecordChange, AdminError> {
        Ok(match before {
            Some(before) => {
                RecordChange::Replace(self.record_after(&Entry { value, ..before }, now)?)
            }
            None => RecordChange::Insert(self.record(&Entry::new(key.to_owned(), value, now))?),
        })
    }

    /// Deletes all of them, one after another.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails; some are deleted then.
    pub async fn delete_all(&self, actor: &Actor, now: Timestamp) -> Result<(), AdminError> {
        loop {
            let page =
                self.list(ListQuery { limit: MAX_LIMIT, ..ListQuery::default() }, now).await?;
            for entry in page.items {
                self.delete_any(&entry.id, actor, now).await?;
            }
            if page.is_last {
                return Ok(());
            }
        }
    }

    /// Goes through all of them, in the order of the keys, in steps of `limit` at most.
    pub fn walk(self, limit: usize) -> Walk<Self> {
        Walk { collection: self, query: Some(ListQuery { limit, ..ListQuery::default() }) }
    }

    /// Returns a page, in the order of the keys.
    ///
    /// # Errors
    /// [`AdminError::NoPage`] when no key is like the iterator, and others when the store fails.
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
        if after.as_ref().is_some_and(|key| !R::is_key(key)) {
            return Err(AdminError::NoPage);
        }
        let (kind, scope) = (R::KIND, self.scope.clone());
        let is_descending = is_descending != is_back;
        // One more shows whether there is a further page.
        let query = RecordQuery { kind, scope, after, is_descending, limit: limit + 1, now };
        let mut records = self.records.list(query).await?;
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
        let row = audit_row(actor, (R::KIND.as_str(), &self.scope, id), states, now)?;
        match (self.records.write(vec![change, row], now).await, after) {
            (Err(RecordError::Exists { .. }), Some(value)) => Err(Self::exists(id, value)),
            (written, _) => Ok(written?),
        }
    }

    /// Returns the error for a resource whose key or alias is another's.
    pub fn exists(id: &str, value: &R) -> AdminError {
        // The alias of an API key is the hash of its text.
        let uid = value.alias().filter(|_| R::KIND != RecordKind::ApiKey);
        let (field, name) = match uid {
            Some(uid) => ("uid", uid),
            None if R::ID.is_some() => ("id", id.to_owned()),
            None => ("name", id.to_owned()),
        };
        AdminError::Exists { kind: R::KIND, field, name }
    }

    pub(crate) fn place(&self, key: String) -> RecordPlace {
        RecordPlace { kind: R::KIND, scope: self.scope.clone(), key }
    }

    pub(crate) fn record(&self, entry: &Entry<R>) -> Result<Record, AdminError> {
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
    pub(crate) fn record_after(
        &self,
        entry: &Entry<R>,
        now: Timestamp,
    ) -> Result<Record, AdminError> {
        let record = self.record(entry)?;
        Ok(Record { version: record.version + 1, updated_at: now, ..record })
    }
}

fn entry<R: Resource>(record: Record) -> Result<Entry<R>, AdminError> {
    let Record { place, version, created_at, updated_at, body, .. } = record;
    let value = serde_json::from_str(&body)?;
    Ok(Entry { id: place.key, value, version, created_at, updated_at })
}

impl<R> fmt::Debug for Collection<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collection").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// Returns the change that adds a row to the audit log.
pub(crate) fn audit_row(
    actor: &Actor,
    (kind, scope, id): (&str, &str, &str),
    (before, after): (Option<Value>, Option<Value>),
    now: Timestamp,
) -> Result<RecordChange, AdminError> {
    let Actor { who, from } = actor.clone();
    let (kind, scope, id) = (kind.to_owned(), scope.to_owned(), id.to_owned());
    let value = AuditEntry { who, from, kind, scope, id, before, after };
    let (kind, key) = (RecordKind::Audit, IdKind::Audit.generate());
    let place = RecordPlace { kind, scope: String::new(), key };
    Ok(RecordChange::Insert(Record {
        place,
        alias: None,
        version: 1,
        created_at: now,
        updated_at: now,
        expires_at: None,
        body: serde_json::to_string(&value)?,
    }))
}
