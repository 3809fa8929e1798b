//! Preclaimed deliveries: a process that publishes and delivers claims them as it publishes.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use webhooks_dispatch::{EngineSettings, PublishStatus};

use super::*;

/// Opens a store whose worker has claimed for an endpoint `crm` before.
pub(super) async fn open_claiming(url: &str) -> PostgresStore {
    let store = open_beating(url, Duration::from_secs(60)).await;
    register(&store, "crm", endpoint()).await;
    publish(&store, ["first".to_owned()]).await;
    let first = claim(&store, 10).await;
    settle(&store, &first, Outcome::Delivered).await;
    assert!(claim(&store, 10).await.is_empty());
    store
}

/// Returns the number of pending deliveries, and of those that are leased.
pub(super) async fn waiting(url: &str) -> (i64, i64) {
    let count = "SELECT count(*), count(leased_until) FROM webhooks.pending_deliveries";
    sqlx::query_as(count).fetch_one(&mut connect(url).await).await.unwrap()
}

/// Opens another store, and waits until it claims one delivery of its own that was not preclaimed.
async fn open_another(url: &str) -> PostgresStore {
    let store = open(url).await;
    publish(&store, ["another".to_owned()]).await;
    let claimed = claim_at_last(&store, 10).await;
    settle(&store, &claimed, Outcome::Delivered).await;
    store
}

/// Goal: a process that publishes and delivers has its deliveries from the start, with a claim that
/// fences as every other. Method: another worker claims first, and gets nothing.
#[tokio::test]
async fn what_is_handed_over_is_claimed_by_the_process_that_published_it() {
    let url = Cluster::shared().database().await;
    let (here, there) = (open_claiming(&url).await, open_another(&url).await);
    publish(&here, ["a".to_owned(), "b".to_owned()]).await;
    assert_eq!(waiting(&url).await, (2, 2));
    let due = here.next_due(Room::new(), SystemClock.clocks()).await.unwrap();
    assert_eq!(due, Some(Duration::ZERO));
    assert!(claim(&there, 10).await.is_empty());
    let claimed = claim(&here, 10).await;
    assert_eq!(events(&claimed), ["a", "b"]);
    assert_eq!(claimed[0].progress.attempts, 0);
    let settled = settle(&here, &claimed, Outcome::Delivered).await;
    assert!(settled.iter().all(|settled| matches!(settled, Settled::Recorded { .. })));
    assert_eq!(settle(&here, &claimed, Outcome::Delivered).await, [Settled::LeaseLost; 2]);
    assert_eq!(waiting(&url).await, (0, 0));
}

/// Goal: a change of an endpoint holds from the next claim on, for preclaimed deliveries too,
/// whichever process makes it.
#[tokio::test]
async fn what_was_handed_over_goes_to_the_endpoint_as_it_is_when_claimed() {
    let url = Cluster::shared().database().await;
    let (here, there) = (open_claiming(&url).await, open(&url).await);
    publish(&here, ["a".to_owned()]).await;
    let rotated = Endpoint::new("https://example.com/", "another-secret").unwrap();
    register(&there, "crm", rotated.clone()).await;
    let claimed = claim(&here, 10).await;
    assert_eq!(claimed[0].registration.endpoint, rotated);
    settle(&here, &claimed, Outcome::Delivered).await;
    publish(&here, ["b".to_owned(), "c".to_owned()]).await;
    assert_eq!(waiting(&url).await, (2, 2));
    register(&there, "crm", rotated.clone().ordered()).await;
    for expected in ["b", "c"] {
        let claimed = claim_at_last(&here, 10).await;
        assert_eq!(events(&claimed), [expected], "one at a time");
        settle(&here, &claimed, Outcome::Delivered).await;
    }
    register(&there, "crm", rotated.clone()).await;
    publish(&here, ["d".to_owned()]).await;
    assert_eq!(waiting(&url).await, (1, 1));
    assert!(there.set_state(key("crm"), GONE, Timestamp::now()).await.unwrap().is_some());
    assert!(claim(&here, 10).await.is_empty());
    assert_eq!(waiting(&url).await, (0, 0));
}

/// Goal: nothing waits for a worker that takes too long, or for one that has ended. Method: an
/// event that was published long ago is claimed anew; a store whose worker ends releases all
/// preclaimed deliveries.
#[tokio::test]
async fn what_is_not_taken_in_time_is_handed_back() {
    let url = Cluster::shared().database().await;
    let (here, there) = (open_claiming(&url).await, open_another(&url).await);
    let long_ago = Timestamp::now().saturating_sub(Duration::from_secs(30));
    let event = |id: &str| {
        SerializedEvent::new(&Event::new("created", 1).unwrap().id(EventId::new(id).unwrap()))
    };
    assert!(here.publish(vec![event("late")], long_ago).await.unwrap()[0].is_ok());
    assert_eq!(waiting(&url).await, (1, 1));
    let late = claim(&here, 10).await;
    assert_eq!(events(&late), ["late"]);
    let lease = Duration::from_secs(60);
    let lost = here.extend(vec![late[0].claim], lease, SystemClock.clocks()).await.unwrap();
    assert!(lost.is_empty(), "it is claimed anew");
    publish(&here, ["given-back".to_owned()]).await;
    assert_eq!(waiting(&url).await, (2, 2));
    assert_eq!(here.release_preclaimed().await, 1);
    publish(&here, ["kept".to_owned()]).await;
    assert_eq!(waiting(&url).await, (3, 1));
    let mut changes = there.changes();
    while waiting(&url).await != (3, 3) {
        claim(&there, 10).await;
        changes.changed().await;
    }
}

#[tokio::test]
async fn what_is_cancelled_after_it_was_handed_over_is_not_claimed() {
    let url = Cluster::shared().database().await;
    let here = open_claiming(&url).await;
    publish(&here, ["a".to_owned()]).await;
    let deliveries = here.deliveries(Query::default()).await.unwrap().items;
    here.cancel(vec![deliveries[0].id], Timestamp::now()).await.unwrap();
    assert!(claim(&here, 10).await.is_empty());
}

/// Goal: neither preclaimed deliveries nor those in the database delay each other. Method: more of
/// both than two claims take.
#[tokio::test]
async fn the_database_and_what_was_handed_over_take_turns() {
    let url = Cluster::shared().database().await;
    let (here, there) = (open_claiming(&url).await, open(&url).await);
    let mut changes = here.changes();
    publish(&there, (0..20).map(|n| format!("there-{n}"))).await;
    changes.changed().await;
    publish(&here, (0..20).map(|n| format!("here-{n}"))).await;
    assert_eq!(waiting(&url).await, (40, 20));
    let mut firsts = BTreeSet::new();
    for _ in 0..2 {
        let claimed = claim(&here, 10).await;
        assert_eq!(claimed.len(), 10);
        firsts.insert(events(&claimed)[0].clone());
    }
    assert_eq!(firsts, BTreeSet::from(["here-0".to_owned(), "there-0".to_owned()]));
}

/// Goal: a worker that is shut down leaves nothing claimed. Method: more deliveries are preclaimed
/// for an endpoint that never answers than the engine takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_shut_down_hands_all_back() {
    let url = Cluster::shared().database().await;
    let flying = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&flying);
    let transport = FnTransport::new(move |_, _, _, _| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<(u16, &str)>()
    });
    let engine = Engine::new(open_claiming(&url).await, transport);
    let worker = engine.start();
    for batch in 0..3 {
        publish(engine.store(), (0..50).map(|n| format!("event-{batch}-{n}"))).await;
    }
    // The engine has taken as many as it takes.
    eventually(async || (flying.load(Ordering::SeqCst) > 0).then_some(())).await;
    assert!(waiting(&url).await.1 > 0);
    let report = worker.shutdown(Duration::ZERO).await;
    assert!(report.broken_off > 0);
    assert_eq!(waiting(&url).await, (150, 0));
}

/// Goal: nobody waits for a worker that was shut down. Method: another worker, whose heartbeat is
/// slow, claims at once the events that were published after the shutdown.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_shut_down_is_no_longer_one_of_those_that_share() {
    let url = Cluster::shared().database().await;
    let transport = FnTransport::new(|_, _, _, _| async { (200, "") });
    let engine = Engine::new(PostgresStore::open(&url).await.unwrap(), transport);
    engine.endpoints().register("crm", endpoint()).await.unwrap();
    let worker = engine.start();
    let count = "SELECT count(*) FROM webhooks.workers";
    let workers = async || -> i64 {
        sqlx::query_scalar(count).fetch_one(&mut connect(&url).await).await.unwrap()
    };
    eventually(async || (workers().await == 1).then_some(())).await;
    worker.shutdown(Duration::from_secs(5)).await;
    assert_eq!(workers().await, 0);
    let other = PostgresStore::open(&url).await.unwrap();
    publish(engine.store(), ["a".to_owned()]).await;
    assert_eq!(events(&claim(&other, 10).await), ["a"]);
}

/// Leads to a server; the first connection that contains `marker` is cut at the server's answer.
pub(super) fn start_faulty_proxy(socket: PathBuf, marker: &'static [u8]) -> String {
    start_proxy(socket, move |client, server, is_armed| lead(client, server, marker, is_armed))
}

/// Leads to a server, each connection by `lead`, which gets the client, the server, and whether no
/// connection was cut yet. Returns the folder of the proxy's socket.
pub(super) fn start_proxy<F>(
    socket: PathBuf,
    lead: impl Fn(UnixStream, UnixStream, Arc<AtomicBool>) -> F + Send + 'static,
) -> String
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let folder = tempfile::tempdir().unwrap().keep();
    let listener = UnixListener::bind(folder.join(".s.PGSQL.5432")).unwrap();
    let is_armed = Arc::new(AtomicBool::new(true));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(lead(client, server, Arc::clone(&is_armed)));
        }
    });
    folder.display().to_string()
}

async fn lead(
    mut client: UnixStream,
    mut server: UnixStream,
    marker: &[u8],
    is_armed: Arc<AtomicBool>,
) -> std::io::Result<()> {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut is_cut = false;
    loop {
        tokio::select! {
            count = client.read(&mut asked) => {
                let asked = &asked[..count?];
                if asked.is_empty() {
                    return Ok(());
                }
                if asked.windows(marker.len()).any(|part| part == marker) {
                    is_cut = is_armed.swap(false, Ordering::SeqCst);
                }
                server.write_all(asked).await?;
            }
            count = server.read(&mut answered) => {
                let answered = &answered[..count?];
                if answered.is_empty() || is_cut {
                    return Ok(());
                }
                client.write_all(answered).await?;
            }
        }
    }
}

/// Goal: if the answer of a publish is lost, its preclaimed deliveries are due at once, and not
/// when the lease ends. Method: a proxy drops the answer; the store asks again, and finds its
/// event.
#[tokio::test(flavor = "multi_thread")]
async fn a_publish_whose_answer_is_lost_leaves_nothing_claimed() {
    let url = Cluster::shared().database().await;
    let (database, folder) = url.split_once("?host=").unwrap();
    let proxy = start_faulty_proxy(format!("{folder}/.s.PGSQL.5432").into(), b"unheard");
    let store = open_claiming(&format!("{database}?host={proxy}")).await;
    let event = Event::new("created", 1).unwrap().id(EventId::new("unheard").unwrap());
    let events = vec![SerializedEvent::new(&event)];
    let published = store.publish(events, Timestamp::now()).await.unwrap();
    assert_eq!(published[0].as_ref().unwrap().status, PublishStatus::Duplicate);
    assert_eq!(waiting(&url).await, (1, 0));
    assert_eq!(eventually_claimed(&store).await, ["unheard"]);
}

/// Goal: an endpoint that never answers delays no other one, though both have deliveries that are
/// preclaimed and others in the database. Method: all events for the other endpoint arrive.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_hangs_keeps_no_other_waiting() {
    let url = Cluster::shared().database().await;
    let arrived = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&arrived);
    let transport = FnTransport::new(move |url: String, _, _, _| {
        let count = Arc::clone(&count);
        async move {
            if url.contains("hangs") {
                std::future::pending::<()>().await;
            }
            count.fetch_add(1, Ordering::SeqCst);
            (200, "")
        }
    });
    let settings = EngineSettings { concurrency: 8, ..EngineSettings::default() };
    let engine = Engine::builder(open(&url).await, transport).settings(settings).build();
    for name in ["hangs", "works"] {
        let endpoint = Endpoint::new(&format!("https://example.com/{name}"), SECRET).unwrap();
        register(engine.store(), name, endpoint).await;
    }
    let worker = engine.start();
    for batch in 0..40 {
        publish(engine.store(), (0..25).map(|n| format!("event-{batch}-{n}"))).await;
    }
    eventually(async || (arrived.load(Ordering::SeqCst) == 1_000).then_some(())).await;
    let report = worker.shutdown(Duration::ZERO).await;
    assert!(report.broken_off > 0, "{report:?}");
    assert_eq!(waiting(&url).await, (1_000, 0));
}

/// Goal: a program that publishes and drains delivers, though it has no share yet. Method: the row
/// of a worker that died just now is there; then two programs drain at once, one of which starts
/// without a share.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_has_no_share_yet_does_not_count_as_drained() {
    const DIED: &str = "INSERT INTO webhooks.workers (id, joined_at, seen_at, expires_at)
        SELECT count(*), clock_timestamp() - interval '1 hour', clock_timestamp(),
               clock_timestamp() + interval '250 ms'
        FROM webhooks.workers";
    let url = Cluster::shared().database().await;
    let arrived = Arc::new(AtomicUsize::new(0));
    let engine = async || {
        let arrived = Arc::clone(&arrived);
        let transport = FnTransport::new(move |_, _, _, _| {
            arrived.fetch_add(1, Ordering::SeqCst);
            async { (200, "") }
        });
        Engine::new(open(&url).await, transport)
    };
    let (one, other) = (engine().await, engine().await);
    register(one.store(), "crm", endpoint()).await;
    sqlx::raw_sql(DIED).execute(&mut connect(&url).await).await.unwrap();
    publish(one.store(), ["a".to_owned()]).await;
    let report = one.start().drain(Duration::from_secs(30)).await;
    assert_eq!((arrived.load(Ordering::SeqCst), report.waiting), (1, Some(0)));
    sqlx::raw_sql(DIED).execute(&mut connect(&url).await).await.unwrap();
    publish(one.store(), (0..100).map(|n| format!("event-{n}"))).await;
    let drain = Duration::from_secs(30);
    let (one, other) = tokio::join!(one.start().drain(drain), other.start().drain(drain));
    assert_eq!(arrived.load(Ordering::SeqCst), 101, "{one:?} {other:?}");
}

/// Goal: while a worker shuts down, nobody takes its share before its last attempt has ended, and
/// then somebody does at once. Method: two workers share a limit of two; one calls `release_preclaimed`
/// while it has a claim.
#[tokio::test]
async fn a_worker_that_ends_keeps_its_share_until_its_last_claim_is_settled() {
    let url = Cluster::shared().database().await;
    let stores = [open(&url).await, open(&url).await];
    let two = NonZeroU32::new(2).unwrap();
    register(&stores[0], "crm", endpoint().max_in_flight(two)).await;
    publish(&stores[0], (0..20).map(|n| format!("event-{n}"))).await;
    let share = |claimed: &[Claimed]| claimed[0].registration.endpoint.max_in_flight.get();
    let [ending, staying] = &stores;
    let last = eventually(async || {
        let (ours, theirs) = (claim(ending, 1).await, claim(staying, 1).await);
        let is_shared =
            !ours.is_empty() && !theirs.is_empty() && share(&ours) + share(&theirs) == 2;
        settle(staying, &theirs, Outcome::Released).await;
        if !is_shared {
            settle(ending, &ours, Outcome::Released).await;
        }
        is_shared.then_some(ours)
    })
    .await;
    let workers = async || -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM webhooks.workers");
        count.fetch_one(&mut connect(&url).await).await.unwrap()
    };
    ending.release_preclaimed().await;
    assert_eq!(workers().await, 2);
    assert_eq!(share(&claim(staying, 1).await), 1);
    let settled = settle(ending, &last, Outcome::Delivered).await;
    assert!(matches!(settled[..], [Settled::Recorded { .. }]), "{settled:?}");
    assert_eq!(workers().await, 1, "it leaves at once");
    eventually(async || {
        let claimed = claim(staying, 1).await;
        let is_whole = share(&claimed) == 2;
        settle(staying, &claimed, Outcome::Released).await;
        is_whole.then_some(())
    })
    .await;
}
