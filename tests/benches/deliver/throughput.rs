//! Deliveries per second, and processor time per delivery: bare, with the memory store, with
//! SQLite.

use webhooks_dispatch::MemoryStore;
use webhooks_sqlite::SqliteStore;

use super::rounds::{BATCH, Round, bare_round, engine_round, middle};
use super::{CONCURRENCY, Figures, Receiver, cpu, folder, median, note};

pub(crate) async fn measure(receiver: &Receiver, is_quick: bool, figures: &mut Figures) {
    let (rounds, deliveries) = if is_quick { (3, 20_000) } else { (9, 60_000) };
    println!("\n{deliveries} deliveries a round, {rounds} rounds, {CONCURRENCY} in flight");
    println!("published in batches of {BATCH} while delivering, until the last one is settled");
    let [mut bare, mut memory, mut sqlite] = [const { Vec::new() }; 3];
    let url = receiver.url("hook");
    // Warms up connections and caches.
    bare_round(&url, deliveries / 4).await;
    for _ in 0..rounds {
        bare.push(bare_round(&url, deliveries).await);
        memory.push(engine_round(MemoryStore::with_history(1_000), &url, deliveries, 1, cpu).await);
        let folder = folder();
        let store = SqliteStore::open(folder.path().join("bench.db")).await.unwrap();
        sqlite.push(engine_round(store, &url, deliveries, 1, cpu).await);
    }
    println!("           over bare  cpu over bare   per second  cpu µs each");
    let bare_median = middle(&bare);
    for (name, rounds) in [("bare", &bare), ("memory", &memory), ("sqlite", &sqlite)] {
        let Round { per_second, cpu_each } = middle(rounds);
        // Each round is compared with the bare one just before it.
        let over =
            median(rounds.iter().zip(&bare).map(|(a, b)| a.per_second / b.per_second).collect());
        let cpu_over =
            median(rounds.iter().zip(&bare).map(|(a, b)| a.cpu_each / b.cpu_each).collect());
        println!("{name:>9} {over:>10.3} {cpu_over:>14.3} {per_second:>12.0} {cpu_each:>12.1}");
        if name != "bare" {
            note(figures, &format!("{name}_over_bare"), over);
            note(figures, &format!("cpu_{name}_over_bare"), cpu_over);
        }
    }
    note(figures, "bare_per_s", bare_median.per_second);
}
