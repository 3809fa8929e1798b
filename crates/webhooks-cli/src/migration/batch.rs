//! The rows of a transaction: read from the file, and ready to be copied.

use serde_json::Value;
use thiserror::Error;
use webhooks_core::{DeliveryId, Timestamp};
use webhooks_postgres::EndpointColumns;
use webhooks_sqlite::rusqlite::types::ValueRef;
use webhooks_sqlite::rusqlite::{
    self, Connection, OptionalExtension as _, Row, params_from_iter, types,
};

use super::copy_text::{CopyText, Field, array};
use super::job::{self, NewNumber};
use super::position::Position;
use super::table::{BadValue, Table, copy};
use super::tables::{ENDPOINT_FURTHER, JOBS, PLAIN, SUBSCRIPTION};

mod events;

pub(super) use events::filled;

/// The bytes after which a transaction ends, however few rows it has.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Why rows cannot be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Value(#[from] BadValue),
    #[error("the delivery {0} has ended, and its row does not tell when")]
    Ended(i64),
    #[error("an event has more than 1048576 deliveries")]
    Deliveries,
}

/// The rows of a transaction.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The times of acceptance of the events.
    pub(crate) accepted: Vec<Timestamp>,
    /// A statement for each table, and its rows.
    pub(crate) copies: Vec<(String, Vec<u8>)>,
    /// The place after these rows.
    pub(crate) position: Position,
    /// Whether there are no more.
    pub(crate) is_last: bool,
}

/// Reads the next rows, at most `limit` of them unless a delivery has more attempts.
pub(super) fn read(
    connection: &Connection,
    position: &Position,
    limit: usize,
) -> Result<Batch, ReadError> {
    match PLAIN.get(position.table) {
        Some(table) => plain(connection, table, position, limit),
        None => events::read(connection, position, limit),
    }
}

/// Reads rows of a table that is copied one row for one row.
fn plain(
    connection: &Connection,
    table: &Table,
    position: &Position,
    limit: usize,
) -> Result<Batch, ReadError> {
    let mut rows = PlainRows::new(table);
    let mut at = position.clone();
    let mut is_more = false;
    if super::check::has_table(connection, table.from)? {
        let mut statement = connection.prepare_cached(&page(table, &position.after))?;
        let parameters = position.after.iter().map(parameter);
        let mut found = statement.query(params_from_iter(parameters))?;
        while let Some(row) = found.next()? {
            if rows.count == limit || rows.len() >= MAX_BYTES {
                is_more = true;
                break;
            }
            rows.add(connection, row)?;
            at.after = key(table, row)?;
        }
    }
    at.rows += rows.count as u64;
    let position = if is_more { at } else { at.next_table() };
    Ok(Batch { accepted: Vec::new(), copies: rows.copies(), position, is_last: false })
}

/// Returns the statement of the rows after a key.
fn page(table: &Table, after: &[Value]) -> String {
    let key = table.key.join(", ");
    let marks = vec!["?"; after.len()].join(", ");
    let after = if after.is_empty() { String::new() } else { format!("WHERE ({key}) > ({marks})") };
    format!("SELECT {key}, {} FROM {} {after} ORDER BY {key}", table.select(), table.from)
}

fn parameter(value: &Value) -> types::Value {
    match value.as_i64() {
        Some(number) => number.into(),
        None => value.as_str().unwrap_or_default().to_owned().into(),
    }
}

/// Reads the key of a row, which stands before the columns.
fn key(table: &Table, row: &Row<'_>) -> rusqlite::Result<Vec<Value>> {
    let value = |column| match row.get_ref(column)? {
        ValueRef::Integer(number) => Ok(Value::from(number)),
        found => Ok(Value::from(found.as_str()?)),
    };
    (0..table.key.len()).map(value).collect()
}

/// The rows of a table, and those that follow from them.
struct PlainRows<'t> {
    table: &'t Table,
    count: usize,
    rows: CopyText,
    subscriptions: CopyText,
}

impl<'t> PlainRows<'t> {
    fn new(table: &'t Table) -> Self {
        Self { table, count: 0, rows: CopyText::default(), subscriptions: CopyText::default() }
    }

    fn len(&self) -> usize {
        self.rows.len() + self.subscriptions.len()
    }

    fn add(&mut self, connection: &Connection, row: &Row<'_>) -> Result<(), ReadError> {
        let mut fields = self.table.fields(row, self.table.key.len())?;
        match self.table.name {
            "endpoints" => self.add_endpoint(&mut fields),
            "jobs" => convert_job(connection, &mut fields)?,
            // A minute that was added up. Old ones are added up to hours by the next prune.
            "figures" => fields.push(Some("0".to_owned())),
            _ => {}
        }
        self.rows.add(&fields);
        self.count += 1;
        Ok(())
    }

    /// Adds the columns that follow from the settings, and the subscriptions.
    fn add_endpoint(&mut self, fields: &mut Vec<Field>) {
        let text = |column: &str| {
            let field = fields.get(self.table.place(column));
            field.and_then(Option::as_deref).unwrap_or_default().to_owned()
        };
        let (number, tenant, state) = (text("number"), text("tenant"), text("state"));
        let columns = EndpointColumns::of(&text("id"), &text("settings"));
        let is_open = EndpointColumns::is_open(&state) && text("is_current") == "t";
        let ordered = Some(if columns.is_ordered { "t" } else { "f" }.to_owned());
        let channels = columns.channels.as_deref().map(array);
        for pattern in columns.patterns.iter().filter(|_| is_open) {
            self.subscriptions.add(&[
                Some(tenant.clone()),
                Some(pattern.clone()),
                Some(number.clone()),
                ordered.clone(),
                channels.clone(),
            ]);
        }
        fields.extend([
            Some(columns.url),
            Some(columns.words),
            Some(columns.metadata),
            Some(array(&columns.patterns)),
            ordered,
            Some(columns.max_workers.to_string()),
            columns.max_claim.map(|most| most.to_string()),
        ]);
    }

    fn copies(self) -> Vec<(String, Vec<u8>)> {
        let further: &[&str] = match self.table.name {
            "endpoints" => &ENDPOINT_FURTHER,
            "figures" => &["writer"],
            _ => &[],
        };
        let subscriptions = copy("webhooks.subscriptions", &SUBSCRIPTION);
        let copies = [(self.table.copy(further), self.rows), (subscriptions, self.subscriptions)];
        with_rows(copies)
    }
}

/// Returns those of some copies that have rows.
fn with_rows(copies: impl IntoIterator<Item = (String, CopyText)>) -> Vec<(String, Vec<u8>)> {
    let some = copies.into_iter().filter(|(_, rows)| rows.len() > 0);
    some.map(|(statement, rows)| (statement, rows.into_bytes())).collect()
}

/// Gives the deliveries of a job their new numbers. A job whose work cannot be read stays as it is.
fn convert_job(connection: &Connection, fields: &mut [Field]) -> Result<(), ReadError> {
    let (work_place, cursor_place) = (JOBS.place("work"), JOBS.place("cursor"));
    let Some(Some(text)) = fields.get(work_place) else { return Ok(()) };
    let Ok(work) = serde_json::from_str(text) else { return Ok(()) };
    let cursor = fields.get(cursor_place).cloned().flatten();
    let number = |id: DeliveryId| new_number(connection, id);
    let (work, cursor) = job::converted(work, cursor, number)?;
    let work = serde_json::to_string(&work)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    for (place, value) in [(work_place, Some(work)), (cursor_place, cursor)] {
        if let Some(field) = fields.get_mut(place) {
            *field = value;
        }
    }
    Ok(())
}

/// Returns the new number of a delivery, or of the last one before it.
fn new_number(connection: &Connection, id: DeliveryId) -> Result<NewNumber, ReadError> {
    const FIND: &str = "SELECT number, event, (
            SELECT count(*) FROM deliveries AS before
            WHERE before.event = deliveries.event AND before.number < deliveries.number)
        FROM deliveries WHERE number <= ? ORDER BY number DESC LIMIT 1";
    let wanted = i64::try_from(id.as_u64()).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(FIND)?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let found: Option<(i64, i64, i64)> = statement.query_row([wanted], read).optional()?;
    let Some((found, event, ordinal)) = found else {
        return Ok(NewNumber { number: 0, is_exact: false });
    };
    let number = u64::try_from(events::id(event, ordinal)?).unwrap_or_default();
    Ok(NewNumber { number, is_exact: found == wanted })
}
