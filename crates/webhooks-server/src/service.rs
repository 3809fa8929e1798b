//! The service: an engine, what is kept beside it, and how requests are answered.

#[cfg(feature = "otlp")]
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use webhooks_admin::{Admin, IdKind, JwtSecret};
use webhooks_core::Timestamp;
use webhooks_dispatch::clock::{Clock as _, MonotonicTime, SystemClock};
use webhooks_dispatch::{BoxedStore, Engine, PublishError};
use webhooks_http::HttpTransport;

use crate::base_path::BasePath;
use crate::error::ApiError;
use crate::metrics::Metrics;
#[cfg(feature = "otlp")]
use crate::otlp::SpanExporter;
use crate::overrides::Overrides;
use crate::refused_keys::RefusedKeys;
use crate::schema_cache::SchemaCache;
use crate::throttle::Throttle;

/// How long a refusal of the store is told: then callers are let through to try again.
const REFUSAL: Duration = Duration::from_secs(10);

/// The jobs of its own that a process runs at once.
const JOBS: usize = 8;

/// The settings of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceSettings {
    /// The URL at which people reach the service, for links to its pages.
    pub public_url: String,
    /// The path under which all routes are; the root by default. It is a part of `public_url`, unless a proxy in
    /// front adds it.
    pub base_path: BasePath,
    /// The URL of the portal in the links to sessions; `/portal` under `public_url` by default.
    pub portal_url: Option<String>,
    /// The longest body of a request in bytes; 2 MiB by default.
    pub max_request: usize,
    /// The longest time that the body of a request may take to arrive; 30 s by default. The largest body needs
    /// 70 KB/s then.
    pub body_timeout: Duration,
    /// The most requests in work at once; 512 by default. Further ones get 503 at once and come again, so
    /// that memory does not grow with a burst. The operations on health are always answered.
    pub max_requests: usize,
    /// The most keys of one address that may be refused at once, before it must wait; 20 by default. Then one
    /// in five seconds may. Addresses need `ConnectInfo<SocketAddr>`, which [`serve`](fn@crate::serve) gives.
    pub max_refused_keys: u32,
    /// The networks of the proxies in front; none by default. The address of a caller behind them is the last of
    /// `X-Forwarded-For` that is in none of these networks. It is logged, and refused keys are counted by it.
    pub proxies: Vec<IpNet>,
    /// The secret of a server of Svix whose tokens are accepted; none by default.
    pub jwt_secret: Option<JwtSecret>,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            public_url: "http://127.0.0.1:8071".to_owned(),
            base_path: BasePath::default(),
            portal_url: None,
            max_request: 2 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            max_requests: 512,
            max_refused_keys: 20,
            proxies: Vec::new(),
            jwt_secret: None,
        }
    }
}

/// A webhook service over an engine. Clones share it.
#[derive(Debug, Clone)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine<BoxedStore, HttpTransport>,
    admin: Admin,
    settings: ServiceSettings,
    metrics: Metrics,
    schemas: SchemaCache,
    throttle: Throttle,
    overrides: Overrides,
    jobs: Arc<Semaphore>,
    /// Held by the task that deletes applications.
    deletions: tokio::sync::Mutex<()>,
    refused_keys: RefusedKeys,
    /// The places of requests in work.
    places: Arc<Semaphore>,
    /// The time at which the store last refused an event, if it has accepted none since.
    refused_at: Mutex<Option<MonotonicTime>>,
    listeners: Mutex<Listeners>,
    #[cfg(feature = "otlp")]
    spans: OnceLock<SpanExporter>,
    /// The name of this process among those of the service.
    process: String,
}

/// The service's knowledge of the operational endpoints.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    /// Whether there was one, and when that was looked at.
    pub(crate) known: Option<(bool, MonotonicTime)>,
    /// The number of changes that this process has made to them.
    pub(crate) changes: u64,
}

/// A service that may be gone.
#[derive(Debug)]
pub(crate) struct WeakService(Weak<Inner>);

impl WeakService {
    pub(crate) fn upgrade(&self) -> Option<Service> {
        self.0.upgrade().map(Service)
    }
}

impl Service {
    /// Returns the service of an engine, whose workers its owner starts and stops, and of what `admin`
    /// keeps. Both should keep their rows in one database. The metrics count if the engine has them as an
    /// observer.
    pub fn new(
        engine: Engine<BoxedStore, HttpTransport>,
        admin: Admin,
        settings: ServiceSettings,
        metrics: Metrics,
    ) -> Self {
        let throttle = Throttle::default();
        let refused_keys = RefusedKeys::new(settings.max_refused_keys);
        let places = settings.max_requests.clamp(1, Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(places));
        Self(Arc::new(Inner {
            engine,
            admin,
            settings,
            metrics,
            schemas: SchemaCache::default(),
            throttle,
            overrides: Overrides::default(),
            jobs: Arc::new(Semaphore::new(JOBS)),
            deletions: tokio::sync::Mutex::default(),
            refused_keys,
            places,
            refused_at: Mutex::default(),
            listeners: Mutex::default(),
            #[cfg(feature = "otlp")]
            spans: OnceLock::new(),
            process: IdKind::Task.generate(),
        }))
    }

    /// Exports the spans of requests that publish from now on. A second call changes nothing.
    #[cfg(feature = "otlp")]
    pub fn export_spans(&self, exporter: SpanExporter) {
        let _first = self.0.spans.set(exporter);
    }

    #[cfg(feature = "otlp")]
    pub(crate) fn spans(&self) -> &OnceLock<SpanExporter> {
        &self.0.spans
    }

    /// Borrows the engine.
    pub fn engine(&self) -> &Engine<BoxedStore, HttpTransport> {
        &self.0.engine
    }

    /// Borrows what is kept beside the engine.
    pub fn admin(&self) -> &Admin {
        &self.0.admin
    }

    pub(crate) fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn process(&self) -> &str {
        &self.0.process
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Notes whether the store accepted an event.
    pub(crate) fn note_publish(&self, error: Option<&PublishError>) {
        let refused = matches!(error, Some(PublishError::Store(_)));
        let refused_at = refused.then(|| SystemClock.monotonic());
        *self.0.refused_at.lock().unwrap_or_else(PoisonError::into_inner) = refused_at;
    }

    /// Returns whether the store has refused an event of late, and accepted none since.
    pub(crate) fn refuses(&self) -> bool {
        let refused_at = *self.0.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        refused_at.is_some_and(|at| SystemClock.monotonic().saturating_since(at) < REFUSAL)
    }

    pub(crate) fn schemas(&self) -> &SchemaCache {
        &self.0.schemas
    }

    pub(crate) fn throttle(&self) -> &Throttle {
        &self.0.throttle
    }

    pub(crate) fn overrides(&self) -> &Overrides {
        &self.0.overrides
    }

    /// Repeats some work, with a pause after each time, in a task that ends with the service. `later` is logged
    /// with a failure.
    pub(crate) fn repeat<W, E>(
        &self,
        pause: Duration,
        later: &'static str,
        work: impl Fn(Self) -> W + Send + 'static,
    ) where
        W: Future<Output = Result<(), E>> + Send,
        E: std::error::Error + Send + 'static,
    {
        let service = self.downgrade();
        tokio::spawn(async move {
            while let Some(service) = service.upgrade() {
                if let Err(error) = work(service).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "{later}");
                }
                SystemClock.sleep(pause).await;
            }
        });
    }

    /// Returns a handle that does not keep the service alive, for its tasks.
    pub(crate) fn downgrade(&self) -> WeakService {
        WeakService(Arc::downgrade(&self.0))
    }

    pub(crate) fn deletions(&self) -> &tokio::sync::Mutex<()> {
        &self.0.deletions
    }

    /// Returns the permit of a job of its own, if fewer run than may at once.
    pub(crate) fn job_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.jobs).try_acquire_owned().ok()
    }

    pub(crate) fn refused_keys(&self) -> &RefusedKeys {
        &self.0.refused_keys
    }

    /// Returns a place for a request in work, until it is dropped.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let place = Arc::clone(&self.0.places).try_acquire_owned();
        place.map_err(|_full| {
            self.metrics().note_shed();
            ApiError::busy()
        })
    }

    pub(crate) fn settings(&self) -> &ServiceSettings {
        &self.0.settings
    }

    pub(crate) fn now() -> Timestamp {
        Timestamp::now()
    }
}
