//! The conditions of a query, as SQL.

use sqlx::QueryBuilder;
use sqlx::postgres::Postgres;
use webhooks_dispatch::history::Query;
use webhooks_registry::Subscription;

use super::path::Among;
use crate::row::{self, At};

/// A table with the columns of events, under its name in the statement.
pub(super) struct Table {
    name: &'static str,
    accepted_at: &'static str,
    /// The comparisons that a tenant must pass.
    tenant: &'static [&'static str],
}

impl Table {
    /// The events. A range of one tenant, with [`event_order`], leaves the planner one index: for an
    /// equal tenant, it may walk along all events by their numbers until the page is full.
    pub(super) const EVENTS: Self =
        Self { name: "v", accepted_at: "v.accepted_at", tenant: &[">=", "<="] };
    /// The events with the numbers of the query.
    pub(super) const NAMED_EVENTS: Self = Self { tenant: &["="], ..Self::EVENTS };
    pub(super) const DELIVERIES: Self =
        Self { name: "d", accepted_at: "d.event_at", tenant: &["="] };
}

/// The end of a condition that is to be looked at for one row after another. Otherwise the planner may
/// read all rows that meet it, for a join.
const ONE_BY_ONE: &str = " OFFSET 0)";

/// The order of events, with and without a tenant; `numbers` are those that the query names.
pub(super) fn event_order(query: &Query, numbers: Option<&[i64]>) -> &'static [&'static str] {
    let is_range = query.tenant.is_some() && numbers.is_none();
    if is_range { &["v.tenant", "v.number"] } else { &["v.number"] }
}

/// Adds the conditions of a query on events.
pub(super) fn of_event(statement: &mut QueryBuilder<Postgres>, query: &Query, table: &Table) {
    let Table { name, accepted_at, .. } = table;
    if let Some(tenant) = &query.tenant {
        for compare in table.tenant {
            statement.push(format!(" AND {name}.tenant {compare} ")).push_bind(tenant.to_string());
        }
    }
    match query.event_type.as_ref().map(Subscription::as_str) {
        None | Some("*") => {}
        Some(pattern) => match pattern.strip_suffix(".*") {
            // Everything that starts with `user.`: '/' is the character after '.'.
            Some(root) => {
                statement.push(format!(" AND {name}.type > ")).push_bind(format!("{root}."));
                statement.push(format!(" AND {name}.type < ")).push_bind(format!("{root}/"));
            }
            None => {
                statement.push(format!(" AND {name}.type = ")).push_bind(pattern.to_owned());
            }
        },
    }
    if let Some(channel) = &query.channel {
        statement.push(" AND ").push_bind(channel.to_string());
        statement.push(format!(" = ANY ({name}.channels)"));
    }
    if let Some(tag) = &query.tag {
        statement.push(" AND ").push_bind(tag.to_string());
        statement.push(format!(" = ANY ({name}.tags)"));
    }
    if let Some(since) = query.since {
        statement.push(format!(" AND {accepted_at} >= ")).push_bind(At(since));
    }
    if let Some(until) = query.until {
        statement.push(format!(" AND {accepted_at} < ")).push_bind(At(until));
    }
}

/// Adds the condition that an event has a delivery as the query asks for, if it does.
pub(super) fn of_events_deliveries(statement: &mut QueryBuilder<Postgres>, query: &Query) {
    if query.is_about_deliveries() {
        statement.push(
            " AND EXISTS (SELECT 1 FROM webhooks.deliveries_view d
            WHERE webhooks.is_of(d.id, v.number) AND d.event_at = v.accepted_at",
        );
        of_delivery(statement, query);
        statement.push(ONE_BY_ONE);
    }
}

/// Adds the condition that deliveries belong to events with these numbers. The range of ids lets
/// the statement use indexes by id, since a delivery's id begins with the number of its event.
pub(super) fn of_numbers(statement: &mut QueryBuilder<Postgres>, numbers: &[i64]) {
    let (first, last) = (numbers.iter().min().copied(), numbers.iter().max().copied());
    statement.push(" AND d.id >= webhooks.first_delivery(").push_bind(first.unwrap_or(0));
    statement
        .push(") AND d.id < webhooks.first_delivery(")
        .push_bind(last.map_or(0, |last| last + 1));
    statement.push(") AND d.event_number = ANY (").push_bind(numbers.to_vec()).push(")");
}

/// Adds the conditions of a query on deliveries, of which the last attempt is judged.
pub(super) fn of_delivery(statement: &mut QueryBuilder<Postgres>, query: &Query) {
    if let Some(endpoint) = &query.endpoint {
        // By number: both tables of deliveries have an index of it.
        statement.push(" AND d.endpoint_number = ANY (ARRAY(SELECT number FROM webhooks.endpoints");
        statement.push(" WHERE id = ").push_bind(endpoint.to_string()).push("))");
    }
    if let Some(delivery) = query.delivery {
        statement.push(" AND d.id = ").push_bind(row::delivery_int8(delivery));
    }
    if !query.statuses.is_empty() {
        let statuses: Vec<&str> = query.statuses.iter().map(|status| status.as_str()).collect();
        statement.push(" AND d.status = ANY (").push_bind(statuses).push(")");
    }
    statement.push(Among::of(query).condition());
    if let Some(attempts) = &query.attempts {
        statement.push(" AND d.attempts BETWEEN ").push_bind(i64::from(*attempts.start()));
        statement.push(" AND ").push_bind(i64::from(*attempts.end()));
    }
    if query.is_about_attempts() {
        statement.push(
            " AND EXISTS (SELECT 1 FROM webhooks.attempts a WHERE a.delivery = d.id
            AND a.event_at = d.event_at AND a.number = d.attempts",
        );
        of_attempt(statement, query);
        statement.push(ONE_BY_ONE);
    }
}

/// Adds the conditions of a query on an attempt.
pub(super) fn of_attempt(statement: &mut QueryBuilder<Postgres>, query: &Query) {
    if !query.error_classes.is_empty() {
        let classes: Vec<&str> = query.error_classes.iter().map(|class| class.as_str()).collect();
        statement.push(" AND a.error_class = ANY (").push_bind(classes).push(")");
    }
    if let Some(codes) = &query.status_codes {
        statement.push(" AND a.status_code BETWEEN ").push_bind(i32::from(*codes.start()));
        statement.push(" AND ").push_bind(i32::from(*codes.end()));
    }
}
