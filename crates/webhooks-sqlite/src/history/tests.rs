//! The plans and the paths of lists.

use webhooks_core::{Channel, DeliveryId, DeliveryStatus, EndpointId, Tag, Timestamp};
use webhooks_dispatch::backlog::Window;
use webhooks_dispatch::transport::ErrorClass;

use rusqlite::StatementStatus;

use super::*;

fn plan(list: &List) -> String {
    let file = Connection::open_in_memory().unwrap();
    file.execute_batch(include_str!("../../migrations/0001_start.sql")).unwrap();
    let plan = format!("EXPLAIN QUERY PLAN {}", list.statement("DESC", 101));
    let mut statement = file.prepare(&plan).unwrap();
    let rows = statement.query_map(params_from_iter(list.values()), |row| row.get(3)).unwrap();
    rows.collect::<rusqlite::Result<Vec<String>>>().unwrap().join("\n")
}

fn query() -> Query {
    let (tenant, endpoint) = (TenantId::default(), EndpointId::new("crm").unwrap());
    Query { tenant: Some(tenant), endpoint: Some(endpoint), ..Query::default() }
}

/// A page must not cost a sort of the whole history.
#[test]
fn a_page_of_a_long_history_is_read_in_its_order() {
    let (channel, tag) = (Channel::new("a").ok(), Tag::new("b").ok());
    for query in [
        Query::default(),
        query(),
        Query { tenant: None, ..query() },
        Query { channel, tag, since: Some(Timestamp::UNIX_EPOCH), ..query() },
        Query { statuses: vec![DeliveryStatus::Failed], attempts: Some(2..=5), ..query() },
        Query { status_codes: Some(500..=599), ..query() },
        Query { error_classes: vec![ErrorClass::Timeout], ..query() },
    ] {
        let lists = [
            List::events(&query),
            List::deliveries(&query, Path::Walk),
            List::attempts(&query, Path::Walk),
        ];
        for list in lists {
            let plan = plan(&list);
            assert!(!plan.contains("TEMP B-TREE"), "{query:?}\n{plan}");
        }
        let plan = plan(&List::events(&query));
        let expected = if query.tenant.is_some() { "events_tenant (tenant=?)" } else { "SCAN" };
        assert!(plan.contains(expected), "{query:?}\n{plan}");
    }
}

#[test]
fn what_a_query_names_is_found_by_its_index() {
    let event = Query { event: Some(EventId::random()), ..query() };
    let delivery = Query { delivery: Some(DeliveryId::from_u64(3)), ..Query::default() };
    let with = |statuses| Query { statuses, ..query() };
    let waiting = with(vec![DeliveryStatus::Pending, DeliveryStatus::Retrying]);
    let failed = with(vec![DeliveryStatus::Failed]);
    for (query, path, expected) in [
        (&event, Path::Events, "INDEX deliveries_event (event=?"),
        (&delivery, Path::Events, "INTEGER PRIMARY KEY (rowid=?"),
        (&waiting, Path::Endpoint, "INDEX deliveries_due (endpoint=?"),
        (&failed, Path::Endpoint, "INDEX deliveries_undelivered (endpoint=?"),
    ] {
        let plan = plan(&List::deliveries(query, path));
        assert!(plan.contains(&format!("SEARCH deliveries USING {expected}")), "{plan}");
    }
    for list in [List::events(&event), List::events(&delivery)] {
        let plan = plan(&list);
        assert!(plan.contains("SEARCH events USING"), "{plan}");
    }
}

#[test]
fn the_path_of_a_list_depends_on_the_rows_to_look_at() {
    use crate::writer::tests::side::{Order, Side, at};

    let mut side = Side::new(Window::ALL, false);
    let register =
        |endpoint| Order::Register { endpoint, active: true, ordered: false, picky: false };
    side.do_all(&[register(0)], at(0));
    let failed = Query { statuses: vec![DeliveryStatus::Failed], ..query() };
    let failed = Query { endpoint: EndpointId::new("a").ok(), ..failed };
    let waiting = Query { statuses: vec![DeliveryStatus::Pending], ..failed.clone() };
    let paths = |side: &Side, query: &Query| {
        let file = side.writer.connection.sqlite();
        let paths = (Path::of_deliveries(file, query), Path::of_attempts(file, query));
        (paths.0.unwrap(), paths.1.unwrap())
    };
    assert_eq!(paths(&side, &query()), (Path::Events, Path::Events));
    assert_eq!(paths(&side, &waiting), (Path::Endpoint, Path::Events));
    side.do_all(
        &(0..20).map(|event| Order::Publish { event, wanted: true }).collect::<Vec<_>>(),
        at(1),
    );
    assert_eq!(paths(&side, &query()), (Path::Tenant, Path::Tenant));
    assert_eq!(paths(&side, &waiting), (Path::Tenant, Path::Tenant));
    assert_eq!(paths(&side, &failed), (Path::Endpoint, Path::Tenant));
    // A bulk cancellation of the last ones must not walk along all that have ended.
    let of_all = |query: &Query| Query { tenant: None, endpoint: None, ..query.clone() };
    assert_eq!(paths(&side, &of_all(&waiting)).0, Path::Walk);
    assert_eq!(paths(&side, &of_all(&failed)).0, Path::Endpoint);
    let plan = plan(&List::deliveries(&of_all(&failed), Path::Endpoint));
    assert!(plan.contains("USING INDEX deliveries_undelivered (endpoint=?"), "{plan}");
    let event = Query { event: EventId::new("event-1").ok(), ..waiting };
    assert_eq!(paths(&side, &event), (Path::Events, Path::Events));
}

/// The events of a tenant amid those of another one, each with a delivery and an attempt. Every 50th
/// event has a second delivery that a replay added later.
fn filled(others: i64, mine: i64) -> Connection {
    let file = Connection::open_in_memory().unwrap();
    file.execute_batch(include_str!("../../migrations/0001_start.sql")).unwrap();
    let fill = format!(
        "INSERT INTO endpoints (number, tenant, id, settings, secrets, state, version, created_at,
             updated_at, state_since)
         VALUES (1, 'default', 'crm', '', '', 'active', 1, 0, 0, 0),
                (2, 'other', 'crm', '', '', 'active', 1, 0, 0, 0);
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2 * {others} + {mine})
         INSERT INTO events (number, id, tenant, type, accepted_at, deliveries, body)
         SELECT n, 'event-' || n, CASE WHEN n > {others} AND n <= {others} + {mine} THEN 'default'
             ELSE 'other' END, 'a', n, 1, '' FROM n;
         INSERT INTO deliveries (event, endpoint, status, queued_at, created_at)
         SELECT number, CASE tenant WHEN 'default' THEN 1 ELSE 2 END, 'delivered', 0, NULL
         FROM events ORDER BY number;
         INSERT INTO deliveries (event, endpoint, status, queued_at, created_at)
         SELECT number, CASE tenant WHEN 'default' THEN 1 ELSE 2 END, 'failed', 0, 1
         FROM events WHERE number % 50 = 0 ORDER BY number;
         INSERT INTO attempts (delivery, number, endpoint, started_at, duration)
         SELECT number, 1, endpoint, 0, 0 FROM deliveries;"
    );
    file.execute_batch(&fill).unwrap();
    file
}

/// Returns the keys of a page and the steps that SQLite made for it.
fn page(file: &Connection, list: &List, direction: &str) -> (Vec<i64>, i32) {
    let mut statement = file.prepare(&list.statement(direction, 20)).unwrap();
    let rows = statement.query_map(params_from_iter(list.values()), |row| row.get(0)).unwrap();
    let keys = rows.collect::<rusqlite::Result<_>>().unwrap();
    (keys, statement.get_status(StatementStatus::VmStep))
}

#[test]
fn a_page_along_the_events_of_a_tenant_is_that_along_all_rows() {
    let file = filled(60, 140);
    let query = Query { tenant: Some(TenantId::default()), ..Query::default() };
    let pages = |query: &Query, direction| {
        for list in [List::deliveries, List::attempts] {
            let [along, all] =
                [Path::Tenant, Path::Walk].map(|path| page(&file, &list(query, path), direction).0);
            assert_eq!(along, all, "{query:?} {direction}");
        }
        page(&file, &List::deliveries(query, Path::Tenant), direction).0
    };
    assert_eq!(pages(&query, "DESC").len(), 20);
    for key in 0..=270 {
        let at = Some(cursor(key, 1));
        pages(&Query { after: at, ..query.clone() }, "DESC");
        pages(&Query { before: at, ..query.clone() }, "ASC");
    }
}

/// Judged by the steps of SQLite, not by time.
#[test]
fn a_page_of_a_tenant_costs_the_same_whatever_others_have() {
    let [alone, beside] = [0, 10_000].map(|others| filled(others, 200));
    let query = Query { tenant: Some(TenantId::default()), ..Query::default() };
    let middle = |others: u64| Some(cursor(i64::try_from(others).unwrap() + 100, 1));
    for list in [List::deliveries, List::attempts] {
        for direction in ["DESC", "ASC"] {
            let steps = |file, others| {
                let (after, before) = match direction {
                    "DESC" => (middle(others), None),
                    _ => (None, middle(others)),
                };
                let query = Query { after, before, ..query.clone() };
                let (keys, steps) = page(file, &list(&query, Path::Tenant), direction);
                assert_eq!(keys.len(), 20);
                steps
            };
            let [alone, beside] = [steps(&alone, 0), steps(&beside, 10_000)];
            assert!(beside < alone * 2, "{direction}: {beside} steps, {alone} alone");
        }
    }
}

/// A reader passes over the attempts of others within the index, and a bounded number of them.
#[test]
fn a_reader_of_attempts_reads_no_row_of_others() {
    use webhooks_dispatch::history::{EndedPlace, EndedRequest};

    let file = filled(1_000, 200);
    let plan = format!("EXPLAIN QUERY PLAN {}", ended::entries());
    let mut statement = file.prepare(&plan).unwrap();
    let rows = statement.query_map([0, 0, 0, 0], |row| row.get(3)).unwrap();
    let plan = rows.collect::<rusqlite::Result<Vec<String>>>().unwrap().join("\n");
    assert!(plan.contains("attempts USING COVERING INDEX attempts_ended (<expr>>?)"), "{plan}");
    assert!(!plan.contains("TEMP B-TREE FOR"), "{plan}");

    let after = EndedPlace::since(Timestamp::UNIX_EPOCH);
    let mut request = EndedRequest { tenant: TenantId::default(), after, limit: 30 };
    let (mut found, mut pages) = (Vec::new(), 0);
    loop {
        let page = ended::read(&file, &request, 100).unwrap();
        assert!(page.items.len() <= 30);
        (request.after, pages) = (page.next, pages + 1);
        found.extend(page.items);
        if page.is_last {
            break;
        }
    }
    assert_eq!(found.len(), 200 + 4);
    assert!(found.is_sorted_by_key(AttemptRecord::ended_place));
    assert!(found.iter().all(|attempt| attempt.tenant == TenantId::default()));
    // 2,244 entries, and some pages that are full before.
    assert!((23..=30).contains(&pages), "{pages}");
}
