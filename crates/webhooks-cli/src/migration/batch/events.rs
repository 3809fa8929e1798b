//! Events, with their deliveries and attempts.
//!
//! A delivery of PostgreSQL has the number of its event in its own, followed by its place among the event's
//! deliveries. So the deliveries of an event come in the order of their old numbers, and get new ones.

use serde_json::json;
use webhooks_core::Timestamp;
use webhooks_sqlite::rusqlite::{Connection, Row};

use super::super::copy_text::{CopyText, Field};
use super::super::position::Position;
use super::super::table::{Table, at, copy};
use super::super::tables::{ATTEMPTS, DELIVERIES, EVENT_KEY, EVENTS};
use super::{Batch, MAX_BYTES, ReadError, with_rows};

/// The bits of a delivery's number for its place among those of its event.
const PLACE_BITS: u32 = 20;

const PENDING: [&str; 10] = [
    "id",
    "event_at",
    "endpoint",
    "queued_at",
    "created_at",
    "attempts",
    "attempts_before_replay",
    "due_at",
    "is_scheduled",
    "bytes",
];

const ENDED: [&str; 11] = [
    "id",
    "event_at",
    "endpoint",
    "queued_at",
    "created_at",
    "attempts",
    "attempts_before_replay",
    "status",
    "cancelled",
    "ended_at",
    "tenant",
];

const EARLIER: [&str; 4] = ["delivery", "number", "event_at", "tenant"];

/// The columns of an attempt behind its delivery, its number and its endpoint, in both tables.
const OUTCOME: [&str; 7] = [
    "started_at",
    "duration_us",
    "status_code",
    "error_class",
    "error",
    "response_headers",
    "response",
];

/// Returns the new number of a delivery.
pub(super) fn id(event: i64, place: i64) -> Result<i64, ReadError> {
    if place >> PLACE_BITS != 0 || event >> (63 - PLACE_BITS) != 0 {
        return Err(ReadError::Deliveries);
    }
    Ok(event << PLACE_BITS | place)
}

/// Reads the next events and deliveries.
pub(super) fn read(
    connection: &Connection,
    position: &Position,
    limit: usize,
) -> Result<Batch, ReadError> {
    let mut rows = Rows::default();
    let mut place = Place::of(position);
    let mut is_last = false;
    while !rows.is_full(limit) {
        let Some(event) = Event::read(connection, &place)? else {
            is_last = true;
            break;
        };
        if !place.is_within {
            rows.add_event(&event);
        }
        place = rows.add_deliveries(connection, &event, &place, limit)?;
    }
    let position = Position {
        table: position.table,
        after: place.after(),
        rows: position.rows + rows.count as u64,
    };
    let accepted = std::mem::take(&mut rows.accepted);
    Ok(Batch { accepted, copies: rows.copies(), position, is_last })
}

/// The place among the events: after the last one, or within it.
#[derive(Debug, Clone, Copy)]
struct Place {
    event: i64,
    is_within: bool,
    /// The last delivery of the event that was copied, and how many were.
    delivery: i64,
    deliveries: i64,
}

impl Place {
    fn of(position: &Position) -> Self {
        Self {
            event: position.number(0),
            is_within: position.after.len() > 1,
            delivery: position.number(1),
            deliveries: position.number(2),
        }
    }

    fn after(self) -> Vec<serde_json::Value> {
        if self.is_within {
            vec![json!(self.event), json!(self.delivery), json!(self.deliveries)]
        } else {
            vec![json!(self.event)]
        }
    }
}

/// An event, as it is copied.
struct Event {
    number: i64,
    accepted_at: Timestamp,
    fields: Vec<Field>,
    /// The length of its body in bytes.
    bytes: String,
}

impl Event {
    /// Reads the event of a place, or the next one.
    fn read(connection: &Connection, place: &Place) -> Result<Option<Self>, ReadError> {
        let order = if place.is_within { ">=" } else { ">" };
        let select = format!(
            "SELECT number, accepted_at, {} FROM events WHERE number {order} ? ORDER BY number LIMIT 1",
            EVENTS.select()
        );
        let mut statement = connection.prepare_cached(&select)?;
        let mut found = statement.query([place.event])?;
        let Some(row) = found.next()? else { return Ok(None) };
        let fields = EVENTS.fields(row, 2)?;
        let body = field(&EVENTS, &fields, "body");
        let bytes = body.as_ref().map_or(0, String::len).to_string();
        // `fields` has refused a time that is none.
        let accepted_at = at(row.get(1)?).unwrap_or(Timestamp::UNIX_EPOCH);
        Ok(Some(Self { number: row.get(0)?, accepted_at, fields, bytes }))
    }

    fn accepted(&self) -> Field {
        field(&EVENTS, &self.fields, "accepted_at").clone()
    }

    fn tenant(&self) -> Field {
        field(&EVENTS, &self.fields, "tenant").clone()
    }
}

fn field<'f>(table: &Table, fields: &'f [Field], column: &str) -> &'f Field {
    fields.get(table.place(column)).unwrap_or(&None)
}

/// The rows of the tables that belong to events.
#[derive(Default)]
struct Rows {
    count: usize,
    accepted: Vec<Timestamp>,
    keys: CopyText,
    events: CopyText,
    pending: CopyText,
    ended: CopyText,
    earlier: CopyText,
}

impl Rows {
    fn is_full(&self, limit: usize) -> bool {
        let tables = [&self.keys, &self.events, &self.pending, &self.ended, &self.earlier];
        self.count >= limit || tables.iter().map(|rows| rows.len()).sum::<usize>() >= MAX_BYTES
    }

    fn add_event(&mut self, event: &Event) {
        let of = |column| field(&EVENTS, &event.fields, column).clone();
        self.keys.add(&[of("id"), of("tenant"), of("number"), of("accepted_at")]);
        self.events.add(&event.fields);
        self.accepted.push(event.accepted_at);
        self.count += 1;
    }

    /// Adds the deliveries of an event after a place, until there is no room; returns the place after them.
    fn add_deliveries(
        &mut self,
        connection: &Connection,
        event: &Event,
        place: &Place,
        limit: usize,
    ) -> Result<Place, ReadError> {
        let select = format!(
            "SELECT number, {} FROM deliveries WHERE event = ? AND number > ? ORDER BY number",
            DELIVERIES.select()
        );
        let mut at = if place.is_within {
            *place
        } else {
            Place { event: event.number, is_within: true, delivery: 0, deliveries: 0 }
        };
        let mut statement = connection.prepare_cached(&select)?;
        let mut found = statement.query([event.number, at.delivery])?;
        while let Some(row) = found.next()? {
            if self.is_full(limit) {
                return Ok(at);
            }
            self.add_delivery(connection, event, row, at.deliveries)?;
            at = Place { delivery: row.get(0)?, deliveries: at.deliveries + 1, ..at };
        }
        Ok(Place { is_within: false, ..at })
    }

    fn add_delivery(
        &mut self,
        connection: &Connection,
        event: &Event,
        row: &Row<'_>,
        place: i64,
    ) -> Result<(), ReadError> {
        let fields = DELIVERIES.fields(row, 1)?;
        let of = |column| field(&DELIVERIES, &fields, column).clone();
        let number: i64 = row.get(0)?;
        let id = Some(id(event.number, place)?.to_string());
        let head = [
            id.clone(),
            event.accepted(),
            of("endpoint"),
            of("queued_at"),
            of("created_at"),
            of("attempts"),
            of("attempts_before_replay"),
        ];
        let (attempts, last) = (attempts(connection, number)?, of("attempts"));
        let is_pending = of("due_at").is_some();
        // The one that ended it stands in its own row.
        let has_ended_it = |attempt: &[Field]| !is_pending && attempt.get(1) == Some(&last);
        for attempt in attempts.iter().filter(|attempt| !has_ended_it(attempt)) {
            let number = attempt.get(1).cloned().flatten();
            let head = [id.clone(), number, event.accepted(), event.tenant()];
            self.earlier.add(head.iter().chain(outcome(attempt)));
        }
        self.count += 1 + attempts.len();
        if is_pending {
            let tail = [of("due_at"), of("is_scheduled"), Some(event.bytes.clone())];
            self.pending.add(head.iter().chain(&tail));
            return Ok(());
        }
        if of("ended_at").is_none() {
            return Err(ReadError::Ended(number));
        }
        let tail = [of("status"), of("cancelled"), of("ended_at"), event.tenant()];
        let none = vec![None; OUTCOME.len()];
        let ending = attempts.iter().find(|attempt| has_ended_it(attempt));
        let outcome = ending.map_or(&none[..], |attempt| outcome(attempt));
        self.ended.add(head.iter().chain(&tail).chain(outcome));
        Ok(())
    }

    fn copies(self) -> Vec<(String, Vec<u8>)> {
        let columns: Vec<&str> = EVENTS.columns.iter().map(|column| column.to).collect();
        let ended: Vec<&str> = ENDED.into_iter().chain(OUTCOME).collect();
        let earlier: Vec<&str> = EARLIER.into_iter().chain(OUTCOME).collect();
        with_rows([
            (copy("webhooks.event_keys", &EVENT_KEY), self.keys),
            (copy("webhooks.events", &columns), self.events),
            (copy("webhooks.pending_deliveries", &PENDING), self.pending),
            (copy("webhooks.ended_deliveries", &ended), self.ended),
            (copy("webhooks.earlier_attempts", &earlier), self.earlier),
        ])
    }
}

/// Returns the columns of [`OUTCOME`] of an attempt.
fn outcome(attempt: &[Field]) -> &[Field] {
    attempt.get(3..).unwrap_or_default()
}

/// Reads the attempts of a delivery.
fn attempts(connection: &Connection, delivery: i64) -> Result<Vec<Vec<Field>>, ReadError> {
    let select =
        format!("SELECT {} FROM attempts WHERE delivery = ? ORDER BY number", ATTEMPTS.select());
    let mut statement = connection.prepare_cached(&select)?;
    let mut found = statement.query([delivery])?;
    let mut attempts = Vec::new();
    while let Some(row) = found.next()? {
        attempts.push(ATTEMPTS.fields(row, 0)?);
    }
    Ok(attempts)
}

/// The columns of the two tables of deliveries and the table of earlier attempts that are filled.
pub(crate) fn filled() -> [(&'static str, Vec<&'static str>); 3] {
    [
        ("pending_deliveries", PENDING.to_vec()),
        ("ended_deliveries", ENDED.into_iter().chain(OUTCOME).collect()),
        ("earlier_attempts", EARLIER.into_iter().chain(OUTCOME).collect()),
    ]
}
