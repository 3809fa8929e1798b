//! The cancellation, bit by bit, of the deliveries that are pending for a closed row of an
//! endpoint.

use sqlx::PgConnection;
use webhooks_core::Timestamp;

use crate::row::At;

/// The maximum of deliveries that are cancelled in one transaction.
pub(crate) const CANCEL_BATCH: i32 = 1_000;

/// The treatment of deliveries whose rows another transaction has locked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LockedRows {
    /// They are left for the next time.
    Skip,
    /// The transaction waits for the other one, so that the caller sees its outcome.
    WaitFor,
}

/// Cancels some of the deliveries that are pending for a closed row; returns how many.
pub(crate) async fn cancel_closed(
    connection: &mut PgConnection,
    endpoint: i64,
    locked: LockedRows,
    now: Timestamp,
) -> Result<i32, sqlx::Error> {
    let cancel = sqlx::query_scalar("SELECT webhooks.cancel_closed($1, $2, $4, $3)")
        .persistent(false)
        .bind(endpoint)
        .bind(CANCEL_BATCH)
        .bind(matches!(locked, LockedRows::WaitFor))
        .bind(At(now));
    cancel.fetch_one(connection).await
}
