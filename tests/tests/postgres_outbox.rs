//! The transactional outbox: by `publish_in`, and by the SQL function for other languages.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::task::JoinSet;
use webhooks_core::{Event, EventId, EventType, Payload, TenantId, Timestamp, TraceContext};
use webhooks_dispatch::{
    Engine, EngineSettings, FnTransport, Publication, PublishStatus,
    clock::{Clock as _, SystemClock},
    history::HistoryStore as _,
    monitor::MonitorStore as _,
    store::{ClaimRequest, DeliveryStore as _, Room, SerializedEvent, StoreError},
};
use webhooks_postgres::{PostgresOptions, PostgresStore, PublishInError, publish_in};
use webhooks_registry::{
    Endpoint,
    store::{EndpointStore as _, RegisterRequest},
};
use webhooks_tests::postgres::{Cluster, connect};

async fn open() -> (String, PostgresStore) {
    let url = Cluster::shared().database().await;
    let store = PostgresStore::open(&url).await.unwrap();
    let endpoint = Endpoint::new("https://example.com/", "my-secret-key").unwrap();
    store
        .register(RegisterRequest::new("crm".parse().unwrap(), endpoint, Timestamp::now()))
        .await
        .unwrap();
    (url, store)
}

/// Returns the events of all deliveries that can be claimed.
async fn claimed(store: &PostgresStore) -> Vec<String> {
    let mut events = Vec::new();
    loop {
        let mut now = SystemClock.clocks();
        now.wall = now.wall + Duration::from_secs(1);
        let lease = Duration::from_secs(600);
        let request = ClaimRequest {
            now,
            lease,
            limit: 500,
            per_endpoint: 500,
            bytes: usize::MAX,
            room: Room::new(),
        };
        let claimed = store.claim(request).await.unwrap();
        if claimed.is_empty() {
            events.sort();
            return events;
        }
        events.extend(claimed.iter().map(|claimed| claimed.event.id.to_string()));
    }
}

fn event(id: &str) -> Event {
    Event::new("order.placed", id).unwrap().id(EventId::new(id).unwrap())
}

/// Publishes an event by the SQL function, as other languages do.
async fn publish_by_sql(
    connection: &mut PgConnection,
    event: &Event,
) -> Result<String, sqlx::Error> {
    let publish = "SELECT webhooks.publish($1, $2::json, source => $3, id => $4, tenant => $5,
        occurred_at => $6::text::timestamptz)";
    sqlx::query_scalar(publish)
        .bind(event.event_type.as_str())
        .bind(event.payload.as_str())
        .bind(event.source.as_deref())
        .bind(event.id.to_string())
        .bind(event.tenant.as_str())
        .bind(event.timestamp.to_string())
        .fetch_one(connection)
        .await
}

/// Goal: an event is sent if and only if its transaction is committed, whoever else publishes.
/// Method: 64 callers at once, each with ten transactions of an order and its event, by either way;
/// some are rolled back by command and some by dropping them.
#[tokio::test]
async fn committed_transactions_send_exactly_their_events() {
    let (url, store) = open().await;
    let create = "CREATE TABLE orders (id text PRIMARY KEY)";
    sqlx::query(create).execute(&mut connect(&url).await).await.unwrap();
    let mut callers = JoinSet::new();
    for caller in 0..64 {
        let url = url.clone();
        callers.spawn(async move {
            let mut connection = connect(&url).await;
            for n in 0..10 {
                let id = format!("order-{caller}-{n}");
                let mut transaction = connection.begin().await.unwrap();
                let insert = sqlx::query("INSERT INTO orders (id) VALUES ($1)").bind(&id);
                insert.execute(&mut *transaction).await.unwrap();
                if caller % 2 == 0 {
                    let published = publish_in(&mut transaction, &event(&id)).await.unwrap();
                    assert_eq!(
                        (published.deliveries, published.status),
                        (1, PublishStatus::Created)
                    );
                } else {
                    let published = publish_by_sql(&mut transaction, &event(&id)).await.unwrap();
                    assert_eq!(published, id);
                }
                match (caller + n) % 4 {
                    0 => transaction.rollback().await.unwrap(),
                    1 => drop(transaction),
                    _ => transaction.commit().await.unwrap(),
                }
            }
        });
    }
    callers.join_all().await;
    let orders = sqlx::query_scalar("SELECT id FROM orders ORDER BY id COLLATE \"C\"");
    let orders: Vec<String> = orders.fetch_all(&mut connect(&url).await).await.unwrap();
    assert_eq!(orders.len(), 320);
    assert_eq!(claimed(&store).await, orders);
}

#[tokio::test]
async fn nothing_is_sent_before_the_commit_and_a_worker_hears_of_it() {
    let (url, store) = open().await;
    assert!(claimed(&store).await.is_empty());
    let mut connection = connect(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    let _published = publish_in(&mut transaction, &event("a")).await.unwrap();
    assert!(claimed(&store).await.is_empty());
    let mut changes = store.changes();
    transaction.commit().await.unwrap();
    changes.changed().await;
    assert_eq!(claimed(&store).await, ["a"]);
}

#[tokio::test]
async fn a_trace_goes_with_the_event() {
    let (url, store) = open().await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = TraceContext::parse(parent, ["a=1"]).unwrap();
    let publication = Publication::new(&event("a")).trace(trace.clone());
    let _published = publish_in(&mut connect(&url).await, publication).await.unwrap();
    let found = store.event(TenantId::default(), EventId::new("a").unwrap()).await.unwrap();
    assert_eq!(found.unwrap().summary.trace, Some(trace));
}

/// A worker that drains delivers what was committed before, also if it has not heard of it yet. Most
/// commits are that quick, so ten of them show it.
#[tokio::test]
async fn what_is_committed_before_a_drain_is_delivered_by_it() {
    let (url, store) = open().await;
    let engine = Engine::new(store, FnTransport::new(|_, _, _, _| async { (200, "") }));
    let mut connection = connect(&url).await;
    for number in 0..10 {
        let worker = engine.start();
        // Once it has delivered something, it knows when the next delivery is due: never.
        engine.publish(&event(&format!("first-{number}"))).await.unwrap();
        let deadline = SystemClock.monotonic() + Duration::from_secs(60);
        while engine.monitor().waiting(10).await.unwrap() > 0 {
            assert!(SystemClock.monotonic() < deadline, "the worker delivers nothing");
            SystemClock.sleep(Duration::from_millis(1)).await;
        }
        let mut transaction = connection.begin().await.unwrap();
        publish_in(&mut transaction, &event(&format!("second-{number}"))).await.unwrap();
        transaction.commit().await.unwrap();
        let report = worker.drain(Duration::from_secs(60)).await;
        assert_eq!(report.waiting, Some(0), "drain {number}");
    }
}

#[tokio::test]
async fn both_ways_and_the_engine_share_ids_and_their_rule() {
    let (url, store) = open().await;
    let mut connection = connect(&url).await;
    let first = event("a").timestamp(Timestamp::from_unix_seconds(1));
    let again = first.clone().timestamp(Timestamp::from_unix_seconds(2));
    publish_by_sql(&mut connection, &first).await.unwrap();
    assert_eq!(publish_by_sql(&mut connection, &again).await.unwrap(), "a");
    let repeated = publish_in(&mut connection, &again).await.unwrap();
    assert_eq!((repeated.deliveries, repeated.status), (1, PublishStatus::Duplicate));
    for other in [
        first.clone().source("elsewhere"),
        Event::new("order.placed", "other").unwrap().id(first.id.clone()),
        Event::new("order.paid", "a").unwrap().id(first.id.clone()),
    ] {
        let error = publish_by_sql(&mut connection, &other).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "23505", "{error}");
        let error = publish_in(&mut connection, &other).await.unwrap_err();
        assert!(matches!(error, PublishInError::Conflict(_)), "{error:?}");
    }
    publish_by_sql(&mut connection, &first.tenant(TenantId::new("acme").unwrap())).await.unwrap();
    assert_eq!(claimed(&store).await, ["a"], "the other tenant has no endpoint");
}

/// Goal: the function makes the same bytes as the library. Method: random events of all kinds of
/// characters, numbers and times, from a session with unusual output settings; the stored bodies
/// are compared.
#[tokio::test]
async fn the_function_makes_the_bytes_that_the_library_makes() {
    let (url, _store) = open().await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut connection = connect(&url).await;
    let settings = "SET timezone = 'Asia/Kolkata'; SET datestyle = 'German';
        SET intervalstyle = 'iso_8601'; SET bytea_output = 'escape'; SET search_path = '';
        SET extra_float_digits = -15; SET escape_string_warning = off;
        SET standard_conforming_strings = off; SET quote_all_identifiers = on";
    sqlx::raw_sql(settings).execute(&mut connection).await.unwrap();
    for n in 0..300 {
        let text = |random: &mut fastrand::Rng| -> String {
            let character = |random: &mut fastrand::Rng| match random.u8(..4) {
                0 => random.char('\u{1}'..='\u{1f}'),
                1 => random.char('\u{20}'..='\u{7f}'),
                2 => *random.choice(&['"', '\\', '/', '<', '\u{2028}']).unwrap(),
                _ => random.char('\u{80}'..),
            };
            (0..random.usize(..12)).map(|_| character(random)).collect()
        };
        let payload = match random.u8(..4) {
            0 => Payload::from_value(text(&mut random)).unwrap(),
            1 => Payload::from_json(" {\"b\": 1.00,\t\"a\":[1e5, \"\\u00e9\", null]}\n".into())
                .unwrap(),
            2 => Payload::from_json(format!("-{}.50", random.u64(..))).unwrap(),
            _ => Payload::from_value([text(&mut random), text(&mut random)]).unwrap(),
        };
        let digits = 10_u64.pow(random.u32(..7));
        let time = random.u64(..253_402_300_800_000_000) / digits * digits;
        let event_type = *random.choice(&["a", "order.placed", "A-1._.x_y-z"]).unwrap();
        let event = Event::new(event_type, payload).unwrap();
        let event = event.timestamp(Timestamp::from_unix_microseconds(time));
        let event = if random.bool() { event.source(text(&mut random)) } else { event };
        let event = if random.bool() {
            event.id(EventId::new(&format!("!~\"\\'{n}")).unwrap())
        } else {
            event
        };
        // Texts of PostgreSQL cannot contain NUL, and those of the library can.
        let event = if random.bool() {
            publish_by_sql(&mut connection, &event).await.unwrap();
            event
        } else {
            let event = if random.bool() { event.source("\0 of C") } else { event };
            let published = publish_in(&mut connection, &event).await.unwrap();
            assert_eq!(published.status, PublishStatus::Created);
            event
        };
        let stored = sqlx::query("SELECT body, type, number FROM webhooks.events WHERE id = $1");
        let stored = stored.bind(event.id.to_string()).fetch_one(&mut connection).await.unwrap();
        assert_eq!(stored.get::<&str, _>(0), event.to_json());
        let patterns = sqlx::query_scalar("SELECT webhooks.patterns($1)").bind(event_type);
        let patterns: String = patterns.fetch_one(&mut connection).await.unwrap();
        let expected: Vec<_> = event.event_type.patterns().collect();
        assert_eq!(patterns, expected.join(" "));
    }
}

#[tokio::test]
async fn the_function_refuses_what_the_library_refuses() {
    let (url, store) = open().await;
    let mut connection = connect(&url).await;
    let (long, too_long) = ("x".repeat(128), "x".repeat(129));
    let texts = [
        "a", "a.b", "a..b", ".a", "a.", "", "a b", "a\n", "é", "a/b", "A_-9", "*", "a.*", &long,
        &too_long, "order-17", "!~", "a\u{7f}", "'", "\"",
    ];
    for (n, text) in texts.iter().enumerate() {
        for (function, is_allowed) in [
            ("SELECT webhooks.publish($1, '1', id => $2)", EventType::new(text).is_ok()),
            (
                "SELECT webhooks.publish('a', '1', id => $1, source => $2)",
                EventId::new(text).is_ok(),
            ),
            (
                "SELECT webhooks.publish('a', '1', tenant => $1, id => $2)",
                TenantId::new(text).is_ok(),
            ),
        ] {
            let call = sqlx::query(function).bind(*text).bind(format!("call-{n}"));
            let outcome = call.execute(&mut connection).await;
            // The same id may come twice, with other content; that is not refused with this code.
            let code =
                outcome.as_ref().err().map(|error| error.as_database_error().unwrap().code());
            let is_refused = code.flatten().is_some_and(|code| code == "22023");
            assert_eq!(is_refused, !is_allowed, "{function} of {text:?}: {outcome:?}");
        }
    }
    for (call, code) in [
        ("SELECT webhooks.publish('a', NULL)", "22004"),
        ("SELECT webhooks.publish('a', '{')", "22P02"),
        ("SELECT webhooks.publish('a', '1', occurred_at => '1969-12-31Z')", "22023"),
        ("SELECT webhooks.publish('a', '1', occurred_at => 'infinity')", "22023"),
        ("SELECT webhooks.publish('a', to_json(repeat('x', 1048577)))", "54000"),
        // The bound is checked before each byte is.
        (
            r#"SELECT webhooks.publish('a', ('["' || repeat('x', 1048577) || '", 1e999]')::json)"#,
            "54000",
        ),
        (
            r#"SELECT webhooks.publish('a', ('["' || repeat('x', 1048000) || '", 1e999]')::json)"#,
            "22023",
        ),
        // The function that `publish_in` calls, and that nobody else should call.
        (r#"SELECT webhooks.publish_event('a', '1', '"\ud800"', 'a', 'default', now())"#, "22023"),
        ("SELECT webhooks.publish_event('a', '1', '1', 'a', 'default', now())", "22023"),
    ] {
        let error = sqlx::query(call).execute(&mut connection).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), code, "{call}: {error}");
    }
    // A generated id is a UUID of version 7 that the library accepts as one.
    let made: String = sqlx::query_scalar("SELECT webhooks.publish('a', '1')")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let uuid = *EventId::new(&made).unwrap().as_uuid_bytes().unwrap();
    assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (7, 2));
    let all: BTreeSet<String> = claimed(&store).await.into_iter().collect();
    assert!(all.contains(&made));
}

/// Goal: an open transaction delays only those who publish its ids, and them not for ever. Method:
/// one is open while the store publishes the same id and another one.
#[tokio::test]
async fn an_open_transaction_holds_up_no_other_publisher() {
    let (url, store) = open().await;
    let mut connection = connect(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    let _published = publish_in(&mut transaction, &event("same")).await.unwrap();
    let publish =
        |id: &str| store.publish(vec![SerializedEvent::new(&event(id))], Timestamp::now());
    let (first, same, other) = tokio::join!(publish("first"), publish("same"), publish("other"));
    assert!(first.unwrap()[0].is_ok() && other.unwrap()[0].is_ok());
    assert!(matches!(same, Err(StoreError::Unavailable { .. })), "{same:?}");
    transaction.commit().await.unwrap();
    let again = publish("same").await.unwrap();
    assert_eq!(again[0].as_ref().unwrap().status, PublishStatus::Duplicate);
    assert_eq!(claimed(&store).await, ["first", "other", "same"]);
}

/// Goal: however many ids are locked, everybody else of the group is published before the store
/// gives up the first of them. Method: a transaction has locked a hundred ids, which are published
/// before a free one.
#[tokio::test]
async fn many_held_ids_hold_up_no_other_publisher_of_their_group() {
    let (url, store) = open().await;
    let mut connection = connect(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    for n in 0..100 {
        let _published = publish_in(&mut transaction, &event(&format!("held-{n}"))).await.unwrap();
    }
    let mut publishers = JoinSet::new();
    for n in 0..101 {
        let id = if n < 100 { format!("held-{n}") } else { "free".to_owned() };
        let store = store.clone();
        publishers.spawn(async move {
            let events = vec![SerializedEvent::new(&event(&id))];
            (id, store.publish(events, Timestamp::now()).await.is_ok())
        });
    }
    let first = publishers.join_next().await.unwrap().unwrap();
    assert_eq!(first, ("free".to_owned(), true));
    transaction.commit().await.unwrap();
    while let Some(published) = publishers.join_next().await {
        let (id, is_published) = published.unwrap();
        assert!(is_published, "{id}");
    }
    assert_eq!(claimed(&store).await.len(), 101);
}

/// Goal: the same content is recognized, whatever characters it has. Method: JSON may contain
/// characters that texts of PostgreSQL cannot.
#[tokio::test]
async fn repeating_an_event_is_no_error_whatever_its_payload_holds() {
    let (url, _store) = open().await;
    let mut connection = connect(&url).await;
    let payloads = [
        r#""a\u0000""#,
        r#""\\ud800""#,
        r#"{"\u0000": 1}"#,
        r#"{"a": 1, "a": 1e308}"#,
        "12345678901234567890123",
        r#"",\"timestamp\":\"1\"}""#,
    ];
    for (n, payload) in payloads.iter().enumerate() {
        let publish = async |connection: &mut PgConnection, payload: &str, second: i32| {
            let publish = "SELECT webhooks.publish('a', $1::json, id => $2,
                occurred_at => to_timestamp($3))";
            let call = sqlx::query(publish).bind(payload.to_owned()).bind(format!("event-{n}"));
            call.bind(f64::from(second) / 8.0).execute(connection).await.map(drop)
        };
        publish(&mut connection, payload, 1).await.unwrap();
        publish(&mut connection, payload, 2).await.unwrap();
        let error = publish(&mut connection, r#""other""#, 2).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "23505", "{error}");
    }
}

/// Goal: every session makes the same partition. Method: sessions with unusual time formats, and
/// with days that do not have 24 hours.
#[tokio::test]
async fn partitions_are_the_same_whatever_session_makes_them() {
    let (url, _store) = open().await;
    let mut connection = connect(&url).await;
    for (session, at, expected) in [
        (
            "SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Shanghai'",
            "2040-01-02 12:00Z",
            "2040-01-02",
        ),
        (
            "SET datestyle = 'German'; SET timezone = 'America/New_York'",
            "2040-03-11 12:00Z",
            "2040-03-11",
        ),
        ("SET datestyle = 'ISO'; SET timezone = 'UTC'", "2040-03-12 12:00Z", "2040-03-12"),
    ] {
        let make = format!("{session}; SELECT webhooks.ensure_partition('{at}')");
        sqlx::raw_sql(sqlx::AssertSqlSafe(make)).execute(&mut connection).await.unwrap();
        sqlx::raw_sql("RESET datestyle; RESET timezone").execute(&mut connection).await.unwrap();
        let bounds = "SELECT pg_get_expr(c.relpartbound, c.oid) FROM webhooks.partitions p
            JOIN pg_class c ON c.relname = 'events_' || p.suffix
            WHERE p.start_at <= $1::text::timestamptz AND $1::text::timestamptz < p.end_at
              AND p.end_at = p.start_at + interval '24 hours'";
        let bounds: String =
            sqlx::query_scalar(bounds).bind(at).fetch_one(&mut connection).await.unwrap();
        let is_start = bounds.contains(&format!("FROM ('{expected} 00:00:00+00')"));
        assert!(is_start, "{session}: {bounds}");
    }
}

/// Goal: every way to publish has the same bound. Method: a body of exactly that size, and one that
/// is a byte larger, in every way.
#[tokio::test]
async fn all_ways_hold_to_one_bound_and_leave_the_transaction_as_it_was() {
    let (url, store) = open().await;
    let mut connection = connect(&url).await;
    let event = |id: &str, len: usize| {
        let mut event = event(id).timestamp(Timestamp::UNIX_EPOCH);
        let rest = event.to_json().len() - event.payload.as_str().len();
        event.payload = Payload::from_value("x".repeat(len - rest - 2)).unwrap();
        event
    };
    let max = EngineSettings::default().max_body;
    let transport = FnTransport::new(|_, _, _, _| async { (200, "") });
    let engine = Engine::new(store.clone(), transport);
    engine.publish(&event("engine", max)).await.unwrap();
    let error = engine.publish(&event("engine-larger", max + 1)).await.unwrap_err();
    let expected = error.to_string();
    assert!(expected.contains("1048577") && expected.contains("1048576"), "{expected}");
    let mut transaction = connection.begin().await.unwrap();
    publish_by_sql(&mut transaction, &event("sql", max)).await.unwrap();
    let _published = publish_in(&mut transaction, &event("library", max)).await.unwrap();
    let error = publish_in(&mut transaction, &event("larger", max + 1)).await.unwrap_err();
    assert!(matches!(error, PublishInError::TooLarge { .. }), "{error:?}");
    assert_eq!(error.to_string(), expected);
    transaction.commit().await.unwrap();
    let error = publish_by_sql(&mut connection, &event("larger", max + 1)).await.unwrap_err();
    let error = error.as_database_error().unwrap();
    assert_eq!((error.code().unwrap().as_ref(), error.message()), ("54000", &*expected));
    assert_eq!(claimed(&store).await, ["engine", "library", "sql"]);
    let _smaller = PostgresOptions::new(&url).unwrap().max_body(max - 1).open().await.unwrap();
    let error = publish_in(&mut connection, &event("smaller", max)).await.unwrap_err();
    assert!(matches!(error, PublishInError::TooLarge { max: 1_048_575, .. }), "{error:?}");
}

#[tokio::test]
async fn a_database_without_the_schema_says_how_to_make_it() {
    let url = Cluster::shared().database().await;
    let mut connection = connect(&url).await;
    for schema in ["SELECT 1", "CREATE SCHEMA webhooks"] {
        sqlx::raw_sql(schema).execute(&mut connection).await.unwrap();
        let error = publish_in(&mut connection, &event("a")).await.unwrap_err();
        assert!(matches!(error, PublishInError::NoSchema { .. }), "{error:?}");
        assert!(error.to_string().contains("open a PostgresStore once"), "{error}");
    }
}

/// Goal: a program may publish without any other right. Method: a role that may use the schema
/// only.
#[tokio::test]
async fn a_role_that_may_use_the_schema_may_publish_and_nothing_else() {
    let (url, store) = open().await;
    let mut connection = connect(&url).await;
    let prepare = "CREATE ROLE clerk; GRANT USAGE ON SCHEMA webhooks TO clerk; SET ROLE clerk";
    sqlx::raw_sql(prepare).execute(&mut connection).await.unwrap();
    publish_by_sql(&mut connection, &event("a")).await.unwrap();
    let published = publish_in(&mut connection, &event("b")).await.unwrap();
    assert_eq!((published.deliveries, published.status), (1, PublishStatus::Created));
    for refused in ["SELECT * FROM webhooks.events", "SELECT webhooks.notify_others(NULL)"] {
        let error = sqlx::query(refused).execute(&mut connection).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{error}");
    }
    assert_eq!(claimed(&store).await, ["a", "b"]);
}
