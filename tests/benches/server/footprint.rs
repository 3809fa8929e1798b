//! The memory of the service, idle and under a burst that its receiver is too slow for, and its start.

use std::time::Instant;

use super::accept::publish;
use super::figures::{CONCURRENCY, Figures, float, median, note};
use super::folder;
use super::receiver::Receiver;
use super::service::{Service, message};

pub(crate) async fn measure(receiver: &Receiver, is_quick: bool, figures: &mut Figures) {
    let (starts, events) = if is_quick { (9, 30_000) } else { (21, 200_000) };
    let folder = folder();
    let first = Service::start(folder.path());
    first.add_app("shop", 1, &receiver.url("hook")).await;
    deliver_one(&first, receiver).await;
    drop(first);
    let start = median(start(starts, folder.path()).await);
    let service = Service::start(folder.path());
    deliver_one(&service, receiver).await;
    let idle = service.mib("VmRSS:");
    service.add_app("busy", 1, &receiver.url("slow")).await;
    let request = service.request("/app/busy/msg", &message().to_string());
    publish(&service, &request, CONCURRENCY, events).await;
    let burst = service.mib("VmHWM:");
    println!("\nresident memory: {idle:.1} MiB idle");
    println!(
        "{burst:.1} MiB at most, {events} events published singly for a receiver that needs 200 ms each"
    );
    println!("start to ready, over a store that is there: {start:.1} ms, the median of {starts}");
    note(figures, "rss_idle_mib", idle);
    note(figures, "rss_burst_mib", burst);
    note(figures, "start_ms", start);
}

async fn deliver_one(service: &Service, receiver: &Receiver) {
    let before = receiver.arrived(0).await;
    let request = service.request("/app/shop/msg", &message().to_string());
    service.connect().await.ask(&request).await;
    receiver.arrived(before + 1).await;
}

/// Returns the milliseconds from the start of the process to an answer that it is well.
async fn start(starts: usize, folder: &std::path::Path) -> Vec<f64> {
    let mut millis = Vec::new();
    for _ in 0..starts {
        let start = Instant::now();
        let service = Service::start(folder);
        service.connect().await.ask(&service.request("/health", "")).await;
        millis.push(float(usize::try_from(start.elapsed().as_micros()).unwrap()) / 1e3);
    }
    millis
}
