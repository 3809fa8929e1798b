//! The versions of the schema. A store is brought up to date when it is opened.

use rusqlite::{Connection, TransactionBehavior};

/// The steps from each version to the next. Released steps never change.
const MIGRATIONS: [&str; 2] =
    [include_str!("../migrations/0001_start.sql"), include_str!("../migrations/0002_trace.sql")];

/// The version of the schema that this program knows.
#[expect(clippy::cast_possible_wrap, reason = "a handful")]
pub(crate) const KNOWN: i64 = MIGRATIONS.len() as i64;

/// Returns the version of a file's schema: 0 if the file is empty.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", (), |row| row.get(0))
}

/// Runs the missing steps, each in a transaction.
pub(crate) fn run(connection: &mut Connection) -> rusqlite::Result<()> {
    for (migration, number) in MIGRATIONS.iter().zip(1_i64..) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // The step and its number are committed together, so that no step runs twice.
        if version(&transaction)? < number {
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "user_version", number)?;
        }
        transaction.commit()?;
    }
    Ok(())
}
