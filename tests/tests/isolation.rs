//! Slow, failing and vanishing endpoints, under a simulated clock.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use webhooks_core::{DeliveryStatus, Event, RetryPolicy};
use webhooks_dispatch::{Dispatcher, FnTransport, clock::Clock as _};
use webhooks_registry::{Endpoint, Registry};
use webhooks_tests::SimulatedClock;

const SECOND: Duration = Duration::from_secs(1);

fn registry(count: usize, retry: &RetryPolicy) -> Registry {
    let registry = Registry::new();
    for n in 0..count {
        let endpoint = Endpoint::new(&format!("https://example.com/{n}"), "secret").unwrap();
        registry.register(&format!("endpoint-{n}"), endpoint.retry(retry.clone())).unwrap();
    }
    registry
}

fn number(url: &str) -> usize {
    url.rsplit('/').next().unwrap().parse().unwrap()
}

fn event() -> Event {
    Event::new("created", 1).unwrap()
}

/// Goal: one endpoint that hangs until its timeout costs the other 99 no slot except its own.
/// Method: ten slots, attempts of a second; nine slots carry 99 attempts in 11 seconds.
#[tokio::test(start_paused = true)]
async fn one_slow_endpoint_holds_back_no_other_past_the_bound() {
    let clock = SimulatedClock::start();
    let finished = Arc::new(Mutex::new(BTreeMap::new()));
    let seen = Arc::clone(&finished);
    let transport = FnTransport::new(move |url, _, _, _| {
        let (seen, number) = (Arc::clone(&seen), number(&url));
        async move {
            clock.sleep(if number == 0 { 3600 * SECOND } else { SECOND }).await;
            seen.lock().unwrap().insert(number, clock.elapsed());
            (200, "")
        }
    });
    let registry = registry(100, &RetryPolicy::none());
    let dispatcher = Dispatcher::new(registry, transport).clock(clock).concurrency(10);
    let start = clock.now();
    let results = dispatcher.dispatch(&event()).await;

    let (delivered, failed): (Vec<_>, Vec<_>) =
        results.iter().partition(|result| result.status == DeliveryStatus::Delivered);
    let last = delivered.iter().map(|result| result.timestamp).max();
    assert_eq!((delivered.len(), last), (99, Some(start + 11 * SECOND)));
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].endpoint_id.as_str(), "endpoint-0");
    assert_eq!(failed[0].error.as_deref(), Some("the exchange was not over in time"));
    let last = *finished.lock().unwrap().values().max().unwrap();
    assert_eq!((finished.lock().unwrap().len(), last), (99, 11 * SECOND));
    assert_eq!(clock.elapsed(), 30 * SECOND, "the slowest path: its timeout");
}

/// Goal: a delivery that waits for a retry uses no slot. Method: one slot, and fifty endpoints that
/// fail at once, twice; their waits overlap, so that all take as long as one.
#[tokio::test(start_paused = true)]
async fn the_whole_takes_as_long_as_the_slowest_path() {
    let clock = SimulatedClock::start();
    let calls = Arc::new(Mutex::new(BTreeMap::<usize, u32>::new()));
    let transport = FnTransport::new(move |url, _, _, _| {
        let mut calls = calls.lock().unwrap();
        let call = calls.entry(number(&url)).or_default();
        *call += 1;
        let status = if *call > 2 { 200 } else { 500 };
        async move { (status, "") }
    });
    let policy = RetryPolicy::schedule([10 * SECOND, 60 * SECOND]).without_jitter();
    let dispatcher = Dispatcher::new(registry(50, &policy), transport).clock(clock).concurrency(1);
    let results = dispatcher.dispatch_with_retry(&event(), None).await;
    assert!(results.iter().all(|result| result.status == DeliveryStatus::Delivered));
    assert!(results.iter().all(|result| result.attempt == 3));
    assert_eq!(clock.elapsed(), 70 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn no_more_exchanges_are_in_flight_than_allowed() {
    let clock = SimulatedClock::start();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (current, peak) = (Arc::clone(&now), Arc::clone(&most));
    let transport = FnTransport::new(move |_, _, _, _| {
        let guard = InFlight::enter(&current);
        peak.fetch_max(current.load(Ordering::Relaxed), Ordering::Relaxed);
        async move {
            clock.sleep(SECOND).await;
            drop(guard);
            (200, "")
        }
    });
    let registry = registry(100, &RetryPolicy::none());
    let dispatcher = Dispatcher::new(registry, transport).clock(clock).concurrency(7);
    let (one, two) = (event(), event());
    let (a, b) = tokio::join!(dispatcher.dispatch(&one), dispatcher.dispatch(&two));
    assert_eq!(a.len() + b.len(), 200);
    assert_eq!(most.load(Ordering::Relaxed), 7, "over both dispatches together");
}

/// Goal: dropping the future ends every attempt and frees every slot. Method: fill all slots with
/// attempts that hang, drop the call, and dispatch again.
#[tokio::test(start_paused = true)]
async fn dropping_the_future_cancels_cleanly() {
    let clock = SimulatedClock::start();
    let in_flight = Arc::new(AtomicUsize::new(0));
    let current = Arc::clone(&in_flight);
    let transport = FnTransport::new(move |_, _, _, _| {
        let guard = InFlight::enter(&current);
        async move {
            clock.sleep(10 * SECOND).await;
            drop(guard);
            (200, "")
        }
    });
    let registry = registry(5, &RetryPolicy::none());
    let dispatcher = Dispatcher::new(registry, transport).clock(clock).concurrency(5);
    let event = event();
    let look = async {
        clock.sleep(SECOND).await;
        in_flight.load(Ordering::Relaxed)
    };
    tokio::select! {
        biased;
        _ = dispatcher.dispatch(&event) => unreachable!("exchanges take ten seconds"),
        seen = look => assert_eq!(seen, 5),
    }
    assert_eq!(in_flight.load(Ordering::Relaxed), 0);
    let results = dispatcher.dispatch(&event).await;
    assert!(results.iter().all(|result| result.status == DeliveryStatus::Delivered));
    assert_eq!(clock.elapsed(), 11 * SECOND, "all five at once: no slot was lost");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_jitter() {
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let clock = SimulatedClock::start();
        let transport = FnTransport::new(|_, _, _, _| async { (500, "") });
        let registry = registry(3, &RetryPolicy::default());
        let dispatcher = Dispatcher::new(registry, transport).clock(clock).seed(seed);
        let results = dispatcher.dispatch_with_retry(&event(), None).await;
        let times: Vec<_> = results.into_iter().map(|result| result.timestamp).collect();
        assert!((3 * SECOND..=4 * SECOND).contains(&clock.elapsed()));
        runs.push(times);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

/// Counts one while it lives.
struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
