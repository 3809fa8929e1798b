//! Endpoints: registering, changing and unregistering them.

use std::sync::Arc;

use rusqlite::params;
use webhooks_core::Timestamp;
use webhooks_dispatch::backlog::QueueKey;
use webhooks_registry::{
    DisableReason, EndpointKey, EndpointState, RegisterError, Registration, UnknownEndpoint,
    seal::SealError,
    store::{EndpointStoreError, Registered, StateChange, StoredEndpoint},
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
    fn write(&mut self, connection: &WriteConnection) -> rusqlite::Result<Result<(), SealError>> {
        const UPDATE: &str = "UPDATE endpoints
            SET settings = ?2, secrets = ?3, state = ?4, disabled = ?5,
                blocked_until = CASE WHEN ?6 THEN blocked_until ELSE 0 END
            WHERE number = ?1 RETURNING blocked_until";
        // Nothing is signed for the old row any more, so its secrets are deleted.
        const RETIRE: &str = "UPDATE endpoints SET is_current = 0, secrets = x'' WHERE number = ?";
        const INSERT: &str =
            "INSERT INTO endpoints (tenant, id, settings, secrets, state, disabled)
            VALUES (?, ?, ?, ?, ?, ?)";
        // Deliveries of an ordered endpoint are due at 0, so that the index has them in the order of
        // acceptance.
        const REORDER: &str = "UPDATE deliveries SET due_at = 0
            WHERE endpoint = ? AND due_at IS NOT NULL AND due_at <> 0";
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
        if was_open == Some(true) || (was_open == Some(false) && !state.is_open()) {
            let (word, ordered) = (state.as_str(), after.endpoint.ordered);
            let parameters = params![number, stored.settings, secrets, word, disabled, ordered];
            let mut update = connection.sqlite().prepare_cached(UPDATE)?;
            *blocked_until = row::time(update.query_row(parameters, |row| row.get(0))?);
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
        let (tenant, id) = (key.tenant.as_str(), key.id.as_str());
        let word = state.as_str();
        connection
            .execute(INSERT, params![tenant, id, stored.settings, secrets, word, disabled])?;
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
    registration: Registration,
    outcome: Result<Option<Change>, EndpointStoreError>,
}

impl Register {
    /// Returns the command to register an endpoint, which has no number yet.
    pub(crate) fn new(registration: Registration) -> Self {
        Self { registration, outcome: Ok(None) }
    }

    fn change(&self, inner: &SqliteInner) -> Result<Option<Change>, EndpointStoreError> {
        let registration = &self.registration;
        registration.endpoint.check().map_err(RegisterError::Endpoint)?;
        let before = current(inner, &registration.key());
        let after = match &before {
            None => Some(registration.clone()),
            Some(before) => before.again(registration.endpoint.clone()),
        };
        Ok(after.map(|after| Change::new(before, after)))
    }
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
}

impl Unregister {
    pub(crate) fn new(key: EndpointKey) -> Self {
        Self { key }
    }
}

impl WriteCommand for Unregister {
    type Answer = Result<Arc<Registration>, EndpointStoreError>;

    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()> {
        // Nothing is signed for it any more, so its secrets are deleted.
        const RETIRE: &str = "UPDATE endpoints
            SET is_current = 0, state = 'unregistered', secrets = x'' WHERE number = ?";
        if let Some(current) = current(inner, &self.key) {
            let number = row::endpoint(current.number);
            connection.execute(RETIRE, [number])?;
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
    outcome: Result<Option<Change>, EndpointStoreError>,
}

impl SetState {
    pub(crate) fn new(key: EndpointKey, change: StateChange) -> Self {
        Self { key, change, outcome: Ok(None) }
    }

    fn change(&self, inner: &SqliteInner) -> Result<Option<Change>, EndpointStoreError> {
        if let Some(error) = inner.unreadable_error(&self.key) {
            return Err(error);
        }
        let before = inner.registry.get_of(&self.key);
        let before = before.ok_or_else(|| UnknownEndpoint::new(&self.key))?;
        let after: Option<EndpointState> = before.state.after(self.change)?;
        let after = after.map(|state| before.in_state(state));
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
    connection: &WriteConnection,
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
