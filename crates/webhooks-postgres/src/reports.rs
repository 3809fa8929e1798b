//! The reports of workers: each process writes its own, and all can read them.

use std::time::Duration;

use webhooks_dispatch::{observer::WorkerReport, store::StoreError};

use crate::call::{with_read_retries, with_timeout};
use crate::error::store_error;
use crate::row;
use crate::state::PostgresInner;

/// The age at which the report of a worker no longer counts. An idle worker reports a few times in its
/// lease. That of a worker that counts as dead counts no longer, either.
const EXPIRY: Duration = Duration::from_mins(3);

impl PostgresInner {
    /// Records the report of a worker of this process, or deletes it. Deletes those of dead workers,
    /// too.
    pub(crate) async fn report(
        &self,
        worker: u64,
        report: Option<WorkerReport>,
    ) -> Result<(), StoreError> {
        const REPORT: &str = "
            WITH dead AS (
                DELETE FROM webhooks.worker_reports
                WHERE seen_at < clock_timestamp() - $4 * interval '1 microsecond'
                  AND (worker, number) <> ($1, $2)
            )
            INSERT INTO webhooks.worker_reports (worker, number, report, seen_at)
            VALUES ($1, $2, $3, clock_timestamp())
            ON CONFLICT (worker, number)
            DO UPDATE SET report = excluded.report, seen_at = excluded.seen_at";
        const FORGET: &str =
            "DELETE FROM webhooks.worker_reports WHERE worker = $1 AND number = $2";
        let own = (self.membership.id, row::int8(worker));
        let record = async {
            let mut call = self.database.call().await?;
            let statement = match &report {
                Some(report) => sqlx::query(REPORT)
                    .persistent(call.prepares())
                    .bind(own.0)
                    .bind(own.1)
                    .bind(report.to_json())
                    .bind(row::micros(EXPIRY)),
                None => sqlx::query(FORGET).persistent(false).bind(own.0).bind(own.1),
            };
            statement.execute(call.connection()).await?;
            call.commit().await
        };
        // Not repeated: the next report comes soon.
        with_timeout(record).await.map_err(store_error)
    }

    pub(crate) async fn workers(&self) -> Result<Vec<WorkerReport>, StoreError> {
        const SELECT: &str = "SELECT report FROM webhooks.worker_reports r
            WHERE seen_at >= clock_timestamp() - $1 * interval '1 microsecond'
              AND EXISTS (SELECT 1 FROM webhooks.workers w
                          WHERE w.id = r.worker AND w.expires_at >= clock_timestamp())
            ORDER BY worker, number";
        let find = async || {
            let mut call = self.database.reading_call().await?;
            let find = sqlx::query_scalar(SELECT).persistent(false).bind(row::micros(EXPIRY));
            let found: Vec<String> = find.fetch_all(call.connection()).await?;
            call.commit().await?;
            // A worker of a later version may report what this one cannot read: it is left out.
            Ok(found.iter().filter_map(|text| WorkerReport::from_json(text).ok()).collect())
        };
        with_read_retries(find).await.map_err(store_error)
    }
}
