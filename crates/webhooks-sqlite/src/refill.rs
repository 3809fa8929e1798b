//! Refills: reading waiting deliveries from disk into memory, past rows that cannot be read.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use rusqlite::{Connection, ErrorCode, Row};
use webhooks_dispatch::backlog::{QueueKey, QueuedDelivery, Refill};
use webhooks_dispatch::store::{SerializedEvent, StoreError};

use crate::error::UnreadableDelivery;
use crate::row;

/// The columns that [`waiting`] reads, from the third on; before them comes the key.
const COLUMNS: &str = "deliveries.due_at, deliveries.number, deliveries.queued_at,
    deliveries.attempts, deliveries.attempts_before_replay, events.id, events.tenant, events.type,
    events.body, events.trace, deliveries.is_scheduled IS NOT NULL, deliveries.event";

/// The part of an endpoint's backlog that was read.
#[derive(Default)]
pub(crate) struct RefillRows {
    pub(crate) waiting: Vec<(QueueKey, QueuedDelivery)>,
    /// The number of rows, and of the bytes of their bodies.
    count: usize,
    bytes: usize,
    last: Option<QueueKey>,
    /// The key to read on from, if there may be more.
    pub(crate) next: Option<QueueKey>,
    /// The errors of rows that were passed over.
    pub(crate) unreadable: Vec<StoreError>,
}

impl RefillRows {
    /// Returns whether the refill wants more rows.
    fn is_wanted(&self, refill: &Refill) -> bool {
        self.count < refill.limit && self.bytes < refill.bytes
    }

    /// Notes the place where the refill has ended.
    fn ended(mut self, refill: &Refill) -> Self {
        self.next = self.last.filter(|_| !self.is_wanted(refill)).map(QueueKey::next);
        self
    }

    /// Adds a delivery, or the reason why its row cannot be read. Returns an error that may pass, which
    /// ends the refill.
    fn add(
        &mut self,
        key: QueueKey,
        read: rusqlite::Result<QueuedDelivery>,
    ) -> rusqlite::Result<()> {
        (self.count, self.last) = (self.count + 1, Some(key));
        match read {
            Ok(waiting) => {
                self.bytes += waiting.event.body.len();
                self.waiting.push((key, waiting));
            }
            Err(source) if is_of_one_row(&source) => {
                let why = UnreadableDelivery { delivery: key.delivery, source };
                self.unreadable.push(StoreError::Corrupt { source: why.into() });
            }
            Err(source) => return Err(source),
        }
        Ok(())
    }
}

/// Returns whether an error is about the values of a row, or about the pages on which it lies.
fn is_of_one_row(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => code == ErrorCode::DatabaseCorrupt,
        None => true,
    }
}

/// Reads waiting deliveries of an endpoint, in the order of their keys.
pub(crate) fn read(
    connection: &Connection,
    refill: &Refill,
    events: &mut SharedEvents,
) -> rusqlite::Result<RefillRows> {
    match read_at_once(connection, refill, events) {
        // A damaged page ends the whole statement. One by one, the other rows can still be read.
        Err(error) if is_of_one_row(&error) => read_one_by_one(connection, refill, events),
        found => found,
    }
}

fn read_at_once(
    connection: &Connection,
    refill: &Refill,
    events: &mut SharedEvents,
) -> rusqlite::Result<RefillRows> {
    let select = format!(
        "SELECT {COLUMNS} FROM deliveries JOIN events ON events.number = deliveries.event
         WHERE deliveries.endpoint = ?1 AND deliveries.due_at IS NOT NULL
           AND (deliveries.due_at, deliveries.number) >= (?2, ?3)
         ORDER BY deliveries.due_at, deliveries.number LIMIT ?4"
    );
    let mut found = RefillRows::default();
    let mut statement = connection.prepare_cached(&select)?;
    let mut rows = statement.query(parameters(refill))?;
    while found.is_wanted(refill)
        && let Some(row) = rows.next()?
    {
        found.add(key(row)?, waiting(row, events))?;
    }
    Ok(found.ended(refill))
}

/// Reads the keys from their index, which may be intact where rows are damaged, and then each row.
fn read_one_by_one(
    connection: &Connection,
    refill: &Refill,
    events: &mut SharedEvents,
) -> rusqlite::Result<RefillRows> {
    const KEYS: &str = "SELECT due_at, number FROM deliveries INDEXED BY deliveries_due
        WHERE endpoint = ?1 AND due_at IS NOT NULL AND (due_at, number) >= (?2, ?3)
        ORDER BY due_at, number LIMIT ?4";
    let select = format!(
        "SELECT {COLUMNS} FROM deliveries JOIN events ON events.number = deliveries.event
         WHERE deliveries.number = ?"
    );
    let mut found = RefillRows::default();
    let keys: Vec<QueueKey> = {
        let mut statement = connection.prepare_cached(KEYS)?;
        let rows = statement.query_map(parameters(refill), key)?;
        rows.collect::<Result<_, _>>()?
    };
    let mut statement = connection.prepare_cached(&select)?;
    for key in keys {
        if found.is_wanted(refill) {
            let read = statement.query_row([row::number(key.delivery)], |row| waiting(row, events));
            found.add(key, read)?;
        }
    }
    Ok(found.ended(refill))
}

fn parameters(refill: &Refill) -> impl rusqlite::Params {
    let endpoint = row::endpoint(refill.endpoint);
    let limit = row::count(refill.limit);
    [endpoint, row::micros(refill.from.due_at), row::number(refill.from.delivery), limit]
}

fn key(row: &Row<'_>) -> rusqlite::Result<QueueKey> {
    Ok(QueueKey { due_at: row::time(row.get(0)?), delivery: row::delivery_id(row.get(1)?) })
}

fn waiting(row: &Row<'_>, events: &mut SharedEvents) -> rusqlite::Result<QueuedDelivery> {
    Ok(QueuedDelivery {
        progress: row::progress(row, 2)?,
        event: events.get(row.get(11)?, || row::event(row, 5))?,
        is_scheduled: row.get(10)?,
    })
}

/// The events that were read last and are still in memory. The deliveries of an event to many
/// endpoints share it, as they do when it is published.
#[derive(Debug, Default)]
pub(crate) struct SharedEvents(HashMap<i64, Weak<SerializedEvent>>);

impl SharedEvents {
    /// The number of events at which those that are gone are removed.
    const MAX: usize = 8_192;

    fn get(
        &mut self,
        number: i64,
        read: impl FnOnce() -> rusqlite::Result<SerializedEvent>,
    ) -> rusqlite::Result<Arc<SerializedEvent>> {
        if let Some(event) = self.0.get(&number).and_then(Weak::upgrade) {
            return Ok(event);
        }
        let event = Arc::new(read()?);
        if self.0.len() >= Self::MAX {
            self.0.retain(|_, event| event.strong_count() > 0);
            // Or each of the next reads would look at all of them.
            if self.0.len() > Self::MAX / 2 {
                self.0.clear();
            }
        }
        self.0.insert(number, Arc::downgrade(&event));
        Ok(event)
    }
}
