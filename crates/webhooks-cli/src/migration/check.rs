//! Counts and sums over the columns of a table, which must be the same on both sides.
//!
//! Those of the file also identify it: a migration goes on only if nothing has changed in it.

use webhooks_sqlite::rusqlite::{self, Connection};

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
    /// The sum of each column.
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
        let count = compared(table).count() + 1;
        if !has_table(connection, table.from)? {
            let zeros = vec![Some("0".to_owned()); count];
            checks.push(Check::new(table, zeros));
            continue;
        }
        let select = statement(table, table.from, of_column_of_source);
        let texts = connection.query_row(&select, (), |row| {
            (0..count).map(|column| row.get(column)).collect::<rusqlite::Result<_>>()
        })?;
        checks.push(Check::new(table, texts));
    }
    Ok(checks)
}

/// Returns whether a file has a table.
pub(super) fn has_table(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    const COUNT: &str = "SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = ?";
    connection.query_row(COUNT, [table], |row| row.get(0))
}

/// Returns the statement of the check of a table of the database, in the order of the tables of the file's checks.
pub(crate) fn statement_of_target() -> impl Iterator<Item = String> {
    ALL.iter().map(|table| statement(table, table.to, of_column_of_target))
}

/// Returns the checks of the database from the one row of each statement.
pub(crate) fn of_target(rows: Vec<Vec<Option<String>>>) -> Vec<Check> {
    ALL.iter().zip(rows).map(|(table, row)| Check::new(table, row)).collect()
}

fn compared(table: &Table) -> impl Iterator<Item = &Column> {
    table.columns.iter().filter(|column| is_same(table, column))
}

fn statement(table: &Table, rows: &str, sum: fn(&Column) -> String) -> String {
    let sums =
        compared(table).map(|column| format!(", CAST(coalesce({}, 0) AS text)", sum(column)));
    format!("SELECT CAST(count(*) AS text){} FROM {rows}", sums.collect::<String>())
}

fn of_column_of_source(column: &Column) -> String {
    let name = column.from;
    match column.kind {
        Kind::Int | Kind::Time => format!("sum({name} % {MODULUS})"),
        Kind::Bool => format!("sum({name})"),
        Kind::Text | Kind::Json | Kind::Bytes => format!("sum(octet_length({name}))"),
        Kind::ForeignText => {
            format!("sum(octet_length(replace({name}, char(0), char(65533))))")
        }
        Kind::List => format!("sum(json_array_length({name}))"),
        Kind::EventId => {
            format!("sum(CASE typeof({name}) WHEN 'blob' THEN 36 ELSE octet_length({name}) END)")
        }
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
        Kind::Text | Kind::ForeignText | Kind::Bytes | Kind::EventId => {
            format!("sum(octet_length({name}))")
        }
        Kind::Json => format!("sum(octet_length({name}::text))"),
        Kind::List => format!("sum(cardinality({name}))"),
    }
}
