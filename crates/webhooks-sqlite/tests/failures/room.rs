//! Failures of writing: a full store, a bad command.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join3, poll_fn};
use rusqlite::Connection;
use webhooks_core::{Event, Timestamp};
use webhooks_dispatch::{
    history::{HistoryStore as _, Query},
    monitor::MonitorStore as _,
    store::{
        DeliveryStore as _, OperationStore as _, PruneRequest, Settled, Settlement, StoreError,
    },
};
use webhooks_registry::Endpoint;
use webhooks_sqlite::{PublishInError, SqliteOptions, TransactionError};

use crate::{
    SECRET, chain, claim, claim_all, crm, event, key, now, open_with_endpoint, publish, register,
    settlement,
};

/// Goal: a full store refuses what is new, settles all that it accepted, and room heals it. Method: a
/// limit on the file's size; then responses that are larger than all the room that is left.
#[tokio::test]
async fn a_full_store_refuses_new_events_and_settles_what_it_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteOptions::new(&path).max_bytes(400_000).open().await.unwrap();
    register(&store, crm(), Endpoint::new("https://example.com/", SECRET).unwrap()).await;
    let large = "x".repeat(5_000);
    let mut accepted = 0;
    let error = loop {
        let id = format!("event-{accepted}");
        match store.publish(vec![event(&id, &large)], now()).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert!(accepted > 10);
    let claimed = claim(&store).await;
    assert_eq!(claimed.len(), accepted, "what was accepted is delivered");
    drop(claimed);
    store.close().await;

    let store = SqliteOptions::new(&path).max_bytes(400_000).open().await.unwrap();
    let claimed = claim(&store).await;
    assert_eq!(claimed.len(), accepted, "also after a restart");
    store.cancel(vec![claimed[0].claim.delivery], now()).await.unwrap();
    let mut settlements: Vec<Settlement> = claimed[1..].iter().map(settlement).collect();
    for settlement in &mut settlements {
        let attempt = settlement.attempt.as_mut().unwrap();
        attempt.response = Bytes::from("y".repeat(4_000));
    }
    for batch in settlements.chunks(7) {
        let settled = store.settle(batch.to_vec(), now()).await.unwrap();
        assert!(settled.iter().all(|settled| matches!(settled, Settled::Recorded { .. })));
        // It stays full for those who publish.
        let refused = store.publish(vec![event("another", &large)], now()).await.unwrap_err();
        assert!(matches!(refused, StoreError::Full { .. }), "{refused:?}");
    }
    let statistics = store.statistics(key(), Timestamp::UNIX_EPOCH).await.unwrap();
    let delivered = u64::try_from(accepted - 1).unwrap();
    assert_eq!((statistics.delivered, statistics.cancelled), (delivered, 1));
    let attempts = store.attempts(Query::default()).await.unwrap().items.len();
    assert!((1..accepted - 1).contains(&attempts), "{attempts} of {accepted} were recorded");
    let (_, errors) = claim_all(&store).await;
    assert!(errors.iter().any(|error| chain(error).contains("were not recorded")), "{errors:?}");
    let before = now() + Duration::from_secs(1);
    let request = PruneRequest { tenant: None, before, limit: 10, now: before };
    while store.prune(request.clone()).await.unwrap() > 0 {}
    publish(&store, "there-is-room-again").await;
}

/// Goal: transactions leave the reserve to accepted events, whether they publish or only store rows,
/// and rows that go make room.
#[tokio::test]
async fn transactions_leave_the_reserve_to_accepted_events() {
    type Refusal = Box<dyn std::error::Error + Send + Sync>;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteOptions::new(&path).max_bytes(400_000).open().await.unwrap();
    register(&store, crm(), Endpoint::new("https://example.com/", SECRET).unwrap()).await;
    let table = "CREATE TABLE notes (id INTEGER PRIMARY KEY, note TEXT)";
    store.transaction(move |transaction| transaction.execute_batch(table)).await.unwrap();
    let insert = "INSERT INTO notes (note) VALUES (zeroblob(5000))";
    let full = loop {
        match store.transaction(move |transaction| transaction.execute(insert, ())).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(full, TransactionError::Store(StoreError::Full { .. })), "{full:?}");
    let event = Event::new("created", "x".repeat(10_000)).unwrap();
    let published = store.transaction(move |transaction| {
        let refused = transaction.publish(&event).unwrap_err();
        assert!(matches!(refused, PublishInError::Store(StoreError::Full { .. })), "{refused:?}");
        Ok::<_, Refusal>(())
    });
    published.await.unwrap();
    // SQLite ends the whole transaction, whatever the closure makes of it.
    let large = "INSERT INTO notes (note) VALUES (zeroblob(1000000))";
    let beyond = store.transaction(move |transaction| {
        transaction.execute(large, ()).unwrap_err();
        Ok::<_, Refusal>(())
    });
    let beyond = beyond.await.unwrap_err();
    assert!(matches!(beyond, TransactionError::Store(StoreError::Full { .. })), "{beyond:?}");
    let delete = "DELETE FROM notes WHERE id % 2 = 0";
    store.transaction(move |transaction| transaction.execute(delete, ())).await.unwrap();
    let event = Event::new("created", "y".repeat(10_000)).unwrap();
    store.transaction(move |transaction| transaction.publish(&event)).await.unwrap();
    assert_eq!(store.deliveries(Query::default()).await.unwrap().items.len(), 1);
}

/// Goal: one settlement that cannot be kept stops no other of its batch, and its claim goes on.
/// Method: a trigger refuses the row of one delivery, and the attempt of another.
#[tokio::test]
async fn one_settlement_that_cannot_be_kept_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_endpoint(&folder).await;
    for n in 1..=4 {
        publish(&store, &format!("event-{n}")).await;
    }
    let claimed = claim(&store).await;
    let other = Connection::open(folder.path().join("store.db")).unwrap();
    let refuse = "
        CREATE TRIGGER no_row BEFORE UPDATE ON deliveries WHEN new.number = 2
        BEGIN SELECT RAISE(ABORT, 'not this one'); END;
        CREATE TRIGGER no_attempt BEFORE INSERT ON attempts WHEN new.delivery = 3
        BEGIN SELECT RAISE(ABORT, 'nor this one'); END;";
    other.execute_batch(refuse).unwrap();
    let settlements: Vec<Settlement> = claimed.iter().map(settlement).collect();
    let settled = store.settle(settlements.clone(), now()).await.unwrap();
    let kept = settled.iter().map(|settled| matches!(settled, Settled::Recorded { .. }));
    assert_eq!(kept.collect::<Vec<_>>(), [true, false, true, true]);
    let page = store.attempts(Query::default()).await.unwrap();
    let attempts: Vec<u64> = page.items.iter().map(|found| found.delivery.as_u64()).collect();
    assert_eq!(attempts, [4, 1]);
    let (_, errors) = claim_all(&store).await;
    let told: Vec<String> = errors.iter().map(|error| chain(error)).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("not this one") && told[1].contains("nor this one"), "{told:?}");
    // Alone, it is refused as a whole.
    let alone = vec![settlements[1].clone()];
    let refused = store.settle(alone.clone(), now()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused:?}");
    other.execute_batch("DROP TRIGGER no_row").unwrap();
    let settled = store.settle(alone, now()).await.unwrap();
    assert!(matches!(settled[0], Settled::Recorded { .. }), "its claim went on");
}

/// Goal: one bad command fails alone. Method: a lock keeps the writer waiting, so that a publish, a
/// settlement that a trigger refuses, and another publish gather in one group.
#[tokio::test]
async fn one_bad_command_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with_endpoint(&folder).await;
    publish(&store, "first").await;
    let claimed = claim(&store).await;
    let other = Connection::open(folder.path().join("store.db")).unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON deliveries
        BEGIN SELECT RAISE(ABORT, 'not now'); END;";
    other.execute_batch(refuse).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let waiting = publish(&store, "keeps-the-writer-busy");
    let good = publish(&store, "good");
    let bad = store.settle(vec![settlement(&claimed[0])], now());
    let good_too = publish(&store, "good-too");
    let mut all = Box::pin(join(waiting, join3(good, bad, good_too)));
    // Asked once, all have handed their commands over; then the lock goes.
    poll_fn(|context| {
        assert!(all.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    other.execute_batch("COMMIT").unwrap();
    let ((), ((), settled, ())) = all.await;
    assert!(matches!(settled, Err(StoreError::Unavailable { .. })), "{settled:?}");
    let events = store.events(Query::default()).await.unwrap();
    assert_eq!(events.items.len(), 4);
    // The claim goes on, and can be settled once the reason is gone.
    other.execute_batch("DROP TRIGGER refuse").unwrap();
    let settled = store.settle(vec![settlement(&claimed[0])], now()).await.unwrap();
    assert_eq!(settled.len(), 1);
}
