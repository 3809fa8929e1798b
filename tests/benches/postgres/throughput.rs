//! Deliveries per second, and processor time, commits and statements per delivery, with one worker
//! process.

use webhooks_postgres::PostgresStore;
use webhooks_tests::postgres::Cluster;

use super::figures::{CONCURRENCY, Figures, float, median, note};
use super::receiver::Receiver;
use super::rounds::{BATCH, bare_round, engine_round, middle};
use super::server::{counts, cpu_with, server_cpu, show_statements};

/// The number of callers that publish at once. A single one would mostly wait for the disk.
const PUBLISHERS: usize = 4;

pub(crate) async fn measure(
    cluster: &Cluster,
    receiver: &Receiver,
    is_quick: bool,
    figures: &mut Figures,
) {
    let (rounds, deliveries) = if is_quick { (3, 20_000) } else { (9, 40_000) };
    println!("\n{deliveries} deliveries a round, {rounds} rounds, {CONCURRENCY} in flight");
    println!(
        "published by {PUBLISHERS} callers in batches of {BATCH} while delivering, until the last \
         one is settled"
    );
    let [mut bare, mut postgres] = [const { Vec::new() }; 2];
    let [mut commits, mut statements, mut server] = [const { Vec::new() }; 3];
    let receives = receiver.url("hook");
    // Warms up connections and caches.
    bare_round(&receives, deliveries / 4).await;
    let mut last = String::new();
    for _ in 0..rounds {
        bare.push(bare_round(&receives, deliveries).await);
        let url = cluster.database().await;
        let store = PostgresStore::open(&url).await.unwrap();
        let (cpu, before) = (|| cpu_with(cluster), server_cpu(cluster));
        postgres.push(engine_round(store.clone(), &receives, deliveries, PUBLISHERS, cpu).await);
        // The server reports its counts when the connections close.
        store.close().await;
        server.push((server_cpu(cluster) - before) * 1e6 / float(deliveries));
        let (committed, called) = counts(&url).await;
        commits.push(committed / float(deliveries));
        statements.push(called / float(deliveries));
        last = url;
    }
    let (bare_middle, middle) = (middle(&bare), middle(&postgres));
    let pairs = || postgres.iter().zip(&bare);
    // Each round is compared with the bare one just before it.
    let over = median(pairs().map(|(a, b)| a.per_second / b.per_second).collect());
    let cpu_over = median(pairs().map(|(a, b)| a.cpu_each / b.cpu_each).collect());
    let (commits, statements) = (median(commits), median(statements));
    println!("           over bare  cpu over bare   per second  cpu µs each");
    for (name, over, cpu_over, round) in
        [("bare", 1.0, 1.0, bare_middle), ("postgres", over, cpu_over, middle)]
    {
        let (per_second, cpu_each) = (round.per_second, round.cpu_each);
        println!("{name:>9} {over:>10.3} {cpu_over:>14.3} {per_second:>12.0} {cpu_each:>12.1}");
    }
    let server = median(server);
    println!("a delivery: {commits:.4} commits, {statements:.4} round trips");
    println!("of its processor time {server:.1} µs are PostgreSQL's");
    show_statements(&last, float(deliveries)).await;
    note(figures, "postgres_over_bare", over);
    note(figures, "cpu_postgres_over_bare", cpu_over);
    note(figures, "commits_per_delivery", commits);
    note(figures, "round_trips_per_delivery", statements);
    note(figures, "bare_per_s", bare_middle.per_second);
}
