//! The requests that were sent can be made again from the history.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use webhooks_core::{EventId, TenantId};
use webhooks_dispatch::{
    Engine, FnTransport, MemoryStore,
    clock::Clock as _,
    history::{HistoryStore as _, Query, SentRequest},
};
use webhooks_registry::{BodyFormat, Endpoint, HeaderProfile, Secret};
use webhooks_sign::Algorithm;
use webhooks_tests::SimulatedClock;

use crate::{MINUTE, SECOND, endpoint, event};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// Goal: what an attempt sent is what its record tells, to the byte. Method: an endpoint fails
/// twice, the wall clock steps between the attempts, and each request that the transport got is
/// compared with the one that is made from the history.
async fn check(clock: SimulatedClock, to: Endpoint) {
    let requests: Arc<Mutex<Vec<(String, Bytes, HeaderMap)>>> = Arc::default();
    let transport = FnTransport::new({
        let requests = Arc::clone(&requests);
        move |url, body, headers, _timeout| {
            let mut requests = requests.lock().unwrap();
            requests.push((url, body, headers));
            let status = if requests.len() < 3 { 500 } else { 200 };
            async move { (status, "") }
        }
    });
    let engine = Engine::builder(MemoryStore::new(), transport).clock(clock).build();
    let retry = endpoint("a").retry.unwrap();
    engine.endpoints().register("a", to.retry(retry)).await.unwrap();
    let worker = engine.start();
    engine.publish(&event("x")).await.unwrap();
    clock.sleep(SECOND).await;
    // The step lasts shorter than it takes to be believed: the steady time is another one.
    clock.step(7_200);
    clock.sleep(12 * SECOND).await;
    clock.step(-7_200);
    clock.sleep(MINUTE).await;
    worker.shutdown(SECOND).await;

    let history = engine.history();
    let published = history.event(TenantId::default(), EventId::new("x").unwrap()).await.unwrap();
    let published = published.unwrap();
    let endpoint = engine.endpoints().get("a").await.unwrap().unwrap();
    let mut attempts = history.attempts(Query::default()).await.unwrap().items;
    attempts.reverse();
    let made_again = attempts.iter().map(|record| {
        let started_at = record.attempt.started_at;
        let sent = SentRequest::new(&endpoint.endpoint, &published, started_at).unwrap();
        (sent.url.to_string(), sent.body, sent.headers)
    });
    let made_again: Vec<_> = made_again.collect();
    assert_eq!(made_again.len(), 3);
    assert_eq!(*requests.lock().unwrap(), made_again, "{endpoint:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_can_be_made_again_for_each_profile_and_rotation() {
    let all = [HeaderProfile::Standard, HeaderProfile::Svix, HeaderProfile::XWebhook];
    for profiles in [&all[..1], &all[1..2], &all[2..], &all[..]] {
        let clock = SimulatedClock::start();
        let to = Endpoint::new("https://example.com/a?b=c", SECRET).unwrap();
        let to = to.profiles(profiles.iter().copied()).unwrap().bearer_auth("hush").unwrap();
        let to = to.algorithm(Algorithm::HmacSha512);
        check(clock, to.clone()).await;
        for body in [BodyFormat::Payload, BodyFormat::CloudEvent, BodyFormat::CloudEventBinary] {
            check(SimulatedClock::start(), to.clone().body(body)).await;
        }
        // The old secret expires between the attempts, by the raw wall clock.
        for lasts in [5 * SECOND, 24 * 60 * MINUTE] {
            let clock = SimulatedClock::start();
            let now = clock.now();
            check(clock, to.clone().rotate(Secret::new(OTHER).unwrap(), now + lasts, now).unwrap())
                .await;
        }
    }
}
