//! The statements of lists.

use sqlx::QueryBuilder;
use sqlx::postgres::Postgres;
use webhooks_dispatch::history::{Cursor, Query};

use super::filter::{
    Table, event_order, of_attempt, of_delivery, of_event, of_events_deliveries, of_numbers,
};
use super::path::{Among, Path};
use super::record::{ATTEMPT, DELIVERY, LAST_ATTEMPT, SUMMARY};
use crate::row;

/// Joins the attempts of each delivery. `OFFSET 0` keeps the planner from reading all attempts for it.
const OF_DELIVERY: &str = " CROSS JOIN LATERAL (SELECT * FROM webhooks.attempts a
    WHERE a.delivery = d.id AND a.event_at = d.event_at OFFSET 0) a";

/// Returns the statement of a page of events.
pub(super) fn events(query: &Query, numbers: Option<&[i64]>) -> QueryBuilder<Postgres> {
    let mut statement = QueryBuilder::new(format!("SELECT {SUMMARY}"));
    push_events(&mut statement, query, numbers);
    push_place(&mut statement, query, "v.number");
    push_order(&mut statement, query, event_order(query, numbers));
    push_limit(&mut statement, query.page_size() + 1);
    statement
}

/// Adds the table of events, and the conditions of a query.
pub(super) fn push_events(
    statement: &mut QueryBuilder<Postgres>,
    query: &Query,
    numbers: Option<&[i64]>,
) {
    statement.push(" FROM webhooks.events v WHERE true");
    match numbers {
        None => of_event(statement, query, &Table::EVENTS),
        Some(numbers) => {
            of_event(statement, query, &Table::NAMED_EVENTS);
            statement.push(" AND v.number = ANY (").push_bind(numbers.to_vec()).push(")");
        }
    }
    of_events_deliveries(statement, query);
}

/// Returns the statement of a page of deliveries. The last attempts are those of the page alone.
pub(super) fn deliveries(query: &Query, path: &Path) -> QueryBuilder<Postgres> {
    let mut statement = QueryBuilder::new(format!("SELECT {DELIVERY} FROM (SELECT d.*"));
    match path {
        Path::Endpoints(rows) => push_endpoints(&mut statement, query, rows),
        Path::Pending => push_pending(&mut statement, query),
        Path::Walk => push_walk(&mut statement, query, query, ""),
        Path::Events(_) | Path::Delivery => {
            statement.push(" FROM webhooks.deliveries_view d WHERE true");
            push_deliveries(&mut statement, query, path);
        }
    }
    let key = if *path == Path::Pending { "w.id" } else { "d.id" };
    push_place(&mut statement, query, key);
    let order = if *path == Path::Walk { event_order(query, None) } else { &[] };
    push_order(&mut statement, query, &[order, &[key]].concat());
    push_limit(&mut statement, query.page_size() + 1);
    statement.push(format!(") d {LAST_ATTEMPT}"));
    push_order(&mut statement, query, &["d.id"]);
    statement
}

/// Returns the statement of a page of attempts.
pub(super) fn attempts(query: &Query, path: &Path) -> QueryBuilder<Postgres> {
    // The filters for attempts judge each attempt here, and not the last one alone.
    let of_deliveries = Query { error_classes: Vec::new(), status_codes: None, ..query.clone() };
    let mut statement = QueryBuilder::new(format!("SELECT {ATTEMPT}"));
    let mut order = [].as_slice();
    if *path == Path::Walk {
        push_walk(&mut statement, query, &of_deliveries, OF_DELIVERY);
        order = event_order(query, None);
    } else {
        statement.push(" FROM (SELECT d.* FROM webhooks.deliveries_view d WHERE true");
        push_deliveries(&mut statement, &of_deliveries, path);
        statement.push(format!(" OFFSET 0) d {OF_DELIVERY} WHERE true"));
    }
    of_attempt(&mut statement, query);
    for (place, sign) in places(query) {
        let Some(Cursor { key, attempt }) = place else { continue };
        statement.push(format!(" AND (a.delivery, a.number) {sign} ("));
        statement.push_bind(row::int8(key)).push(", ");
        statement.push_bind(i64::from(attempt)).push(")");
    }
    push_order(&mut statement, query, &[order, &["a.delivery", "a.number"]].concat());
    push_limit(&mut statement, query.page_size() + 1);
    statement
}

fn push_deliveries(statement: &mut QueryBuilder<Postgres>, query: &Query, path: &Path) {
    of_event(statement, query, &Table::DELIVERIES);
    of_delivery(statement, query);
    if let Path::Events(numbers) = path {
        of_numbers(statement, numbers);
    }
}

/// Adds the events, `v`, each with its deliveries, `d`, and what `more` joins. The order of the events'
/// index is that of the list, as the id of a delivery begins with the number of its event. `OFFSET 0`
/// keeps the planner from another order of joins.
fn push_walk(
    statement: &mut QueryBuilder<Postgres>,
    query: &Query,
    of_deliveries: &Query,
    more: &str,
) {
    statement.push(
        " FROM webhooks.events v CROSS JOIN LATERAL (
            SELECT * FROM webhooks.deliveries_view d
            WHERE webhooks.is_of(d.id, v.number) AND d.event_at = v.accepted_at",
    );
    of_delivery(statement, of_deliveries);
    statement.push(format!(" OFFSET 0) d {more} WHERE true"));
    of_event(statement, query, &Table::EVENTS);
    for (place, sign) in places(query) {
        let Some(Cursor { key, .. }) = place else { continue };
        statement.push(format!(" AND v.number {sign}= webhooks.event_of("));
        statement.push_bind(row::int8(key)).push(")");
    }
}

/// Adds the pending deliveries, `w`, each as a delivery, `d`.
fn push_pending(statement: &mut QueryBuilder<Postgres>, query: &Query) {
    statement.push(
        " FROM webhooks.pending_deliveries w CROSS JOIN LATERAL (
            SELECT * FROM webhooks.deliveries_view d WHERE d.id = w.id",
    );
    of_event(statement, query, &Table::DELIVERIES);
    of_delivery(statement, query);
    statement.push(" OFFSET 0) d WHERE true");
}

/// Adds the deliveries of rows of endpoints, `d`. Of each row it reads no more ended ones than the page
/// needs, and all pending ones: no index has these in the order of their ids. The index is read first, a
/// range of one number in the order of both columns, so that the planner does not read and sort all.
fn push_endpoints(statement: &mut QueryBuilder<Postgres>, query: &Query, rows: &[i64]) {
    let of_rows = Query { tenant: None, endpoint: None, ..query.clone() };
    statement.push(" FROM unnest(").push_bind(rows.to_vec());
    statement.push(") AS e(number) CROSS JOIN LATERAL (");
    let among = Among::of(query);
    if among != Among::Pending {
        statement.push(
            "(SELECT d.* FROM (
                SELECT o.id, o.event_at FROM webhooks.ended_deliveries o
                WHERE o.endpoint >= e.number AND o.endpoint <= e.number",
        );
        if among == Among::Failed {
            statement.push(" AND o.status IN ('failed', 'cancelled')");
        }
        push_place(statement, query, "o.id");
        push_order(statement, query, &["o.endpoint", "o.id"]);
        statement.push(
            " OFFSET 0) o CROSS JOIN LATERAL (
                SELECT * FROM webhooks.deliveries_view d
                WHERE NOT d.is_pending AND d.id = o.id AND d.event_at = o.event_at",
        );
        of_event(statement, &of_rows, &Table::DELIVERIES);
        of_delivery(statement, &of_rows);
        statement.push(" OFFSET 0) d");
        push_limit(statement, query.page_size() + 1);
        statement.push(")");
    }
    if among == Among::All {
        statement.push(" UNION ALL ");
    }
    if among != Among::Failed {
        statement.push(
            "(SELECT d.* FROM webhooks.deliveries_view d
            WHERE d.is_pending AND d.endpoint_number = e.number",
        );
        of_event(statement, &of_rows, &Table::DELIVERIES);
        of_delivery(statement, &of_rows);
        // All of them: the planner might walk along all deliveries for the first ones.
        statement.push(" OFFSET 0)");
    }
    statement.push(") d WHERE true");
}

/// Adds the place at which the page begins, in the order of a number.
pub(super) fn push_place(statement: &mut QueryBuilder<Postgres>, query: &Query, column: &str) {
    for (place, sign) in places(query) {
        if let Some(Cursor { key, .. }) = place {
            statement.push(format!(" AND {column} {sign} ")).push_bind(row::int8(key));
        }
    }
}

fn places(query: &Query) -> [(Option<Cursor>, &'static str); 2] {
    [(query.after, "<"), (query.before, ">")]
}

/// Adds the order in which a page is read: from its place on, forwards or backwards.
pub(super) fn push_order(statement: &mut QueryBuilder<Postgres>, query: &Query, columns: &[&str]) {
    let order = if query.before.is_some() { "ASC" } else { "DESC" };
    statement.push(format!(" ORDER BY {} {order}", columns.join(&format!(" {order}, "))));
}

pub(super) fn push_limit(statement: &mut QueryBuilder<Postgres>, limit: usize) {
    statement.push(" LIMIT ").push_bind(row::int4(limit));
}
