//! The cost of publishing an event to many endpoints, by the delivery.

use webhooks_dispatch::monitor::MonitorStore as _;
use webhooks_tests::postgres::Cluster;

use super::crowd::{Crowd, Kind};
use super::figures::{Figures, float, median, note};

/// The size that the other is compared with, and the number of its events, which makes its rounds long
/// enough to be measured.
const FEW: usize = 100;
const EVENTS: usize = 50;

pub(crate) async fn measure(cluster: &Cluster, is_quick: bool, figures: &mut Figures) {
    let (many, rounds) = if is_quick { (10_000, 3) } else { (100_000, 5) };
    println!("\npublishing one event to many endpoints, processor µs a delivery, {rounds} rounds");
    for kind in Kind::ALL {
        let mut few_endpoints = Crowd::open(kind, FEW, cluster).await;
        let mut many_endpoints = Crowd::open(kind, many, cluster).await;
        let [mut costs_of_few, mut costs_of_many] = [const { Vec::new() }; 2];
        for _ in 0..rounds {
            costs_of_few.push(cost(&mut few_endpoints, EVENTS).await);
            costs_of_many.push(cost(&mut many_endpoints, 1).await);
        }
        let pairs = costs_of_many.iter().zip(&costs_of_few);
        let ratio = median(pairs.map(|(many, few)| many / few).collect());
        let [to_few, to_many] = [costs_of_few, costs_of_many].map(|costs| median(costs) * 1e6);
        println!(
            "{kind:>9?}: {to_few:.2} to {FEW} endpoints, {to_many:.2} to {many}, {ratio:.3} times"
        );
        note(figures, &format!("fanout_per_delivery_over_100{}", kind.suffix()), ratio);
    }
}

/// Returns the processor seconds of a delivery.
async fn cost(crowd: &mut Crowd, events: usize) -> f64 {
    crowd.deliver().await;
    crowd.tidy().await;
    let before = crowd.cpu();
    crowd.publish_to_crowd(events).await;
    let deliveries = events * crowd.size;
    let each = (crowd.cpu() - before) / float(deliveries);
    let waiting = crowd.worker.waiting(u64::MAX).await.unwrap();
    assert_eq!(waiting, u64::try_from(deliveries).unwrap(), "all are there");
    each
}
