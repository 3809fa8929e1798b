//! Publishing: an event and its deliveries are stored in one transaction, and then join the backlog.

use std::sync::Arc;

use rusqlite::params;
use webhooks_core::{DeliveryId, Timestamp};
use webhooks_dispatch::backlog::QueuedDelivery;
use webhooks_dispatch::figures::FigureKind;
use webhooks_dispatch::{
    Conflict, PublishStatus, Published,
    store::{SerializedEvent, StoreError},
};
use webhooks_registry::EndpointNumber;

use crate::command::WriteCommand;
use crate::error::{OnlyReserve, PublishInError};
use crate::inner::SqliteInner;
use crate::limit;
use crate::row;
use crate::write_connection::WriteConnection;

/// The estimated size of a delivery with its index entries, in bytes.
const DELIVERY_BYTES: i64 = 128;

/// Stores events, each with a delivery for every endpoint that wants it.
pub(crate) struct Publish {
    events: Vec<Arc<SerializedEvent>>,
    now: Timestamp,
    outcomes: Vec<Result<Published, Conflict>>,
    /// Whether there is no room for the events.
    is_refused: bool,
    /// The new deliveries: the event's index in `events`, the endpoint, the due time, the id.
    deliveries: Vec<(usize, EndpointNumber, Timestamp, DeliveryId)>,
}

impl Publish {
    pub(crate) fn new(events: Vec<SerializedEvent>, now: Timestamp) -> Self {
        let events: Vec<_> = events.into_iter().map(Arc::new).collect();
        let outcomes = Vec::with_capacity(events.len());
        let deliveries = Vec::with_capacity(events.len());
        Self { events, now, outcomes, is_refused: false, deliveries }
    }

    /// Returns the outcome of a single event after [`write`](WriteCommand::write).
    pub(crate) fn only_outcome(&self) -> Result<Published, PublishInError> {
        match self.outcomes.as_slice() {
            [Ok(published)] => Ok(published.clone()),
            [Err(conflict)] => Err(conflict.clone().into()),
            _ => Err(StoreError::Full { source: OnlyReserve.into() }.into()),
        }
    }

    /// Returns whether the events and their deliveries would use the reserve.
    fn is_too_much(
        &self,
        connection: &WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<bool> {
        let Some(room) = connection.room()? else { return Ok(false) };
        let sizes = self.events.iter().map(|event| {
            let deliveries = row::count(event.recipients(&inner.registry).len());
            limit::size(event.body.len()).saturating_add(deliveries.saturating_mul(DELIVERY_BYTES))
        });
        Ok(sizes.fold(0, i64::saturating_add) > room.events)
    }

    /// Stores the events and their deliveries. The figures are left to [`count`](Self::count): an
    /// application's transaction may undo the rows alone.
    pub(crate) fn write_rows(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()> {
        self.outcomes.clear();
        self.deliveries.clear();
        self.is_refused = self.is_too_much(connection, inner)?;
        if self.is_refused {
            return Ok(());
        }
        let mut duplicates = Vec::new();
        let mut inserter = connection.inserter()?;
        for (index, event) in self.events.iter().enumerate() {
            let matching = event.recipients(&inner.registry);
            let deliveries = matching.len();
            let Some(number) = inserter.event(event, self.now, deliveries)? else {
                duplicates.push(index);
                self.outcomes.push(Err(Conflict { event: event.id.clone() }));
                continue;
            };
            let queued = QueuedDelivery::new(Arc::clone(event), self.now);
            for registration in &matching {
                let (id, due_at) =
                    inserter.delivery(number, registration, &queued, self.now, None)?;
                self.deliveries.push((index, registration.number, due_at, id));
            }
            let status = PublishStatus::Created;
            self.outcomes.push(Ok(Published { event: event.id.clone(), deliveries, status }));
        }
        drop(inserter);
        for index in duplicates {
            self.outcomes[index] = duplicate(connection, &self.events[index])?;
        }
        Ok(())
    }

    /// Counts the new deliveries.
    pub(crate) fn count(&self, connection: &mut WriteConnection) {
        for (_, endpoint, _, _) in &self.deliveries {
            connection.figures.count(*endpoint, FigureKind::Accepted, 1, self.now);
        }
    }
}

impl WriteCommand for Publish {
    type Answer = Result<Vec<Result<Published, Conflict>>, StoreError>;

    // Others may follow it: it only adds deliveries to the backlog, and no command decides by these.
    // Taken ids, and deliveries, are looked up in the rows. The next numbers grow in `write`.
    const ENDS_GROUP: bool = false;

    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()> {
        self.write_rows(connection, inner)?;
        self.count(connection);
        Ok(())
    }

    fn after_commit(self, _: &mut WriteConnection, inner: &SqliteInner) -> Self::Answer {
        if self.is_refused {
            return Err(StoreError::Full { source: OnlyReserve.into() });
        }
        let mut backlog = inner.backlog();
        for (index, endpoint, due_at, id) in self.deliveries {
            if let Some(event) = self.events.get(index) {
                let queued = QueuedDelivery::new(Arc::clone(event), self.now);
                backlog.push(endpoint, due_at, id, queued);
            }
        }
        Ok(self.outcomes)
    }
}

/// Returns the outcome of an event whose id is taken: the first result, or a conflict.
fn duplicate(
    connection: &WriteConnection,
    event: &SerializedEvent,
) -> rusqlite::Result<Result<Published, Conflict>> {
    const STORED: &str = "SELECT body, deliveries, expunged_at IS NOT NULL FROM events
        WHERE id = ? AND tenant = ?";
    let mut statement = connection.sqlite().prepare_cached(STORED)?;
    let parameters = params![row::EventKey(&event.id), event.tenant.as_str()];
    let (body, deliveries, is_expunged): (String, i64, bool) =
        statement.query_row(parameters, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let deliveries = usize::try_from(deliveries).unwrap_or_default();
    // Of an expunged event, nothing is left to compare.
    let is_same = !is_expunged && event.is_same_content(body.as_bytes());
    let event = event.id.clone();
    let duplicate =
        Published { event: event.clone(), deliveries, status: PublishStatus::Duplicate };
    Ok(is_same.then_some(duplicate).ok_or(Conflict { event }))
}
