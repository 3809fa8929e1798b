//! Endpoints: registered, replaced, disabled, forgotten.

use std::sync::Arc;

use rusqlite::params;
use webhooks_core::{EndpointId, Timestamp};
use webhooks_dispatch::backlog::Place;
use webhooks_registry::{
    DisableReason, EndpointStoreError, RegisterError, Registration, SealError, StoredEndpoint,
    UnknownEndpoint,
};

use crate::load::Unreadable;
use crate::store::Shared;
use crate::tables::{Tables, reason_word};
use crate::writer::Write;

pub(crate) struct Register {
    registration: Registration,
    number: i64,
    /// The row that the new one replaces, because the endpoint was inactive.
    replaced: Option<i64>,
    /// Where the backlog of an endpoint begins whose row could not be read.
    first: Option<Place>,
    refused: Option<EndpointStoreError>,
}

impl Register {
    pub(crate) fn new(registration: Registration) -> Self {
        Self { registration, number: 0, replaced: None, first: None, refused: None }
    }
}

// The commands on endpoints end their groups: `finish` changes registrations, row numbers and lanes,
// by which all others decide. They read registrations and row numbers, which neither `Publish` nor
// `Settle` nor `Prune` changes; what those wrote for the endpoint, the statements find in the rows.
impl Write for Register {
    type Answer = Result<Option<Arc<Registration>>, EndpointStoreError>;

    fn write(&mut self, tables: &mut Tables, shared: &Shared) -> rusqlite::Result<()> {
        const UPDATE: &str = "UPDATE endpoints SET settings = ?2, secrets = ?3, active = ?4,
            disabled = NULL, failing_since = NULL, blocked_until = 0 WHERE number = ?1";
        // The secrets of the old one are of no use to anybody any more.
        const RETIRE: &str = "UPDATE endpoints SET is_current = 0, secrets = x'' WHERE number = ?";
        const INSERT: &str =
            "INSERT INTO endpoints (id, settings, secrets, active) VALUES (?, ?, ?, ?)";
        const REORDER: &str = "UPDATE deliveries SET due_at = 0
            WHERE endpoint = ? AND due_at IS NOT NULL AND due_at <> 0";
        let Registration { id, endpoint, .. } = &self.registration;
        self.refused = None;
        let (owner, was_active) = match shared.registry.get(id.as_str()) {
            Some(current) => (Some(current.endpoint.tenant.clone()), current.endpoint.active),
            // What waits goes to the new endpoint if it surely is the same tenant's.
            None => match shared.unreadable().get(id) {
                Some(found) => (found.tenant.clone(), found.is_active && found.tenant.is_some()),
                None => (None, false),
            },
        };
        if owner.is_some_and(|owner| owner != endpoint.tenant) {
            let taken = RegisterError::OtherTenant { id: id.to_string() };
            self.refused = Some(taken.into());
            return Ok(());
        }
        if let Err(error) = endpoint.check() {
            self.refused = Some(RegisterError::Endpoint(error).into());
            return Ok(());
        }
        let stored = StoredEndpoint::new(endpoint);
        let secrets = match tables.keys.seal(id.as_str(), &stored.secrets) {
            Ok(secrets) => secrets,
            Err(error) => {
                self.refused = Some(unavailable(error));
                return Ok(());
            }
        };
        let number = tables.number(id);
        self.replaced = number.filter(|_| !was_active);
        match number {
            Some(number) if was_active => {
                let parameters = params![number, stored.settings, secrets, endpoint.active];
                tables.execute(UPDATE, parameters)?;
                if endpoint.ordered {
                    tables.execute(REORDER, [number])?;
                }
                self.number = number;
                self.first = tables.first_place(number)?;
            }
            _ => {
                if let Some(number) = number {
                    tables.execute(RETIRE, [number])?;
                }
                let parameters = params![id.as_str(), stored.settings, secrets, endpoint.active];
                tables.execute(INSERT, parameters)?;
                self.number = tables.connection().last_insert_rowid();
            }
        }
        Ok(())
    }

    fn finish(self, tables: &mut Tables, shared: &Shared) -> Self::Answer {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let id = self.registration.id.clone();
        shared.unreadable().remove(&id);
        tables.forget(&id);
        tables.set_number(&id, self.number);
        if let Some(replaced) = self.replaced {
            tables.start_draining(replaced);
        }
        let replaced = shared.registry.restore(self.registration)?;
        if let Some(registration) = shared.registry.get(id.as_str()) {
            if !registration.endpoint.active {
                tables.start_draining(self.number);
            }
            // An endpoint that has a lane keeps it.
            shared.backlog().open(&registration, self.first, Timestamp::UNIX_EPOCH);
        }
        Ok(replaced)
    }
}

pub(crate) struct Unregister {
    id: EndpointId,
}

impl Unregister {
    pub(crate) fn new(id: EndpointId) -> Self {
        Self { id }
    }
}

impl Write for Unregister {
    type Answer = Result<Arc<Registration>, EndpointStoreError>;

    fn write(&mut self, tables: &mut Tables, _: &Shared) -> rusqlite::Result<()> {
        // Its secrets are of no use to anybody any more.
        const RETIRE: &str = "UPDATE endpoints SET is_current = 0, active = 0, secrets = x''
            WHERE number = ?";
        if let Some(number) = tables.number(&self.id) {
            tables.execute(RETIRE, [number])?;
            tables.cancel_some(number)?;
        }
        Ok(())
    }

    fn finish(self, tables: &mut Tables, shared: &Shared) -> Self::Answer {
        if let Some(number) = tables.number(&self.id) {
            tables.start_draining(number);
        }
        tables.forget(&self.id);
        shared.backlog().close(&self.id);
        let unreadable = shared.unreadable().remove(&self.id).and_then(Unreadable::known);
        match unreadable {
            Some(known) => Ok(known),
            None => Ok(shared.registry.unregister(self.id.as_str())?),
        }
    }
}

pub(crate) struct Disable {
    id: EndpointId,
    reason: DisableReason,
}

impl Disable {
    pub(crate) fn new(id: EndpointId, reason: DisableReason) -> Self {
        Self { id, reason }
    }
}

impl Write for Disable {
    type Answer = Result<bool, EndpointStoreError>;

    fn write(&mut self, tables: &mut Tables, shared: &Shared) -> rusqlite::Result<()> {
        const DISABLE: &str = "UPDATE endpoints SET active = 0, disabled = ?2, settings = ?3
            WHERE number = ?1";
        let current = shared.registry.get(self.id.as_str());
        let current = current.filter(|current| current.endpoint.active);
        if let (Some(current), Some(number)) = (current, tables.number(&self.id)) {
            let stored = StoredEndpoint::new(&current.disabled(self.reason).endpoint);
            let reason = reason_word(self.reason);
            tables.execute(DISABLE, params![number, reason, stored.settings])?;
            tables.cancel_some(number)?;
        }
        Ok(())
    }

    fn finish(self, tables: &mut Tables, shared: &Shared) -> Self::Answer {
        let current = shared.registry.get(self.id.as_str());
        let current = current.ok_or_else(|| UnknownEndpoint { id: self.id.to_string() })?;
        let disabled = shared.registry.disable(&current, self.reason);
        if disabled.is_some() {
            shared.backlog().close(&self.id);
            if let Some(number) = tables.number(&self.id) {
                tables.start_draining(number);
            }
        }
        Ok(disabled.is_some())
    }
}

fn unavailable(error: SealError) -> EndpointStoreError {
    EndpointStoreError::Unavailable { source: error.into() }
}
