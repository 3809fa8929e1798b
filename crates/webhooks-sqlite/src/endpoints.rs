//! Endpoints: registering, changing and unregistering them.

use std::sync::Arc;

use rusqlite::params;
use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::backlog::QueueKey;
use webhooks_registry::{
    DisableReason, EndpointKey, RegisterError, Registration, Revision, UnknownEndpoint,
    seal::SealError,
    store::{EndpointStoreError, RegisterRequest, Registered, StateChange, StoredEndpoint},
};

use crate::command::WriteCommand;
use crate::inner::SqliteInner;
use crate::row;
use crate::write_connection::WriteConnection;

/// A change of an endpoint: before and after.
struct Change {
    before: Option<Arc<Registration>>,
    after: Registration,
    /// The first place of its backlog, and the time at which an ordered endpoint goes on. Memory needs
    /// them only for an endpoint whose row could not be read, which has no queue yet.
    first: Option<QueueKey>,
    blocked_until: Timestamp,
}

impl Change {
    fn new(before: Option<Arc<Registration>>, after: Registration) -> Self {
        Self { before, after, first: None, blocked_until: Timestamp::UNIX_EPOCH }
    }

    /// Changes the endpoint's row. An endpoint that opens gets a new row, so that deliveries of the old
    /// row that are still being cancelled are not mistaken for new ones.
    fn write(
        &mut self,
        connection: &mut WriteConnection,
    ) -> rusqlite::Result<Result<(), SealError>> {
        const UPDATE: &str = "UPDATE endpoints
            SET settings = ?2, secrets = ?3, state = ?4, disabled = ?5,
                blocked_until = CASE WHEN ?6 THEN blocked_until ELSE 0 END,
                version = ?7, updated_at = ?8, state_since = ?9
            WHERE number = ?1 RETURNING blocked_until";
        // Nothing is signed for the old row any more, so its secrets are deleted.
        const RETIRE: &str = "UPDATE endpoints SET is_current = 0, secrets = x'' WHERE number = ?";
        const INSERT: &str =
            "INSERT INTO endpoints (tenant, id, settings, secrets, state, disabled, version,
                updated_at, state_since, created_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        // Deliveries of an ordered endpoint are due at 0, so that the index has them in the order of
        // acceptance; those that are scheduled come behind them.
        const REORDER: &str = "UPDATE deliveries SET due_at = 0
            WHERE endpoint = ? AND due_at IS NOT NULL AND due_at <> 0 AND is_scheduled IS NULL";
        // The highest version of the rows, for an endpoint that is registered again.
        const LAST: &str = "SELECT max(version) FROM endpoints WHERE tenant = ? AND id = ?";
        let Self { before, after, first, blocked_until } = self;
        let (key, state) = (after.key(), after.state);
        let stored = StoredEndpoint::new(&after.endpoint);
        let secrets = match connection.keys.seal(&key.to_string(), &stored.secrets) {
            Ok(secrets) => secrets,
            Err(error) => return Ok(Err(error)),
        };
        let disabled = state.disabled().map(DisableReason::as_str);
        let was_open = before.as_ref().map(|before| before.state.is_open());
        let number = row::endpoint(after.number);
        let (tenant, id) = (key.tenant.as_str(), key.id.as_str());
        if was_open.is_none() {
            let mut last = connection.sqlite().prepare_cached(LAST)?;
            let last: Option<i64> = last.query_row([tenant, id], |row| row.get(0))?;
            after.revision =
                last.map_or(after.revision, |last| after.revision.above(row::unsigned(last)));
        }
        let Revision { version, created_at, updated_at, state_since } = after.revision;
        let (version, updated_at) = (row::integer(version), row::micros(updated_at));
        let (created_at, since) = (row::micros(created_at), row::micros(state_since));
        let settings = stored.settings;
        if was_open == Some(true) || (was_open == Some(false) && !state.is_open()) {
            let (word, ordered) = (state.as_str(), after.endpoint.ordered);
            let parameters = params![
                number, settings, secrets, word, disabled, ordered, version, updated_at, since
            ];
            let mut update = connection.sqlite().prepare_cached(UPDATE)?;
            *blocked_until = row::time(update.query_row(parameters, |row| row.get(0))?);
            drop(update);
            if !state.is_open() {
                connection.cancel_some(number)?;
            } else if after.endpoint.ordered {
                connection.execute(REORDER, [number])?;
            }
            *first = connection.first_key(after.number)?;
            return Ok(Ok(()));
        }
        if was_open.is_some() {
            connection.execute(RETIRE, [number])?;
        }
        let word = state.as_str();
        connection.execute(
            INSERT,
            params![
                tenant, id, settings, secrets, word, disabled, version, updated_at, since,
                created_at
            ],
        )?;
        after.number = row::endpoint_number(connection.sqlite().last_insert_rowid());
        Ok(Ok(()))
    }

    /// Changes the endpoint in memory; returns the endpoint as it was before.
    fn after_commit(
        self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> Result<Option<Arc<Registration>>, RegisterError> {
        let Self { before, after, first, blocked_until } = self;
        let key = after.key();
        inner.unreadable().remove(&key);
        let replaced = inner.registry.restore(after)?;
        let Some(after) = inner.registry.get_of(&key) else { return Ok(replaced) };
        if before.as_ref().is_some_and(|before| before.state.is_open()) && !after.state.is_open() {
            connection.start_draining(after.number);
        }
        // If the endpoint has a queue, this changes its settings and leaves its deliveries.
        let mut backlog = inner.backlog();
        backlog.open(&after, first, blocked_until);
        backlog.set_failing(after.number, connection.failing.contains_key(&after.number));
        Ok(replaced.or(before))
    }
}

/// Adds an endpoint, or changes one of the same id.
pub(crate) struct Register {
    request: RegisterRequest,
    outcome: Result<Option<Change>, EndpointStoreError>,
}

impl Register {
    pub(crate) fn new(request: RegisterRequest) -> Self {
        Self { request, outcome: Ok(None) }
    }

    fn change(&self, inner: &SqliteInner) -> Result<Option<Change>, EndpointStoreError> {
        let before = current(inner, &self.request.key());
        let after = self.request.apply(before.as_deref())?;
        if before.is_none() {
            self.request.check_count(|| count_of(inner, &self.request.endpoint.tenant))?;
        }
        Ok(after.map(|after| Change::new(before, after)))
    }
}

/// Counts the endpoints of a tenant, those included whose rows cannot be read.
fn count_of(inner: &SqliteInner, tenant: &TenantId) -> usize {
    let unreadable = inner.unreadable().keys().filter(|key| key.tenant == *tenant).count();
    inner.registry.count_of(tenant) + unreadable
}

// The commands on endpoints end their groups: `after_commit` changes registrations and queues, by
// which all others decide. They may follow `Publish`, `Settle` and `Prune`: these change no
// registration, and the statements find in the rows what these wrote for the endpoint.
impl WriteCommand for Register {
    type Answer = Result<Registered, EndpointStoreError>;

    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()> {
        self.outcome = write(self.change(inner), connection)?;
        Ok(())
    }

    fn after_commit(self, connection: &mut WriteConnection, inner: &SqliteInner) -> Self::Answer {
        let Some(change) = self.outcome? else { return Ok(Registered::Unchanged) };
        let before = change.after_commit(connection, inner)?;
        Ok(before.map_or(Registered::Added, |before| Registered::Changed { before }))
    }
}

/// Removes an endpoint; its waiting deliveries are cancelled.
pub(crate) struct Unregister {
    key: EndpointKey,
    now: Timestamp,
}

impl Unregister {
    pub(crate) fn new(key: EndpointKey, now: Timestamp) -> Self {
        Self { key, now }
    }
}

impl WriteCommand for Unregister {
    type Answer = Result<Arc<Registration>, EndpointStoreError>;

    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()> {
        // Nothing is signed for it any more, so its secrets are deleted. One that is disabled stays so:
        // what waits for it was cancelled then.
        const RETIRE: &str = "UPDATE endpoints
            SET is_current = 0, secrets = x'', (state, state_since) =
                (SELECT state, state_since WHERE state = 'disabled'
                 UNION ALL SELECT 'unregistered', ?2 WHERE state <> 'disabled')
            WHERE number = ?1";
        if let Some(current) = current(inner, &self.key) {
            let number = row::endpoint(current.number);
            connection.execute(RETIRE, [number, row::micros(self.now)])?;
            connection.cancel_some(number)?;
        }
        Ok(())
    }

    fn after_commit(self, connection: &mut WriteConnection, inner: &SqliteInner) -> Self::Answer {
        let unreadable = inner.unreadable().remove(&self.key);
        let removed = match unreadable {
            Some(unreadable) => unreadable.known,
            None => inner.registry.unregister_of(&self.key)?,
        };
        connection.start_draining(removed.number);
        inner.backlog().close(removed.number);
        Ok(removed)
    }
}

/// Pauses, resumes, disables or enables an endpoint.
pub(crate) struct SetState {
    key: EndpointKey,
    change: StateChange,
    now: Timestamp,
    outcome: Result<Option<Change>, EndpointStoreError>,
}

impl SetState {
    pub(crate) fn new(key: EndpointKey, change: StateChange, now: Timestamp) -> Self {
        Self { key, change, now, outcome: Ok(None) }
    }

    fn change(&self, inner: &SqliteInner) -> Result<Option<Change>, EndpointStoreError> {
        if let Some(error) = inner.unreadable_error(&self.key) {
            return Err(error);
        }
        let before = inner.registry.get_of(&self.key);
        let before = before.ok_or_else(|| UnknownEndpoint::new(&self.key))?;
        let after = before.after(self.change, self.now)?;
        Ok(after.map(|after| Change::new(Some(before), after)))
    }
}

impl WriteCommand for SetState {
    type Answer = Result<Option<Arc<Registration>>, EndpointStoreError>;

    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()> {
        self.outcome = write(self.change(inner), connection)?;
        Ok(())
    }

    fn after_commit(self, connection: &mut WriteConnection, inner: &SqliteInner) -> Self::Answer {
        let Some(change) = self.outcome? else { return Ok(None) };
        Ok(change.after_commit(connection, inner)?)
    }
}

/// Writes a change unless it is refused or changes nothing.
fn write(
    change: Result<Option<Change>, EndpointStoreError>,
    connection: &mut WriteConnection,
) -> rusqlite::Result<Result<Option<Change>, EndpointStoreError>> {
    let Ok(Some(mut change)) = change else { return Ok(change) };
    let written = change.write(connection)?;
    let failed = |error: SealError| EndpointStoreError::Unavailable { source: error.into() };
    Ok(written.map_err(failed).map(|()| Some(change)))
}

/// Returns an endpoint as memory has it; of an unreadable one, as much as is known.
fn current(inner: &SqliteInner, key: &EndpointKey) -> Option<Arc<Registration>> {
    let unreadable = inner.unreadable().get(key).map(|found| Arc::clone(&found.known));
    unreadable.or_else(|| inner.registry.get_of(key))
}
