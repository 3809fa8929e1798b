//! The troubles since a time, by the indexes that have no other attempts.

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use webhooks_dispatch::history::{Trouble, TroubleRequest};
use webhooks_dispatch::store::StoreError;

use super::record::duration;
use crate::call::with_read_retries;
use crate::error::store_error;
use crate::row::{self, At};
use crate::state::PostgresInner;

/// Each half is read by its index, up to the end of the page. `OFFSET 0` keeps the planner from reading all
/// deliveries for a join.
const TROUBLES: &str = "
    SELECT r.delivery, r.number, d.tenant, d.endpoint, r.started_at, r.duration_us, r.has_failed,
           d.status, d.attempts, d.attempts_before_replay
    FROM (
        (SELECT delivery, number, event_at, started_at, duration_us, error IS NOT NULL AS has_failed
         FROM webhooks.earlier_attempts
         WHERE (number > 1 OR error IS NOT NULL) AND (started_at, delivery, number) > ($1, $2, $3)
         ORDER BY started_at, delivery, number LIMIT $4)
        UNION ALL
        (SELECT id, attempts, event_at, started_at, duration_us, error IS NOT NULL
         FROM webhooks.ended_deliveries
         WHERE (attempts > 1 OR error IS NOT NULL) AND (started_at, id, attempts) > ($1, $2, $3)
         ORDER BY started_at, id, attempts LIMIT $4)
    ) r
    CROSS JOIN LATERAL (
        SELECT * FROM webhooks.deliveries_view v
        WHERE v.id = r.delivery AND v.event_at = r.event_at OFFSET 0
    ) d
    ORDER BY r.started_at, r.delivery, r.number LIMIT $4";

impl PostgresInner {
    pub(crate) async fn troubles(
        &self,
        request: TroubleRequest,
    ) -> Result<Vec<Trouble>, StoreError> {
        let find = async || {
            let place = request.place();
            let mut call = self.database.page_call().await?;
            let troubles = sqlx::query(TROUBLES)
                .persistent(call.prepares())
                .bind(At(request.since))
                .bind(row::int8(place.key))
                .bind(i32::try_from(place.attempt).unwrap_or(i32::MAX))
                .bind(row::int4(request.page_size()));
            let rows = troubles.fetch_all(call.connection()).await?;
            call.commit().await?;
            rows.iter().map(trouble).collect()
        };
        with_read_retries(find).await.map_err(store_error)
    }
}

fn trouble(row: &PgRow) -> Result<Trouble, sqlx::Error> {
    Ok(Trouble {
        delivery: row::delivery_id(row.try_get(0)?),
        number: row::count(row.try_get(1)?),
        tenant: row::tenant(row, 2)?,
        endpoint: row::endpoint_id(row, 3)?,
        started_at: row.try_get::<At, _>(4)?.0,
        duration: duration(row, 5)?,
        has_failed: row.try_get(6)?,
        status: row::parsed(row, 7, str::parse, "the status of a delivery")?,
        attempts: row::count(row.try_get(8)?),
        attempts_before_replay: row::count(row.try_get(9)?),
    })
}
