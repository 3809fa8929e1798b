//! The schemas, as this program knows them. A table or a column that it does not know would be left behind, so the
//! migration refuses.

use std::collections::{BTreeMap, BTreeSet};

use webhooks_sqlite::rusqlite::{self, Connection};

use super::batch::filled;
use super::tables::{
    ALL, ENDPOINT_FURTHER, ENDPOINTS, EVENT_KEY, EVENTS, FIGURES, JOBS, RECORDS, SUBSCRIPTION,
};

/// The columns by table.
pub(super) type Columns = BTreeMap<String, BTreeSet<String>>;

/// The table of the file whose rows become the next numbers of sequences.
const COUNTERS: (&str, [&str; 2]) = ("counters", ["name", "next"]);

/// The columns of the database that start with their defaults.
const DEFAULTS: [(&str, &[&str]); 4] = [
    ("endpoints", &["is_open", "cancels"]),
    ("pending_deliveries", &["leased_until", "token"]),
    ("jobs", &["leased_until", "token"]),
    ("figures", &["stage", "writer"]),
];

/// The tables of the database that are its own: workers, what they tell each other, settings, partitions and notes.
const OWN: [&str; 7] =
    ["import", "migrations", "partitions", "probes", "settings", "worker_reports", "workers"];

/// The statement that returns the columns of the database: table and column.
pub(crate) const STATEMENT: &str = "SELECT c.relname::text, a.attname::text
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = to_regnamespace('webhooks') AND c.relkind IN ('r', 'p')
      AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped";

fn add<'c>(columns: &mut Columns, table: &str, names: impl IntoIterator<Item = &'c &'c str>) {
    let names = names.into_iter().map(|name| (*name).to_owned());
    columns.entry(table.to_owned()).or_default().extend(names);
}

/// Returns the columns of a file that are copied.
fn known_of_source() -> Columns {
    let mut known = Columns::new();
    for table in &ALL {
        let names: Vec<&str> = table.columns.iter().map(|column| column.from).collect();
        add(&mut known, table.from, &names);
    }
    add(&mut known, COUNTERS.0, &COUNTERS.1);
    known
}

/// Returns the columns of the database that are filled, or start with their defaults.
fn known_of_target() -> Columns {
    let mut known = Columns::new();
    for table in [ENDPOINTS, RECORDS, JOBS, FIGURES, EVENTS] {
        let names: Vec<&str> = table.columns.iter().map(|column| column.to).collect();
        add(&mut known, table.to.trim_start_matches("webhooks."), &names);
    }
    for (table, names) in filled() {
        add(&mut known, table, &names);
    }
    add(&mut known, "endpoints", &ENDPOINT_FURTHER);
    add(&mut known, "subscriptions", &SUBSCRIPTION);
    add(&mut known, "event_keys", &EVENT_KEY);
    for (table, names) in DEFAULTS {
        add(&mut known, table, names);
    }
    known
}

/// Returns the columns of a file. Those of SQLite itself are left out.
fn of_source(connection: &Connection) -> rusqlite::Result<Columns> {
    const COLUMNS: &str = "SELECT t.name, c.name FROM sqlite_schema AS t
        JOIN pragma_table_info(t.name) AS c
        WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let mut columns = Columns::new();
    let mut statement = connection.prepare(COLUMNS)?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        columns.entry(row.get(0)?).or_default().insert(row.get(1)?);
    }
    Ok(columns)
}

/// Returns the tables of a file that are not of a store; an error names a column that would be left behind.
pub(super) fn check_source(
    connection: &Connection,
) -> rusqlite::Result<Result<Vec<String>, String>> {
    let (found, known) = (of_source(connection)?, known_of_source());
    let ours: Columns =
        found.iter().filter(|(table, _)| known.contains_key(*table)).map(owned).collect();
    let others = found.into_keys().filter(|table| !known.contains_key(table)).collect();
    // A store that was embedded has no records.
    let mut expected = known;
    expected.retain(|table, _| ours.contains_key(table) || table != RECORDS.from);
    Ok(difference(&ours, &expected).map_or(Ok(others), Err))
}

fn owned<'c>((table, columns): (&'c String, &'c BTreeSet<String>)) -> (String, BTreeSet<String>) {
    (table.clone(), columns.clone())
}

/// Compares the columns of the database; an error names one that this program cannot fill.
pub(crate) fn check_target(rows: Vec<Vec<Option<String>>>) -> Result<(), String> {
    let mut found = Columns::new();
    for row in rows {
        let mut texts = row.into_iter().map(Option::unwrap_or_default);
        let (table, column) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
        found.entry(table).or_default().insert(column);
    }
    found.retain(|table, _| !OWN.contains(&table.as_str()));
    difference(&found, &known_of_target()).map_or(Ok(()), Err)
}

/// Returns the first column that stands on one side only.
fn difference(found: &Columns, known: &Columns) -> Option<String> {
    let pairs = |columns: &Columns| -> BTreeSet<String> {
        let names = |(table, columns): (&String, &BTreeSet<String>)| {
            columns.iter().map(|column| format!("{table}.{column}")).collect::<Vec<_>>()
        };
        columns.iter().flat_map(names).collect()
    };
    pairs(found).symmetric_difference(&pairs(known)).next().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_on_one_side_alone_is_found() {
        let columns = |names: &[&str]| {
            let mut columns = Columns::new();
            add(&mut columns, "jobs", names);
            columns
        };
        assert_eq!(difference(&columns(&["a", "b"]), &columns(&["b", "a"])), None);
        let more = columns(&["a", "b", "c"]);
        assert_eq!(difference(&more, &columns(&["a", "b"])).as_deref(), Some("jobs.c"));
        assert_eq!(difference(&columns(&["a", "b"]), &more).as_deref(), Some("jobs.c"));
    }
}
