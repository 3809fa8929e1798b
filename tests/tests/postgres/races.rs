//! Races between processes: an open transaction of the test stops a call between two of its steps
//! while another process acts.

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use webhooks_core::{DeliveryId, DeliveryStatus};
use webhooks_dispatch::history::FeedRequest;
use webhooks_dispatch::{OperationError, Undelivered, store::Replayed};

use super::preclaimed::{open_claiming, start_faulty_proxy, waiting};
use super::*;

/// Returns the delivery of an event.
async fn delivery_of(store: &PostgresStore, event: &str) -> DeliveryId {
    let deliveries = store.deliveries(Query::default()).await.unwrap().items;
    deliveries.iter().find(|one| one.event.to_string() == event).unwrap().id
}

/// Returns two stores of a database, and a delivery that failed there.
async fn with_a_failed_one(url: &str) -> (PostgresStore, PostgresStore, DeliveryId) {
    let (here, there) = (open(url).await, open(url).await);
    register(&here, "crm", endpoint()).await;
    publish(&here, ["a".to_owned()]).await;
    settle(&here, &claim(&here, 10).await, Outcome::Failed).await;
    let a = delivery_of(&here, "a").await;
    (here, there, a)
}

async fn replay(store: &PostgresStore, replay: Replay) -> Result<Replayed, OperationError> {
    store.replay(replay_request(replay, Timestamp::now())).await
}

/// Begins a call, which then goes on by itself.
fn begin<T: Send + 'static>(
    store: &PostgresStore,
    call: impl AsyncFnOnce(PostgresStore) -> T + Send + 'static,
) -> JoinHandle<T> {
    let store = store.clone();
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(call(store)))
}

/// Waits until `count` calls wait for locks.
async fn are_blocked(url: &str, count: i64) {
    const BLOCKED: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let looker = Mutex::new(connect(url).await);
    eventually(async || {
        let looking = sqlx::query_scalar(BLOCKED);
        let blocked: i64 = looking.fetch_one(&mut *looker.lock().await).await.unwrap();
        (blocked >= count).then_some(())
    })
    .await;
}

async fn run(connection: &mut sqlx::PgConnection, statements: &'static str) {
    sqlx::raw_sql(statements).execute(connection).await.unwrap();
}

/// Goal: a cancelled delivery is not claimed any more, whichever process cancelled it, and if it is
/// replayed afterwards it is sent once. Method: it was preclaimed in another process's memory.
#[tokio::test]
async fn what_another_process_cancels_after_it_was_handed_over_is_not_claimed() {
    let url = Cluster::shared().database().await;
    let (here, there) = (open_claiming(&url).await, open(&url).await);
    publish(&here, ["a".to_owned(), "b".to_owned(), "c".to_owned()]).await;
    assert_eq!(waiting(&url).await, (3, 3));
    for event in ["a", "b"] {
        there.cancel(vec![delivery_of(&there, event).await], Timestamp::now()).await.unwrap();
    }
    let b = delivery_of(&there, "b").await;
    assert_eq!(replay(&there, Replay::Delivery(b)).await.unwrap().deliveries, 1);
    let mut claimed = claim_until(&here, 2).await;
    claimed.sort_by_key(|one| one.claim.delivery);
    assert_eq!(events(&claimed), ["b", "c"]);
    let settled = settle(&here, &claimed, Outcome::Delivered).await;
    assert!(
        settled.iter().all(|settled| matches!(settled, Settled::Recorded { .. })),
        "{settled:?}"
    );
}

/// Claims until it has `count` deliveries, and once more.
async fn claim_until(store: &PostgresStore, count: usize) -> Vec<Claimed> {
    let mut claimed = Vec::new();
    while claimed.len() < count {
        claimed.extend(claim_at_last(store, 10).await);
    }
    claimed.extend(claim(store, 10).await);
    claimed
}

/// Goal: a delivery that was preclaimed before its endpoint was disabled does not come back when
/// the endpoint is enabled, unless it is replayed; in that case it is sent once.
#[tokio::test]
async fn what_was_handed_over_before_a_disablement_goes_out_only_if_it_is_replayed() {
    let url = Cluster::shared().database().await;
    let (here, there) = (open_claiming(&url).await, open(&url).await);
    publish(&here, ["a".to_owned(), "b".to_owned()]).await;
    assert_eq!(waiting(&url).await, (2, 2));
    there.set_state(key("crm"), GONE, Timestamp::now()).await.unwrap();
    there.set_state(key("crm"), StateChange::Enable, Timestamp::now()).await.unwrap();
    let b = delivery_of(&there, "b").await;
    assert_eq!(replay(&there, Replay::Delivery(b)).await.unwrap().deliveries, 1);
    let claimed = claim_until(&here, 1).await;
    assert_eq!(events(&claimed), ["b"]);
    let settled = settle(&here, &claimed, Outcome::Delivered).await;
    assert!(matches!(settled[..], [Settled::Recorded { .. }]), "{settled:?}");
}

async fn claim_without(store: &PostgresStore, busy: &str) -> Vec<Claimed> {
    let (now, lease) = (SystemClock.clocks(), Duration::from_secs(60));
    let busy = store.get(key(busy)).await.unwrap().unwrap().number;
    let (bytes, room) = (usize::MAX, Room::from_iter([busy]));
    let request = ClaimRequest { now, lease, limit: 1_000, per_endpoint: 10, bytes, room };
    store.claim(request).await.unwrap()
}

/// Goal: a retry of an ordered endpoint is not claimed before it is due. Method: a claim looks, and
/// waits for a row of another endpoint that must be put into order. In the meantime another worker
/// joins, claims, and settles everything as a retry in an hour.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_slow_takes_no_retry_before_it_is_due() {
    let url = Cluster::shared().database().await;
    let slow = open(&url).await;
    register(&slow, "late", endpoint()).await;
    publish(&slow, ["late".to_owned()]).await;
    register(&slow, "late", endpoint().ordered()).await;
    // Enough that the other worker gets some.
    for number in 0..16 {
        register(&slow, &format!("crm-{number}"), endpoint().ordered()).await;
    }
    publish(&slow, ["a".to_owned()]).await;
    let mut lock = connect(&url).await;
    run(
        &mut lock,
        "BEGIN; SELECT id FROM webhooks.pending_deliveries WHERE due_at > 'epoch' FOR UPDATE",
    )
    .await;
    let claiming = begin(&slow, async |slow| claim(&slow, 10).await);
    are_blocked(&url, 1).await;
    let quick = open(&url).await;
    let claimed = eventually(async || {
        let claimed = claim_without(&quick, "late").await;
        (!claimed.is_empty()).then_some(claimed)
    })
    .await;
    let due_at = Timestamp::now() + Duration::from_secs(3_600);
    settle(&quick, &claimed, Outcome::Retrying { due_at }).await;
    run(&mut lock, "COMMIT").await;
    let retried: BTreeSet<_> = claimed.iter().map(|one| one.claim.delivery).collect();
    let taken = claiming.await.unwrap();
    let early: Vec<_> = taken.iter().filter(|one| retried.contains(&one.claim.delivery)).collect();
    assert!(early.is_empty(), "{} are an hour early", early.len());
}

/// Goal: if the answer to a claim is lost, its next try gets the same deliveries, ordered or not,
/// and does not wait for the lease to end. Method: a proxy drops the answer to a claim, which it
/// recognizes by its lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_is_lost_takes_what_it_had_claimed() {
    const LEASE: u64 = 0x0000_000a_bcde_f123;
    const BYTES: &[u8] = &LEASE.to_be_bytes();
    let url = Cluster::shared().database().await;
    let (database, folder) = url.split_once("?host=").unwrap();
    let proxy = start_faulty_proxy(format!("{folder}/.s.PGSQL.5432").into(), BYTES);
    let (here, there) = (open(&format!("{database}?host={proxy}")).await, open(&url).await);
    register(&here, "crm", endpoint()).await;
    register(&here, "shop", endpoint().ordered()).await;
    publish(&there, ["a".to_owned(), "b".to_owned()]).await;
    let (now, lease) = (SystemClock.clocks(), Duration::from_micros(LEASE));
    let (bytes, room) = (usize::MAX, Room::new());
    let request = ClaimRequest { now, lease, limit: 1_000, per_endpoint: 10, bytes, room };
    let claimed = here.claim(request).await.unwrap();
    assert_eq!(claimed.len(), 3, "two, and the first of the ordered endpoint");
    assert_eq!(waiting(&url).await, (4, 3));
    let settled = settle(&here, &claimed, Outcome::Delivered).await;
    assert!(
        settled.iter().all(|settled| matches!(settled, Settled::Recorded { .. })),
        "{settled:?}"
    );
}

/// Goal: an answer describes a single moment: no caller gets the error that a delivery cannot be
/// cancelled because it is pending. Method: a delivery that failed is replayed after a cancellation
/// did not find it among the pending ones, and before that looks for the reason.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_replayed_while_it_is_cancelled_ends_by_an_order_of_the_two() {
    let url = Cluster::shared().database().await;
    let (_here, there, a) = with_a_failed_one(&url).await;
    let mut lock = connect(&url).await;
    run(&mut lock, "BEGIN; LOCK TABLE webhooks.events").await;
    let cancelling =
        begin(&there, async move |there| there.cancel(vec![a], Timestamp::now()).await);
    are_blocked(&url, 1).await;
    run(
        &mut lock,
        "WITH ended AS (DELETE FROM webhooks.ended_deliveries RETURNING *)
         INSERT INTO webhooks.pending_deliveries (id, endpoint, due_at, event_at, queued_at)
         SELECT id, endpoint, now(), event_at, now() FROM ended; COMMIT",
    )
    .await;
    let cancelled = cancelling.await.unwrap();
    assert!(cancelled.is_ok(), "it was replayed, and then cancelled: {cancelled:?}");
}

/// Goal: of two replays of one delivery at once, one makes it due, and the other gets the answer
/// that it is pending.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_replayed_by_one_of_two_who_replay_it_at_once() {
    let url = Cluster::shared().database().await;
    let (here, there, a) = with_a_failed_one(&url).await;
    let mut lock = connect(&url).await;
    run(&mut lock, "BEGIN; SELECT 1 FROM webhooks.endpoints FOR UPDATE").await;
    let one = begin(&here, async move |here| replay(&here, Replay::Delivery(a)).await);
    let several = Replay::Deliveries(vec![a, a]);
    let other = begin(&there, async move |there| replay(&there, several).await);
    are_blocked(&url, 2).await;
    run(&mut lock, "COMMIT").await;
    let (one, several) = (one.await.unwrap(), other.await.unwrap().unwrap().deliveries);
    match one {
        Ok(one) => assert_eq!((one.deliveries, several), (1, 0)),
        Err(OperationError::WrongStatus { status: DeliveryStatus::Pending, .. }) => {
            assert_eq!(several, 1);
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// Goal: replays cannot deadlock. Method: two replays of the deliveries of two endpoints, in
/// opposite orders.
#[tokio::test(flavor = "multi_thread")]
async fn replays_of_several_deliveries_at_once_do_not_wait_in_a_circle() {
    let url = Cluster::shared().database().await;
    let (here, there) = (open(&url).await, open(&url).await);
    register(&here, "crm", endpoint()).await;
    register(&here, "shop", endpoint()).await;
    publish(&here, ["a".to_owned()]).await;
    settle(&here, &claim(&here, 10).await, Outcome::Failed).await;
    let deliveries = here.deliveries(Query::default()).await.unwrap().items;
    let ids: Vec<_> = deliveries.iter().map(|one| one.id).collect();
    assert_eq!(ids.len(), 2);
    let mut lock = connect(&url).await;
    run(&mut lock, "BEGIN; SELECT 1 FROM webhooks.endpoints FOR UPDATE").await;
    let (some, others) = (ids.clone(), ids.into_iter().rev().collect());
    let some = begin(&here, async |here| replay(&here, Replay::Deliveries(some)).await);
    let others = begin(&there, async |there| replay(&there, Replay::Deliveries(others)).await);
    are_blocked(&url, 2).await;
    run(&mut lock, "COMMIT").await;
    let (some, others) = (some.await.unwrap().unwrap(), others.await.unwrap().unwrap());
    assert_eq!(some.deliveries + others.deliveries, 2);
}

/// Goal: a replay reaches the deliveries that another process is just cancelling, because the
/// endpoint was disabled. Method: a delivery is left over when the endpoint is disabled, and is
/// being cancelled when cancelled deliveries are replayed.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_reaches_what_another_process_cancels_just_now() {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    register(&store, "crm", endpoint()).await;
    publish(&store, ["a".to_owned()]).await;
    let mut lock = connect(&url).await;
    run(&mut lock, "BEGIN; SELECT 1 FROM webhooks.pending_deliveries FOR UPDATE").await;
    store.set_state(key("crm"), GONE, Timestamp::now()).await.unwrap();
    store.set_state(key("crm"), StateChange::Enable, Timestamp::now()).await.unwrap();
    run(
        &mut lock,
        "COMMIT; BEGIN; SELECT webhooks.cancel_closed(endpoint, 10, now()) FROM webhooks.pending_deliveries",
    )
    .await;
    let cancelled = Replay::of_endpoint(key("crm"), Undelivered::CANCELLED);
    let replaying = begin(&store, async |store| {
        replay_all(&store, replay_request(cancelled, Timestamp::now())).await.unwrap()
    });
    let looker = Mutex::new(connect(&url).await);
    eventually(async || {
        const BLOCKED: &str = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let looking = sqlx::query_scalar(BLOCKED);
        let blocked: i64 = looking.fetch_one(&mut *looker.lock().await).await.unwrap();
        (blocked > 0 || replaying.is_finished()).then_some(())
    })
    .await;
    run(&mut lock, "COMMIT").await;
    assert_eq!(replaying.await.unwrap(), 1);
}

/// Goal: an ordered endpoint goes on at once when its first delivery is cancelled, even if a retry
/// of it was settled just before. Method: the settlement is committed while the cancellation waits
/// for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_just_after_its_retry_was_settled_blocks_nothing() {
    let url = Cluster::shared().database().await;
    let (here, there) = (open(&url).await, open(&url).await);
    register(&here, "crm", endpoint().ordered()).await;
    publish(&here, ["a".to_owned(), "b".to_owned()]).await;
    assert_eq!(events(&claim(&here, 10).await), ["a"]);
    let a = delivery_of(&here, "a").await;
    let mut settling = connect(&url).await;
    run(
        &mut settling,
        "BEGIN;
         UPDATE webhooks.pending_deliveries SET leased_until = NULL, token = NULL, attempts = 1
         WHERE token IS NOT NULL;
         UPDATE webhooks.endpoints SET blocked_until = now() + interval '1 hour'",
    )
    .await;
    let cancelling =
        begin(&there, async move |there| there.cancel(vec![a], Timestamp::now()).await);
    are_blocked(&url, 1).await;
    run(&mut settling, "COMMIT").await;
    cancelling.await.unwrap().unwrap();
    assert_eq!(events(&claim_at_last(&here, 10).await), ["b"]);
}

/// Goal: events whose transaction commits late, but that were numbered before, do not start while a
/// delivery of their ordered endpoint is in flight. Method: a hundred of them, which come before it.
#[tokio::test]
async fn a_publish_that_commits_late_starts_nothing_beside_the_one_in_flight() {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    register(&store, "crm", endpoint().ordered()).await;
    let mut late = connect(&url).await;
    run(&mut late, "BEGIN").await;
    for n in 0..100 {
        let id = EventId::new(&format!("late-{n:02}")).unwrap();
        publish_in(&mut late, &Event::new("created", 1).unwrap().id(id)).await.unwrap();
    }
    publish(&store, ["early".to_owned()]).await;
    let in_flight = claim_at_last(&store, 10).await;
    assert_eq!(events(&in_flight), ["early"]);
    let mut changes = store.changes();
    run(&mut late, "COMMIT").await;
    // Before the notice, a claim would not ask the database.
    timeout(DEADLINE, changes.changed()).await.unwrap();
    assert!(claim(&store, 10).await.is_empty());
    settle(&store, &in_flight, Outcome::Delivered).await;
    assert_eq!(events(&claim_at_last(&store, 10).await), ["late-00"]);
}

/// Goal: a feed gives each event once, whatever the order of the commits. Method: a transaction publishes
/// before others and stays open, one more rolls a savepoint back, and a third takes numbers for nothing.
#[tokio::test]
async fn a_feed_waits_for_the_open_transaction_and_skips_the_one_that_rolled_back() {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    let (mut late, mut gone) = (connect(&url).await, connect(&url).await);
    let event = |id: &str| Event::new("created", 1).unwrap().id(EventId::new(id).unwrap());
    publish(&store, ["first".to_owned()]).await;
    for transaction in [&mut late, &mut gone] {
        run(transaction, "BEGIN").await;
    }
    run(&mut late, "SAVEPOINT before").await;
    publish_in(&mut late, &event("undone")).await.unwrap();
    run(&mut late, "ROLLBACK TO SAVEPOINT before").await;
    publish_in(&mut late, &event("late")).await.unwrap();
    publish_in(&mut gone, &event("gone")).await.unwrap();
    publish(&store, ["early".to_owned()]).await;
    publish_in(&mut late, &event("late-2")).await.unwrap();
    let (tenant, after, since) = (None, None, None);
    let mut request = FeedRequest { tenant, after, since, limit: 10, max_bytes: usize::MAX };
    let mut read = async || {
        let page = store.feed(request.clone()).await.unwrap();
        request.after = Some(page.next);
        let ids = page.items.iter().map(|(_, event)| event.summary.id.to_string());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(read().await, ["first"]);
    run(&mut gone, "ROLLBACK").await;
    assert!(read().await.is_empty());
    run(&mut late, "COMMIT").await;
    assert_eq!(read().await, ["late", "early", "late-2"]);
    assert!(read().await.is_empty());
}
