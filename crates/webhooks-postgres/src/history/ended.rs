//! The attempts of a tenant that ended behind a place, by the indexes of their ends.

use webhooks_dispatch::history::{EndedPage, EndedRequest};
use webhooks_dispatch::store::StoreError;

use super::record::{ATTEMPT, attempt_record};
use crate::call::with_read_retries;
use crate::error::store_error;
use crate::row::{self, At};
use crate::state::PostgresInner;

/// The expression of the indexes.
const ENDED: &str = "((started_at AT TIME ZONE 'UTC') + duration_us * interval '1 microsecond')";

/// Returns the statement. Each half is read by its index, up to the end of the page. `OFFSET 0` keeps the planner from
/// reading all deliveries for a join.
fn statement() -> String {
    let half = |table: &str, id: &str, number: &str, more: &str| {
        format!(
            "(SELECT {id} AS delivery, {number} AS number, event_at, started_at, duration_us, status_code,
                     error_class, error, response_headers, response, {ENDED} AS ended
              FROM webhooks.{table}
              WHERE {more} tenant = $5 AND {ENDED} >= ($1::timestamptz AT TIME ZONE 'UTC')
                AND ({ENDED}, {id}, {number}) > ($1::timestamptz AT TIME ZONE 'UTC', $2, $3)
              ORDER BY {ENDED}, {id}, {number} LIMIT $4)"
        )
    };
    let earlier = half("earlier_attempts", "delivery", "number", "");
    let last = half("ended_deliveries", "id", "attempts", "started_at IS NOT NULL AND");
    format!(
        "SELECT {ATTEMPT} FROM ({earlier} UNION ALL {last}) a
         CROSS JOIN LATERAL (
             SELECT * FROM webhooks.deliveries_view v
             WHERE v.id = a.delivery AND v.event_at = a.event_at OFFSET 0
         ) d
         ORDER BY a.ended, a.delivery, a.number LIMIT $4"
    )
}

impl PostgresInner {
    pub(crate) async fn ended_attempts(
        &self,
        request: EndedRequest,
    ) -> Result<EndedPage, StoreError> {
        let statement = statement();
        let find = async || {
            let EndedRequest { tenant, after, .. } = &request;
            let mut call = self.database.page_call().await?;
            let attempts = sqlx::query(sqlx::AssertSqlSafe(statement.as_str()))
                .persistent(call.prepares())
                .bind(At(after.ended_at))
                .bind(row::int8(after.attempt.key))
                .bind(i32::try_from(after.attempt.attempt).unwrap_or(i32::MAX))
                .bind(row::int4(request.page_size()))
                .bind(tenant.as_str());
            let rows = attempts.fetch_all(call.connection()).await?;
            call.commit().await?;
            rows.iter().map(attempt_record).collect::<Result<_, _>>()
        };
        let found = with_read_retries(find).await.map_err(store_error)?;
        Ok(request.page(found))
    }
}
