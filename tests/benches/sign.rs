//! The cost of verifying, compared with the bare HMAC of the same bytes and the `standardwebhooks`
//! crate.
//!
//! All sides run in one process, in turn, for many rounds. The figures are medians of the rounds;
//! only their ratios count. The limits are for a quiet machine, and no run fails because of them.
//! `--quick` takes fewer rounds, `--json` adds one flat object as the last line.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use serde_json::json;
use sha2::Sha256;
use webhooks_sign::{Key, KeyRing, standard};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";

/// The largest ratios that are expected.
const LIMITS: [(&str, f64); 4] = [
    ("verify_1k_over_hmac", 1.2),
    ("verify_1k_over_peer", 0.25),
    ("verify_20k_over_hmac", 1.02),
    ("bad_signatures_16_over_1", 1.2),
];

/// The nanoseconds per call of each side, in the median round.
struct Medians {
    hmac: f64,
    /// Headers in an array of pairs.
    ours: f64,
    /// Headers in an `http::HeaderMap`. Its lookups take longer, but the peer accepts no other
    /// type.
    ours_of_map: f64,
    peer: f64,
}

fn main() {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let rounds = if has("--quick") { 31 } else { 201 };
    println!("one v1 signature; medians of {rounds} rounds; the ratios count, not the times");
    println!("     body  ours/hmac  map/hmac  map/peer   hmac ns   ours ns    map ns   peer ns");
    let mut figures = serde_json::Map::new();
    for (name, len) in [("64", 64), ("1k", 1024), ("20k", 20 * 1024), ("1m", 1024 * 1024)] {
        let Medians { hmac, ours, ours_of_map, peer } = measure(len, rounds);
        let ratios = [ours / hmac, ours_of_map / hmac, ours_of_map / peer];
        let [over_hmac, map_over_hmac, over_peer] = ratios;
        print!("{name:>9} {over_hmac:>10.3} {map_over_hmac:>9.3} {over_peer:>9.3}");
        println!(" {hmac:>9.0} {ours:>9.0} {ours_of_map:>9.0} {peer:>9.0}");
        figures.insert(format!("verify_{name}_over_hmac"), json!(over_hmac));
        figures.insert(format!("verify_{name}_map_over_hmac"), json!(map_over_hmac));
        figures.insert(format!("verify_{name}_over_peer"), json!(over_peer));
    }
    let crowded = crowded(rounds);
    println!("1 MiB with 16 bad signatures over 1 MiB with one: {crowded:.3}");
    figures.insert("bad_signatures_16_over_1".to_owned(), json!(crowded));
    let allocations = allocations();
    println!("allocations of one sign and one verify: {allocations}");
    figures.insert("allocations".to_owned(), json!(allocations));
    for (name, limit) in LIMITS {
        let found = figures[name].as_f64().unwrap_or(f64::INFINITY);
        let verdict = if found <= limit { "ok" } else { "over" };
        println!("{name:>26} {found:.3}, limit {limit:.2}: {verdict}");
    }
    if has("--json") {
        println!("{}", serde_json::Value::Object(figures));
    }
}

/// The peer reads the system's clock, so all sides use it.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs()
}

fn headers(body: &[u8], now: u64) -> HeaderMap {
    let key = Key::standard(SECRET).expect("a valid secret");
    let signature = standard::sign(&key, ID, now, body).expect("a valid id");
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", ID.parse().expect("ASCII"));
    headers.insert("webhook-timestamp", now.into());
    headers.insert("webhook-signature", signature.as_str().parse().expect("ASCII"));
    headers
}

fn measure(len: usize, rounds: usize) -> Medians {
    let body = vec![b'x'; len];
    let now = now();
    let headers = headers(&body, now);
    let keys = KeyRing::from(Key::standard(SECRET).expect("a valid secret"));
    let peer = standardwebhooks::Webhook::new(SECRET).expect("a valid secret");
    let mac = Hmac::<Sha256>::new_from_slice(&[7; 24]).expect("any length");
    let calls = (2_000_000 / (len + 500)).max(1);
    let text = |name: &str| headers[name].to_str().expect("ASCII");
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let pairs = names.map(|name| (name, text(name)));
    let [mut hmac, mut ours, mut ours_of_map, mut theirs] = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        hmac.push(time(calls, || {
            let mut mac = mac.clone();
            mac.update(black_box(&body));
            black_box(mac.finalize());
        }));
        ours.push(time(calls, || {
            let verified = standard::verify(&keys, black_box(&pairs), black_box(&body), now);
            black_box(verified.expect("a valid signature"));
        }));
        ours_of_map.push(time(calls, || {
            let verified = standard::verify(&keys, black_box(&headers), black_box(&body), now);
            black_box(verified.expect("a valid signature"));
        }));
        theirs.push(time(calls, || {
            let verified = peer.verify(black_box(&body), black_box(&headers));
            verified.expect("a valid signature");
        }));
    }
    let [hmac, ours, ours_of_map, peer] = [hmac, ours, ours_of_map, theirs].map(median);
    Medians { hmac, ours, ours_of_map, peer }
}

/// Returns how many times as long it takes to refuse sixteen bad signatures as one, with a body of
/// 1 MiB.
fn crowded(rounds: usize) -> f64 {
    let body = vec![b'x'; 1024 * 1024];
    let keys = KeyRing::from(Key::standard(SECRET).expect("a valid secret"));
    let bad = format!("v1,{}=", "A".repeat(43));
    let refuse = |signatures: &str| {
        let headers =
            [("webhook-id", ID), ("webhook-timestamp", "17"), ("webhook-signature", signatures)];
        time(1, || {
            let refused = standard::verify(&keys, &headers, black_box(&body), 17);
            assert!(refused.is_err(), "a bad signature is refused");
        })
    };
    let list = vec![bad.as_str(); 16].join(" ");
    let (one, sixteen) = (0..rounds).map(|_| (refuse(&bad), refuse(&list))).unzip();
    median(sixteen) / median(one)
}

/// Returns the nanoseconds per call.
fn time(calls: usize, mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let calls = calls as f64;
    start.elapsed().as_secs_f64() * 1e9 / calls
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn allocations() -> u64 {
    let body = vec![b'x'; 1024];
    let now = now();
    let headers = headers(&body, now);
    let key = Key::standard(SECRET).expect("a valid secret");
    let keys = KeyRing::from(key.clone());
    let counted = allocation_counter::measure(|| {
        black_box(standard::sign(&key, ID, now, &body).expect("a valid id"));
        black_box(standard::verify(&keys, &headers, &body, now).expect("a valid signature"));
    });
    counted.count_total
}
