//! The guard of the connection that writes: the statements that a closure of the application may run,
//! and for how long.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::readers::{is_past, until};

/// The names that belong to the store. Memory follows these tables, so only the store changes them.
const OWN: [&str; 8] = [
    "attempts",
    "counters",
    "deliveries",
    "deliveries_view",
    "endpoints",
    "events",
    "figures",
    "jobs",
];

/// The pragmas that change no setting of the connection or of the file. `ALTER TABLE` and full-text
/// indexes use some of them.
const PRAGMAS: [&str; 13] = [
    "data_version",
    "defer_foreign_keys",
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "page_size",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];

/// The time that a statement of a closure may take. Everybody who writes waits for it.
const STATEMENT_TIMEOUT: Duration =
    if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(30) };

/// The number of steps of SQLite between two looks at the time: about a millisecond.
const CHECK_STEPS: i32 = 100_000;

/// Watches a connection while it runs a statement of a closure: until when, or not at all.
///
/// SQLite asks the authorizer when a statement is prepared, and also when it prepares one again
/// after a change of the schema. Setting an authorizer makes SQLite prepare every statement again, so
/// it is set once, and this decides.
#[derive(Clone, Default)]
pub(crate) struct Guard(Arc<Mutex<Option<Instant>>>);

impl Guard {
    pub(crate) fn install(connection: &mut Connection) -> rusqlite::Result<Self> {
        let guard = Self::default();
        let asked = guard.clone();
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            let is_denied = asked.until().is_some() && !is_allowed(&context);
            if is_denied { Authorization::Deny } else { Authorization::Allow }
        }))?;
        let asked = guard.clone();
        let is_over = move || asked.until().is_some_and(is_past);
        connection.progress_handler(CHECK_STEPS, Some(is_over))?;
        Ok(guard)
    }

    /// Watches until the result is dropped, which a panic does, too.
    pub(crate) fn turn_on(&self) -> GuardIsOn<'_> {
        *self.until() = Some(until(STATEMENT_TIMEOUT));
        GuardIsOn(self)
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct GuardIsOn<'g>(&'g Guard);

impl Drop for GuardIsOn<'_> {
    fn drop(&mut self) {
        *self.0.until() = None;
    }
}

fn is_allowed(context: &AuthContext<'_>) -> bool {
    use AuthAction as A;
    match context.action {
        // The writer begins and ends the transaction, which the commands of others share. An event
        // that `ROLLBACK TO` removed would still join the backlog.
        A::Transaction { .. } | A::Savepoint { .. } => false,
        // Another file is not committed in one step with the store's.
        A::Attach { .. } | A::Detach { .. } => false,
        // Its statistics would change how SQLite carries out the store's own statements.
        A::Analyze { .. } => false,
        // They last as long as the connection, and a temporary table hides the store's of that name.
        A::CreateTempIndex { .. }
        | A::CreateTempTable { .. }
        | A::CreateTempTrigger { .. }
        | A::CreateTempView { .. } => false,
        A::CreateIndex { .. }
        | A::CreateTable { .. }
        | A::CreateTrigger { .. }
        | A::CreateView { .. }
        | A::CreateVtable { .. }
            if context.database_name == Some("temp") =>
        {
            false
        }
        A::Pragma { pragma_name, .. } => is_in(&PRAGMAS, pragma_name),
        A::AlterTable { table_name, .. }
        | A::CreateIndex { table_name, .. }
        | A::CreateTrigger { table_name, .. }
        | A::Delete { table_name }
        | A::DropIndex { table_name, .. }
        | A::DropTable { table_name }
        | A::DropTrigger { table_name, .. }
        | A::Insert { table_name }
        | A::Update { table_name, .. } => !is_in(&OWN, table_name),
        A::DropView { view_name } => !is_in(&OWN, view_name),
        A::Unknown { .. } => false,
        _ => true,
    }
}

fn is_in(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}
