//! The breaker of a worker in another process: all can read that it is open, and an operator's wish reaches it.

use std::sync::atomic::AtomicBool;

use webhooks_core::RetryPolicy;
use webhooks_dispatch::monitor::{RestReason, Sending};
use webhooks_dispatch::{BreakerSettings, EngineSettings, Undelivered};
use webhooks_tests::postgres::{hold, texts};

use super::*;

/// Goal: an operator whose process delivers nothing sees that an endpoint is held, and has it tried at once: by a
/// delivery, and by other settings. Method: breakers stay open for an hour, and only an engine over another
/// store delivers. It hears of the wishes by notifications, or, behind a pooler that passes none on, by its
/// heartbeats.
#[tokio::test(flavor = "multi_thread")]
async fn a_wish_reaches_the_breaker_of_another_process() {
    let url = Cluster::shared().database().await;
    let listening = open(&url).await;
    probe_from_elsewhere(&url, listening).await;
}

/// Goal and method: as above.
#[tokio::test(flavor = "multi_thread")]
async fn a_wish_reaches_a_breaker_without_notifications() {
    let url = Cluster::shared().database().await;
    let pooler = Cluster::shared().pooler_in("probing");
    let options = PostgresOptions::new(&pooler.url(&url)).unwrap().without_prepared_statements();
    let deaf = options.heartbeat(Duration::from_millis(50)).open().await.unwrap();
    probe_from_elsewhere(&url, deaf).await;
}

#[tokio::test]
async fn a_replay_of_nothing_asks_for_no_probe() {
    let url = Cluster::shared().database().await;
    let (here, there) = (open(&url).await, open_beating(&url, Duration::from_secs(10)).await);
    register(&here, "crm", endpoint()).await;
    assert!(claim(&there, 1).await.is_empty(), "it is a worker now");
    let replay = Replay::of_endpoint(key("crm"), Undelivered::ALL);
    assert_eq!(replay_all(&here, replay_request(replay, Timestamp::now())).await.unwrap(), 0);
    let asked = texts(&url, "SELECT endpoints::text FROM webhooks.probes").await.unwrap();
    assert_eq!(asked, [""; 0]);
}

async fn probe_from_elsewhere(url: &str, there: PostgresStore) {
    const LEFT: &str = "INSERT INTO webhooks.worker_reports (worker, number, report, seen_at)
        SELECT 99, number, report, clock_timestamp() FROM webhooks.worker_reports
        ON CONFLICT DO NOTHING";
    let here = open(url).await;
    let is_up = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&is_up);
    let transport = FnTransport::new(move |_, _, _, _| {
        let status = if answers.load(Ordering::SeqCst) { 200 } else { 500 };
        async move { (status, "") }
    });
    let hour = Duration::from_secs(3_600);
    let breaker =
        BreakerSettings { first_pause: hour, longest_pause: hour, ..BreakerSettings::default() };
    let settings = EngineSettings { breaker, ..EngineSettings::default() };
    let worker = Engine::builder(there, transport).settings(settings).build().start();
    let operator = Engine::new(here, FnTransport::new(|_, _, _, _| async { (200, "") }));
    let soon = RetryPolicy::fixed(Duration::from_millis(10), 1_000);
    operator.endpoints().register("crm", endpoint().retry(soon.clone())).await.unwrap();
    let number = operator.endpoints().get("crm").await.unwrap().unwrap().number;
    let delivered = async |wanted: u64| {
        let counted = operator.monitor().statistics(key("crm"), Timestamp::UNIX_EPOCH).await;
        (counted.unwrap().delivered == wanted).then_some(())
    };
    for round in 1..=2 {
        is_up.store(false, Ordering::SeqCst);
        operator.publish(&Event::new("created", round).unwrap()).await.unwrap();
        let failures = eventually(async || match operator.sending(number).await.unwrap() {
            Sending::Held { by: RestReason::Failures, failures, workers: 1, .. } => Some(failures),
            _ => None,
        })
        .await;
        assert_eq!(failures, 5);
        // A worker that was killed left the same report.
        drop(hold(url, LEFT).await);
        let found = operator.sending(number).await.unwrap();
        assert!(matches!(found, Sending::Held { workers: 1, .. }), "{found:?}");
        is_up.store(true, Ordering::SeqCst);
        if round == 1 {
            let found = operator.history().deliveries(Query::default()).await.unwrap();
            let _tried = operator.try_now(found.items[0].id).await.unwrap();
        } else {
            let changed = endpoint().retry(soon.clone()).max_in_flight(NonZeroU32::new(7).unwrap());
            operator.endpoints().register("crm", changed).await.unwrap();
        }
        eventually(async || delivered(round).await).await;
        eventually(async || {
            (operator.sending(number).await.unwrap() == Sending::Free).then_some(())
        })
        .await;
    }
    worker.shutdown(DEADLINE).await;
}
