//! Counts and sums over the columns of a table, which must be the same on both sides.
//!
//! Those of the file also identify it: a migration goes on only if nothing has changed in it. The values of texts
//! and bytes count by the starts of their hashes, so that a change which keeps their length is found.

use sha2::{Digest as _, Sha256};
use webhooks_sqlite::rusqlite::types::ValueRef;
use webhooks_sqlite::rusqlite::{self, Connection, Row};

use super::table::{Column, Kind, Table};
use super::tables::{ALL, is_same};

/// Numbers are summed up by their rest, so that no sum gets too large.
const MODULUS: &str = "1000003";

/// The counts and sums of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// The word for the table.
    pub(crate) table: &'static str,
    /// The number of rows.
    pub(crate) rows: u64,
    /// The sum of each column, those of texts and bytes last.
    sums: Vec<String>,
}

impl Check {
    fn new(table: &Table, texts: Vec<Option<String>>) -> Self {
        let mut texts = texts.into_iter().map(Option::unwrap_or_default);
        let rows = texts.next().and_then(|count| count.parse().ok()).unwrap_or_default();
        Self { table: table.name, rows, sums: texts.collect() }
    }

    /// Returns all of it as a text.
    pub(crate) fn text(&self) -> String {
        format!("{} {} {}", self.table, self.rows, self.sums.join(" "))
    }
}

/// Returns the checks of the tables of a file. A file without `admin_records` has none.
pub(super) fn of_source(connection: &Connection) -> rusqlite::Result<Vec<Check>> {
    let mut checks = Vec::new();
    for table in &ALL {
        if !has_table(connection, table.from)? {
            let zeros = vec![Some("0".to_owned()); compared(table).count() + 1];
            checks.push(Check::new(table, zeros));
            continue;
        }
        let numbers = compared(table).filter(|column| !is_hashed(column));
        let count = numbers.clone().count() + 1;
        let select = statement(numbers, table.from, of_column_of_source);
        let mut texts: Vec<Option<String>> = connection.query_row(&select, (), |row| {
            (0..count).map(|column| row.get(column)).collect::<rusqlite::Result<_>>()
        })?;
        let hashes = hashes_of_source(connection, table)?;
        texts.extend(hashes.iter().map(|sum| Some(sum.to_string())));
        checks.push(Check::new(table, texts));
    }
    Ok(checks)
}

/// Returns the sums of the columns of texts and bytes. SQLite has no hash.
fn hashes_of_source(connection: &Connection, table: &Table) -> rusqlite::Result<Vec<u64>> {
    let columns: Vec<&Column> = compared(table).filter(|column| is_hashed(column)).collect();
    let mut sums = vec![0; columns.len()];
    if columns.is_empty() {
        return Ok(sums);
    }
    let names: Vec<&str> = columns.iter().map(|column| column.from).collect();
    let select = format!("SELECT {} FROM {}", names.join(", "), table.from);
    let mut statement = connection.prepare(&select)?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        for (place, (column, sum)) in columns.iter().zip(&mut sums).enumerate() {
            *sum += hash_of_source(column.kind, row, place)?;
        }
    }
    Ok(sums)
}

/// Returns the hash of a value as PostgreSQL gets it; 0 for one that cannot be copied, which the copy finds.
fn hash_of_source(kind: Kind, row: &Row<'_>, place: usize) -> rusqlite::Result<u64> {
    let value = row.get_ref(place)?;
    Ok(match (kind, value) {
        (_, ValueRef::Null) => 0,
        (Kind::Bytes, ValueRef::Blob(bytes) | ValueRef::Text(bytes)) => hash(bytes),
        _ => kind.convert(value).flatten().map_or(0, |text| hash(text.as_bytes())),
    })
}

/// Returns the first 4 bytes of a hash, as [`hash_of_target`] does.
fn hash(bytes: &[u8]) -> u64 {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    let [first, second, third, fourth, ..] = hash;
    u32::from_be_bytes([first, second, third, fourth]).into()
}

/// Returns whether a file has a table.
pub(super) fn has_table(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    const COUNT: &str = "SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = ?";
    connection.query_row(COUNT, [table], |row| row.get(0))
}

/// Returns the statement of the check of a table of the database, in the order of the tables of the file's checks.
pub(crate) fn statement_of_target() -> impl Iterator<Item = String> {
    ALL.iter().map(|table| {
        let numbers = compared(table).filter(|column| !is_hashed(column));
        let hashed = compared(table).filter(|column| is_hashed(column));
        statement(numbers.chain(hashed), table.to, of_column_of_target)
    })
}

/// Returns the checks of the database from the one row of each statement.
pub(crate) fn of_target(rows: Vec<Vec<Option<String>>>) -> Vec<Check> {
    ALL.iter().zip(rows).map(|(table, row)| Check::new(table, row)).collect()
}

fn compared(table: &Table) -> impl Iterator<Item = &Column> + Clone {
    table.columns.iter().filter(|column| is_same(table, column))
}

/// Returns whether the values of a column are compared by their hashes.
fn is_hashed(column: &Column) -> bool {
    use Kind::{Bytes, EventId, ForeignText, Json, Text};

    matches!(column.kind, Text | ForeignText | Json | Bytes | EventId)
}

fn statement<'c>(
    columns: impl Iterator<Item = &'c Column>,
    rows: &str,
    sum: fn(&Column) -> String,
) -> String {
    let sums = columns.map(|column| format!(", CAST(coalesce({}, 0) AS text)", sum(column)));
    format!("SELECT CAST(count(*) AS text){} FROM {rows}", sums.collect::<String>())
}

fn of_column_of_source(column: &Column) -> String {
    let name = column.from;
    match column.kind {
        Kind::Int | Kind::Time => format!("sum({name} % {MODULUS})"),
        Kind::Bool => format!("sum({name})"),
        Kind::List => format!("sum(json_array_length({name}))"),
        // They are hashed.
        Kind::Text | Kind::ForeignText | Kind::Json | Kind::Bytes | Kind::EventId => "0".to_owned(),
    }
}

fn of_column_of_target(column: &Column) -> String {
    let name = column.to;
    match column.kind {
        Kind::Int => format!("sum({name} % {MODULUS})"),
        Kind::Time => {
            format!("sum((extract(epoch FROM {name}) * 1000000)::bigint % {MODULUS})")
        }
        Kind::Bool => format!("sum({name}::integer)"),
        Kind::Text | Kind::ForeignText | Kind::Json | Kind::EventId => {
            hash_of_target(&format!("convert_to({name}::text, 'UTF8')"))
        }
        Kind::Bytes => hash_of_target(name),
        Kind::List => format!("sum(cardinality({name}))"),
    }
}

/// Returns the sum of the first 4 bytes of the hashes of some bytes.
fn hash_of_target(bytes: &str) -> String {
    format!("sum(('x' || left(encode(sha256({bytes}), 'hex'), 8))::bit(32)::bigint)")
}
