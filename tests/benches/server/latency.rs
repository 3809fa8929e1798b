//! The time from a publish over HTTP to the receipt of its delivery, at a low rate.
//!
//! Nothing waits for anything else: each tick makes one bare request, one publish and one append to a file
//! that is synced, so that all three are measured in the same state of the machine. A publish cannot cost
//! less than two requests (in, and out) and one sync of the disk. The aim allows one more request, for the
//! work in between.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::figures::{Figures, PAID, event, note};
use super::folder;
use super::receiver::{Receiver, micros};
use super::service::{Service, message};

/// The time between two steps, of which each publish has three.
const TICK: Duration = Duration::from_millis(5);

/// The bytes of an append: a page of the database.
const PAGE: [u8; 4096] = [7; 4096];

pub(crate) async fn measure(receiver: &Receiver, is_quick: bool, figures: &mut Figures) {
    let ticks = if is_quick { 600 } else { 3_000 };
    println!("\nfrom publish to receipt, {ticks} events singly, one every {:?}", 3 * TICK);
    let folder = folder();
    let service = Service::start(folder.path());
    service.add_app("shop", 1, &receiver.url("timed")).await;
    let mut connection = service.connect().await;
    let bare = Bare::new(receiver);
    let mut file = File::create(folder.path().join("synced")).unwrap();
    let [mut requests, mut answers, mut syncs] = [const { Vec::new() }; 3];
    let mut ticker = interval(TICK);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0..ticks + ticks / 10 {
        if n == ticks / 10 {
            // The first ones warm up, and do not count.
            receiver.latencies().await;
            for times in [&mut requests, &mut answers, &mut syncs] {
                times.clear();
            }
        }
        ticker.tick().await;
        requests.push(bare.ask().await);
        ticker.tick().await;
        let mut message = message();
        // The endpoint gets the payload alone, which is a whole event.
        message["payload"]["payload"]["sent"] = micros().into();
        let message = service.request("/app/shop/msg", &message.to_string());
        let start = Instant::now();
        connection.ask(&message).await;
        answers.push(start.elapsed());
        ticker.tick().await;
        syncs.push(sync(&mut file));
    }
    let mut receipts = receiver.latencies().await;
    while receipts.len() < ticks {
        ticker.tick().await;
        receipts.extend(receiver.latencies().await);
    }
    let [bare, answer, sync, receipt] = [requests, answers, syncs, receipts].map(p50);
    println!("p50: bare request {bare:.3} ms, append and fdatasync {sync:.3} ms");
    println!("p50: publish to its answer {answer:.3} ms, publish to receipt {receipt:.3} ms");
    let over = receipt / (3.0 * bare + sync);
    println!("receipt over three bare requests and one fdatasync: {over:.3}");
    note(figures, "paced_p50_ms", receipt);
    note(figures, "paced_p50_over_3_bare_1_sync", over);
}

/// The client of the bare loop, which delivers as a program would without the service.
struct Bare {
    client: reqwest::Client,
    url: reqwest::Url,
    body: String,
}

impl Bare {
    fn new(receiver: &Receiver) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = reqwest::Url::parse(&receiver.url("hook")).unwrap();
        Self { client, url, body: event(&PAID).to_json() }
    }

    /// Returns the time of a request, until its answer.
    async fn ask(&self) -> Duration {
        let start = Instant::now();
        let request = self.client.post(self.url.clone()).body(self.body.clone());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap();
        start.elapsed()
    }
}

fn sync(file: &mut File) -> Duration {
    let start = Instant::now();
    file.write_all(&PAGE).unwrap();
    file.sync_data().unwrap();
    start.elapsed()
}

/// Returns the middle one in milliseconds.
fn p50(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}
