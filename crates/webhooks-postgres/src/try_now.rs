//! Trying a delivery now that waits for a later time.

use webhooks_core::{DeliveryId, Timestamp};
use webhooks_dispatch::{OperationError, store::TryNow};

use crate::call::with_retries;
use crate::error::BadRow;
use crate::operations::{FoundDelivery, failed, find};
use crate::row::{self, At};
use crate::state::PostgresInner;

/// The number of times that a delivery is looked for which is replayed each time just after it was
/// not found pending.
const TRIES: usize = 10;

impl PostgresInner {
    pub(crate) async fn try_now(
        &self,
        delivery: DeliveryId,
        now: Timestamp,
    ) -> Result<TryNow, OperationError> {
        let mut found = None;
        for _ in 0..TRIES {
            let tried = Box::pin(with_retries(|| self.try_once(delivery, now))).await;
            found = match tried.map_err(failed)? {
                Ok(result) => return Ok(result),
                // One that is pending was replayed between the two statements.
                Err(Some(FoundDelivery { is_pending: true, status, .. })) => Some(status),
                Err(Some(FoundDelivery { status, .. })) => {
                    return Err(OperationError::WrongStatus { delivery, status });
                }
                Err(None) => return Err(OperationError::UnknownDelivery { delivery }),
            };
        }
        Err(match found {
            Some(status) => OperationError::WrongStatus { delivery, status },
            None => OperationError::UnknownDelivery { delivery },
        })
    }

    /// Tries a delivery now if it is pending; else returns it as it is, if it exists.
    async fn try_once(
        &self,
        delivery: DeliveryId,
        now: Timestamp,
    ) -> Result<Result<TryNow, Option<FoundDelivery>>, sqlx::Error> {
        const TRY: &str = "SELECT endpoint, result FROM webhooks.try_now($1, $2)";
        let mut transaction = self.database.begin().await?;
        let tried = sqlx::query_as(TRY).persistent(false);
        let tried = tried.bind(row::delivery_int8(delivery)).bind(At(now));
        let tried: Option<(i64, String)> = tried.fetch_optional(transaction.connection()).await?;
        let Some((endpoint, result)) = tried else {
            let found = find(transaction.connection(), &[delivery]).await?.remove(&delivery);
            transaction.commit().await?;
            return Ok(Err(found));
        };
        let result = read(&result)?;
        self.probe_elsewhere(&mut transaction, &[endpoint]).await?;
        transaction.commit().await?;
        self.probe(&[endpoint]);
        Ok(Ok(result))
    }
}

fn read(result: &str) -> Result<TryNow, sqlx::Error> {
    match result {
        "due" => Ok(TryNow::Due),
        "paused" => Ok(TryNow::Paused),
        "waiting" => Ok(TryNow::Waiting),
        "in flight" => Ok(TryNow::InFlight),
        _ => Err(BadRow::of("the result of `try_now`").in_column(1)),
    }
}
