//! The path to the rows of a list: the index by which they are read, in the order of the list.
//!
//! A page of a tenant costs what the tenant has, whatever others have. The planner knows neither how
//! many rows a filter lets through nor how few of them lie where it looks, so the store looks itself.

use sqlx::PgConnection;
use webhooks_core::{DeliveryStatus, EndpointId, TenantId};
use webhooks_dispatch::history::Query;
use webhooks_dispatch::store::StoreError;

use crate::call::with_read_retries;
use crate::error::store_error;
use crate::row;
use crate::state::PostgresInner;

/// The largest number of deliveries that are found by an index and sorted for a page. If there are
/// more, most pages are soon full on a walk along the events.
const FEW: i64 = if cfg!(test) { 10 } else { 5_000 };

/// The largest number of rows of endpoints whose deliveries are merged for a page.
const MAX_ENDPOINTS: i64 = if cfg!(test) { 3 } else { 100 };

/// The path to the rows of a list of deliveries or attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Path {
    /// From the events with these numbers.
    Events(Vec<i64>),
    /// From the delivery that the query names.
    Delivery,
    /// From these rows of endpoints, each by the indexes of its deliveries.
    Endpoints(Vec<i64>),
    /// Along the pending deliveries of all.
    Pending,
    /// Along the events of all, or of the query's tenant.
    Walk,
}

/// The deliveries among which those of a query are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Among {
    All,
    /// Those that wait.
    Pending,
    /// Those that failed. Cancelled ones may still wait for a closed endpoint.
    Failed,
}

impl Among {
    pub(super) fn of(query: &Query) -> Self {
        let is_waiting =
            |status| matches!(status, DeliveryStatus::Pending | DeliveryStatus::Retrying);
        let mut statuses = query.statuses.iter().copied();
        if query.statuses.is_empty() {
            Self::All
        } else if statuses.clone().all(is_waiting) {
            Self::Pending
        } else if statuses.all(|status| status == DeliveryStatus::Failed) {
            Self::Failed
        } else {
            Self::All
        }
    }

    /// Returns the condition that the planner needs to leave out the table of the others, or to use the
    /// index of those that were not delivered.
    pub(super) fn condition(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Pending => " AND d.is_pending",
            Self::Failed => " AND NOT d.is_pending AND d.status IN ('failed', 'cancelled')",
        }
    }
}

impl PostgresInner {
    /// Returns the query with the tenant of its endpoint, if it names an endpoint of one tenant alone.
    pub(super) async fn of_one_tenant(&self, query: Query) -> Result<Query, StoreError> {
        const TENANTS: &str =
            "SELECT DISTINCT tenant FROM webhooks.endpoints WHERE id = $1 LIMIT 2";
        let (None, Some(endpoint)) = (&query.tenant, &query.endpoint) else { return Ok(query) };
        let find = async || {
            let mut call = self.database.reading_call().await?;
            let tenants = sqlx::query(TENANTS).persistent(false).bind(endpoint.as_str());
            let tenants = tenants.fetch_all(call.connection()).await?;
            call.commit().await?;
            tenants.iter().map(|found| row::tenant(found, 0)).collect::<Result<Vec<_>, _>>()
        };
        let mut tenants = with_read_retries(find).await.map_err(store_error)?;
        let tenant = tenants.pop().filter(|_| tenants.is_empty());
        Ok(Query { tenant, ..query })
    }

    /// Returns the path of a list of deliveries or attempts.
    pub(super) async fn path(&self, query: &Query) -> Result<Path, StoreError> {
        if let Some(numbers) = self.numbers(query).await? {
            return Ok(Path::Events(numbers));
        }
        if query.delivery.is_some() {
            return Ok(Path::Delivery);
        }
        let of_all = query.tenant.is_none() && query.endpoint.is_none();
        match Among::of(query) {
            Among::Pending if of_all => return Ok(Path::Pending),
            Among::All if query.endpoint.is_none() => return Ok(Path::Walk),
            _ => {}
        }
        let find = async || {
            let mut call = self.database.reading_call().await?;
            let endpoints = few_endpoints(call.connection(), query).await?;
            call.commit().await?;
            Ok(endpoints)
        };
        let endpoints = with_read_retries(find).await.map_err(store_error)?;
        Ok(endpoints.map_or(Path::Walk, Path::Endpoints))
    }
}

/// Returns the rows of the endpoints that a query is about, if they are few, and have few deliveries
/// that must be read as a whole: the pending ones, which no index has in the order of their ids, and the
/// failed ones of several endpoints.
async fn few_endpoints(
    connection: &mut PgConnection,
    query: &Query,
) -> Result<Option<Vec<i64>>, sqlx::Error> {
    const ENDPOINTS: &str = "SELECT number FROM webhooks.endpoints
        WHERE ($1::text IS NULL OR tenant = $1) AND ($2::text IS NULL OR id = $2) LIMIT $3";
    const PENDING: &str = "SELECT count(*) FROM (SELECT 1 FROM webhooks.pending_deliveries
        WHERE endpoint = ANY ($1) LIMIT $2) few";
    const FAILED: &str = "SELECT count(*) FROM (SELECT 1 FROM webhooks.ended_deliveries
        WHERE endpoint = ANY ($1) AND status IN ('failed', 'cancelled') LIMIT $2) few";
    let rows = sqlx::query_scalar(ENDPOINTS)
        .persistent(false)
        .bind(query.tenant.as_ref().map(TenantId::as_str))
        .bind(query.endpoint.as_ref().map(EndpointId::as_str))
        .bind(MAX_ENDPOINTS + 1);
    let rows: Vec<i64> = rows.fetch_all(&mut *connection).await?;
    if i64::try_from(rows.len()).unwrap_or(i64::MAX) > MAX_ENDPOINTS {
        return Ok(None);
    }
    let count = match Among::of(query) {
        Among::Failed if query.endpoint.is_some() => return Ok(Some(rows)),
        Among::Failed => FAILED,
        Among::All | Among::Pending => PENDING,
    };
    let count = sqlx::query_scalar(count).persistent(false).bind(&rows).bind(FEW + 1);
    let count: i64 = count.fetch_one(connection).await?;
    Ok((count <= FEW).then_some(rows))
}
