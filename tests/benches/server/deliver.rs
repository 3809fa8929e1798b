//! Deliveries per second of events that come in over HTTP, beside the bare loop.
//!
//! Events are published in batches of 64 over one connection, and at most 2,048 deliveries ahead of the
//! receiver, as the benchmark `deliver` does without HTTP: published singly, the publishers' and the
//! service's time for requests would be most of what is measured, and `accept` measures that.

use std::time::Instant;

use serde_json::Value;

use super::figures::{CONCURRENCY, Figures, float, median, note};
use super::folder;
use super::receiver::Receiver;
use super::rounds::{BATCH, Round, bare_round, middle};
use super::service::{Service, message};

/// How far publishing may run ahead, in deliveries.
const AHEAD: usize = 2_048;

const ENDPOINTS: [usize; 2] = [1, 10];

pub(crate) async fn measure(receiver: &Receiver, is_quick: bool, figures: &mut Figures) {
    let (rounds, deliveries) = if is_quick { (3, 12_800) } else { (9, 64_000) };
    println!("\n{deliveries} deliveries a round, {rounds} rounds, {CONCURRENCY} in flight");
    println!("published over HTTP in batches of {BATCH}, until the last one is received");
    let url = receiver.url("hook");
    // Warms up connections and caches.
    bare_round(&url, deliveries / 4).await;
    let [mut bare, mut one, mut ten] = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        bare.push(bare_round(&url, deliveries).await);
        one.push(service_round(receiver, ENDPOINTS[0], deliveries).await);
        ten.push(service_round(receiver, ENDPOINTS[1], deliveries).await);
    }
    println!("              over bare  cpu over bare   per second  cpu µs each");
    for (name, rounds) in [("bare", &bare), ("1 endpoint", &one), ("10 endpoints", &ten)] {
        let Round { per_second, cpu_each } = middle(rounds);
        // Each round is compared with the bare one just before it.
        let over = |figure: fn(&Round) -> f64| {
            median(rounds.iter().zip(&bare).map(|(a, b)| figure(a) / figure(b)).collect())
        };
        let (over, cpu_over) = (over(|round| round.per_second), over(|round| round.cpu_each));
        println!("{name:>12} {over:>10.3} {cpu_over:>14.3} {per_second:>12.0} {cpu_each:>12.1}");
        if let Some(endpoints) = name.split_once(" endpoint").map(|(endpoints, _)| endpoints) {
            note(figures, &format!("over_bare_{endpoints}ep"), over);
            note(figures, &format!("cpu_over_bare_{endpoints}ep"), cpu_over);
        }
    }
    println!("(processor time: of the loop, and of the service without its publishers)");
    note(figures, "bare_per_s", middle(&bare).per_second);
}

async fn service_round(receiver: &Receiver, endpoints: usize, deliveries: usize) -> Round {
    let folder = folder();
    let service = Service::start(folder.path());
    service.add_app("shop", endpoints, &receiver.url("hook")).await;
    let batch = Value::from(vec![message(); BATCH]).to_string();
    let batch = service.request("/app/shop/msg/batch", &batch);
    let mut connection = service.connect().await;
    let before = receiver.arrived(0).await;
    let batches = deliveries / (BATCH * endpoints);
    let total = batches * BATCH * endpoints;
    let (start, cpu_before) = (Instant::now(), service.cpu());
    for number in 1..=batches {
        let published = number * BATCH * endpoints;
        receiver.arrived(before + published.saturating_sub(AHEAD)).await;
        connection.ask(&batch).await;
    }
    receiver.arrived(before + total).await;
    Round {
        per_second: float(total) / start.elapsed().as_secs_f64(),
        cpu_each: (service.cpu() - cpu_before) * 1e6 / float(total),
    }
}
