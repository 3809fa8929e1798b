//! Expunging: the content of events is deleted, and their history stays.

use webhooks_core::{EventId, TenantId};
use webhooks_dispatch::{
    OperationError,
    store::{ExpungeRequest, Expunged, StoreError},
};

use crate::call::with_retries;
use crate::error::store_error;
use crate::row::{self, At};
use crate::state::PostgresInner;

/// Returns the number of events of all tenants to look at for `limit` events of one tenant, as events
/// have no index by tenant: 40 for each, and 10,000 at least.
pub(crate) fn events_to_look_at(limit: usize) -> i32 {
    row::int4(limit.saturating_mul(40).max(10_000))
}

/// The events of a portion, and the place at which the next one goes on.
struct Portion {
    events: Vec<i64>,
    next: Option<u64>,
}

impl PostgresInner {
    pub(crate) async fn expunge(
        &self,
        request: ExpungeRequest,
    ) -> Result<Expunged, OperationError> {
        let portion = match &request.event {
            None => with_retries(|| self.events_to_expunge(&request)).await.map_err(store_error)?,
            Some(event) => {
                let number = self.event_number(&request.tenant, event).await?;
                let unknown = || OperationError::UnknownEvent { event: event.clone() };
                Portion { events: vec![number.ok_or_else(unknown)?], next: None }
            }
        };
        let Portion { events, next } = portion;
        if events.is_empty() {
            return Ok(Expunged { events: 0, next });
        }
        let expunged = Box::pin(with_retries(|| self.expunge_events(&request, &events)));
        let expunged = expunged.await.map_err(store_error)?;
        self.wake();
        Ok(Expunged { events: usize::try_from(expunged).unwrap_or_default(), next })
    }

    async fn event_number(
        &self,
        tenant: &TenantId,
        event: &EventId,
    ) -> Result<Option<i64>, StoreError> {
        const NUMBER: &str = "SELECT event FROM webhooks.event_keys WHERE id = $1 AND tenant = $2";
        let find = async || {
            let mut call = self.database.call().await?;
            let find = sqlx::query_scalar(NUMBER).persistent(false).bind(event.to_string());
            let found = find.bind(tenant.as_str()).fetch_optional(call.connection()).await?;
            call.commit().await?;
            Ok(found)
        };
        with_retries(find).await.map_err(store_error)
    }

    async fn events_to_expunge(&self, request: &ExpungeRequest) -> Result<Portion, sqlx::Error> {
        const LOOK: &str = "
            WITH looked AS MATERIALIZED (
                SELECT number, tenant FROM webhooks.events
                WHERE number > $1 AND accepted_at <= $2 ORDER BY number LIMIT $3
            )
            SELECT ARRAY(SELECT number FROM looked WHERE tenant = $4 ORDER BY number LIMIT $5),
                   (SELECT max(number) FROM looked HAVING count(*) >= $3)";
        let looked = events_to_look_at(request.limit);
        let mut call = self.database.call().await?;
        let look = sqlx::query_as(LOOK).persistent(false);
        let look = look.bind(row::int8(request.after.unwrap_or_default())).bind(At(request.now));
        let look = look.bind(looked).bind(request.tenant.as_str()).bind(row::int4(request.limit));
        let (events, last): (Vec<i64>, Option<i64>) = look.fetch_one(call.connection()).await?;
        call.commit().await?;
        let is_full = events.len() >= request.limit;
        let next = if is_full { events.last().copied() } else { last };
        Ok(Portion { events, next: next.map(row::unsigned) })
    }

    async fn expunge_events(
        &self,
        request: &ExpungeRequest,
        events: &[i64],
    ) -> Result<i32, sqlx::Error> {
        const EXPUNGE: &str = "SELECT webhooks.expunge($1, $2, $3)";
        let mut transaction = self.database.begin().await?;
        let expunge = sqlx::query_scalar(EXPUNGE).persistent(false).bind(request.tenant.as_str());
        let expunge = expunge.bind(events).bind(At(request.now));
        let expunged = expunge.fetch_one(transaction.connection()).await?;
        // The next ones of ordered endpoints may follow.
        self.notify_others(&mut transaction).await?;
        transaction.commit().await?;
        Ok(expunged)
    }
}
