//! Draining: the deliveries that wait for a row of an endpoint that is closed are cancelled bit by
//! bit.

use sqlx::PgConnection;

/// The maximum of deliveries that are cancelled in one transaction.
pub(crate) const DRAIN_BATCH: i32 = 1_000;

/// The treatment of deliveries whose rows another transaction has locked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LockedRows {
    /// They are left for the next time.
    Skip,
    /// The transaction waits for the other one, so that the caller sees its outcome.
    WaitFor,
}

/// Cancels some of the deliveries that wait for a closed row; returns how many.
pub(crate) async fn drain(
    connection: &mut PgConnection,
    endpoint: i64,
    locked: LockedRows,
) -> Result<i32, sqlx::Error> {
    let drain = sqlx::query_scalar("SELECT webhooks.drain($1, $2, $3)")
        .persistent(false)
        .bind(endpoint)
        .bind(DRAIN_BATCH)
        .bind(matches!(locked, LockedRows::WaitFor));
    drain.fetch_one(connection).await
}
