//! Transactions of an application: with their events or not at all, and without harm to others.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::noop_waker;
use rusqlite::OptionalExtension as _;
use webhooks_core::{EndpointId, Event, EventId, Tag};
use webhooks_dispatch::PublishStatus;
use webhooks_dispatch::backlog::Window;
use webhooks_dispatch::history::{HistoryStore as _, Query};

use super::*;
use crate::writer::tests::side::{Awaited, Order, Side, answer, at, clocks};
use crate::{SqliteOptions, SqliteStore};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

type Refusal = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T> = Result<T, TransactionError<Refusal>>;
type Pending<T> = Pin<Box<dyn Future<Output = Outcome<T>>>>;

/// Returns a store with an endpoint that wants everything, and a table of orders.
fn shop() -> Side {
    let mut side = Side::new(Window { per_endpoint: 1_000, bytes: 1_000_000 }, false);
    side.register_many(1);
    let table = "CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT)";
    transact(&mut side, move |transaction| Ok(transaction.execute_batch(table)?)).unwrap();
    side
}

/// Puts a transaction into the writer's queue.
fn queue<T: Send + 'static>(
    side: &Side,
    work: impl FnMut(&mut Transaction<'_>) -> Result<T, Refusal> + Send + 'static,
) -> Pending<T> {
    let store = side.store.clone();
    let mut pending: Pending<T> = Box::pin(async move { store.transaction(work).await });
    let waker = noop_waker();
    assert!(pending.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    pending
}

fn outcome<T>(mut pending: Pending<T>) -> Outcome<T> {
    let waker = noop_waker();
    match pending.as_mut().poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("the writer has not answered"),
    }
}

fn transact<T: Send + 'static>(
    side: &mut Side,
    work: impl FnMut(&mut Transaction<'_>) -> Result<T, Refusal> + Send + 'static,
) -> Outcome<T> {
    let pending = queue(side, work);
    side.run();
    outcome(pending)
}

fn order_event(id: i64) -> Event {
    let id = EventId::new(&format!("order-{id}")).unwrap();
    Event::new("order.placed", 1).unwrap().id(id).timestamp(at(0))
}

fn place(transaction: &mut Transaction<'_>, id: i64) -> Result<Published, Refusal> {
    transaction.execute("INSERT INTO orders (id) VALUES (?)", [id])?;
    Ok(transaction.publish(&order_event(id))?)
}

fn orders(side: &mut Side) -> Vec<i64> {
    let select = "SELECT id FROM orders ORDER BY id";
    transact(side, move |transaction| Ok(transaction.query(select, (), |row| row.get(0))?)).unwrap()
}

/// Returns the ids of the events that can be claimed now, sorted.
fn claimable(side: &mut Side) -> Vec<String> {
    // Transactions take their time from the system's clock.
    let claimed = side.claim_all(clocks(10_000_000_000));
    let mut ids: Vec<String> = claimed.iter().map(|claimed| claimed.event.id.to_string()).collect();
    ids.sort();
    ids
}

fn publish(event: u8) -> Order {
    Order::Publish { event, wanted: true }
}

#[test]
fn an_order_and_its_event_are_committed_together() {
    let mut side = shop();
    let published = transact(&mut side, |transaction| place(transaction, 17)).unwrap();
    assert_eq!((published.deliveries, published.status), (1, PublishStatus::Created));
    assert_eq!(orders(&mut side), [17]);
    assert_eq!(claimable(&mut side), ["order-17"]);
    let mut side = side.reopened();
    assert_eq!(orders(&mut side), [17]);
    assert_eq!(claimable(&mut side), ["order-17"], "claims end with the process");
}

#[test]
fn an_order_and_its_event_are_rolled_back_together() {
    let mut side = shop();
    let refused: Outcome<()> = transact(&mut side, |transaction| {
        place(transaction, 17)?;
        Err("out of stock".into())
    });
    let error = refused.unwrap_err();
    assert!(matches!(error, TransactionError::Refused(_)), "{error:?}");
    assert_eq!(error.to_string(), "out of stock");
    assert!(orders(&mut side).is_empty());
    assert!(claimable(&mut side).is_empty());
    assert!(side.rows()["events"].is_empty() && side.rows()["deliveries"].is_empty());
    transact(&mut side, |transaction| place(transaction, 17)).unwrap();
    assert_eq!(claimable(&mut side), ["order-17"]);
}

#[test]
fn a_closure_that_fails_or_panics_costs_the_others_of_its_group_nothing() {
    let mut side = shop();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let first = queue(&side, move |transaction| {
        counted.fetch_add(1, Ordering::Relaxed);
        place(transaction, 1)
    });
    let mut second = side.queue(&publish(2), &[], at(0));
    let refused: Pending<()> = queue(&side, |transaction| {
        place(transaction, 3)?;
        Err("no".into())
    });
    let panicked: Pending<()> = queue(&side, |transaction| {
        place(transaction, 4)?;
        std::panic::panic_any("a bug of the application")
    });
    let mut fifth = side.queue(&publish(5), &[], at(0));
    let last = queue(&side, |transaction| place(transaction, 6));
    side.run();
    assert!(outcome(first).is_ok() && outcome(last).is_ok());
    assert!(answer(&mut second).contains("Created") && answer(&mut fifth).contains("Created"));
    assert!(matches!(outcome(refused), Err(TransactionError::Refused(_))));
    assert!(matches!(outcome(panicked), Err(TransactionError::Panicked)));
    assert_eq!(runs.load(Ordering::Relaxed), 1, "the group did not fail");
    assert_eq!(orders(&mut side), [1, 6]);
    assert_eq!(claimable(&mut side), ["event-2", "event-5", "order-1", "order-6"]);
}

#[test]
fn a_closure_runs_again_if_its_group_fails_and_the_last_run_counts() {
    let mut side = shop();
    let mut runs = 0;
    let placed = queue(&side, move |transaction| {
        runs += 1;
        place(transaction, 10 + runs)?;
        Ok(runs)
    });
    let mut failing = side.queue(&Order::Fail, &[], at(0));
    side.run();
    assert_eq!(outcome(placed).unwrap(), 2);
    assert!(answer(&mut failing).contains("Err"));
    assert_eq!(orders(&mut side), [12]);
    assert_eq!(claimable(&mut side), ["order-12"]);
}

/// Such statements would leave memory behind the file, or change how the writer works.
#[test]
fn statements_that_are_the_writers_are_refused() {
    let mut side = shop();
    transact(&mut side, |transaction| place(transaction, 1)).unwrap();
    let statements = [
        "COMMIT",
        " commit ",
        "COMMIT;",
        "/* a */ COMMIT TRANSACTION",
        "-- a\nEND",
        "ROLLBACK",
        "ROLLBACK TO part",
        "ROLLBACK TRANSACTION TO SAVEPOINT \"PART\"",
        "RELEASE part",
        "RELEASE SAVEPOINT [Part]",
        "SAVEPOINT part",
        "SAVEPOINT mine",
        "BEGIN",
        "BEGIN IMMEDIATE",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "CREATE TEMP TABLE events (id)",
        "CREATE TABLE temp.deliveries (id)",
        "CREATE VIEW temp.deliveries AS SELECT 1",
        "CREATE VIRTUAL TABLE temp.deliveries USING fts5(id)",
        "CREATE TEMP VIEW events AS SELECT 1",
        "CREATE TEMP TRIGGER t AFTER INSERT ON orders BEGIN SELECT 1; END",
        "PRAGMA query_only = 1",
        "PRAGMA user_version = 99",
        "PRAGMA main.max_page_count = 1",
        "PRAGMA writable_schema = 1",
        "ANALYZE",
        "DELETE FROM events",
        "DELETE FROM main.\"EVENTS\"",
        "UPDATE deliveries SET due_at = NULL",
        "INSERT INTO endpoints DEFAULT VALUES",
        "REPLACE INTO counters VALUES ('event', 1)",
        "DROP TABLE attempts",
        "DROP VIEW deliveries_view",
        "DROP INDEX deliveries_due",
        "ALTER TABLE events RENAME TO away",
        "CREATE INDEX mine ON events (type)",
        "CREATE TRIGGER t AFTER INSERT ON events BEGIN SELECT 1; END",
        "WITH x AS (SELECT 1) DELETE FROM deliveries",
        "CREATE TRIGGER t AFTER INSERT ON orders BEGIN DELETE FROM events; END;
         INSERT INTO orders (id) VALUES (99)",
    ];
    for statement in statements {
        for in_batch in [false, true] {
            let told = transact(&mut side, move |transaction| {
                transaction.execute("INSERT INTO orders (id) VALUES (2)", ())?;
                let refused = if in_batch {
                    transaction.execute_batch(statement)
                } else {
                    transaction.execute(statement, ()).map(drop)
                };
                let Err(refused) = refused else { panic!("{statement} ran") };
                // It still is a transaction, and can go on.
                transaction.execute("DELETE FROM orders WHERE id IN (2, 99)", ())?;
                transaction.execute("DROP TRIGGER IF EXISTS t", ())?;
                Ok(refused.to_string())
            });
            let told = told.unwrap();
            let is_two = statement.contains(";\n") && !in_batch;
            let expected = if is_two { "ultiple" } else { "return an error" };
            assert!(told.contains(expected), "{statement}: {told}");
        }
    }
    assert_eq!(orders(&mut side), [1]);
    assert_eq!(side.rows()["events"].len(), 1);
    assert_eq!(claimable(&mut side), ["order-1"]);
}

#[test]
fn a_transaction_can_change_the_schema_and_that_is_rolled_back_too() {
    let mut side = shop();
    let changes = "
        CREATE TABLE customers (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL);
        CREATE INDEX customers_name ON customers (name);
        CREATE VIEW named AS SELECT name FROM customers;
        CREATE TRIGGER ordered AFTER INSERT ON orders BEGIN
            INSERT INTO customers (name) VALUES (new.id);
        END;
        ALTER TABLE customers ADD COLUMN age INTEGER CHECK (age > 0);
        ALTER TABLE customers RENAME COLUMN age TO years;
        ALTER TABLE customers RENAME TO people;
        ALTER TABLE people DROP COLUMN years;
        CREATE VIRTUAL TABLE words USING fts5(word);
        INSERT INTO words VALUES ('a word');";
    let count = |transaction: &mut Transaction<'_>| {
        let count = "SELECT count(*) FROM people";
        transaction.query_row(count, (), |row| row.get::<_, i64>(0))
    };
    let refused: Outcome<()> = transact(&mut side, move |transaction| {
        transaction.execute_batch(changes)?;
        place(transaction, 1)?;
        assert_eq!(count(transaction)?, 1);
        Err("no".into())
    });
    assert!(matches!(refused, Err(TransactionError::Refused(_))), "{refused:?}");
    let found = transact(&mut side, move |transaction| {
        assert!(count(transaction).unwrap_err().to_string().contains("no such table"));
        transaction.execute_batch(changes)?;
        place(transaction, 2)?;
        let word = "SELECT word FROM words WHERE words MATCH 'word'";
        let found = transaction.query_row(word, (), |row| row.get::<_, String>(0)).optional()?;
        assert_eq!(count(transaction)?, 1);
        Ok(found)
    });
    assert_eq!(found.unwrap().as_deref(), Some("a word"));
    assert_eq!(claimable(&mut side), ["order-2"]);
    side.publish("after", "wanted", at(0));
    assert_eq!(claimable(&mut side), ["after"]);
}

/// Goal: a statement that ends the whole transaction commits nothing by halves. Method: a conflict
/// with `OR ROLLBACK`, which the closure ignores, between commands of others.
#[test]
fn a_statement_that_ends_the_transaction_costs_its_own_command_alone() {
    let mut side = shop();
    transact(&mut side, |transaction| place(transaction, 1)).unwrap();
    let mut before = side.queue(&publish(2), &[], at(0));
    let ending: Pending<()> = queue(&side, |transaction| {
        place(transaction, 3)?;
        transaction.execute("INSERT OR ROLLBACK INTO orders (id) VALUES (1)", ()).unwrap_err();
        for refused in [
            transaction.execute("INSERT INTO orders (id) VALUES (4)", ()).map(drop),
            transaction.execute_batch("INSERT INTO orders (id) VALUES (4)"),
        ] {
            assert!(refused.unwrap_err().to_string().contains("has ended the transaction"));
        }
        assert!(matches!(
            transaction.publish(&order_event(4)),
            Err(PublishInError::Store(StoreError::Unavailable { .. }))
        ));
        Ok(())
    });
    let after = queue(&side, |transaction| place(transaction, 5));
    side.run();
    assert!(answer(&mut before).contains("Created") && outcome(after).is_ok());
    let TransactionError::Store(StoreError::Unavailable { source }) = outcome(ending).unwrap_err()
    else {
        panic!("it was committed");
    };
    assert!(source.to_string().contains("UNIQUE constraint failed"), "{source}");
    assert_eq!(orders(&mut side), [1, 5]);
    assert_eq!(claimable(&mut side), ["event-2", "order-1", "order-5"]);
}

#[test]
fn a_statement_that_does_not_end_is_ended() {
    let mut side = shop();
    let mut before = side.queue(&publish(1), &[], at(0));
    let endless = "WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n)";
    let reading = queue(&side, move |transaction| {
        let count = format!("{endless} SELECT count(*) FROM n");
        Ok(transaction.query_row(&count, (), |row| row.get::<_, i64>(0))?)
    });
    let writing = queue(&side, move |transaction| {
        let insert = format!("{endless} INSERT INTO orders SELECT max(x), 'none' FROM n");
        Ok(transaction.execute(&insert, ())?)
    });
    let after = queue(&side, |transaction| place(transaction, 2));
    side.run();
    assert!(answer(&mut before).contains("Created") && outcome(after).is_ok());
    let refused = outcome(reading).unwrap_err();
    assert!(refused.to_string().contains("smaller transactions"), "{refused}");
    let error = outcome(writing).unwrap_err();
    let TransactionError::Store(StoreError::Unavailable { source }) = error else {
        panic!("{error:?}");
    };
    assert!(source.to_string().contains("smaller transactions"), "{source}");
    assert_eq!(claimable(&mut side), ["event-1", "order-2"]);
}

#[test]
fn a_constraint_that_does_not_hold_at_the_commit_costs_its_own_command_alone() {
    let mut side = shop();
    let table =
        "CREATE TABLE items (of INTEGER REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED)";
    transact(&mut side, move |transaction| Ok(transaction.execute_batch(table)?)).unwrap();
    let mut before = side.queue(&publish(1), &[], at(0));
    let orphan =
        queue(&side, |transaction| Ok(transaction.execute("INSERT INTO items VALUES (2)", ())?));
    let after = queue(&side, |transaction| place(transaction, 3));
    side.run();
    assert!(answer(&mut before).contains("Created") && outcome(after).is_ok());
    assert!(matches!(outcome(orphan), Err(TransactionError::Store(_))));
    assert_eq!(claimable(&mut side), ["event-1", "order-3"]);
}

#[test]
fn an_event_that_is_refused_leaves_the_transaction_as_it_was() {
    let mut side = shop();
    transact(&mut side, |transaction| place(transaction, 1)).unwrap();
    let again = transact(&mut side, |transaction| {
        transaction.execute("INSERT INTO orders (id) VALUES (2)", ())?;
        assert_eq!(transaction.last_insert_rowid(), 2);
        let other = Event::new("order.placed", "other").unwrap().id(EventId::new("order-1")?);
        let conflict = transaction.publish(&other).unwrap_err();
        assert!(matches!(conflict, PublishInError::Conflict(_)), "{conflict:?}");
        let large = Event::new("order.placed", "x".repeat(1 << 20)).unwrap();
        let large = transaction.publish(&large).unwrap_err();
        assert!(matches!(large, PublishInError::TooLarge { max: 1_048_576, .. }), "{large:?}");
        let late = Publication::new(&order_event(5)).deliver_at(Timestamp::now() + 91 * DAY);
        let late = transaction.publish(late).unwrap_err();
        assert!(matches!(late, PublishInError::TooFarAhead), "{late:?}");
        let mut labelled = order_event(6);
        labelled.tags = (0..100).map(|n| Tag::new(&n.to_string())).collect::<Result<_, _>>()?;
        let labelled = transaction.publish(&labelled).unwrap_err();
        assert!(matches!(labelled, PublishInError::Labels(_)), "{labelled:?}");
        Ok(transaction.publish(&order_event(1))?)
    });
    let again = again.unwrap();
    assert_eq!((again.status, again.deliveries), (PublishStatus::Duplicate, 1));
    assert_eq!(orders(&mut side), [1, 2]);
    assert_eq!(claimable(&mut side), ["order-1"]);
}

#[test]
fn a_transaction_says_when_and_where_an_event_is_delivered() {
    let mut side = shop();
    let tomorrow = Timestamp::now() + DAY;
    transact(&mut side, move |transaction| {
        transaction
            .publish(Publication::new(&order_event(1)).only([EndpointId::new("nobody")?]))?;
        Ok(transaction.publish(Publication::new(&order_event(2)).deliver_at(tomorrow))?)
    })
    .unwrap();
    let seconds = tomorrow.saturating_since(at(0)).as_secs();
    assert!(side.claim_all(clocks(seconds - 60)).is_empty());
    let claimed = side.claim_all(clocks(seconds + 60));
    let ids: Vec<String> = claimed.iter().map(|claimed| claimed.event.id.to_string()).collect();
    assert_eq!(ids, ["order-2"]);
}

/// The commands of one group see the rows of those before them.
#[test]
fn a_group_of_transactions_and_publications_agrees_on_ids() {
    let mut side = shop();
    let first = queue(&side, |transaction| place(transaction, 1));
    let again = queue(&side, |transaction| Ok(transaction.publish(&order_event(1))?));
    let mut refused: Awaited = side.queue(&publish(7), &[], at(0));
    side.run();
    assert_eq!(outcome(first).unwrap().status, PublishStatus::Created);
    assert_eq!(outcome(again).unwrap().status, PublishStatus::Duplicate);
    assert!(answer(&mut refused).contains("Created"));
    assert_eq!(claimable(&mut side), ["event-7", "order-1"]);
}

#[tokio::test]
async fn reads_see_the_rows_and_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteOptions::new(&path).open().await.unwrap();
    let table = "CREATE TABLE orders (id INTEGER PRIMARY KEY)";
    store.transaction(move |transaction| transaction.execute_batch(table)).await.unwrap();
    let read = |sql: &'static str| {
        store.read(move |connection| connection.query_row(sql, (), |row| row.get::<_, i64>(0)))
    };
    assert_eq!(read("SELECT count(*) FROM orders").await.unwrap(), 0);
    let refused = read("DELETE FROM orders RETURNING id").await.unwrap_err();
    let TransactionError::Refused(refused) = refused else { panic!("{refused:?}") };
    assert!(refused.to_string().contains("readonly"), "{refused}");
    let hide = |connection: &Connection| connection.execute_batch("CREATE TEMP TABLE events (id)");
    store.read(hide).await.unwrap();
    let panicked: Result<(), TransactionError<Refusal>> =
        store.read(|_| std::panic::panic_any("a bug of the application")).await;
    assert!(matches!(panicked, Err(TransactionError::Panicked)), "{panicked:?}");
    assert!(store.events(Query::default()).await.is_ok(), "the store has its own connections");
    let insert = "INSERT INTO orders VALUES (1)";
    store.transaction(move |transaction| transaction.execute(insert, ())).await.unwrap();
    assert_eq!(read("SELECT count(*) FROM orders").await.unwrap(), 1, "no old state");
}

/// Goal: an answered transaction survives a crash. Method: the files as they are after the answer,
/// while the store is still open.
#[tokio::test]
async fn an_answered_transaction_survives_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let store = SqliteStore::open(path("store.db")).await.unwrap();
    let table = "CREATE TABLE orders (id INTEGER PRIMARY KEY)";
    store.transaction(move |transaction| transaction.execute_batch(table)).await.unwrap();
    store.transaction(|transaction| place(transaction, 1)).await.unwrap();
    for end in ["", "-wal"] {
        std::fs::copy(path(&format!("store.db{end}")), path(&format!("after.db{end}"))).unwrap();
    }
    let store = SqliteStore::open(path("after.db")).await.unwrap();
    let count = "SELECT count(*) FROM orders JOIN events";
    let count = store.read(move |file| file.query_row(count, (), |row| row.get::<_, i64>(0)));
    assert_eq!(count.await.unwrap(), 1);
}
