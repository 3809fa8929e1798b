//! The service as a process, and the callers who publish at the same time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::process::Child;
use tokio::task::JoinSet;
use webhooks_admin::ApiKeyText;
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_tests::Receiver;
use webhooks_tests::crash::{receiver, spawn};

use crate::running::client;

pub(crate) const SERVICE: &str = env!("CARGO_BIN_EXE_service");

const CALLERS: usize = 8;

/// The wait before a refused call is made again, or a condition is checked again.
const PAUSE: Duration = Duration::from_millis(20);

/// One life of the service.
pub(crate) struct Life {
    pub(crate) process: Child,
    pub(crate) url: String,
}

impl Life {
    pub(crate) async fn begin(store: &str, callers: &Callers) -> Self {
        Self::begin_by(SERVICE, &[store, &callers.key]).await
    }

    /// Begins a life by a command that becomes the service.
    pub(crate) async fn begin_by(program: &str, arguments: &[&str]) -> Self {
        let (process, mut lines) = spawn(program, arguments);
        let url = lines.next_line().await.unwrap().unwrap();
        Self { process, url }
    }
}

/// The callers of the service, and what they were told.
#[derive(Clone)]
pub(crate) struct Callers {
    client: reqwest::Client,
    pub(crate) key: String,
    /// The ids of the messages that were answered 2xx.
    accepted: Arc<Mutex<BTreeSet<String>>>,
    /// The number of messages that were answered 503.
    refused: Arc<AtomicUsize>,
    pub(crate) receiver: Arc<Receiver>,
}

impl Callers {
    pub(crate) async fn new() -> Self {
        Self {
            client: client(),
            key: ApiKeyText::generate().reveal().to_owned(),
            accepted: Arc::default(),
            refused: Arc::default(),
            receiver: Arc::new(receiver().await),
        }
    }

    /// Makes an application with an endpoint.
    pub(crate) async fn settle_in(&self, life: &Life) {
        let app = json!({ "name": "shop", "uid": "shop" });
        self.post(&life.url, "/app", &app).await.unwrap();
        let endpoint = json!({ "url": self.receiver.url() });
        self.post(&life.url, "/app/shop/endpoint", &endpoint).await.unwrap();
    }

    /// Makes a request until it is not refused; returns the id of the answer, or `None` if there is no
    /// service. A refusal is 503, and tells when to try again.
    pub(crate) async fn post(
        &self,
        url: &str,
        path: &str,
        body: &serde_json::Value,
    ) -> Option<String> {
        loop {
            let request = self.client.post(format!("{url}/api/v1{path}")).bearer_auth(&self.key);
            let response = request.body(body.to_string()).send().await.ok()?;
            let (status, is_told) = (response.status(), is_told(&response));
            let text = response.text().await.ok()?;
            if status.is_success() {
                let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
                return answer["id"].as_str().map(str::to_owned);
            }
            assert!(status.as_u16() == 503 && is_told, "{status} {text}");
            self.refused.fetch_add(1, Ordering::Relaxed);
            SystemClock.sleep(PAUSE).await;
        }
    }

    /// Reads a path.
    pub(crate) async fn get(&self, url: &str, path: &str) -> serde_json::Value {
        let request = self.client.get(format!("{url}/api/v1{path}")).bearer_auth(&self.key);
        let text = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Publishes from many tasks at once, until the service is gone.
    pub(crate) fn publish(&self, life: &Life) -> JoinSet<()> {
        let mut publishing = JoinSet::new();
        for _ in 0..CALLERS {
            let (callers, url) = (self.clone(), life.url.clone());
            publishing.spawn(async move {
                // Large enough that they fill a small disk.
                let payload = json!({ "filler": "a".repeat(1_000) });
                let message = json!({ "eventType": "paid", "payload": payload });
                while let Some(id) = callers.post(&url, "/app/shop/msg", &message).await {
                    callers.accepted.lock().unwrap().insert(id);
                }
            });
        }
        publishing
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }

    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Waits until this many more messages were accepted.
    pub(crate) async fn wait_for(&self, more: usize) {
        let enough = self.accepted() + more;
        wait(async || self.accepted() >= enough).await;
    }

    /// Waits until the service answers that it is well, or that it is not and when to ask again.
    pub(crate) async fn wait_for_health(&self, life: &Life, is_well: bool) {
        wait(async || {
            let response = self.client.get(format!("{}/api/v1/health", life.url)).send().await;
            let response = response.unwrap();
            let status = response.status().as_u16();
            assert!(status == 204 || status == 503 && is_told(&response), "{status}");
            (status == 204) == is_well
        })
        .await;
    }

    /// Waits until everything that was accepted has arrived.
    pub(crate) async fn wait_for_all(&self) {
        let missing = || {
            let received = self.receiver.received();
            let ids: BTreeSet<&str> =
                received.iter().map(|one| one.headers["webhook-id"].to_str().unwrap()).collect();
            self.accepted.lock().unwrap().iter().filter(|id| !ids.contains(&***id)).count()
        };
        wait(async || missing() == 0).await;
    }
}

/// Returns whether an answer tells when to try again.
fn is_told(response: &reqwest::Response) -> bool {
    let told = response.headers().get("retry-after");
    told.is_some_and(|told| told.to_str().unwrap().parse::<u32>().unwrap() > 0)
}

/// Waits until something is so, for two minutes at most: retries are due after some seconds.
pub(crate) async fn wait(is_so: impl AsyncFn() -> bool) {
    let deadline = SystemClock.monotonic() + Duration::from_secs(120);
    while !is_so().await {
        assert!(SystemClock.monotonic() < deadline, "it is not so in time");
        SystemClock.sleep(PAUSE).await;
    }
}

/// Waits until a number has grown by `more`.
pub(crate) async fn wait_for_more(number: impl Fn() -> usize, more: usize) {
    let enough = number() + more;
    wait(async || number() >= enough).await;
}
