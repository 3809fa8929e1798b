//! The seen store in a table of PostgreSQL.

use std::fmt;
use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, Row as _};
use webhooks_core::Timestamp;

use super::{BeginOutcome, SeenClaim, SeenError, SeenId, SeenStore};

/// The maximum number of open connections.
const CONNECTIONS: u32 = 8;

/// How long a call waits for a connection: senders wait little longer for the whole answer.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Asked first, since a role may have the right to use the table but none to create one.
const IS_THERE: &str = "SELECT to_regclass('webhooks_seen') IS NOT NULL";

/// The first process makes the table. The lock is there because two concurrent `CREATE TABLE IF NOT
/// EXISTS` can fail.
const SCHEMA: &str = "
    BEGIN;
    SELECT pg_advisory_xact_lock(5432861205983);
    CREATE TABLE IF NOT EXISTS webhooks_seen (
        scope text NOT NULL,
        id text NOT NULL,
        is_done boolean NOT NULL,
        expires_at bigint NOT NULL,
        PRIMARY KEY (scope, id)
    );
    COMMENT ON COLUMN webhooks_seen.scope IS 'scope of the guard, with its length in front, and the tenant if there are tenants';
    COMMENT ON COLUMN webhooks_seen.is_done IS 'false while it is being handled';
    COMMENT ON COLUMN webhooks_seen.expires_at IS 'microseconds since 1970';
    CREATE INDEX IF NOT EXISTS webhooks_seen_expires_at ON webhooks_seen (expires_at);
    COMMIT;";

/// Each claim adds a row and removes up to eight that have expired, so that none is left for long.
/// `SKIP LOCKED` skips rows that another process is removing, so that no process waits. It is a
/// statement of its own: in one statement with the claim, two processes could wait for each other's
/// rows.
const PRUNE: &str = "
    DELETE FROM webhooks_seen WHERE (scope, id) IN (
        SELECT scope, id FROM webhooks_seen WHERE expires_at <= $1
        ORDER BY expires_at LIMIT 8 FOR UPDATE SKIP LOCKED
    )";

/// Claims an id that is new or has expired. It returns no row for any other id.
const CLAIM: &str = "
    INSERT INTO webhooks_seen AS seen (scope, id, is_done, expires_at) VALUES ($1, $2, false, $3)
    ON CONFLICT (scope, id) DO UPDATE SET is_done = false, expires_at = excluded.expires_at
    WHERE seen.expires_at <= $4
    RETURNING 1";

const FIND: &str = "SELECT is_done, expires_at FROM webhooks_seen WHERE scope = $1 AND id = $2";

const DONE: &str = "
    INSERT INTO webhooks_seen (scope, id, is_done, expires_at) VALUES ($1, $2, true, $3)
    ON CONFLICT (scope, id) DO UPDATE SET is_done = true, expires_at = excluded.expires_at";

const RELEASE: &str = "
    DELETE FROM webhooks_seen WHERE scope = $1 AND id = $2 AND NOT is_done AND expires_at = $3";

/// Remembers ids in a database, which any number of processes may share. Clones are one store.
///
/// The table is `webhooks_seen`, found by the connection's search path, or made in its first schema.
#[derive(Clone)]
pub struct PostgresSeenStore {
    pool: PgPool,
}

impl PostgresSeenStore {
    /// Connects, and makes the table if it does not exist. The URL has the form of libpq:
    /// `postgres://user:password@host/database`.
    ///
    /// # Errors
    /// [`SeenError::Unavailable`] when the database cannot be reached or refuses the table.
    pub async fn connect(url: &str) -> Result<Self, SeenError> {
        let options = PgPoolOptions::new().max_connections(CONNECTIONS);
        let options = options.acquire_timeout(ACQUIRE_TIMEOUT);
        Self::new(options.connect(url).await.map_err(unavailable)?).await
    }

    /// Uses a pool of yours, such as the one that `PostgresStore::pool` of webhooks-postgres lends, and
    /// makes the table if it does not exist. If it exists, the role needs no
    /// right to create one: `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the table are enough.
    ///
    /// # Errors
    /// [`SeenError::Unavailable`] when the database cannot be reached or refuses the table.
    ///
    /// # Example
    /// ```no_run
    /// use sqlx::postgres::PgPoolOptions;
    /// use webhooks_receive::PostgresSeenStore;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = PgPoolOptions::new().connect("postgres://localhost/app").await?;
    /// let store = PostgresSeenStore::new(pool).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn new(pool: PgPool) -> Result<Self, SeenError> {
        let is_there = sqlx::query_scalar(IS_THERE).fetch_one(&pool).await;
        if !is_there.map_err(unavailable)? {
            sqlx::raw_sql(SCHEMA).execute(&pool).await.map_err(unavailable)?;
        }
        Ok(Self { pool })
    }

    async fn execute(
        &self,
        sql: &'static str,
        id: &SeenId,
        at: Timestamp,
    ) -> Result<(), SeenError> {
        let query = sqlx::query(sql).bind(&*id.scope).bind(&*id.id).bind(microseconds(at));
        query.execute(&self.pool).await.map(drop).map_err(unavailable)
    }
}

impl SeenStore for PostgresSeenStore {
    async fn begin(&self, claim: SeenClaim, now: Timestamp) -> Result<BeginOutcome, SeenError> {
        let prune = sqlx::query(PRUNE).bind(microseconds(now));
        prune.execute(&self.pool).await.map_err(unavailable)?;
        let SeenClaim { id: SeenId { scope, id, .. }, until } = &claim;
        let (scope, id) = (&**scope, &**id);
        let claimed = sqlx::query(CLAIM).bind(scope).bind(id);
        let claimed = claimed.bind(microseconds(*until)).bind(microseconds(now));
        if claimed.fetch_optional(&self.pool).await.map_err(unavailable)?.is_some() {
            return Ok(BeginOutcome::Claimed);
        }
        let found = sqlx::query(FIND).bind(scope).bind(id).fetch_optional(&self.pool).await;
        Ok(match found.map_err(unavailable)? {
            Some(row) if row.try_get(0).map_err(unavailable)? => BeginOutcome::Done,
            Some(row) => {
                let until = timestamp(row.try_get(1).map_err(unavailable)?);
                BeginOutcome::InProgress { until }
            }
            // The claim was released in between, so the sender can try again at once.
            None => BeginOutcome::InProgress { until: now },
        })
    }

    async fn done(&self, id: SeenId, until: Timestamp) -> Result<(), SeenError> {
        self.execute(DONE, &id, until).await
    }

    async fn release(&self, claim: SeenClaim) -> Result<(), SeenError> {
        self.execute(RELEASE, &claim.id, claim.until).await
    }
}

fn unavailable(error: sqlx::Error) -> SeenError {
    SeenError::Unavailable { source: error.into() }
}

fn microseconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_unix_microseconds()).unwrap_or(i64::MAX)
}

fn timestamp(microseconds: i64) -> Timestamp {
    Timestamp::from_unix_microseconds(microseconds.unsigned_abs())
}

impl fmt::Debug for PostgresSeenStore {
    /// Leaves out the connection, whose options may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSeenStore").finish_non_exhaustive()
    }
}
