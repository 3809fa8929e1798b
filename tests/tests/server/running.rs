//! A service that listens on loopback.

use std::future::pending;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use webhooks_admin::{
    Actor, Admin, ApiKey, ApiKeyText, Grant, IdKind, PostgresRecordStore, Role, SqliteRecordStore,
};
use webhooks_core::{RetryPolicy, Timestamp};
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::{BoxedStore, Engine, EngineSettings, LogObserver, Worker};
use webhooks_http::HttpTransport;
use webhooks_postgres::PostgresStore;
use webhooks_server::otlp::SpanExporter;
use webhooks_server::{Metrics, ServeSettings, Service, ServiceSettings, serve};
use webhooks_sqlite::SqliteStore;
use webhooks_tests::postgres::Cluster;

/// The stores that a service can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A running service and the key of its administrator.
pub(crate) struct Running {
    pub(crate) service: Service,
    pub(crate) url: String,
    pub(crate) key: String,
    client: reqwest::Client,
    pub(crate) worker: Option<Worker>,
    pub(crate) folder: TempDir,
}

impl Running {
    pub(crate) async fn start(kind: Kind) -> Self {
        Self::start_with(kind, HttpTransport::development().unwrap()).await
    }

    pub(crate) async fn start_with(kind: Kind, transport: HttpTransport) -> Self {
        // Retries soon, so that clients see them.
        let retry = RetryPolicy::fixed(Duration::from_secs(1), 1);
        Self::start_retrying(kind, transport, retry).await
    }

    /// Starts a service that tries again by this policy.
    pub(crate) async fn start_retrying(
        kind: Kind,
        transport: HttpTransport,
        retry: RetryPolicy,
    ) -> Self {
        let mut settings = ServiceSettings::default();
        // Tests send many keys that are refused.
        settings.max_refused_keys = u32::MAX;
        let engine = EngineSettings { retry, ..EngineSettings::default() };
        Self::start_as(kind, transport, settings, engine, None).await
    }

    /// Starts a service that exports spans.
    pub(crate) async fn start_exporting(kind: Kind, spans: SpanExporter) -> Self {
        let transport = HttpTransport::development().unwrap();
        let retry = RetryPolicy::fixed(Duration::from_millis(100), 1);
        let engine = EngineSettings { retry, ..EngineSettings::default() };
        Self::start_as(kind, transport, ServiceSettings::default(), engine, Some(spans)).await
    }

    /// Starts a service with settings of its engine.
    pub(crate) async fn start_engine(kind: Kind, engine: EngineSettings) -> Self {
        let transport = HttpTransport::development().unwrap();
        Self::start_as(kind, transport, ServiceSettings::default(), engine, None).await
    }

    /// Starts a service with settings, over a file.
    pub(crate) async fn start_with_settings(settings: ServiceSettings) -> Self {
        let transport = HttpTransport::development().unwrap();
        let retry = RetryPolicy::fixed(Duration::from_secs(1), 1);
        let engine = EngineSettings { retry, ..EngineSettings::default() };
        Self::start_as(Kind::Sqlite, transport, settings, engine, None).await
    }

    async fn start_as(
        kind: Kind,
        transport: HttpTransport,
        settings: ServiceSettings,
        engine_settings: EngineSettings,
        spans: Option<SpanExporter>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, admin) = match kind {
            Kind::Sqlite => {
                let store = SqliteStore::open(folder.path().join("service.db")).await.unwrap();
                let records = SqliteRecordStore::new(store.clone()).await.unwrap();
                (BoxedStore::new(store), Admin::new(records))
            }
            Kind::Postgres => {
                let database = Cluster::shared().database().await;
                let store = PostgresStore::open(&database).await.unwrap();
                let records = PostgresRecordStore::new(&store).await.unwrap();
                (BoxedStore::new(store), Admin::new(records))
            }
        };
        let metrics = Metrics::default();
        let engine = Engine::builder(store, transport).settings(engine_settings);
        let mut engine = engine.observer(metrics.clone()).observer(LogObserver::new());
        if let Some(spans) = &spans {
            engine = engine.observer(spans.clone());
        }
        let engine = engine.build();
        let worker = engine.start();
        let service = Service::new(engine, admin, settings, metrics);
        if let Some(spans) = spans {
            service.export_spans(spans);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, service.router(), ServeSettings::default(), pending()));
        let key = add_key(&service, Grant::new(Role::Admin)).await;
        let client = client();
        Self { service, url, key, client, worker: Some(worker), folder }
    }

    /// Makes a request with a key; returns the status and the JSON of the answer.
    pub(crate) async fn ask_as(
        &self,
        key: Option<&str>,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> (u16, Value) {
        let method = method.parse().unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        // Metrics are no JSON.
        let json = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let json = if json == json!("") { Value::Null } else { json };
        (status, json)
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = (!body.is_null()).then(|| body.to_string());
        self.ask_as(Some(&self.key), method, path, body.as_deref()).await
    }

    /// Makes a POST with the administrator's key, these headers and this body.
    pub(crate) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(&self.key);
        let with_header = |request: reqwest::RequestBuilder, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        let request = headers.iter().fold(request, with_header).body(body.to_owned());
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, Value::Null).await
    }

    /// Makes an application; returns its id.
    pub(crate) async fn add_app(&self, uid: &str) -> String {
        let (status, made) =
            self.ask("POST", "/api/v1/app", json!({ "name": uid, "uid": uid })).await;
        assert_eq!(status, 201, "{made}");
        made["id"].as_str().unwrap().to_owned()
    }
}

/// Returns a client, for which a provider of cryptography must be chosen although it speaks no TLS.
pub(crate) fn client() -> reqwest::Client {
    let _chosen_before = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// Adds a key; returns its text.
pub(crate) async fn add_key(service: &Service, grant: Grant) -> String {
    let (text, now) = (ApiKeyText::generate(), Timestamp::now());
    let key = ApiKey::new("test", text.hash(), grant, now);
    let id = IdKind::ApiKey.generate();
    service.admin().keys().add(id, key, &Actor::service(), now).await.unwrap();
    text.reveal().to_owned()
}

/// Asks until an answer is as it should be, for half a minute at most.
pub(crate) async fn until(
    running: &Running,
    path: &str,
    is_right: impl Fn(&Value) -> bool,
) -> Value {
    let deadline = SystemClock.monotonic() + Duration::from_secs(30);
    loop {
        let (status, answer) = running.get(path).await;
        assert_eq!(status, 200, "{answer}");
        if is_right(&answer) {
            return answer;
        }
        assert!(SystemClock.monotonic() < deadline, "{path}: {answer}");
        SystemClock.sleep(Duration::from_millis(20)).await;
    }
}
