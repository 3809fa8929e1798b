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
    let mut statement = QueryBuilder::new(format!("SELECT {DELIVERY} FROM (SELECT "));
    statement.push(if matches!(path, Path::Endpoints(_)) { "r.*" } else { "d.*" });
    let key = match path {
        Path::Endpoints(rows) => {
            let place = |half: &mut _| push_place(half, query, "d.id");
            push_endpoints(&mut statement, query, rows, ("d.*", ""), &place);
            "r.id"
        }
        Path::Pending => {
            push_pending(&mut statement, query, "");
            "w.id"
        }
        Path::Walk => {
            push_walk(&mut statement, query, query, "");
            "d.id"
        }
        Path::Events(_) | Path::Delivery => {
            statement.push(" FROM webhooks.deliveries_view d WHERE true");
            push_deliveries(&mut statement, query, path);
            "d.id"
        }
    };
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
    // `OFFSET 0` keeps the planner from reading all attempts to join them.
    let of_delivery = format!(
        " CROSS JOIN LATERAL (SELECT * FROM webhooks.attempts a
        WHERE a.delivery = d.id AND a.event_at = d.event_at ORDER BY a.number {} OFFSET 0) a",
        direction(query)
    );
    let place = |statement: &mut _| push_attempt_place(statement, query);
    let columns = if matches!(path, Path::Endpoints(_)) { "r.*" } else { ATTEMPT };
    let mut statement = QueryBuilder::new(format!("SELECT {columns}"));
    let keys = ["a.delivery", "a.number"];
    let order = match path {
        Path::Endpoints(rows) => {
            push_endpoints(&mut statement, &of_deliveries, rows, (ATTEMPT, &of_delivery), &place);
            vec!["r.delivery", "r.number"]
        }
        Path::Pending => {
            push_pending(&mut statement, &of_deliveries, &of_delivery);
            push_bound(&mut statement, query, "w.id");
            place(&mut statement);
            vec!["w.id", "a.number"]
        }
        Path::Walk => {
            push_walk(&mut statement, query, &of_deliveries, &of_delivery);
            place(&mut statement);
            [event_order(query, None), &keys].concat()
        }
        Path::Events(_) | Path::Delivery => {
            statement.push(" FROM (SELECT d.* FROM webhooks.deliveries_view d WHERE true");
            push_deliveries(&mut statement, &of_deliveries, path);
            statement.push(format!(" OFFSET 0) d {of_delivery} WHERE true"));
            place(&mut statement);
            keys.to_vec()
        }
    };
    push_order(&mut statement, query, &order);
    push_limit(&mut statement, query.page_size() + 1);
    statement
}

/// Adds the conditions on attempts, and the place at which the page begins.
fn push_attempt_place(statement: &mut QueryBuilder<Postgres>, query: &Query) {
    of_attempt(statement, query);
    for (place, sign) in places(query) {
        let Some(Cursor { key, attempt }) = place else { continue };
        statement.push(format!(" AND (a.delivery, a.number) {sign} ("));
        statement.push_bind(row::int8(key)).push(", ");
        statement.push_bind(i64::from(attempt)).push(")");
    }
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

/// Adds the pending deliveries, `w`, each as a delivery, `d`, and what `more` joins.
fn push_pending(statement: &mut QueryBuilder<Postgres>, query: &Query, more: &str) {
    statement.push(
        " FROM webhooks.pending_deliveries w CROSS JOIN LATERAL (
            SELECT * FROM webhooks.deliveries_view d WHERE d.id = w.id",
    );
    push_one_by_one(statement, query, more);
}

/// Adds the conditions of a query at the end of a subquery, and what `more` joins. `OFFSET 0` keeps the planner
/// from joining it otherwise.
fn push_one_by_one(statement: &mut QueryBuilder<Postgres>, query: &Query, more: &str) {
    of_event(statement, query, &Table::DELIVERIES);
    of_delivery(statement, query);
    statement.push(format!(" OFFSET 0) d {more} WHERE true"));
}

/// Adds the deliveries of rows of endpoints, in two halves, with these columns and what they join; `place`
/// adds the conditions of the page. Of the ended ones of each row it reads no more than the page needs, and
/// all pending ones: no index has these in the order of their ids. The index of the ended ones is read first, a
/// range of one number in the order of both columns, so that the planner does not read and sort all.
fn push_endpoints(
    statement: &mut QueryBuilder<Postgres>,
    query: &Query,
    rows: &[i64],
    (columns, more): (&str, &str),
    place: &dyn Fn(&mut QueryBuilder<Postgres>),
) {
    let of_rows = Query { tenant: None, endpoint: None, ..query.clone() };
    statement.push(" FROM unnest(").push_bind(rows.to_vec());
    statement.push(") AS e(number) CROSS JOIN LATERAL (");
    let among = Among::of(query);
    if among != Among::Pending {
        statement.push(format!(
            "(SELECT {columns} FROM (
                SELECT o.id, o.event_at FROM webhooks.ended_deliveries o
                WHERE o.endpoint >= e.number AND o.endpoint <= e.number"
        ));
        if among == Among::Failed {
            statement.push(" AND o.status IN ('failed', 'cancelled')");
        }
        push_bound(statement, query, "o.id");
        push_order(statement, query, &["o.endpoint", "o.id"]);
        statement.push(
            " OFFSET 0) o CROSS JOIN LATERAL (
                SELECT * FROM webhooks.deliveries_view d
                WHERE NOT d.is_pending AND d.id = o.id AND d.event_at = o.event_at",
        );
        push_one_by_one(statement, &of_rows, more);
        place(statement);
        push_limit(statement, query.page_size() + 1);
        statement.push(")");
    }
    if among == Among::All {
        statement.push(" UNION ALL ");
    }
    if among != Among::Failed {
        // All of them: the planner might walk along all deliveries for the first ones.
        statement.push(format!(
            "(SELECT {columns} FROM (SELECT * FROM webhooks.deliveries_view d
                WHERE d.is_pending AND d.endpoint_number = e.number"
        ));
        push_one_by_one(statement, &of_rows, more);
        place(statement);
        statement.push(")");
    }
    statement.push(") r WHERE true");
}

/// Adds the place at which the page begins, in the order of a number.
pub(super) fn push_place(statement: &mut QueryBuilder<Postgres>, query: &Query, column: &str) {
    push_compared(statement, query, column, "");
}

/// Adds the place at which the page begins, itself included: another condition leaves it out, or a part of
/// it.
fn push_bound(statement: &mut QueryBuilder<Postgres>, query: &Query, column: &str) {
    push_compared(statement, query, column, "=");
}

fn push_compared(
    statement: &mut QueryBuilder<Postgres>,
    query: &Query,
    column: &str,
    or_equal: &str,
) {
    for (place, sign) in places(query) {
        if let Some(Cursor { key, .. }) = place {
            statement.push(format!(" AND {column} {sign}{or_equal} ")).push_bind(row::int8(key));
        }
    }
}

fn places(query: &Query) -> [(Option<Cursor>, &'static str); 2] {
    [(query.after, "<"), (query.before, ">")]
}

/// Adds the order in which a page is read: from its place on, forwards or backwards.
pub(super) fn push_order(statement: &mut QueryBuilder<Postgres>, query: &Query, columns: &[&str]) {
    let order = direction(query);
    statement.push(format!(" ORDER BY {} {order}", columns.join(&format!(" {order}, "))));
}

fn direction(query: &Query) -> &'static str {
    if query.before.is_some() { "ASC" } else { "DESC" }
}

pub(super) fn push_limit(statement: &mut QueryBuilder<Postgres>, limit: usize) {
    statement.push(" LIMIT ").push_bind(row::int4(limit));
}
