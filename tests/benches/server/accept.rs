//! Events accepted per second, safe on disk with one delivery each.
//!
//! They are due in an hour, so that accepting alone is measured. The last figure is of events that the
//! service delivers meanwhile. The client shares the processors with the service, so the same requests are
//! also answered by axum alone, for comparison.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use webhooks_core::Timestamp;

use super::connection::Request;
use super::figures::{CONCURRENCY, Figures, float, median, note};
use super::folder;
use super::receiver::Receiver;
use super::rounds::{BATCH, Round, middle};
use super::service::{Service, message};

/// The connections over which batches come.
const BATCHERS: usize = 4;

pub(crate) async fn measure(receiver: &Receiver, is_quick: bool, figures: &mut Figures) {
    let (rounds, events) = if is_quick { (3, 12_800) } else { (9, 64_000) };
    println!("\nevents accepted a second, one delivery each, {events} a round, {rounds} rounds");
    let later = json!(Timestamp::now() + Duration::from_secs(3600));
    let mut waiting = message();
    waiting["deliverAt"] = later;
    let [mut alone, mut singly, mut batched, mut delivering] = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        alone.push(axum_round(&waiting, events).await);
        singly.push(round(receiver, ("msg", &waiting), (CONCURRENCY, 1), events).await);
        let batch = Value::from(vec![waiting.clone(); BATCH]);
        batched.push(round(receiver, ("msg/batch", &batch), (BATCHERS, BATCH), events).await);
        delivering.push(round(receiver, ("msg", &message()), (CONCURRENCY, 1), events).await);
    }
    let over = singly.iter().zip(&alone).map(|(a, b)| a.per_second / b.per_second).collect();
    for (name, key, rounds) in [
        ("answered by axum alone".to_owned(), "axum_per_s", alone),
        (format!("singly, {CONCURRENCY} connections"), "accept_per_s", singly),
        (format!("batches of {BATCH}, {BATCHERS} connections"), "accept_batch_per_s", batched),
        ("singly, delivered meanwhile".to_owned(), "accept_delivering_per_s", delivering),
    ] {
        let Round { per_second, cpu_each } = middle(&rounds);
        println!(
            "{name:>32}: {per_second:>8.0}, {cpu_each:.1} µs of the service's processor time each"
        );
        note(figures, key, per_second);
        note(figures, &key.replace("_per_s", "_cpu_us"), cpu_each);
    }
    let over = median(over);
    println!("singly over axum alone: {over:.3}");
    note(figures, "accept_over_axum", over);
}

/// Returns the cost of the same requests, answered by axum alone: no service can be quicker.
async fn axum_round(body: &Value, events: usize) -> Round {
    let axum = Service::axum_alone();
    let request = axum.request("/app/shop/msg", &body.to_string());
    measured(&axum, &request, (CONCURRENCY, 1), events).await
}

/// Returns the cost of accepting events over a number of connections, each request with a number of events.
async fn round(
    receiver: &Receiver,
    (path, body): (&str, &Value),
    (connections, each): (usize, usize),
    events: usize,
) -> Round {
    let folder = folder();
    let service = Service::start(folder.path());
    service.add_app("shop", 1, &receiver.url("hook")).await;
    let request = service.request(&format!("/app/shop/{path}"), &body.to_string());
    measured(&service, &request, (connections, each), events).await
}

async fn measured(
    service: &Service,
    request: &Request,
    (connections, each): (usize, usize),
    events: usize,
) -> Round {
    let (requests, accepted) = (events / each, float(events / each * each));
    let (start, cpu_before) = (Instant::now(), service.cpu());
    publish(service, request, connections, requests).await;
    Round {
        per_second: accepted / start.elapsed().as_secs_f64(),
        cpu_each: (service.cpu() - cpu_before) * 1e6 / accepted,
    }
}

/// Makes a request again and again over several connections at once.
pub(crate) async fn publish(
    service: &Service,
    request: &Request,
    connections: usize,
    requests: usize,
) {
    let left = Arc::new(AtomicUsize::new(requests));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (mut connection, request) = (service.connect().await, request.clone());
        let left = Arc::clone(&left);
        tasks.spawn(async move {
            let less = |left: usize| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
                connection.ask(&request).await;
            }
        });
    }
    tasks.join_all().await;
}
