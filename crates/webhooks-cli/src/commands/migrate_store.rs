//! `migrate-store`: a service moves from its SQLite file to PostgreSQL.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use webhooks_dispatch::clock::{Clock as _, MonotonicTime, SystemClock};
use webhooks_postgres::{Import, ImportError, ImportState, PostgresOptions};
use webhooks_sqlite::rusqlite::InterruptHandle;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::migration::{
    Batch, Check, Position, Source, SourceError, TARGET_COLUMNS, check_target, of_target,
    statement_of_target,
};
use crate::output::Output;
use crate::store::{Database, file_refused};
use crate::table::Column;

/// The columns of the result.
const TABLES: [Column; 3] =
    [Column("TABLE", "/table"), Column("ROWS", "/rows"), Column("COPIED", "/copied")];

/// The time between two lines of progress, where no terminal shows it in place.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Move everything from a SQLite file to PostgreSQL; no service may run
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks migrate-store --from webhooks.db --to @postgres-url --dry-run
  webhooks migrate-store --from /var/lib/webhooks/webhooks.db --to postgres://webhooks@db/webhooks")]
pub(crate) struct MigrateStoreArgs {
    /// Database file; it stays as it is
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// postgres:// URL of an empty database; @FILE for a URL in a file
    #[arg(long, value_name = "URL")]
    to: String,
    /// Most rows in a transaction
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 5_000,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    batch: u32,
    /// Count and check, and write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(args: MigrateStoreArgs, context: &Context) -> Result<(), Failure> {
    // A URL may have a password, which no error shows.
    if Database::is_url(&args.from.to_string_lossy()) {
        return Err(Failure::usage("--from is not a file"));
    }
    let mut signals = context.interruption.take();
    let database = Database::server("--to", &args.to)?;
    let mut migration = Migration {
        output: context.output,
        from: args.from.display().to_string(),
        options: database.postgres()?,
        database,
        limit: usize::try_from(args.batch).unwrap_or(usize::MAX),
        rows: 0,
        total: 0,
        has_begun: false,
    };
    let source = migration.open(&args.from)?;
    let interrupt = source.interrupt_handle();
    tokio::select! {
        ended = migration.run(source, args.dry_run) => ended,
        () = signals.next() => Err(interrupted(&interrupt)),
    }
    .map_err(|failure| migration.with_progress(failure))
}

/// Ends what is being read, so that the program can end.
fn interrupted(interrupt: &InterruptHandle) -> Failure {
    interrupt.interrupt();
    Failure::new(Exit::Interrupted, "interrupted")
}

/// A migration under way.
struct Migration {
    output: Output,
    from: String,
    database: Database,
    options: PostgresOptions,
    /// The most rows in a transaction.
    limit: usize,
    /// The number of rows that are there, and of all.
    rows: u64,
    total: u64,
    /// Whether something was written, by this process or an earlier one.
    has_begun: bool,
}

impl Migration {
    fn open(&self, path: &std::path::Path) -> Result<Source, Failure> {
        let source = Source::open(path).map_err(|error| self.unreadable(error))?;
        for table in &source.others {
            Output::warn(format!(
                "{} has a table of its own, {table:?}, which stays behind",
                self.from
            ));
        }
        Ok(source)
    }

    async fn run(&mut self, source: Source, is_dry: bool) -> Result<(), Failure> {
        self.output.note(format!("counting the rows of {}", self.from));
        let others = source.others.clone();
        let (source, checks) = self.blocking(source, Source::checks).await?;
        self.total = checks.iter().map(|check| check.rows).sum();
        let identity = checks.iter().map(Check::text).collect::<Vec<_>>().join("\n");
        let state = self.options.import_state(&identity).await;
        let state = state.map_err(|error| self.refused(error))?;
        if is_dry || state == ImportState::Finished {
            self.tell(&checks, &others, &state)?;
            let database = &self.database;
            self.output.note(match state {
                ImportState::New => format!("{database} has no events yet, and can take all of it"),
                ImportState::Begun { .. } => {
                    format!("{database} has a part of it, and can go on; nothing was written")
                }
                ImportState::Finished => {
                    format!("{database} has got all of it before; nothing was written")
                }
            });
            return Ok(());
        }
        let last = source.last_numbers().map_err(|error| self.unreadable(error))?;
        let tables = webhooks_admin::PostgresRecordStore::SCHEMA;
        let start = Position::default().text();
        let import = self.options.import(&identity, &start, last, tables).await;
        let mut import = import.map_err(|error| self.refused(error))?;
        self.has_begun = true;
        self.check_schema(&mut import).await?;
        self.copy(source, &mut import).await?;
        self.compare(&mut import, &checks).await?;
        import.finish().await.map_err(|error| self.refused(error))?;
        self.tell(&checks, &others, &ImportState::Finished)?;
        self.output.note(format!(
            "{} has everything of {}: the counts and sums of all tables are the same",
            self.database, self.from
        ));
        self.output.hint("next: webhooks serve --database URL");
        Ok(())
    }

    /// Reads something from the file, in a thread of its own.
    async fn blocking<T: Send + 'static>(
        &self,
        source: Source,
        read: impl FnOnce(&Source) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<(Source, T), Failure> {
        let ended = tokio::task::spawn_blocking(move || {
            let read = read(&source);
            (source, read)
        });
        let (source, read) = ended
            .await
            .map_err(|error| Failure::new(Exit::Failed, "the copy ended").because(error))?;
        Ok((source, read.map_err(|error| self.unreadable(error))?))
    }

    /// Refuses a database with columns that would stay empty.
    async fn check_schema(&self, import: &mut Import) -> Result<(), Failure> {
        let columns = import.texts(TARGET_COLUMNS.to_owned()).await;
        let columns = columns.map_err(|error| self.refused(error))?;
        check_target(columns).map_err(|column| {
            let text = format!("this program does not know how to fill the column {column}");
            Failure::new(Exit::Refused, text).hint("it is a fault of the program; please report it")
        })
    }

    async fn copy(&mut self, source: Source, import: &mut Import) -> Result<(), Failure> {
        let mut position = Position::read(import.position()).ok_or_else(|| {
            let text = format!("the note of the migration in {} cannot be read", self.database);
            Failure::new(Exit::Failed, text)
        })?;
        self.rows = position.rows;
        if self.rows > 0 {
            self.output.note(format!("going on after {} of {} rows", self.rows, self.total));
        }
        let mut told_at = SystemClock.monotonic();
        let (mut source, limit) = (source, self.limit);
        loop {
            let (back, batch) =
                self.blocking(source, move |source| source.read(&position, limit)).await?;
            source = back;
            let Batch { accepted, copies, position: next, is_last } = batch;
            let written = import.write(&accepted, &copies, &next.text()).await;
            written.map_err(|error| self.refused(error))?;
            self.rows = next.rows;
            position = next;
            self.show_progress(&mut told_at);
            if is_last {
                self.output.end_progress();
                return Ok(());
            }
        }
    }

    fn show_progress(&self, told_at: &mut MonotonicTime) {
        let percent = (self.rows * 100).checked_div(self.total).unwrap_or(100);
        let text = format!("{} of {} rows copied ({percent} %)", self.rows, self.total);
        if self.output.is_watched {
            self.output.progress(text);
        } else if SystemClock.monotonic().saturating_since(*told_at) >= PROGRESS_EVERY {
            *told_at = SystemClock.monotonic();
            self.output.note(text);
        }
    }

    /// Compares the counts and sums of all tables with those of the file.
    async fn compare(&self, import: &mut Import, checks: &[Check]) -> Result<(), Failure> {
        self.output.note("comparing both sides");
        let mut rows = Vec::new();
        for statement in statement_of_target() {
            let found = import.texts(statement).await.map_err(|error| self.refused(error))?;
            rows.extend(found);
        }
        let copies = of_target(rows);
        let different = checks.iter().zip(&copies).find(|(check, copy)| check != copy);
        let Some((check, copy)) = different.filter(|_| checks.len() == copies.len()) else {
            return Ok(());
        };
        let text = format!(
            "{} differ: {} has {} rows, and {} has {} rows or other values",
            check.table, self.from, check.rows, self.database, copy.rows
        );
        Err(Failure::new(Exit::CheckFailed, text).hint(
            "did another program write to the database? run DROP SCHEMA webhooks CASCADE in it, and migrate again",
        ))
    }

    /// Prints the tables.
    fn tell(
        &self,
        checks: &[Check],
        others: &[String],
        state: &ImportState,
    ) -> Result<(), Failure> {
        let state = match state {
            ImportState::New => "new",
            ImportState::Begun { .. } => "begun",
            ImportState::Finished => "finished",
        };
        let is_finished = state == "finished";
        let copied = |rows: u64| if is_finished { Value::from(rows) } else { Value::Null };
        let table = |check: &Check| json!({ "table": check.table, "rows": check.rows, "copied": copied(check.rows) });
        let tables: Vec<Value> = checks.iter().map(table).collect();
        if self.output.is_json() {
            let (from, to) = (&self.from, self.database.to_string());
            return Ok(self.output.json(&json!({
                "from": from, "to": to, "state": state, "tables": tables, "leftBehind": others,
            }))?);
        }
        Ok(self.output.rows(&TABLES, &tables)?)
    }

    /// Adds to a failure how to go on.
    fn with_progress(&self, failure: Failure) -> Failure {
        self.output.end_progress();
        if !self.has_begun || failure.hint_text().is_some() {
            return failure;
        }
        failure.hint(format!(
            "{} of {} rows are copied; run the same command again, and it goes on from there",
            self.rows, self.total
        ))
    }

    fn unreadable(&self, error: SourceError) -> Failure {
        let text = format!("cannot copy {}", self.from);
        match error {
            SourceError::Open(error) => file_refused(text, error),
            error @ SourceError::Unknown { .. } => {
                Failure::new(Exit::Refused, text).because(error).hint("update this program")
            }
            error @ SourceError::Read(_) => Failure::new(Exit::Failed, text).because(error),
        }
    }

    fn refused(&self, error: ImportError) -> Failure {
        let (exit, hint) = match &error {
            ImportError::NotEmpty { .. } => {
                (Exit::Refused, Some("name an empty database: nothing is overwritten"))
            }
            ImportError::OtherSource { is_finished: true } => {
                (Exit::Refused, Some("name another, empty database: nothing is overwritten"))
            }
            ImportError::OtherSource { is_finished: false } => (
                Exit::Refused,
                Some(
                    "name the file with which it was begun; if a service has used that since, run DROP SCHEMA webhooks CASCADE in the database and begin again",
                ),
            ),
            ImportError::NoRight => {
                (Exit::Refused, Some("let the owner grant CREATE on the database to the role"))
            }
            ImportError::InUse => (
                Exit::Refused,
                Some("stop all services that use it; a killed one counts for ten seconds"),
            ),
            ImportError::Taken => (Exit::Refused, Some("let the other one end")),
            _ => (Exit::Failed, None),
        };
        let failure =
            Failure::new(exit, format!("cannot migrate to {}", self.database)).because(error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
