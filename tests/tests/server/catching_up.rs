//! Catching up: a process that starts tells what others left, and reads little else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use webhooks_admin::record::RecordStore;
use webhooks_admin::{Admin, PostgresRecordStore, SqliteRecordStore};
use webhooks_core::{EndpointId, Event, EventId, TenantId, Timestamp};
use webhooks_dispatch::clock::{MonotonicTime, Now};
use webhooks_dispatch::history::{
    AttemptRecord, Cursor, DeliveryRecord, EventRecord, EventSummary, FeedPage, FeedRequest,
    HistoryStore, Page, Query, SearchPage, SearchRequest, Trouble, TroubleRequest,
};
use webhooks_dispatch::store::{
    Attempt, ClaimRequest, Outcome, Room, SerializedEvent, Settlement, StoreError,
};
use webhooks_dispatch::{BoxedStore, Engine, Store, forward_store};
use webhooks_http::HttpTransport;
use webhooks_postgres::PostgresStore;
use webhooks_registry::Endpoint;
use webhooks_registry::store::RegisterRequest;
use webhooks_server::{Metrics, Service, ServiceSettings};
use webhooks_sqlite::SqliteStore;
use webhooks_tests::Receiver;
use webhooks_tests::postgres::Cluster;

use crate::life::wait;

/// The messages that failed long ago, and those that failed after the watermark.
const OLD: usize = 1_000;
const NEW: usize = 5;

/// More messages than are told in one step.
const MANY: usize = 250;

/// A store that counts the entries of the history that are read.
struct Counted<S> {
    inner: S,
    read: Arc<AtomicUsize>,
}

forward_store!(Counted<SqliteStore> => inner: EndpointStore, DeliveryStore, OperationStore, MonitorStore, JobStore);
forward_store!(Counted<PostgresStore> => inner: EndpointStore, DeliveryStore, OperationStore, MonitorStore, JobStore);

impl<S: Store> Counted<S> {
    fn note<T>(
        &self,
        found: Result<T, StoreError>,
        len: impl Fn(&T) -> usize,
    ) -> Result<T, StoreError> {
        self.read.fetch_add(found.as_ref().map_or(0, len), Ordering::Relaxed);
        found
    }
}

impl<S: Store> HistoryStore for Counted<S> {
    async fn event(
        &self,
        tenant: TenantId,
        id: EventId,
    ) -> Result<Option<EventRecord>, StoreError> {
        self.note(self.inner.event(tenant, id).await, |_| 1)
    }

    async fn events(&self, query: Query) -> Result<Page<EventSummary>, StoreError> {
        self.note(self.inner.events(query).await, |page| page.items.len())
    }

    async fn search(&self, request: SearchRequest) -> Result<SearchPage, StoreError> {
        self.note(self.inner.search(request).await, |page| page.items.len())
    }

    async fn feed(&self, request: FeedRequest) -> Result<FeedPage, StoreError> {
        self.note(self.inner.feed(request).await, |page| page.items.len())
    }

    async fn feed_end(&self) -> Result<Cursor, StoreError> {
        self.inner.feed_end().await
    }

    async fn troubles(&self, request: TroubleRequest) -> Result<Vec<Trouble>, StoreError> {
        self.note(self.inner.troubles(request).await, Vec::len)
    }

    async fn deliveries(&self, query: Query) -> Result<Page<DeliveryRecord>, StoreError> {
        self.note(self.inner.deliveries(query).await, |page| page.items.len())
    }

    async fn attempts(&self, query: Query) -> Result<Page<AttemptRecord>, StoreError> {
        self.note(self.inner.attempts(query).await, |page| page.items.len())
    }
}

async fn register(store: &impl Store, tenant: &TenantId, url: &str, now: Timestamp) {
    let endpoint = Endpoint::new(url, "my-secret-key").unwrap().tenant(tenant.clone());
    let request = RegisterRequest::new(EndpointId::new("crm").unwrap(), endpoint, now);
    store.register(request).await.unwrap();
}

/// Publishes messages of a tenant, each of which fails for good at once.
async fn fail(store: &impl Store, tenant: &TenantId, (name, count): (&str, usize), now: Timestamp) {
    let event = |number| {
        let id = EventId::new(&format!("{name}-{number}")).unwrap();
        SerializedEvent::new(&Event::new("created", 1).unwrap().id(id).tenant(tenant.clone()))
    };
    store.publish((0..count).map(event).collect(), now).await.unwrap();
    let mut settled = 0;
    while settled < count {
        let clocks = Now { wall: now, monotonic: MonotonicTime::default() };
        let (lease, room) = (Duration::from_secs(60), Room::new());
        let (limit, per_endpoint, bytes) = (count, count, usize::MAX);
        let request = ClaimRequest { now: clocks, lease, limit, per_endpoint, bytes, room };
        let claimed = store.claim(request).await.unwrap();
        settled += claimed.len();
        let settlement = |claim| Settlement {
            claim,
            outcome: Outcome::Failed,
            attempt: Some(Attempt {
                started_at: now,
                duration: Duration::from_millis(10),
                status_code: Some(500),
                error_class: None,
                error: Some("endpoint answered 500".to_owned()),
                response_headers: String::new(),
                response: Bytes::new(),
            }),
        };
        let settlements = claimed.iter().map(|claimed| settlement(claimed.claim)).collect();
        store.settle(settlements, now).await.unwrap();
    }
}

/// Goal: the work of a start is bounded by what is new, however much has failed before. Method: a thousand
/// messages failed before the watermark of a process that is gone, and five after it. A service that starts
/// must tell of the five, and read only a few entries of the history for each.
async fn check<S: Store + Clone>(store: S, records: impl RecordStore, new: usize)
where
    Counted<S>: Store,
{
    let now = Timestamp::now();
    let ago = |minutes: u64| now.saturating_sub(Duration::from_secs(60 * minutes));
    let receiver = Receiver::answering(200).await;
    let (shop, operational) =
        (TenantId::new("app_shop").unwrap(), TenantId::new("operational-webhooks").unwrap());
    register(&store, &operational, &receiver.url(), ago(120)).await;
    register(&store, &shop, "http://127.0.0.1:9/", ago(120)).await;
    fail(&store, &shop, ("old", OLD), ago(60)).await;
    fail(&store, &shop, ("new", new), ago(10)).await;
    let admin = Admin::new(records);
    admin.add_watermark("task_gone", ago(20), ago(20)).await.unwrap();
    let (read, metrics) = (Arc::<AtomicUsize>::default(), Metrics::default());
    let store = BoxedStore::new(Counted { inner: store, read: Arc::clone(&read) });
    let engine = Engine::builder(store, HttpTransport::development().unwrap());
    let engine = engine.observer(metrics.clone()).build();
    let worker = engine.start();
    let service = Service::new(engine, admin, ServiceSettings::default(), metrics);
    let _router = service.router();
    wait(async || receiver.received().len() >= new).await;
    worker.shutdown(Duration::from_secs(30)).await;
    let received = receiver.received();
    let told: Vec<Value> =
        received.iter().map(|one| serde_json::from_slice(&one.body).unwrap()).collect();
    for one in &told {
        assert_eq!(one["payload"]["type"], "message.attempt.exhausted", "{one}");
        assert!(one["payload"]["data"]["msgId"].as_str().unwrap().starts_with("new-"), "{one}");
    }
    assert_eq!(told.len(), new);
    let read = read.load(Ordering::Relaxed);
    assert!(read < 20 * new, "{read} entries were read for {new} that are new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_over_a_file_reads_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("service.db")).await.unwrap();
    let records = SqliteRecordStore::new(store.clone()).await.unwrap();
    check(store, records, NEW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_tells_all_that_is_new_in_several_steps() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("service.db")).await.unwrap();
    let records = SqliteRecordStore::new(store.clone()).await.unwrap();
    check(store, records, MANY).await;
}

#[tokio::test]
async fn the_watermark_of_a_process_that_lives_after_all_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("service.db")).await.unwrap();
    let admin = Admin::new(SqliteRecordStore::new(store).await.unwrap());
    let now = Timestamp::now();
    admin.add_watermark("task_slow", now, now).await.unwrap();
    let read = admin.watermarks(now).await.unwrap().remove(0);
    // It lives, and its watermark is where it was.
    admin.move_watermark("task_slow", now, now).await.unwrap();
    assert!(!admin.delete_dead_watermark(&read, now).await.unwrap());
    let read = admin.watermarks(now).await.unwrap().remove(0);
    assert_eq!((read.id.as_str(), read.value.told_until), ("task_slow", now));
    assert!(admin.delete_dead_watermark(&read, now).await.unwrap());
    assert!(admin.watermarks(now).await.unwrap().is_empty());
    assert!(!admin.delete_dead_watermark(&read, now).await.unwrap(), "it is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_over_a_database_reads_what_is_new() {
    let store = PostgresStore::open(&Cluster::shared().database().await).await.unwrap();
    let records = PostgresRecordStore::new(&store).await.unwrap();
    check(store, records, NEW).await;
}
