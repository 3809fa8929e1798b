//! The processor time of an engine that has nothing to do.

use std::time::{Duration, Instant};

use webhooks_core::{EndpointId, Timestamp};
use webhooks_dispatch::{Engine, FnTransport};
use webhooks_registry::store::{EndpointStore as _, RegisterRequest};
use webhooks_tests::postgres::Cluster;

use super::clocks::server_cpu;
use super::crowd::Kind;
use super::delivered::Delivered;
use super::figures::{Figures, PAID, cpu, endpoint, event, note};
use super::place::{Opened, Place};
use super::process::alone;

const ENDPOINTS: usize = 100;

/// The time after the last delivery that does not count: connections close, and results are settled.
const SETTLES: Duration = Duration::from_secs(1);

pub(crate) async fn measure(cluster: &Cluster, is_quick: bool, figures: &mut Figures) {
    let seconds = if is_quick { 4 } else { 20 };
    println!(
        "\nan idle engine with {ENDPOINTS} endpoints over {seconds} s: percent of a processor"
    );
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let place = Place::new(kind, cluster).await;
        let server = if kind == Kind::Postgres { cluster.process() } else { 0 };
        let arguments = [&*place.name, &seconds.to_string(), &server.to_string()];
        let [own, of_server] = alone("idle", &arguments).await[..] else {
            unreachable!("it prints two");
        };
        println!("{kind:>9?}: {own:.3}, and {of_server:.3} of the server");
        note(figures, &format!("idle_cpu_percent{}", kind.suffix()), own);
    }
}

/// Measures in a process of its own; returns its percentage, and that of the server if there is one.
pub(crate) async fn run(arguments: &[String]) -> Vec<f64> {
    let [place, seconds, server] = arguments else { unreachable!("it gets three") };
    let (seconds, server): (u64, u32) = (seconds.parse().unwrap(), server.parse().unwrap());
    let opened = Opened::open(place).await;
    let store = opened.store();
    for n in 0..ENDPOINTS {
        let id = EndpointId::new(&format!("endpoint-{n}")).unwrap();
        let endpoint = endpoint("http://127.0.0.1/");
        store.register(RegisterRequest::new(id, endpoint, Timestamp::now())).await.unwrap();
    }
    let delivered = Delivered::default();
    let transport = FnTransport::new(|_, _, _, _| async { (200, "") });
    let engine = Engine::builder(store, transport).observer(delivered.clone()).build();
    let worker = engine.start();
    let _published = engine.publish(&event(&PAID)).await.unwrap();
    delivered.wait_for(ENDPOINTS).await;
    tokio::time::sleep(SETTLES).await;
    let used = || [cpu(), if server == 0 { 0.0 } else { server_cpu(server) }];
    let (start, before) = (Instant::now(), used());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (elapsed, after) = (start.elapsed().as_secs_f64(), used());
    worker.shutdown(Duration::from_secs(1)).await;
    opened.close().await;
    before.iter().zip(after).map(|(before, after)| (after - before) / elapsed * 100.0).collect()
}
