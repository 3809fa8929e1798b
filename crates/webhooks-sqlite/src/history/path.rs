//! The path to the rows of a list: the order in which its tables are read.
//!
//! A page of deliveries is a few rows of a long history, ordered by number. SQLite knows nothing of how
//! many rows a filter lets through, so the store looks.

use rusqlite::{Connection, params};
use webhooks_core::{DeliveryStatus, EndpointId, TenantId};
use webhooks_dispatch::history::Query;

use super::filter::Filter;

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
    /// Along the many events of the query's tenant, until the page is full.
    Tenant,
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
        Ok(if is_few { Self::Events } else { Self::Tenant })
    }

    /// Returns the tables of a list of deliveries, with the order in which they are read.
    ///
    /// A walk along a tenant's events has two halves. The numbers of most deliveries follow those of their
    /// events; a replay adds some that do not.
    pub(super) fn deliveries(self) -> &'static [Tables] {
        const NUMBER: &str = "deliveries.number";
        match self {
            Self::Events => &[Tables {
                joined: "deliveries JOIN events ON events.number = deliveries.event
                     JOIN endpoints ON endpoints.number = deliveries.endpoint",
                order: &[NUMBER],
            }],
            Self::Endpoint => &[Tables {
                joined: "endpoints CROSS JOIN deliveries ON deliveries.endpoint = endpoints.number
                     CROSS JOIN events ON events.number = deliveries.event",
                order: &[NUMBER],
            }],
            Self::Tenant => &[
                Tables {
                    joined: "events INDEXED BY events_tenant
                         CROSS JOIN deliveries ON deliveries.event = events.number
                             AND deliveries.created_at IS NULL
                         CROSS JOIN endpoints ON endpoints.number = deliveries.endpoint",
                    order: &["events.number", NUMBER],
                },
                Tables {
                    joined: "endpoints CROSS JOIN deliveries INDEXED BY deliveries_added
                             ON deliveries.endpoint = endpoints.number
                             AND deliveries.created_at IS NOT NULL
                         CROSS JOIN events ON events.number = deliveries.event
                             AND events.tenant = endpoints.tenant",
                    order: &[NUMBER],
                },
            ],
            Self::Walk => &[Tables {
                joined: "deliveries CROSS JOIN events ON events.number = deliveries.event
                     CROSS JOIN endpoints ON endpoints.number = deliveries.endpoint",
                order: &[NUMBER],
            }],
        }
    }

    /// Returns the conditions of the first half of a walk along events.
    pub(super) fn events(self, query: &Query) -> Filter {
        let mut filter = Filter::default();
        if self == Self::Tenant {
            filter.page_of_events(query);
        }
        filter
    }

    /// Returns the tables of a list of attempts, as [`Path::deliveries`].
    pub(super) fn attempts(self) -> &'static [Tables] {
        const NUMBERS: [&str; 2] = ["attempts.delivery", "attempts.number"];
        match self {
            Self::Events | Self::Endpoint => &[Tables {
                joined: "attempts JOIN deliveries ON deliveries.number = attempts.delivery
                     JOIN events ON events.number = deliveries.event
                     JOIN endpoints ON endpoints.number = deliveries.endpoint",
                order: &NUMBERS,
            }],
            Self::Tenant => &[
                Tables {
                    joined: "events INDEXED BY events_tenant
                         CROSS JOIN deliveries ON deliveries.event = events.number
                             AND deliveries.created_at IS NULL
                         CROSS JOIN endpoints ON endpoints.number = deliveries.endpoint
                         CROSS JOIN attempts ON attempts.delivery = deliveries.number",
                    order: &["events.number", "deliveries.number", "attempts.number"],
                },
                Tables {
                    joined: "endpoints CROSS JOIN deliveries INDEXED BY deliveries_added
                             ON deliveries.endpoint = endpoints.number
                             AND deliveries.created_at IS NOT NULL
                         CROSS JOIN events ON events.number = deliveries.event
                             AND events.tenant = endpoints.tenant
                         CROSS JOIN attempts ON attempts.delivery = deliveries.number",
                    order: &NUMBERS,
                },
            ],
            Self::Walk => &[Tables {
                joined: "attempts CROSS JOIN deliveries ON deliveries.number = attempts.delivery
                     CROSS JOIN events ON events.number = deliveries.event
                     CROSS JOIN endpoints ON endpoints.number = deliveries.endpoint",
                order: &NUMBERS,
            }],
        }
    }
}

/// The tables of a list, or of a half of it. A `CROSS JOIN` is carried out in the order in which it is
/// written.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) joined: &'static str,
    /// The columns by which the rows are read in the order of the list.
    pub(super) order: &'static [&'static str],
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
