//! The guard's time limits: for handlers, for callers that wait for them, and for its store.
#![cfg(feature = "memory")]
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "shared/sender.rs"]
mod sender;

use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use sender::{NOW, key, receiver, signed};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use webhooks_core::Timestamp;
use webhooks_receive::provider::Standard;
use webhooks_receive::seen::{BeginOutcome, SeenClaim, SeenError, SeenId, SeenStore};
use webhooks_receive::{
    MemorySeenStore, Receiver, Rejection, ReplayGuard, RunOutcome, SetupError, Webhook,
};

/// When a test gives up, in paused time.
const DEADLINE: Duration = Duration::from_secs(600);

/// A webhook of now, and the receiver that verified it, whose timers go by tokio's paused time.
async fn of_now() -> (Receiver<Standard>, Webhook) {
    let receiver = Receiver::<Standard>::from_keys(key()).unwrap();
    let now = Timestamp::now().as_unix_seconds();
    let request = signed("msg_1", now, b"{}").body(Full::new(Bytes::from_static(b"{}"))).unwrap();
    let webhook = receiver.receive(request).await.unwrap().into_body();
    (receiver, webhook)
}

/// Otherwise another process would run it at the same time.
#[tokio::test(start_paused = true)]
async fn a_handler_that_outlasts_its_lease_is_dropped() {
    let (receiver, webhook) = of_now().await;
    let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new()).unwrap();
    let (start, alive) = (Instant::now(), Arc::new(()));
    let handler = async {
        let _alive = Arc::clone(&alive);
        pending::<StatusCode>().await
    };
    let run = timeout(DEADLINE, guard.run(&webhook, handler));
    let refused = run.await.unwrap().unwrap_err();
    assert!(matches!(refused, Rejection::LeaseEnded { .. }), "{refused:?}");
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.to_response().headers()["retry-after"], "5");
    assert_eq!((start.elapsed().as_secs(), Arc::strong_count(&alive)), (60, 1));
    let guarded = guard.run(&webhook, ready(StatusCode::OK)).await.unwrap();
    assert!(matches!(guarded, RunOutcome::Ran { .. }), "the id was given back");
}

#[test]
fn a_lease_of_nothing_is_refused() {
    let guard = ReplayGuard::new(&receiver(), "billing", MemorySeenStore::new()).unwrap();
    let refused = guard.clone().lease(Duration::ZERO).unwrap_err();
    assert!(matches!(refused, SetupError::ZeroLease), "{refused:?}");
    assert!(guard.lease(Duration::from_nanos(1)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_repetition_waits_ten_seconds_at_most() {
    let (receiver, webhook) = of_now().await;
    let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new()).unwrap();
    let handler = guard.run(&webhook, pending::<StatusCode>());
    let waiter = async {
        let start = Instant::now();
        let refused = guard.run(&webhook, ready(StatusCode::OK)).await.unwrap_err();
        (start.elapsed().as_secs(), refused)
    };
    let both = async { tokio::join!(handler, waiter).1 };
    let (seconds, refused) = timeout(DEADLINE, both).await.unwrap();
    assert_eq!((seconds, refused.status()), (10, StatusCode::CONFLICT));
    // When the lease must have ended.
    assert_eq!(refused.to_response().headers()["retry-after"], "50");
}

/// A store that answers when the test lets it.
#[derive(Clone)]
struct Gated {
    inner: MemorySeenStore,
    begin: Arc<Semaphore>,
    done: Arc<Semaphore>,
    /// How many are noted.
    noted: Arc<Semaphore>,
    releases: Arc<AtomicUsize>,
}

impl Gated {
    fn new() -> Self {
        let closed = || Arc::new(Semaphore::new(0));
        let (begin, done, noted) = (closed(), closed(), closed());
        Self { inner: MemorySeenStore::new(), begin, done, noted, releases: Arc::default() }
    }
}

impl SeenStore for Gated {
    /// Fails if the gate is closed for good.
    async fn begin(&self, claim: SeenClaim, now: Timestamp) -> Result<BeginOutcome, SeenError> {
        let permit = self.begin.acquire().await;
        permit.map_err(|closed| SeenError::Unavailable { source: closed.into() })?.forget();
        self.inner.begin(claim, now).await
    }

    async fn done(&self, id: SeenId, until: Timestamp) -> Result<(), SeenError> {
        self.done.acquire().await.unwrap().forget();
        self.inner.done(id, until).await?;
        self.noted.add_permits(1);
        Ok(())
    }

    async fn release(&self, claim: SeenClaim) -> Result<(), SeenError> {
        self.releases.fetch_add(1, Ordering::Relaxed);
        self.inner.release(claim).await
    }
}

#[tokio::test]
async fn those_that_wait_for_a_store_that_fails_get_the_same() {
    let store = Gated::new();
    let guard = ReplayGuard::new(&receiver(), "billing", store.clone()).unwrap();
    let request = signed("msg_1", NOW, b"{}").body(Full::new(Bytes::from_static(b"{}"))).unwrap();
    let webhook = receiver().receive(request).await.unwrap().into_body();
    let first = guard.run(&webhook, ready(StatusCode::OK));
    let second = guard.run(&webhook, ready(StatusCode::OK));
    let fail = async { store.begin.close() };
    let (first, second, ()) = tokio::join!(first, second, fail);
    for refused in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.to_response().headers()["retry-after"], "5");
    }
    guard.idle().await;
    assert_eq!(store.releases.load(Ordering::Relaxed), 0, "there was no claim to give back");
}

/// The sender goes away when its webhook was handled and the store does not know yet. Method: the
/// store takes note at a gate, before which everybody who waits gives up, and the guard goes too.
#[tokio::test(start_paused = true)]
async fn what_was_handled_is_noted_although_nobody_waits() {
    let (receiver, webhook) = of_now().await;
    let store = Gated::new();
    store.begin.add_permits(2);
    let guard = ReplayGuard::new(&receiver, "billing", store.clone()).unwrap();
    let second = Duration::from_secs(1);
    let run = guard.run(&webhook, ready(StatusCode::OK));
    assert!(timeout(second, run).await.is_err());
    for _ in 0..2 {
        assert!(timeout(second, guard.idle()).await.is_err(), "the note is not there yet");
    }
    drop(guard);
    store.done.add_permits(1);
    timeout(second, store.noted.acquire()).await.unwrap().unwrap().forget();
    assert_eq!(store.releases.load(Ordering::Relaxed), 0);
    let guard = ReplayGuard::new(&receiver, "billing", store).unwrap();
    timeout(second, guard.idle()).await.unwrap();
    let guarded = guard.run(&webhook, ready(StatusCode::OK)).await.unwrap();
    assert!(matches!(guarded, RunOutcome::Duplicate));
}
