//! Durable publishing alone: with one caller, and with 64 callers at once.

use std::time::Instant;

use tokio::task::JoinSet;
use webhooks_dispatch::{Engine, FnTransport};
use webhooks_sqlite::SqliteStore;

use super::{Figures, PAID, endpoint, event, float, folder, note};

pub(crate) async fn measure(is_quick: bool, figures: &mut Figures) {
    let events = if is_quick { 10_000 } else { 50_000 };
    println!("\ndurable publishes a second, one event a call, one delivery an event");
    for (callers, events) in [(1, events / 10), (64, events)] {
        let per_second = round(callers, events).await;
        println!("{callers:>4} callers: {per_second:>8.0}");
        note(figures, &format!("publish_per_s_{callers}"), per_second);
    }
}

async fn round(callers: usize, events: usize) -> f64 {
    let folder = folder();
    let store = SqliteStore::open(folder.path().join("bench.db")).await.unwrap();
    let transport = FnTransport::new(|_, _, _, _| async { (200, "") });
    let engine = Engine::new(store, transport);
    engine.endpoints().register("a", endpoint("http://127.0.0.1/")).await.unwrap();
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for _ in 0..callers {
        let engine = engine.clone();
        tasks.spawn(async move {
            for _ in 0..events / callers {
                let _published = engine.publish(&event(&PAID)).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    float(events / callers * callers) / start.elapsed().as_secs_f64()
}
