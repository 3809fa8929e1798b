//! The schema, which opening a store brings up to date.

use sqlx::PgConnection;

use crate::error::OpenError;

/// The steps from one version to the next, in order. A step that was released never changes.
const MIGRATIONS: [&str; 7] = [
    include_str!("../migrations/0001_tables.sql"),
    include_str!("../migrations/0002_partitions.sql"),
    include_str!("../migrations/0003_publish.sql"),
    include_str!("../migrations/0004_claim.sql"),
    include_str!("../migrations/0005_settle.sql"),
    include_str!("../migrations/0006_workers.sql"),
    include_str!("../migrations/0007_try_now.sql"),
];

/// The version of the schema that this program knows.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a handful")]
const KNOWN: i32 = MIGRATIONS.len() as i32;

/// The lock of a migration: of programs that start at the same time, one migrates and the others
/// wait.
pub(crate) const LOCK: &str = "SELECT pg_advisory_xact_lock(7305000, 1)";

/// Not `CREATE SCHEMA IF NOT EXISTS`: that needs the right to create schemas even if the schema
/// exists.
const START: &str = "
    DO $$ BEGIN
        IF to_regnamespace('webhooks') IS NULL THEN
            CREATE SCHEMA webhooks;
        END IF;
    END $$;
    CREATE TABLE IF NOT EXISTS webhooks.migrations (
        version    integer PRIMARY KEY,
        applied_at timestamptz NOT NULL DEFAULT now()
    )";

/// Brings the schema up to date, in the caller's transaction. A schema that is up to date is only
/// read, which needs no right to change it.
pub(crate) async fn run(transaction: &mut PgConnection) -> Result<(), OpenError> {
    if version(transaction).await? == KNOWN {
        return Ok(());
    }
    sqlx::query(LOCK).persistent(false).execute(&mut *transaction).await?;
    sqlx::raw_sql(START).execute(&mut *transaction).await?;
    let found = version(transaction).await?;
    if found > KNOWN {
        return Err(OpenError::Newer { found, known: KNOWN });
    }
    for (migration, number) in MIGRATIONS.iter().zip(1..).filter(|(_, number)| *number > found) {
        sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
        let insert = sqlx::query("INSERT INTO webhooks.migrations (version) VALUES ($1)");
        insert.persistent(false).bind(number).execute(&mut *transaction).await?;
    }
    Ok(())
}

/// Returns the version of the schema; 0 if there is none.
pub(crate) async fn version(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('webhooks.migrations') IS NOT NULL")
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(0);
    }
    let latest: Option<i32> = sqlx::query_scalar("SELECT max(version) FROM webhooks.migrations")
        .persistent(false)
        .fetch_one(connection)
        .await?;
    Ok(latest.unwrap_or(0))
}

/// Refuses a database that cannot hold every text.
pub(crate) async fn check_encoding(connection: &mut PgConnection) -> Result<(), OpenError> {
    let found = sqlx::query_scalar("SHOW server_encoding").persistent(false);
    let found: String = found.fetch_one(connection).await?;
    if found == "UTF8" { Ok(()) } else { Err(OpenError::Encoding { found }) }
}
