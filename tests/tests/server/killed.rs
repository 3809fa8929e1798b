//! The service is killed again and again under load: everything that it answered 2xx arrives.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;
use tokio::process::Child;
use webhooks_admin::ApiKeyText;
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_tests::crash::{receiver, spawn};
use webhooks_tests::postgres::Cluster;

use crate::running::client;

/// The lives of the service, and the callers who publish at the same time.
const LIVES: usize = 4;
const CALLERS: usize = 8;

/// One life of the service.
pub(crate) struct Life {
    pub(crate) process: Child,
    pub(crate) url: String,
}

impl Life {
    pub(crate) async fn begin(store: &str, key: &str) -> Self {
        let (process, mut lines) = spawn(env!("CARGO_BIN_EXE_service"), &[store, key]);
        let url = lines.next_line().await.unwrap().unwrap();
        Self { process, url }
    }
}

/// The callers of the service, and what they were told.
#[derive(Clone)]
pub(crate) struct Callers {
    client: reqwest::Client,
    key: String,
    /// The ids of the messages that were answered 2xx.
    accepted: Arc<Mutex<BTreeSet<String>>>,
}

impl Callers {
    pub(crate) fn new(key: &str) -> Self {
        Self { client: client(), key: key.to_owned(), accepted: Arc::default() }
    }

    /// Makes a request; returns the id of the answer if it was 2xx.
    pub(crate) async fn post(
        &self,
        url: &str,
        path: &str,
        body: &serde_json::Value,
    ) -> Option<String> {
        let request = self.client.post(format!("{url}{path}")).bearer_auth(&self.key);
        let response = request.body(body.to_string()).send().await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        let answer: serde_json::Value =
            serde_json::from_slice(&response.bytes().await.ok()?).ok()?;
        answer["id"].as_str().map(str::to_owned)
    }

    /// Reads a path.
    pub(crate) async fn get(&self, url: &str, path: &str) -> serde_json::Value {
        let request = self.client.get(format!("{url}{path}")).bearer_auth(&self.key);
        let body = request.send().await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// Publishes until the service is gone.
    async fn publish(self, url: String, life: usize, caller: usize) {
        for number in 0.. {
            let name = format!("{life}-{caller}-{number}");
            let message =
                json!({ "eventType": "paid", "eventId": name, "payload": { "id": name } });
            match self.post(&url, "/api/v1/app/shop/msg", &message).await {
                Some(id) => self.accepted.lock().unwrap().insert(id),
                None => return,
            };
        }
    }

    fn count(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }
}

async fn killed_again_and_again(store: &str) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (mut random, key) = (Rng::with_seed(seed), ApiKeyText::generate().reveal().to_owned());
    let callers = Callers::new(&key);
    let receiver = receiver().await;
    for life in 0..LIVES {
        let mut running = Life::begin(store, &key).await;
        if life == 0 {
            let app = json!({ "name": "shop", "uid": "shop" });
            callers.post(&running.url, "/api/v1/app", &app).await.unwrap();
            let endpoint = json!({ "url": receiver.url() });
            callers.post(&running.url, "/api/v1/app/shop/endpoint", &endpoint).await.unwrap();
        }
        let publishing: Vec<_> = (0..CALLERS)
            .map(|caller| tokio::spawn(callers.clone().publish(running.url.clone(), life, caller)))
            .collect();
        let enough = callers.count() + random.usize(20..200);
        wait(|| callers.count() >= enough).await;
        running.process.kill().await.unwrap();
        for caller in publishing {
            caller.await.unwrap();
        }
    }
    let _last = Life::begin(store, &key).await;
    let missing = || {
        let received = receiver.received();
        let ids: BTreeSet<&str> =
            received.iter().map(|one| one.headers["webhook-id"].to_str().unwrap()).collect();
        callers.accepted.lock().unwrap().iter().filter(|id| !ids.contains(&***id)).count()
    };
    wait(|| missing() == 0).await;
    assert!(callers.count() >= LIVES * 20);
}

/// Waits until something is so, for two minutes at most: retries are due after some seconds.
pub(crate) async fn wait(is_so: impl Fn() -> bool) {
    let deadline = SystemClock.monotonic() + Duration::from_secs(120);
    while !is_so() {
        assert!(SystemClock.monotonic() < deadline, "it is not so in time");
        SystemClock.sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_over_a_file_loses_nothing_that_it_accepted() {
    let folder = tempfile::tempdir().unwrap();
    killed_again_and_again(folder.path().join("service.db").to_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_over_a_database_loses_nothing_that_it_accepted() {
    killed_again_and_again(&Cluster::shared().database().await).await;
}
