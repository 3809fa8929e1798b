//! Refusals of the database, and rows that others have locked.

use webhooks_core::DeliveryId;
use webhooks_dispatch::{Undelivered, store::StoreError};

use super::*;

/// Goal: a user of the store can distinguish a full disk and broken data from a server that is
/// away. Method: a trigger raises the server's own codes.
#[tokio::test]
async fn a_full_disk_and_broken_data_are_told_as_such() {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    let mut admin = connect(&url).await;
    let event = || vec![SerializedEvent::new(&Event::new("created", 1).unwrap())];
    for (code, is_told) in [
        ("53100", (|error| matches!(error, StoreError::Full { .. })) as fn(&StoreError) -> bool),
        ("XX001", |error| matches!(error, StoreError::Corrupt { .. })),
        ("XX002", |error| matches!(error, StoreError::Corrupt { .. })),
        ("53400", |error| matches!(error, StoreError::Unavailable { .. })),
    ] {
        let refuse = format!(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE 'no' USING ERRCODE = '{code}'; END $$;
             CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON webhooks.events
             FOR EACH ROW EXECUTE FUNCTION refuse()"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(refuse)).execute(&mut admin).await.unwrap();
        let error = store.publish(event(), Timestamp::now()).await.unwrap_err();
        assert!(is_told(&error), "{code}: {error:?}");
    }
    sqlx::raw_sql("DROP TRIGGER refuse ON webhooks.events").execute(&mut admin).await.unwrap();
    assert!(store.publish(event(), Timestamp::now()).await.unwrap()[0].is_ok());
}

/// Goal: a report that reads an old partition delays the drop of that partition only; retention
/// goes on later. Method: a transaction has read the events of long ago and stays open.
#[tokio::test]
async fn retention_waits_for_whoever_reads_and_goes_on_later() {
    let url = Cluster::shared().database().await;
    let options = PostgresOptions::new(&url).unwrap().partition_width(Duration::from_secs(1));
    let store = options.open().await.unwrap();
    let long_ago = Timestamp::now().saturating_sub(Duration::from_secs(60));
    let event = Event::new("created", 1).unwrap().id(EventId::new("old").unwrap());
    let published = store.publish(vec![SerializedEvent::new(&event)], long_ago).await.unwrap();
    assert!(published[0].is_ok());
    let mut reader = connect(&url).await;
    let mut report = reader.begin().await.unwrap();
    let count = "SELECT count(*) FROM webhooks.events";
    let read: i64 = sqlx::query_scalar(count).fetch_one(&mut *report).await.unwrap();
    assert_eq!(read, 1);
    let before = Timestamp::now().saturating_sub(Duration::from_secs(30));
    assert_eq!(prune(&store, before).await, 1);
    assert_eq!(prune(&store, before).await, 0);
    let old = "SELECT count(*) FROM webhooks.partitions WHERE end_at < now() - interval '30 s'";
    let old = async || -> i64 {
        sqlx::query_scalar(old).fetch_one(&mut connect(&url).await).await.unwrap()
    };
    assert_eq!(old().await, 1);
    publish(&store, ["meanwhile".to_owned()]).await;
    report.commit().await.unwrap();
    assert_eq!(prune(&store, before).await, 0);
    assert_eq!(old().await, 0);
    assert_eq!(kept(&store).await, ["meanwhile"]);
}

/// Returns the sessions that serve the database, except the one that asks.
async fn sessions(url: &str) -> BTreeSet<i32> {
    let sessions = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend'
          AND pid <> pg_backend_pid()";
    let sessions: Vec<i32> =
        sqlx::query_scalar(sessions).fetch_all(&mut connect(url).await).await.unwrap();
    sessions.into_iter().collect()
}

/// Goal: a refused request costs no connection. Method: the sessions from before all wrong requests
/// are still there after them.
#[tokio::test]
async fn a_wrong_request_costs_no_connection() {
    let url = Cluster::shared().database().await;
    let store = open_beating(&url, Duration::from_secs(60)).await;
    register(&store, "crm", endpoint()).await;
    register(&store, "off", endpoint().inactive()).await;
    publish(&store, ["open".to_owned()]).await;
    let open = store.deliveries(Query::default()).await.unwrap().items[0].id;
    let before = sessions(&url).await;
    for _ in 0..10 {
        store.unregister(key("nope"), Timestamp::now()).await.unwrap_err();
        store
            .set_state(key("nope"), StateChange::Disable(DisableReason::Gone), Timestamp::now())
            .await
            .unwrap_err();
        let resume = store.set_state(key("off"), StateChange::Resume, Timestamp::now());
        resume.await.unwrap_err();
        for replay in [
            Replay::Delivery(open),
            Replay::Delivery(DeliveryId::from_u64(1)),
            Replay::of_endpoint(key("nope"), Undelivered::ALL),
            Replay::of_endpoint(key("off"), Undelivered::MISSED),
        ] {
            store.replay(replay_request(replay, Timestamp::now())).await.unwrap_err();
        }
        let cancelled =
            store.cancel(vec![DeliveryId::from_u64(1)], Timestamp::now()).await.unwrap();
        assert!(cancelled[0].is_err());
    }
    let after = sessions(&url).await;
    assert!(before.is_subset(&after), "{before:?} served before, {after:?} after");
}

async fn prune(store: &PostgresStore, before: Timestamp) -> usize {
    let request = PruneRequest { tenant: None, before, limit: 10, now: Timestamp::now() };
    store.prune(request).await.unwrap()
}
