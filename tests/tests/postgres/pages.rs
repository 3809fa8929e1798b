//! The cost of a tenant does not depend on what others have. Judged by the rows that the server reads,
//! not by time.

use webhooks_core::{DeliveryStatus, TenantId};
use webhooks_dispatch::{
    Undelivered,
    history::{EndedPlace, EndedRequest, Page, SearchRequest},
    store::{Attempt, ExpungeRequest, Expunged},
};

use super::order::attempt;
use super::*;

/// The events of the tenant, and those of others before and after them.
const MINE: usize = 600;
const OTHERS: usize = 3_000;

/// The events of the tenant that wait.
const WAITING: usize = 10;

/// The largest number of rows and entries of indexes that a full page of forty may read: for each entry
/// its event, its delivery, its endpoint and its attempt, and some more. One with a filter that few pass
/// may read all that the tenant has.
const MOST: i64 = 600;
const MOST_OF_TENANT: i64 = 4_000;

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn query() -> Query {
    Query { tenant: Some(tenant("mine")), limit: 40, ..Query::default() }
}

async fn publish_of(store: &PostgresStore, name: &str, count: usize) {
    let event = |_| Event::new("created", 1).unwrap().tenant(tenant(name));
    let events: Vec<_> = (0..count).map(|n| SerializedEvent::new(&event(n))).collect();
    for events in events.chunks(1_000) {
        store.publish(events.to_vec(), Timestamp::now()).await.unwrap();
    }
}

/// Publishes events of a tenant. A tenth fails, and the others are delivered.
async fn fill(store: &PostgresStore, name: &str, count: usize) {
    publish_of(store, name, count).await;
    let mut settled = 0;
    while settled < count {
        let claimed = claim_at_last(store, 1_000).await;
        settled += claimed.len();
        let (failed, delivered) = claimed.split_at(claimed.len() / 10);
        for (some, outcome, code) in
            [(failed, Outcome::Failed, 500), (delivered, Outcome::Delivered, 200)]
        {
            let attempt = Attempt { status_code: Some(code), ..attempt(Timestamp::now()) };
            let settlement = |claimed: &Claimed| Settlement {
                claim: claimed.claim,
                outcome,
                attempt: Some(attempt.clone()),
            };
            let settlements = some.iter().map(settlement).collect();
            store.settle(settlements, Timestamp::now()).await.unwrap();
        }
    }
}

/// Returns the rows and the entries of indexes that the server has read in a database for all sessions
/// that have ended.
async fn rows_read(url: &str) -> i64 {
    const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
        AND datname = current_database() AND backend_type = 'client backend'";
    const READ: &str = "SELECT ((SELECT sum(seq_tup_read) FROM pg_stat_user_tables)
        + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes))::bigint";
    eventually(async || {
        let mut admin = connect(url).await;
        let open: i64 = sqlx::query_scalar(SESSIONS).fetch_one(&mut admin).await.unwrap();
        (open == 0).then_some(())
    })
    .await;
    let mut admin = connect(url).await;
    sqlx::query_scalar(READ).fetch_one(&mut admin).await.unwrap()
}

/// Does something with a store of its own, and checks how many rows the server reads for it.
async fn check<T>(
    url: &str,
    name: &str,
    most: i64,
    act: impl AsyncFnOnce(&PostgresStore) -> T,
) -> T {
    let before = rows_read(url).await;
    let store = open_beating(url, Duration::from_secs(2)).await;
    let done = act(&store).await;
    store.close().await;
    let rows = rows_read(url).await - before;
    println!("{name}: {rows} rows");
    assert!(rows <= most, "{name}: {rows} rows");
    done
}

/// Returns a database with the events of a tenant amid those of others.
async fn filled(mine: usize) -> String {
    let url = Cluster::shared().database().await;
    let store = open(&url).await;
    let quiet = endpoint().tenant(tenant("mine")).events(["seldom"]).unwrap();
    for (name, endpoint) in [
        ("receiver", endpoint().tenant(tenant("mine"))),
        ("receiver", endpoint().tenant(tenant("other"))),
        ("quiet", quiet),
    ] {
        let request = RegisterRequest::new(id(name), endpoint, Timestamp::now());
        store.register(request).await.unwrap();
    }
    for (name, count) in [("other", OTHERS), ("mine", mine), ("other", OTHERS)] {
        fill(&store, name, count).await;
    }
    publish_of(&store, "mine", WAITING).await;
    publish_of(&store, "other", 1_000).await;
    store.close().await;
    let mut admin = connect(&url).await;
    sqlx::raw_sql("VACUUM (ANALYZE)").execute(&mut admin).await.unwrap();
    url
}

/// Goal: a page of history reads what a tenant has, however much others have.
#[tokio::test]
async fn a_page_of_a_tenant_reads_nothing_of_others() {
    let url = filled(MINE).await;
    let of = |statuses: &[DeliveryStatus]| Query { statuses: statuses.to_vec(), ..query() };
    let endpoint = Some(id("receiver"));
    let codes = Some(500..=599);
    let queries = [
        ("all", query(), 40, MOST),
        (
            "waiting",
            of(&[DeliveryStatus::Pending, DeliveryStatus::Retrying]),
            WAITING,
            MOST_OF_TENANT,
        ),
        ("failed", of(&[DeliveryStatus::Failed]), 40, MOST_OF_TENANT),
        ("delivered", of(&[DeliveryStatus::Delivered]), 40, MOST),
        ("by attempt", Query { status_codes: codes, ..query() }, 40, MOST_OF_TENANT),
        ("recent", Query { since: Some(Timestamp::UNIX_EPOCH), ..query() }, 40, MOST),
    ];
    for (name, query, expected, most) in &queries {
        for endpoint in [None, endpoint.clone()] {
            let of = endpoint.as_ref().map_or("tenant", |_| "endpoint");
            let name = format!("{name} of the {of}");
            let query = Query { endpoint, ..query.clone() };
            let first = async |store: &PostgresStore| store.events(query.clone()).await.unwrap();
            let first = check(&url, &format!("events, {name}"), *most, first).await;
            assert_eq!(first.items.len(), *expected, "{name}");
            let attempts = async |store: &PostgresStore| store.attempts(query.clone()).await;
            let attempts =
                check(&url, &format!("attempts, {name}"), *most, attempts).await.unwrap();
            assert_eq!(attempts.items.len(), if *expected == WAITING { 0 } else { 40 }, "{name}");
            let page = |query: Query| {
                let list = format!("deliveries, {name}, {:?}, {:?}", query.after, query.before);
                let page = async |store: &PostgresStore| store.deliveries(query).await.unwrap();
                let url = url.clone();
                async move { check(&url, &list, *most, page).await }
            };
            let Page { items, next, .. } = page(query.clone()).await;
            assert_eq!(items.len(), *expected, "{name}");
            assert!(items.iter().all(|item| item.tenant == tenant("mine")), "{name}");
            let Some(after) = next else { continue };
            let second = page(Query { after: Some(after), ..query.clone() }).await;
            let back = page(Query { before: second.previous, ..query.clone() }).await;
            assert_eq!(back.items, items, "{name}");
        }
    }
    check_ended_attempts(&url).await;
    let quiet = Query { tenant: None, endpoint: Some(id("quiet")), ..query() };
    let lists = async |store: &PostgresStore| {
        store.deliveries(quiet.clone()).await.unwrap().items.len()
            + store.attempts(quiet).await.unwrap().items.len()
    };
    assert_eq!(check(&url, "lists of an endpoint that gets nothing", 100, lists).await, 0);
    let first = async |store: &PostgresStore| store.events(query()).await.unwrap();
    let event = Some(check(&url, "an event", MOST, first).await.items.remove(20).id);
    let named = Query { event, ..query() };
    let lists = async |store: &PostgresStore| {
        (store.events(named.clone()).await.unwrap().items.len())
            + store.deliveries(named.clone()).await.unwrap().items.len()
            + store.attempts(named.clone()).await.unwrap().items.len()
    };
    assert_eq!(check(&url, "lists of an event", MOST, lists).await, 3);
    let waiting = Query { tenant: None, ..of(&[DeliveryStatus::Pending]) };
    let page = async |store: &PostgresStore| store.deliveries(waiting).await.unwrap();
    assert_eq!(check(&url, "what waits of all", MOST, page).await.items.len(), 40);
    let request = SearchRequest { query: query(), text: "created".to_owned(), max_looked: 60 };
    let search = async |store: &PostgresStore| store.search(request).await.unwrap();
    let found = check(&url, "search", MOST, search).await;
    assert_eq!(found.items.len(), 40);
}

async fn check_ended_attempts(url: &str) {
    let after = EndedPlace::since(Timestamp::UNIX_EPOCH);
    let request = EndedRequest { tenant: tenant("mine"), after, limit: 40 };
    let ended = async |store: &PostgresStore| store.ended_attempts(request).await.unwrap();
    let ended = check(url, "ended attempts", MOST, ended).await;
    assert_eq!((ended.items.len(), ended.is_last), (40, false));
    assert!(ended.items.iter().all(|item| item.tenant == tenant("mine")));
}

/// Goal: what is done with all events of a tenant reads no events of others.
#[tokio::test]
async fn work_on_the_events_of_a_tenant_reads_nothing_of_others() {
    let mine = 120;
    let url = filled(mine).await;
    let now = Timestamp::now() + Duration::from_secs(60);
    let replay = Replay::Endpoint {
        endpoint: EndpointKey::new(tenant("mine"), id("receiver")),
        which: Undelivered { missed: true, ..Undelivered::FAILED },
        since: Timestamp::UNIX_EPOCH,
        until: None,
    };
    let replay =
        async |store: &PostgresStore| replay_all(store, replay_request(replay, now)).await.unwrap();
    assert_eq!(check(&url, "replay", MOST, replay).await, mine / 10);
    let prune = PruneRequest { tenant: Some(tenant("mine")), before: now, limit: 20, now };
    let prune = async |store: &PostgresStore| store.prune(prune).await.unwrap();
    assert_eq!(check(&url, "prune", MOST, prune).await, 20);
    let expunge =
        ExpungeRequest { tenant: tenant("mine"), event: None, after: None, limit: 20, now };
    let expunge = async |store: &PostgresStore| store.expunge(expunge).await.unwrap();
    let Expunged { events, next } = check(&url, "expunge", MOST, expunge).await;
    assert_eq!((events, next.is_some()), (20, true));
}
