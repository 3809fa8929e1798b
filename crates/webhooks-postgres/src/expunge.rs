//! Expunging: the content of events is deleted, and their history stays.

use webhooks_core::{DeliveryId, EventId, TenantId};
use webhooks_dispatch::{
    OperationError,
    store::{ExpungeRequest, Expunged, StoreError},
};

use crate::call::with_retries;
use crate::error::store_error;
use crate::row::{self, At};
use crate::state::PostgresInner;

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
        // A range, and both columns: the planner must not walk along the events of all tenants.
        const LOOK: &str = "SELECT number FROM webhooks.events
            WHERE tenant >= $1 AND tenant <= $1 AND number > $2 AND accepted_at <= $3
            ORDER BY tenant, number LIMIT $4";
        let mut call = self.database.call().await?;
        let look = sqlx::query_scalar(LOOK).persistent(false).bind(request.tenant.as_str());
        let look = look.bind(row::int8(request.after.unwrap_or_default())).bind(At(request.now));
        let look = look.bind(row::int4(request.limit));
        let events: Vec<i64> = look.fetch_all(call.connection()).await?;
        call.commit().await?;
        let is_full = events.len() >= request.limit;
        let next = events.last().copied().filter(|_| is_full);
        Ok(Portion { events, next: next.map(row::unsigned) })
    }

    /// Deletes the response to one attempt; returns whether there was any.
    pub(crate) async fn expunge_response(
        &self,
        delivery: DeliveryId,
        number: u32,
    ) -> Result<bool, sqlx::Error> {
        // In this order: a replay moves an attempt from the first table to the second.
        const ENDED: &str = "UPDATE webhooks.ended_deliveries
            SET response = NULL, response_headers = NULL
            WHERE id = $1 AND attempts = $2 AND started_at IS NOT NULL
              AND (response IS NOT NULL OR response_headers IS NOT NULL)";
        const EARLIER: &str = "UPDATE webhooks.earlier_attempts
            SET response = NULL, response_headers = NULL
            WHERE delivery = $1 AND number = $2
              AND (response IS NOT NULL OR response_headers IS NOT NULL)";
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        let mut transaction = self.database.begin().await?;
        let mut deleted = 0;
        for statement in [ENDED, EARLIER] {
            let delete = sqlx::query(statement).persistent(false);
            let delete = delete.bind(row::int8(delivery.as_u64())).bind(number);
            deleted += delete.execute(transaction.connection()).await?.rows_affected();
        }
        transaction.commit().await?;
        Ok(deleted > 0)
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
