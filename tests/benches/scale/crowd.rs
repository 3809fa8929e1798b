//! A store with a crowd of endpoints, each of which something waits for, and a healthy endpoint
//! beside them.

use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;
use webhooks_core::{EndpointId, Event, EventType, Timestamp};
use webhooks_dispatch::{
    BoxedStore, MemoryStore,
    clock::{Clock as _, Now, SystemClock},
    store::{ClaimRequest, Claimed, DeliveryStore as _, Outcome, SerializedEvent, Settlement},
};
use webhooks_postgres::PostgresStore;
use webhooks_registry::store::{EndpointStore, RegisterRequest};
use webhooks_sqlite::SqliteStore;
use webhooks_tests::postgres::{Cluster, connect};

use super::clocks::server_cpu;
use super::figures::{cpu, endpoint, settlements};
use super::folder;
use super::request::{request, settle};

/// The types of the events for the crowd, and for the healthy endpoint.
const CROWD: &str = "crowd.paid";
const HEALTHY: &str = "healthy.paid";

/// The number of deliveries that are claimed at once between measurements.
const MANY: usize = 5_000;

/// The step of the clock between two claims that are measured.
pub(crate) const STEP: Duration = Duration::from_millis(1);

/// The number of endpoints that are registered at once.
pub(crate) const REGISTERED_AT_ONCE: usize = 256;

/// The stores that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Sqlite,
    Postgres,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Sqlite, Self::Postgres];

    /// The end of a figure's name, or a part of it. SQLite's figures have the short names.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Memory => "_memory",
            Self::Sqlite => "",
            Self::Postgres => "_postgres",
        }
    }
}

pub(crate) struct Crowd {
    pub(crate) kind: Kind,
    pub(crate) size: usize,
    /// The number of deliveries that are due for the crowd.
    pub(crate) due: usize,
    /// The present time of both clocks. It moves only when a measurement moves it, so that whatever
    /// falls due is published before the measurement.
    pub(crate) now: Now,
    /// The request of a worker without busy endpoints, and of one for which all of the crowd are busy.
    pub(crate) free: ClaimRequest,
    pub(crate) busy: ClaimRequest,
    /// The deliveries that a measurement has claimed, and left to be settled after it.
    pub(crate) unsettled: Vec<Claimed>,
    pub(crate) worker: BoxedStore,
    /// The same store for publishing. In PostgreSQL it is another process, as it were: deliveries
    /// that a worker's own process publishes are claimed for it at once.
    publisher: BoxedStore,
    database: Option<(String, u32)>,
    _folder: Option<TempDir>,
}

impl Crowd {
    /// Opens a store with a retry for each of `size` endpoints, due in an hour.
    pub(crate) async fn open(kind: Kind, size: usize, cluster: &Cluster) -> Self {
        let (mut database, mut kept) = (None, None);
        let [worker, publisher] = match kind {
            Kind::Memory => {
                let store = MemoryStore::with_history(1_000);
                [store.clone(), store].map(BoxedStore::new)
            }
            Kind::Sqlite => {
                let folder = folder();
                let store = SqliteStore::open(folder.path().join("bench.db")).await.unwrap();
                kept = Some(folder);
                [store.clone(), store].map(BoxedStore::new)
            }
            Kind::Postgres => {
                let url = cluster.database().await;
                let worker = PostgresStore::open(&url).await.unwrap();
                let publisher = PostgresStore::open(&url).await.unwrap();
                database = Some((url, cluster.process()));
                [worker, publisher].map(BoxedStore::new)
            }
        };
        register(&publisher, "healthy", HEALTHY).await;
        match &database {
            Some((url, _)) => {
                register(&publisher, "crowd-0", CROWD).await;
                multiply(url, "crowd-0", size).await;
            }
            None => register_all(&publisher, size).await,
        }
        let now = SystemClock.clocks();
        let free = request(now, []);
        let (busy, due) = (free.clone(), 0);
        let mut crowd = Self {
            kind,
            size,
            due,
            now,
            free,
            busy,
            unsettled: Vec::new(),
            worker,
            publisher,
            database,
            _folder: kept,
        };
        crowd.let_wait().await;
        crowd
    }

    /// Publishes an event to the whole crowd, and fails each of its deliveries, to be tried again in an
    /// hour.
    async fn let_wait(&mut self) {
        self.publish_to_crowd(1).await;
        let due_at = self.now.wall + Duration::from_secs(3600);
        let mut numbers = Vec::new();
        while numbers.len() < self.size {
            let request = ClaimRequest { now: self.now, limit: MANY, ..self.free.clone() };
            let claimed = self.worker.claim(request).await.unwrap();
            assert!(!claimed.is_empty(), "of {} only {}", self.size, numbers.len());
            numbers.extend(claimed.iter().map(|claimed| claimed.registration.number));
            let outcome = Outcome::Retrying { due_at };
            let retry = |settlement| Settlement { outcome, ..settlement };
            let settled = settlements(&claimed, self.now.wall).into_iter().map(retry).collect();
            let _recorded = self.worker.settle(settled, self.now.wall).await.unwrap();
        }
        self.due = 0;
        self.busy = request(self.now, numbers);
    }

    /// Delivers all that waits for the crowd.
    pub(crate) async fn deliver(&mut self) {
        self.advance(Duration::from_secs(7200));
        while self.settle_some(&self.free, MANY).await > 0 {}
        self.due = 0;
    }

    /// Delivers what is left of the events for the healthy endpoint.
    pub(crate) async fn deliver_to_healthy(&mut self) {
        let unsettled = std::mem::take(&mut self.unsettled);
        settle(&self.worker, &unsettled, self.now.wall).await;
        while self.settle_some(&self.busy, MANY).await > 0 {}
    }

    async fn settle_some(&self, request: &ClaimRequest, limit: usize) -> usize {
        let request = ClaimRequest { now: self.now, limit, per_endpoint: limit, ..request.clone() };
        let claimed = self.worker.claim(request).await.unwrap();
        let settled = settlements(&claimed, self.now.wall);
        self.worker.settle(settled, self.now.wall).await.unwrap().len()
    }

    /// Publishes events, each of which goes to all of the crowd. Each has a time of its own, so that
    /// the endpoints take turns.
    pub(crate) async fn publish_to_crowd(&mut self, events: usize) {
        let mut times = Vec::new();
        for _ in 0..events {
            self.advance(STEP);
            times.push(self.now.wall);
        }
        self.publish(CROWD, times).await;
        self.due += events * self.size;
    }

    /// Publishes events to the healthy endpoint, one for each of the next steps of the clock.
    pub(crate) async fn publish_to_healthy(&self, events: usize) {
        let steps = 1..=u32::try_from(events).unwrap();
        self.publish(HEALTHY, steps.map(|n| self.now.wall + STEP * n).collect()).await;
    }

    async fn publish(&self, event_type: &str, times: Vec<Timestamp>) {
        let event_type = EventType::new(event_type).unwrap();
        let mut calls = JoinSet::new();
        for now in times {
            // A short body, so that claims and not bytes are measured.
            let event = SerializedEvent::new(&Event::new(event_type.clone(), 17).unwrap());
            let publisher = self.publisher.clone();
            calls.spawn(async move { publisher.publish(vec![event], now).await.unwrap() });
        }
        let published = calls.join_all().await;
        assert!(published.iter().flatten().all(Result::is_ok));
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.now = Now { wall: self.now.wall + time, monotonic: self.now.monotonic + time };
    }

    /// Returns the processor time of this process and of the server, if there is one.
    pub(crate) fn cpu(&self) -> f64 {
        cpu() + self.database.as_ref().map_or(0.0, |(_, server)| server_cpu(*server))
    }

    /// Removes dead rows, as vacuum does in the course of time.
    pub(crate) async fn tidy(&self) {
        if let Some((url, _)) = &self.database {
            sqlx::raw_sql("VACUUM (ANALYZE)").execute(&mut connect(url).await).await.unwrap();
        }
    }
}

async fn register(store: &impl EndpointStore, id: &str, event_type: &str) {
    let id = EndpointId::new(id).unwrap();
    let endpoint = endpoint("http://127.0.0.1/").events([event_type]).unwrap();
    store.register(RegisterRequest::new(id, endpoint, Timestamp::now())).await.unwrap();
}

async fn register_all(store: &BoxedStore, size: usize) {
    let mut calls = JoinSet::new();
    for n in 0..size {
        let store = store.clone();
        calls.spawn(async move { register(&store, &format!("crowd-{n}"), CROWD).await });
        if calls.len() >= REGISTERED_AT_ONCE {
            calls.join_next().await.unwrap().unwrap();
        }
    }
    calls.join_all().await;
}

/// Copies an endpoint, so that there are `size` of its kind. By SQL, since registering each takes a
/// commit.
async fn multiply(url: &str, id: &str, size: usize) {
    const COPY: &str = "
        WITH copies AS (
            INSERT INTO webhooks.endpoints (id, tenant, settings, secrets, url, words, metadata,
                                            patterns, state, is_ordered, max_workers)
            SELECT id || '-' || n, tenant, settings, secrets, url, words, metadata, patterns, state,
                   is_ordered, max_workers
            FROM webhooks.endpoints CROSS JOIN generate_series(2, $2) AS n WHERE id = $1
            RETURNING number
        )
        INSERT INTO webhooks.subscriptions (tenant, pattern, endpoint, is_ordered, channels)
        SELECT s.tenant, s.pattern, copies.number, s.is_ordered, s.channels
        FROM webhooks.subscriptions s JOIN webhooks.endpoints e ON e.number = s.endpoint
        CROSS JOIN copies WHERE e.id = $1";
    let mut connection = connect(url).await;
    let size = i64::try_from(size).unwrap();
    sqlx::query(COPY).bind(id).bind(size).execute(&mut connection).await.unwrap();
    sqlx::raw_sql("VACUUM (ANALYZE)").execute(&mut connection).await.unwrap();
}
