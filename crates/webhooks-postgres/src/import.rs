//! Imports: a store is filled with the rows of another one, over many transactions. Until the last of them,
//! nobody can open it.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use thiserror::Error;
use webhooks_core::{Channel, EndpointId, Timestamp};
use webhooks_registry::store::StoredEndpoint;
use webhooks_registry::{Endpoint, EndpointState, Registration};

use crate::endpoint_list::{metadata, words};
use crate::endpoints::{max_claim_column, max_workers_column, patterns};
use crate::error::{OpenError, is_missing_table};
use crate::migrate::{self, check_encoding};
use crate::options::PostgresOptions;
use crate::row::{self, At};

/// The note of an import, in one row.
const NOTE: &str = "
    CREATE TABLE webhooks.import (
        is_only     boolean PRIMARY KEY DEFAULT true CHECK (is_only),
        source      text NOT NULL,      -- what is imported
        position    text NOT NULL,      -- where it goes on
        started_at  timestamptz NOT NULL DEFAULT now(),
        finished_at timestamptz         -- NULL until everything is there
    )";

/// The tables that may have rows in a store that was never used.
const SETTINGS: [&str; 4] = ["import", "migrations", "partitions", "settings"];

/// The reason why an import failed. The transactions that it has committed stay, and it can go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store holds something that no import has brought.
    #[error("the database is not empty: there are rows in webhooks.{table}")]
    NotEmpty {
        /// One of the tables with rows.
        table: String,
    },
    /// The store was filled, or is being filled, from something else.
    #[error("the database has the rows of another source, or of an earlier state of this one")]
    OtherSource {
        /// Whether that import has everything.
        is_finished: bool,
    },
    /// There is no schema yet, and the role may not create one.
    #[error("the role may not create a schema in the database")]
    NoRight,
    /// A worker uses the store.
    #[error("a service uses the database")]
    InUse,
    /// Another process makes the same import.
    #[error("another process imports into the database")]
    Taken,
    /// The database refuses a statement, or the connection is lost.
    #[error("the database refuses, or cannot be reached any longer")]
    Sql(#[from] sqlx::Error),
}

/// The state of an import into a database.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no fourth state")]
pub enum ImportState {
    /// There is no store, or one that was never used.
    New,
    /// It was begun, and goes on from here.
    Begun {
        /// The position of the last commit.
        position: String,
    },
    /// Everything is there.
    Finished,
}

/// The last numbers that the source has given: later ones follow them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct LastNumbers {
    /// The last number of an endpoint's row.
    pub endpoint: i64,
    /// The last number of an event.
    pub event: i64,
    /// The last number of a job.
    pub job: i64,
}

/// An import into an empty store, over a connection of its own.
///
/// It is made in transactions that each record the position at which it goes on. A process that is killed
/// leaves a store that nobody can open until the import is finished.
#[derive(Debug)]
pub struct Import {
    connection: PgConnection,
    position: String,
}

impl PostgresOptions {
    /// Returns the state of an import from this source, and changes nothing.
    ///
    /// # Errors
    /// [`ImportError`] when the database cannot be used, or holds anything else.
    pub async fn import_state(&self, source: &str) -> Result<ImportState, ImportError> {
        let mut connection = self.database.establish(Duration::ZERO).await?;
        check_encoding(&mut connection).await?;
        let state = state(&mut connection, source).await?;
        check_right(&mut connection).await?;
        connection.close().await?;
        Ok(state)
    }

    /// Begins an import, or goes on with one: makes or migrates the schema, and notes the source in it. `tables`
    /// is a script that makes further tables unless they are there.
    ///
    /// # Errors
    /// [`ImportError`] when the database cannot be used, or holds anything else.
    pub async fn import(
        &self,
        source: &str,
        position: &str,
        last: LastNumbers,
        tables: &'static str,
    ) -> Result<Import, ImportError> {
        let mut connection = self.database.establish(Duration::ZERO).await?;
        let mut transaction = connection.begin().await?;
        check_encoding(&mut transaction).await?;
        migrate::run(&mut transaction).await?;
        // Of two that begin at once, the second one waits, and then finds the note of the first.
        sqlx::query(migrate::LOCK).persistent(false).execute(&mut *transaction).await?;
        let position = match state(&mut transaction, source).await? {
            ImportState::New => {
                begin(&mut transaction, source, position, last).await?;
                position.to_owned()
            }
            ImportState::Begun { position } => position,
            ImportState::Finished => return Err(ImportError::OtherSource { is_finished: true }),
        };
        transaction.commit().await?;
        sqlx::raw_sql(tables).execute(&mut connection).await?;
        Ok(Import { connection, position })
    }
}

/// Returns the state of an import, or why there can be none.
async fn state(connection: &mut PgConnection, source: &str) -> Result<ImportState, ImportError> {
    const NOTED: &str =
        "SELECT source = $1, finished_at IS NOT NULL, position FROM webhooks.import";
    let noted = sqlx::query_as(NOTED).persistent(false).bind(source);
    if exists(connection, "webhooks.import").await? {
        let noted: Option<(bool, bool, String)> = noted.fetch_optional(&mut *connection).await?;
        match noted {
            Some((true, true, _)) => return Ok(ImportState::Finished),
            Some((true, false, position)) => {
                check_unused(connection).await?;
                return Ok(ImportState::Begun { position });
            }
            Some((false, is_finished, _)) => return Err(ImportError::OtherSource { is_finished }),
            None => {}
        }
    }
    if exists(connection, "webhooks.workers").await? {
        check_unused(connection).await?;
    }
    check_empty(connection).await?;
    Ok(ImportState::New)
}

async fn exists(connection: &mut PgConnection, table: &str) -> Result<bool, sqlx::Error> {
    const EXISTS: &str = "SELECT to_regclass($1) IS NOT NULL";
    sqlx::query_scalar(EXISTS).persistent(false).bind(table).fetch_one(connection).await
}

/// Refuses a role that cannot make the schema, if there is none.
async fn check_right(connection: &mut PgConnection) -> Result<(), ImportError> {
    const MAY: &str = "SELECT to_regnamespace('webhooks') IS NOT NULL
        OR has_database_privilege(current_database(), 'CREATE')";
    let may: bool = sqlx::query_scalar(MAY).persistent(false).fetch_one(connection).await?;
    if may { Ok(()) } else { Err(ImportError::NoRight) }
}

/// Refuses a store that a live worker uses.
async fn check_unused(connection: &mut PgConnection) -> Result<(), ImportError> {
    const FIND: &str = "SELECT EXISTS (
        SELECT 1 FROM webhooks.workers WHERE expires_at >= clock_timestamp())";
    let find = sqlx::query_scalar(FIND).persistent(false);
    if find.fetch_one(connection).await? { Err(ImportError::InUse) } else { Ok(()) }
}

/// Refuses a store that has rows of anything but its settings. Dead workers do not count.
async fn check_empty(connection: &mut PgConnection) -> Result<(), ImportError> {
    const TABLES: &str = "SELECT c.relname::text FROM pg_class c
        WHERE c.relnamespace = to_regnamespace('webhooks') AND c.relkind IN ('r', 'p')
          AND NOT c.relispartition AND c.relname <> ALL ($1) ORDER BY 1";
    let unused: Vec<&str> =
        SETTINGS.into_iter().chain(["workers", "worker_reports", "probes"]).collect();
    let tables = sqlx::query_scalar(TABLES).persistent(false).bind(unused);
    let tables: Vec<String> = tables.fetch_all(&mut *connection).await?;
    for table in tables {
        let quoted = table.replace('"', "\"\"");
        let find = format!("SELECT EXISTS (SELECT 1 FROM webhooks.\"{quoted}\")");
        let find = sqlx::query_scalar(AssertSqlSafe(find)).persistent(false);
        if find.fetch_one(&mut *connection).await? {
            return Err(ImportError::NotEmpty { table });
        }
    }
    Ok(())
}

/// Notes the import, and sets the numbers that the store gives next. That is done first: an application that
/// publishes in SQL meanwhile takes none that the source has used.
async fn begin(
    connection: &mut PgConnection,
    source: &str,
    position: &str,
    last: LastNumbers,
) -> Result<(), sqlx::Error> {
    const ADD: &str = "INSERT INTO webhooks.import (source, position) VALUES ($1, $2)";
    const GO_ON: &str = "SELECT setval($1::regclass, greatest($2, 1), $2 > 0)";
    const SEQUENCE: &str = "SELECT pg_get_serial_sequence($1, 'number')";
    if !exists(connection, "webhooks.import").await? {
        sqlx::raw_sql(NOTE).execute(&mut *connection).await?;
    }
    let add = sqlx::query(ADD).persistent(false).bind(source).bind(position);
    add.execute(&mut *connection).await?;
    let mut sequences = vec![("webhooks.event_numbers".to_owned(), last.event)];
    for (table, last) in [("webhooks.endpoints", last.endpoint), ("webhooks.jobs", last.job)] {
        let sequence = sqlx::query_scalar(SEQUENCE).persistent(false).bind(table);
        sequences.push((sequence.fetch_one(&mut *connection).await?, last));
    }
    for (sequence, last) in sequences {
        let go_on = sqlx::query(GO_ON).persistent(false).bind(sequence).bind(last);
        go_on.execute(&mut *connection).await?;
    }
    Ok(())
}

impl Import {
    /// Returns the position of the last commit.
    #[must_use]
    pub fn position(&self) -> &str {
        &self.position
    }

    /// Returns the rows of a statement that only reads, whose columns are texts or NULL.
    ///
    /// # Errors
    /// [`ImportError`] when the database refuses it, or is lost.
    pub async fn texts(
        &mut self,
        statement: String,
    ) -> Result<Vec<Vec<Option<String>>>, ImportError> {
        let read = sqlx::query(AssertSqlSafe(statement)).persistent(false);
        let rows = read.fetch_all(&mut self.connection).await?;
        let texts = |row: &PgRow| (0..row.len()).map(|column| row.try_get(column)).collect();
        Ok(rows.iter().map(texts).collect::<Result<_, _>>()?)
    }

    /// Copies rows, each into the table and columns of a `COPY … FROM STDIN`, and records the position at which it
    /// goes on, in one transaction. `accepted` has the times of acceptance of all events.
    ///
    /// # Errors
    /// [`ImportError`] when nothing was changed, or it is not known whether the transaction was committed. Begin
    /// again then.
    ///
    /// # Cancellation
    /// As after an error.
    pub async fn write(
        &mut self,
        accepted: &[Timestamp],
        copies: &[(String, Vec<u8>)],
        position: &str,
    ) -> Result<(), ImportError> {
        const PARTITIONS: &str = "SELECT webhooks.ensure_partition(at)
            FROM (SELECT DISTINCT at FROM unnest($1::timestamptz[]) AS a(at) ORDER BY at) times
            WHERE NOT EXISTS (
                SELECT 1 FROM webhooks.partitions p WHERE p.start_at <= at AND at < p.end_at)";
        const MOVE: &str = "UPDATE webhooks.import SET position = $2
            WHERE position = $1 AND finished_at IS NULL";
        let mut transaction = self.connection.begin().await?;
        let go_on = sqlx::query(MOVE).persistent(false).bind(&self.position).bind(position);
        if go_on.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Err(ImportError::Taken);
        }
        check_unused(&mut transaction).await?;
        if !accepted.is_empty() {
            let accepted: Vec<At> = accepted.iter().copied().map(At).collect();
            let partitions = sqlx::query(PARTITIONS).persistent(false).bind(accepted);
            partitions.execute(&mut *transaction).await?;
        }
        for (statement, rows) in copies {
            let mut copy = transaction.copy_in_raw(statement).await?;
            copy.send(rows.as_slice()).await?;
            copy.finish().await?;
        }
        transaction.commit().await?;
        position.clone_into(&mut self.position);
        Ok(())
    }

    /// Ends the import: from now on the store can be opened.
    ///
    /// # Errors
    /// [`ImportError`] when it is not known whether the import has ended.
    pub async fn finish(mut self) -> Result<(), ImportError> {
        const FINISH: &str = "UPDATE webhooks.import SET finished_at = now()
            WHERE position = $1 AND finished_at IS NULL";
        let finish = sqlx::query(FINISH).persistent(false).bind(&self.position);
        if finish.execute(&mut self.connection).await?.rows_affected() == 0 {
            return Err(ImportError::Taken);
        }
        Ok(self.connection.close().await?)
    }
}

/// Refuses a store that an import has not filled yet.
pub(crate) async fn check_finished(connection: &mut PgConnection) -> Result<(), OpenError> {
    const UNFINISHED: &str =
        "SELECT EXISTS (SELECT 1 FROM webhooks.import WHERE finished_at IS NULL)";
    if !exists(connection, "webhooks.import").await? {
        return Ok(());
    }
    let unfinished = sqlx::query_scalar(UNFINISHED).persistent(false).fetch_one(connection).await;
    match unfinished {
        Ok(true) => Err(OpenError::Unfinished),
        Ok(false) => Ok(()),
        // It was dropped since the look.
        Err(error) if is_missing_table(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The columns of an endpoint's row that follow from its settings, and its subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it is the content of columns")]
pub struct EndpointColumns {
    /// The URL.
    pub url: String,
    /// The texts by which lists filter.
    pub words: String,
    /// The metadata, as JSON.
    pub metadata: String,
    /// The patterns of the event types that it gets.
    pub patterns: Vec<String>,
    /// Whether it gets its events in order.
    pub is_ordered: bool,
    /// The most workers that serve it.
    pub max_workers: i32,
    /// The most deliveries of a claim, if there is a rate limit.
    pub max_claim: Option<i32>,
    /// The channels, if it does not get the events of all.
    pub channels: Option<Vec<String>>,
}

impl EndpointColumns {
    /// Returns the columns for stored settings. Nobody needs to know the secrets for that. If the settings cannot be
    /// read, the endpoint gets nothing until it is registered again, as in the store that it comes from.
    #[must_use]
    pub fn of(id: &str, settings: &str) -> Self {
        Self::read(id, settings).unwrap_or_else(|| Self {
            url: String::new(),
            words: row::without_nul(&id.to_ascii_lowercase()),
            metadata: "{}".to_owned(),
            patterns: Vec::new(),
            is_ordered: false,
            max_workers: 1,
            max_claim: None,
            channels: None,
        })
    }

    fn read(id: &str, settings: &str) -> Option<Self> {
        // Stand-ins for the secrets, which may be encrypted with a key that is not here.
        let secret = format!("whsec_{}", "A".repeat(43) + "=");
        let stand_in = Endpoint::new("https://unreadable.invalid/", &secret).ok()?;
        let secrets = StoredEndpoint::new(&stand_in).secrets;
        let stored = StoredEndpoint { settings: settings.to_owned(), secrets };
        let endpoint = stored.to_endpoint().ok()?;
        let channels: Vec<String> =
            endpoint.channels.iter().map(|channel| Channel::as_str(channel).to_owned()).collect();
        let columns = Self {
            url: endpoint.url.as_str().to_owned(),
            words: String::new(),
            metadata: metadata(&endpoint.metadata),
            patterns: patterns(&endpoint).into_iter().map(str::to_owned).collect(),
            is_ordered: endpoint.ordered,
            max_workers: max_workers_column(&endpoint),
            max_claim: max_claim_column(&endpoint),
            channels: Some(channels).filter(|channels| !channels.is_empty()),
        };
        let number = row::endpoint_number(0);
        let registration = Registration::new(number, EndpointId::new(id).ok()?, endpoint);
        Some(Self { words: words(&registration), ..columns })
    }

    /// Returns whether an endpoint in this state has subscriptions.
    #[must_use]
    pub fn is_open(state: &str) -> bool {
        EndpointState::from_words(state, None).is_open()
    }
}
