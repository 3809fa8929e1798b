//! The path to the rows of a list: the order in which its tables are read.
//!
//! A page of deliveries is a few rows of a long history, ordered by number. SQLite knows nothing of how
//! many rows a filter lets through, so the store looks.

use rusqlite::{Connection, params};
use webhooks_core::{DeliveryStatus, EndpointId, TenantId};
use webhooks_dispatch::history::Query;

/// The number of rows that are found by an index and sorted for a page. If there are more, walking is
/// not slower: they are a part of all rows that is worth its steps.
const FEW: i64 = if cfg!(test) { 10 } else { 5_000 };

/// The path to the rows of a list of deliveries or attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// From the few events, or the one delivery, that the query names.
    Events,
    /// From the few deliveries of one endpoint, or of all, that wait or failed, by the index of these.
    Endpoint,
    /// Along all rows by their numbers, until the page is full.
    Walk,
}

impl Path {
    /// Returns the path of a list of deliveries.
    pub(super) fn of_deliveries(connection: &Connection, query: &Query) -> rusqlite::Result<Self> {
        if query.event.is_none() && query.delivery.is_none() && has_few(connection, query)? {
            return Ok(Self::Endpoint);
        }
        Self::of_attempts(connection, query)
    }

    /// Returns the path of a list of attempts.
    pub(super) fn of_attempts(connection: &Connection, query: &Query) -> rusqlite::Result<Self> {
        const EVENTS: &str = "SELECT count(*) <= ?2 FROM (
            SELECT 1 FROM events INDEXED BY events_tenant WHERE tenant = ?1 LIMIT ?2 + 1)";
        if query.event.is_some() || query.delivery.is_some() {
            return Ok(Self::Events);
        }
        let Some(tenant) = &query.tenant else { return Ok(Self::Walk) };
        let mut statement = connection.prepare_cached(EVENTS)?;
        let is_few = statement.query_row(params![tenant.as_str(), FEW], |row| row.get(0))?;
        Ok(if is_few { Self::Events } else { Self::Walk })
    }

    /// Returns the tables of a list of deliveries. A `CROSS JOIN` is carried out in the order in which it
    /// is written.
    pub(super) fn deliveries(self) -> &'static str {
        match self {
            Self::Events => {
                "deliveries JOIN events ON events.number = deliveries.event
                 JOIN endpoints ON endpoints.number = deliveries.endpoint"
            }
            Self::Endpoint => {
                "endpoints CROSS JOIN deliveries ON deliveries.endpoint = endpoints.number
                 CROSS JOIN events ON events.number = deliveries.event"
            }
            Self::Walk => {
                "deliveries CROSS JOIN events ON events.number = deliveries.event
                 CROSS JOIN endpoints ON endpoints.number = deliveries.endpoint"
            }
        }
    }

    /// Returns the tables of a list of attempts.
    pub(super) fn attempts(self) -> &'static str {
        match self {
            Self::Events | Self::Endpoint => {
                "attempts JOIN deliveries ON deliveries.number = attempts.delivery
                 JOIN events ON events.number = deliveries.event
                 JOIN endpoints ON endpoints.number = deliveries.endpoint"
            }
            Self::Walk => {
                "attempts CROSS JOIN deliveries ON deliveries.number = attempts.delivery
                 CROSS JOIN events ON events.number = deliveries.event
                 CROSS JOIN endpoints ON endpoints.number = deliveries.endpoint"
            }
        }
    }
}

/// The index that has the deliveries of these statuses and few others: a name, and its condition.
pub(super) fn index_of(statuses: &[DeliveryStatus]) -> Option<(&'static str, &'static str)> {
    let is_waiting = |status: &DeliveryStatus| {
        matches!(status, DeliveryStatus::Pending | DeliveryStatus::Retrying)
    };
    if statuses.is_empty() {
        None
    } else if statuses.iter().all(is_waiting) {
        Some(("deliveries_due", "deliveries.due_at IS NOT NULL"))
    } else if statuses.iter().all(|status| *status == DeliveryStatus::Failed) {
        // Not for cancelled ones: those that wait for a closed endpoint count as cancelled, too.
        Some(("deliveries_undelivered", "deliveries.status IN ('failed', 'cancelled')"))
    } else {
        None
    }
}

/// Returns whether an index has few deliveries of the query's endpoint, or of all.
fn has_few(connection: &Connection, query: &Query) -> rusqlite::Result<bool> {
    let Some((index, condition)) = index_of(&query.statuses) else { return Ok(false) };
    let count = format!(
        "SELECT count(*) <= ?3 FROM (
            SELECT 1 FROM endpoints CROSS JOIN deliveries INDEXED BY {index}
            WHERE (?1 IS NULL OR endpoints.id = ?1) AND (?2 IS NULL OR endpoints.tenant = ?2)
              AND deliveries.endpoint = endpoints.number AND {condition} LIMIT ?3 + 1)"
    );
    let tenant = query.tenant.as_ref().map(TenantId::as_str);
    let endpoint = query.endpoint.as_ref().map(EndpointId::as_str);
    let mut statement = connection.prepare_cached(&count)?;
    statement.query_row(params![endpoint, tenant, FEW], |row| row.get(0))
}
