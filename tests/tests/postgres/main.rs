//! The shared store on a real PostgreSQL: the suite for every store, and the properties of this
//! one.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::PgListener;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use webhooks_core::{EndpointId, Event, EventId, Timestamp};
use webhooks_dispatch::{
    Engine, FnTransport, OperationError, Replay,
    clock::{Clock as _, Now, SystemClock},
    history::{HistoryStore as _, Query},
    monitor::MonitorStore as _,
    store::{
        ClaimRequest, Claimed, DeliveryStore as _, OperationStore, Outcome, PruneRequest,
        ReplayMode, ReplayRequest, Room, SerializedEvent, Settled, Settlement,
    },
};
use webhooks_postgres::{PostgresOptions, PostgresStore, publish_in};
use webhooks_registry::{
    DisableReason, Endpoint, EndpointKey,
    seal::SealingKey,
    store::{EndpointStore, RegisterRequest, Registered, StateChange},
};
use webhooks_tests::postgres::{Cluster, connect, simulate_leases};

mod conforming;
mod keys;
mod listening;
mod order;
mod pages;
mod payloads;
mod preclaimed;
mod probing;
mod races;
mod reaching;
mod refusals;
mod service;
mod sessions;
mod unheard;

const GONE: StateChange = StateChange::Disable(DisableReason::Gone);

const SECRET: &str = "my-very-own-secret";

/// The longest time that a test waits for something that must happen.
const DEADLINE: Duration = Duration::from_secs(60);

/// Returns the first portion of a replay that begins now.
fn replay_request(replay: Replay, now: Timestamp) -> ReplayRequest {
    let mode = ReplayMode::Replay;
    ReplayRequest { replay, limit: 100, started_at: now, now, after: None, mode }
}

/// Replays portion after portion; returns the number of deliveries.
async fn replay_all(
    store: &impl OperationStore,
    mut request: ReplayRequest,
) -> Result<usize, OperationError> {
    let mut count = 0;
    loop {
        let portion = store.replay(request.clone()).await?;
        count += portion.deliveries;
        request.after = portion.next;
        if request.after.is_none() {
            return Ok(count);
        }
    }
}

/// Opens a store whose worker notices others quickly.
async fn open(url: &str) -> PostgresStore {
    open_beating(url, Duration::from_millis(50)).await
}

async fn open_beating(url: &str, heartbeat: Duration) -> PostgresStore {
    PostgresOptions::new(url).unwrap().heartbeat(heartbeat).open().await.unwrap()
}

fn id(id: &str) -> EndpointId {
    EndpointId::new(id).unwrap()
}

fn key(name: &str) -> EndpointKey {
    EndpointKey::of_default_tenant(id(name))
}

fn endpoint() -> Endpoint {
    Endpoint::new("https://example.com/", SECRET).unwrap()
}

async fn register(store: &impl EndpointStore, name: &str, endpoint: Endpoint) -> Registered {
    let request = RegisterRequest::new(id(name), endpoint, Timestamp::now());
    store.register(request).await.unwrap()
}

async fn publish(store: &PostgresStore, ids: impl IntoIterator<Item = String>) {
    let event = |id: String| Event::new("created", 1).unwrap().id(EventId::new(&id).unwrap());
    let events: Vec<_> = ids.into_iter().map(|id| SerializedEvent::new(&event(id))).collect();
    let published = store.publish(events, Timestamp::now()).await.unwrap();
    assert!(published.iter().all(Result::is_ok));
}

async fn claim(store: &PostgresStore, per_endpoint: usize) -> Vec<Claimed> {
    claim_at(store, Timestamp::now(), per_endpoint).await
}

async fn claim_at(store: &PostgresStore, wall: Timestamp, per_endpoint: usize) -> Vec<Claimed> {
    let (now, lease) = (Now { wall, ..SystemClock.clocks() }, Duration::from_secs(60));
    let request = ClaimRequest {
        now,
        lease,
        limit: 1_000,
        per_endpoint,
        bytes: usize::MAX,
        room: Room::new(),
    };
    store.claim(request).await.unwrap()
}

async fn settle(store: &PostgresStore, claimed: &[Claimed], outcome: Outcome) -> Vec<Settled> {
    let settlement =
        |claimed: &Claimed| Settlement { claim: claimed.claim, outcome, attempt: None };
    store.settle(claimed.iter().map(settlement).collect(), Timestamp::now()).await.unwrap()
}

/// Claims until there is something.
async fn claim_at_last(store: &PostgresStore, per_endpoint: usize) -> Vec<Claimed> {
    eventually(async || {
        let claimed = claim(store, per_endpoint).await;
        (!claimed.is_empty()).then_some(claimed)
    })
    .await
}

fn events(claimed: &[Claimed]) -> Vec<String> {
    claimed.iter().map(|claimed| claimed.event.id.to_string()).collect()
}

/// Returns the ids of the retained events, the last one first.
async fn kept(store: &PostgresStore) -> Vec<String> {
    let events = store.events(Query::default()).await.unwrap().items;
    events.iter().map(|found| found.id.to_string()).collect()
}

/// Looks again and again until the expected result is there.
async fn eventually<T>(look: impl AsyncFn() -> Option<T>) -> T {
    let mut ticks = interval(Duration::from_millis(20));
    let found = async {
        loop {
            ticks.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    timeout(DEADLINE, found).await.unwrap()
}

/// Goal: a change of an endpoint holds on every worker from its next claim on, and a delivery that
/// was claimed before a disablement cannot be settled. Method: one store changes, the other claims.
#[tokio::test]
async fn rotation_and_disablement_hold_everywhere_at_once() {
    let url = Cluster::shared().database().await;
    let (here, there) = (open(&url).await, open(&url).await);
    register(&here, "crm", endpoint()).await;
    publish(&here, (0..3).map(|n| format!("event-{n}"))).await;
    let before = claim(&there, 1).await;
    assert_eq!(before[0].registration.endpoint, endpoint());
    let rotated = Endpoint::new("https://example.com/", "another-secret").unwrap();
    register(&here, "crm", rotated.clone()).await;
    assert_eq!(claim(&there, 1).await[0].registration.endpoint, rotated);
    assert!(here.set_state(key("crm"), GONE, Timestamp::now()).await.unwrap().is_some());
    assert!(claim(&there, 10).await.is_empty());
    assert_eq!(settle(&there, &before, Outcome::Delivered).await, [Settled::LeaseLost]);
    let statistics = here.statistics(key("crm"), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((statistics.pending, statistics.cancelled), (0, 3));
}

/// Goal: the limits of an endpoint hold exactly over all workers together; an ordered endpoint and
/// one with a limit of one have one worker; a worker that leaves is replaced. Method: three stores
/// claim from the same endpoints until each has its share.
#[tokio::test]
async fn workers_share_the_limits_of_endpoints() {
    let url = Cluster::shared().database().await;
    let mut stores = [open(&url).await, open(&url).await, open(&url).await].to_vec();
    let ten = NonZeroU32::new(10).unwrap();
    let wide = endpoint().max_in_flight(ten).rate_limit(ten, ten);
    register(&stores[0], "wide", wide).await;
    for n in 0..40 {
        let narrow = endpoint().max_in_flight(NonZeroU32::MIN);
        let narrow = if n % 2 == 0 { narrow.ordered() } else { narrow };
        register(&stores[0], &format!("narrow-{n}"), narrow).await;
    }
    publish(&stores[0], (0..30).map(|n| format!("event-{n}"))).await;
    for _ in [3, 2] {
        // Until the workers know of each other, the first ones do all the work.
        eventually(async || {
            let mut parts = Vec::new();
            for store in &stores {
                parts.push(claim(store, 1).await);
                settle(store, parts.last().unwrap(), Outcome::Released).await;
            }
            is_shared(&parts).then_some(())
        })
        .await;
        stores.pop().unwrap().close().await;
    }
}

/// Returns whether each worker has a share of the wide endpoint, all shares add up to the limit,
/// and each narrow endpoint has one worker.
fn is_shared(parts: &[Vec<Claimed>]) -> bool {
    let all = parts.iter().flatten().map(|claimed| &claimed.registration);
    let (wide, narrow): (Vec<_>, Vec<_>) = all.partition(|found| found.id.as_str() == "wide");
    let in_flight: u32 = wide.iter().map(|wide| wide.endpoint.max_in_flight.get()).sum();
    let rates = wide.iter().map(|wide| wide.endpoint.rate_limit.unwrap().calls.get());
    let different: BTreeSet<&str> = narrow.iter().map(|narrow| narrow.id.as_str()).collect();
    (wide.len(), in_flight, rates.sum()) == (parts.len(), 10, 10_u32)
        && (narrow.len(), different.len()) == (40, 40)
}

/// Goal: an endpoint has no more attempts in flight than its limit, over all workers together.
/// Method: three engines that know of each other deliver at once, and the attempts count
/// themselves.
#[tokio::test(flavor = "multi_thread")]
async fn no_endpoint_has_more_exchanges_in_flight_than_its_limit() {
    const LIMIT: usize = 5;
    let url = Cluster::shared().database().await;
    let flying = Arc::new([const { AtomicUsize::new(0) }; 3]);
    let mut workers = Vec::new();
    for _ in 0..3 {
        let flying = Arc::clone(&flying);
        let transport = FnTransport::new(move |_, _, _, _| {
            let flying = Arc::clone(&flying);
            async move {
                let [now, most, all] = &*flying;
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // An attempt takes its time, because the first tick comes at once.
                let mut ticks = interval(Duration::from_millis(2));
                ticks.tick().await;
                ticks.tick().await;
                now.fetch_sub(1, Ordering::SeqCst);
                all.fetch_add(1, Ordering::SeqCst);
                (200, "")
            }
        });
        // Slow enough that on a busy machine no worker seems dead, whose share others would take.
        let store = open_beating(&url, Duration::from_millis(500)).await;
        let engine = Engine::new(store, transport);
        workers.push((engine.start(), engine));
    }
    let joined = "SELECT count(*) FROM webhooks.workers WHERE joined_at < now() - interval '3 s'";
    eventually(async || {
        let mut connection = connect(&url).await;
        let joined: i64 = sqlx::query_scalar(joined).fetch_one(&mut connection).await.unwrap();
        (joined == 3).then_some(())
    })
    .await;
    let limit = NonZeroU32::new(u32::try_from(LIMIT).unwrap()).unwrap();
    let store = workers[0].1.store().clone();
    register(&store, "crm", endpoint().max_in_flight(limit)).await;
    for batch in 0..10 {
        publish(&store, (0..60).map(|n| format!("event-{batch}-{n}"))).await;
    }
    eventually(async || (flying[2].load(Ordering::SeqCst) == 600).then_some(())).await;
    assert!((2..=LIMIT).contains(&flying[1].load(Ordering::SeqCst)), "{flying:?}");
    for (worker, engine) in workers {
        worker.shutdown(DEADLINE).await;
        engine.store().clone().close().await;
    }
}

#[tokio::test]
async fn a_commit_notifies_once_and_only_if_somebody_else_is_there() {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    register(&store, "crm", endpoint()).await;
    assert!(claim(&store, 1).await.is_empty());
    let mut listener = PgListener::connect(&url).await.unwrap();
    listener.listen("webhooks").await.unwrap();
    publish(&store, ["nobody-else".to_owned()]).await;
    // Slow enough that it does not seem dead on a busy machine.
    let other = open_beating(&url, Duration::from_secs(10)).await;
    let mut changes = other.changes();
    claim(&other, 1).await;
    publish(&store, (0..64).map(|n| format!("event-{n}"))).await;
    changes.changed().await;
    sqlx::query("NOTIFY webhooks, 'the end'").execute(&mut connect(&url).await).await.unwrap();
    let mut payloads = Vec::new();
    while payloads.last().is_none_or(|payload| payload != "the end") {
        payloads.push(listener.recv().await.unwrap().payload().to_owned());
    }
    let number = store.get(key("crm")).await.unwrap().unwrap().number.as_u64().to_string();
    assert_eq!(payloads, [&*number, "the end"], "it names the endpoint that has something due");
}

/// Publishes until it succeeds: if a server takes long to come back, publishing fails.
async fn publish_at_last(store: &PostgresStore, id: &str) {
    let event = Event::new("created", 1).unwrap().id(EventId::new(id).unwrap());
    let event = SerializedEvent::new(&event);
    let published =
        eventually(async || store.publish(vec![event.clone()], Timestamp::now()).await.ok());
    assert!(published.await[0].is_ok());
}

/// Goal: a crash of the server loses no accepted event, and store and worker go on by themselves.
/// Method: the server is stopped at once, started while a publisher waits, and crashes once more.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_survives_crashes_of_the_server() {
    let cluster = Cluster::start(&std::env::temp_dir(), "");
    let store = open(&cluster.database().await).await;
    register(&store, "crm", endpoint()).await;
    publish(&store, ["before".to_owned()]).await;
    assert_eq!(claim(&store, 10).await.len(), 1);
    cluster.stop();
    // The event is passed to the store's own task, which publishes it as soon as that is possible.
    let resume = async { tokio::task::block_in_place(|| cluster.resume()) };
    tokio::join!(publish_at_last(&store, "meanwhile"), resume);
    cluster.crash();
    publish_at_last(&store, "after").await;
    for _ in ["meanwhile", "after"] {
        let claimed = claim_at_last(&store, 1).await;
        assert!(matches!(
            settle(&store, &claimed, Outcome::Delivered).await[..],
            [Settled::Recorded { .. }]
        ));
    }
    assert_eq!(kept(&store).await, ["after", "meanwhile", "before"]);
}

/// Goal: after a failover that leaves the old primary as a replica, the store finds the new one.
/// Method: its sessions can only read; sessions that are made anew later can write.
#[tokio::test]
async fn sessions_that_can_only_read_are_replaced() {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    register(&store, "crm", endpoint()).await;
    let mut admin = connect(&url).await;
    let alter = "DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database());
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    END $$";
    sqlx::raw_sql(alter).execute(&mut admin).await.unwrap();
    assert!(store.get(key("crm")).await.unwrap().is_some(), "it can be read");
    let alter = "DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I RESET default_transaction_read_only', current_database());
    END $$";
    sqlx::raw_sql(alter).execute(&mut admin).await.unwrap();
    publish_at_last(&store, "a").await;
    assert_eq!(eventually_claimed(&store).await, ["a"]);
}

/// Claims until there is something, and returns its events.
async fn eventually_claimed(store: &PostgresStore) -> Vec<String> {
    events(&claim_at_last(store, 10_000).await)
}

/// Goal: an endpoint that becomes ordered gets all events in order, however many are pending and
/// whoever publishes in the meantime. Method: a transaction publishes before and is committed
/// after; more is pending than a claim puts into order at once.
#[tokio::test]
async fn what_was_published_before_an_endpoint_became_ordered_keeps_its_place() {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    register(&store, "crm", endpoint()).await;
    let mut connection = connect(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    let first = Event::new("created", 1).unwrap().id(EventId::new("first").unwrap());
    let _published = publish_in(&mut transaction, &first).await.unwrap();
    publish(&store, (0..2_500).map(|n| format!("event-{n:04}"))).await;
    register(&store, "crm", endpoint().ordered()).await;
    publish(&store, ["last".to_owned()]).await;
    transaction.commit().await.unwrap();
    assert_eq!(eventually_claimed(&store).await, ["first"]);
    let unsorted = "SELECT count(*) FROM webhooks.pending_deliveries WHERE due_at > 'epoch'";
    let unsorted: i64 = sqlx::query_scalar(unsorted).fetch_one(&mut connection).await.unwrap();
    assert_eq!(unsorted, 0, "nothing is claimed before all is in order");
}

/// Goal: a claim brings as many deliveries as it may, though some of the endpoints that it asks first
/// have nothing more. Method: a claim takes all that the first group has, after which the store knows
/// only that it may have more; then the second group gets an event, and one of the first. They are
/// ordered, so that nothing is preclaimed.
#[tokio::test]
async fn a_claim_goes_on_behind_endpoints_that_have_nothing_more() {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    for n in 0..8 {
        let types: &[&str] = match n {
            0 => &["first", "second"],
            1..3 => &["first"],
            _ => &["second"],
        };
        register(&store, &format!("e-{n}"), endpoint().ordered().events(types).unwrap()).await;
    }
    let publish = async |event_type: &str| {
        let event = SerializedEvent::new(&Event::new(event_type, 1).unwrap());
        store.publish(vec![event], Timestamp::now()).await.unwrap().remove(0).unwrap();
    };
    let deliver = async |limit| {
        let (now, lease) = (SystemClock.clocks(), Duration::from_secs(60));
        let room = Room::new();
        let request = ClaimRequest { now, lease, limit, per_endpoint: 1, bytes: usize::MAX, room };
        let claimed = eventually(async || {
            let claimed = store.claim(request.clone()).await.unwrap();
            (!claimed.is_empty()).then_some(claimed)
        });
        let claimed = claimed.await;
        settle(&store, &claimed, Outcome::Delivered).await;
        claimed.len()
    };
    publish("first").await;
    assert_eq!(deliver(3).await, 3);
    publish("second").await;
    assert_eq!(deliver(6).await, 6);
}

/// Goal: claimed deliveries are returned although cleaning up fails. Method: more deliveries are
/// left over from an endpoint than go with it, and the function that cancels them is gone.
#[tokio::test]
async fn a_claim_counts_although_cleaning_up_fails() {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    register(&store, "gone", endpoint()).await;
    publish(&store, (0..1_001).map(|n| format!("event-{n}"))).await;
    store.unregister(key("gone"), Timestamp::now()).await.unwrap();
    register(&store, "crm", endpoint()).await;
    publish(&store, ["a".to_owned()]).await;
    let mut connection = connect(&url).await;
    sqlx::query("DROP FUNCTION webhooks.cancel_closed").execute(&mut connection).await.unwrap();
    assert_eq!(claim(&store, 1).await.len(), 1);
}

#[tokio::test]
async fn of_workers_that_start_together_one_has_the_whole() {
    let url = Cluster::shared().database().await;
    // Slow enough that nobody gets a share before all have claimed.
    let open = async || open_beating(&url, Duration::from_secs(60)).await;
    let stores = [open().await, open().await, open().await];
    register(&stores[0], "crm", endpoint()).await;
    publish(&stores[0], (0..10).map(|n| format!("event-{n}"))).await;
    let [a, b, c] = &stores;
    let (a, b, c) = tokio::join!(claim(a, 1), claim(b, 1), claim(c, 1));
    assert_eq!(a.len() + b.len() + c.len(), 1, "the others have no share yet");
}

#[tokio::test]
async fn an_endpoint_that_goes_on_failing_keeps_its_row() {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    register(&store, "crm", endpoint()).await;
    publish(&store, (0..3).map(|n| format!("event-{n}"))).await;
    let claimed = claim(&store, 3).await;
    let mut connection = connect(&url).await;
    let mut versions = BTreeSet::new();
    for claimed in claimed {
        let due_at = Timestamp::now() + DEADLINE;
        let settled = settle(&store, &[claimed], Outcome::Retrying { due_at }).await;
        assert!(matches!(settled[..], [Settled::Recorded { .. }]), "{settled:?}");
        let version = "SELECT xmin::text FROM webhooks.endpoints";
        let version: String = sqlx::query_scalar(version).fetch_one(&mut connection).await.unwrap();
        versions.insert(version);
    }
    assert_eq!(versions.len(), 1, "the first failure changed it");
}

#[tokio::test]
async fn an_endpoint_that_was_replaced_leaves_no_secrets() {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    register(&store, "crm", endpoint()).await;
    assert!(store.set_state(key("crm"), GONE, Timestamp::now()).await.unwrap().is_some());
    assert!(
        store.set_state(key("crm"), StateChange::Enable, Timestamp::now()).await.unwrap().is_some()
    );
    let left = "SELECT length(secrets) FROM webhooks.endpoints WHERE NOT is_current";
    let left: i32 = sqlx::query_scalar(left).fetch_one(&mut connect(&url).await).await.unwrap();
    assert_eq!(left, 0);
}

/// Opens a store without a key in a database in which every secret is encrypted afterwards, except
/// that of one endpoint.
async fn open_beside(url: &str, keyed: &PostgresStore) -> PostgresStore {
    let registration = keyed.unregister(key("crm"), Timestamp::now()).await.unwrap();
    let keyless = open(url).await;
    register(keyed, "crm", registration.endpoint.clone()).await;
    register(&keyless, "plain", endpoint()).await;
    keyless
}

#[tokio::test]
async fn secrets_are_encrypted_and_errors_show_no_password() {
    let url = Cluster::shared().database().await;
    let sealing = |byte| SealingKey::from_bytes([byte; 32]);
    let keyed = |keys: Vec<SealingKey>| PostgresOptions::new(&url).unwrap().sealing_keys(keys);
    let store = keyed(vec![sealing(1)]).open().await.unwrap();
    register(&store, "crm", endpoint()).await;
    let kept: Vec<u8> = sqlx::query_scalar("SELECT secrets FROM webhooks.endpoints")
        .fetch_one(&mut connect(&url).await)
        .await
        .unwrap();
    assert!(!kept.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
    let other = keyed(vec![sealing(2)]).open().await.unwrap();
    let told = other.unreadable()[0].to_string();
    assert_eq!(told, "cannot read endpoint \"crm\" of the store");
    keyed(vec![sealing(2), sealing(1)]).open().await.unwrap().close().await;
    let store = keyed(vec![sealing(2)]).open().await.unwrap();
    assert_eq!(store.get(key("crm")).await.unwrap().unwrap().endpoint, endpoint());
    // A worker without the key goes on with the endpoints that it can read.
    let keyless = open_beside(&url, &store).await;
    publish(&store, ["event-1".to_owned()]).await;
    let claimed = claim(&keyless, 10).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].registration.id, id("plain"));
    for url in ["postgres://a:hush@127.0.0.1:1/b", "postgres://a:hush@[", "mysql://a:hush@b"] {
        let error = PostgresStore::open(url).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        assert!(!format!("{error} {error:?} {source}").contains("hush"), "{error:?}");
    }
}
