//! The receivers of the demo: one that is steady, one that is flaky, and one that is dead.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::net::TcpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use webhooks_core::Timestamp;
use webhooks_dispatch::clock::{Clock as _, MonotonicTime, SystemClock};
use webhooks_sign::{Key, KeyRing, standard};

use crate::failure::{Exit, Failure};
use crate::loopback;

/// The answer of a flaky receiver. A 5xx would open the circuit breaker of the endpoint, which is what the dead one
/// shows.
const BUSY: StatusCode = StatusCode::CONFLICT;

/// A request that came.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    /// The header `webhook-id`.
    pub(super) id: String,
    pub(super) body: Bytes,
    pub(super) at: MonotonicTime,
    /// Whether its signature is right.
    pub(super) is_genuine: bool,
    /// Whether it was answered as delivered.
    pub(super) is_taken: bool,
}

/// A receiver, which ends when it is dropped.
pub(super) struct Receiver {
    pub(super) url: String,
    log: Arc<Log>,
    serving: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Default)]
struct Log {
    keys: OnceLock<KeyRing<1>>,
    /// The attempts of each event that are refused.
    refused: u32,
    arrivals: Mutex<Vec<Arrival>>,
    attempts: Mutex<HashMap<String, u32>>,
    /// Set to leave the next request without an answer.
    holds: AtomicBool,
    held: Notify,
}

impl Receiver {
    /// Starts a receiver that refuses the first attempts of each event.
    pub(super) async fn start(refused: u32) -> Result<Self, Failure> {
        let failed = |error| Failure::new(Exit::Failed, "cannot start a receiver").because(error);
        let (listener, url) = loopback::listen().await.map_err(failed)?;
        let log = Arc::new(Log { refused, ..Log::default() });
        let of_handler = Arc::clone(&log);
        let handler = move |headers, body| answer(Arc::clone(&of_handler), headers, body);
        let serving = tokio::spawn(loopback::serve(listener, handler));
        Ok(Self { url, log, serving })
    }

    /// Sets the secret with which it verifies what comes.
    pub(super) fn expect(&self, secret: &str) -> Result<(), Failure> {
        let key = Key::standard(secret);
        let key = key.map_err(|error| {
            Failure::new(Exit::Failed, "the endpoint's secret is not valid").because(error)
        })?;
        // It is set once.
        let _again = self.log.keys.set(KeyRing::from(key));
        Ok(())
    }

    /// Leaves the next request without an answer.
    pub(super) fn hold_next(&self) {
        self.log.holds.store(true, Ordering::Release);
    }

    /// Waits until the request is there that gets no answer.
    pub(super) async fn held(&self) {
        self.log.held.notified().await;
    }

    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        lock(&self.log.arrivals).clone()
    }
}

async fn answer(log: Arc<Log>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let now = Timestamp::now().as_unix_seconds();
    let verified = log.keys.get().map(|keys| standard::verify(keys, &headers, &body, now).is_ok());
    let attempt = {
        let mut attempts = lock(&log.attempts);
        let attempt = attempts.entry(id.to_owned()).or_default();
        *attempt += 1;
        *attempt
    };
    let is_taken = attempt > log.refused;
    let (id, at) = (id.to_owned(), SystemClock.monotonic());
    let is_genuine = verified.unwrap_or_default();
    lock(&log.arrivals).push(Arrival { id, body, at, is_genuine, is_taken });
    if log.holds.swap(false, Ordering::AcqRel) {
        log.held.notify_one();
        std::future::pending::<()>().await;
    }
    if is_taken { StatusCode::NO_CONTENT } else { BUSY }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port at which nobody answers. It is taken, so that no other program begins to listen there.
pub(super) struct Dead {
    _taken: TcpSocket,
    pub(super) url: String,
}

impl Dead {
    pub(super) fn new() -> Result<Self, Failure> {
        let failed = |error| Failure::new(Exit::Failed, "cannot take a port").because(error);
        let socket = TcpSocket::new_v4().map_err(failed)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(failed)?;
        let url = format!("http://{}/hook", socket.local_addr().map_err(failed)?);
        Ok(Self { _taken: socket, url })
    }
}
