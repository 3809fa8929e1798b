//! The task that extends leases. It is apart from claiming: a claim or a prune that takes long would
//! otherwise let leases end whose deliveries are in flight.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::WorkerShared;
use super::driver::STORE_PAUSE;
use crate::clock::Clock;
use crate::observer::{Occurrence, WorkerPart};
use crate::store::DeliveryStore;

/// Extends the leases that would otherwise end soon, until it is aborted.
pub(super) async fn run<S: DeliveryStore, T, C: Clock>(shared: Arc<WorkerShared<S, T, C>>) {
    let engine = &shared.engine;
    loop {
        let are_extended = AssertUnwindSafe(extend(&shared)).catch_unwind().await;
        let pause = match are_extended {
            Ok(true) => engine.settings.lease / 4,
            // A quarter of each lease is left at least, to try again.
            Ok(false) => STORE_PAUSE,
            Err(_panic) => {
                shared.tell_failure(WorkerPart::Leases);
                STORE_PAUSE
            }
        };
        engine.clock.sleep(pause).await;
    }
}

/// Returns false if the store failed.
async fn extend<S: DeliveryStore, T, C: Clock>(shared: &WorkerShared<S, T, C>) -> bool {
    let engine = &shared.engine;
    let (now, lease) = (engine.now(), engine.settings.lease);
    // A lease with a little more than half of its time left is not extended now, and has a quarter
    // left at the next check. `LEASE` in settings.rs counts on that quarter.
    let ending = shared.scheduler().ending(now.monotonic + lease / 2);
    if ending.is_empty() {
        return true;
    }
    match engine.store.extend(ending.clone(), lease, now).await {
        Ok(lost) => {
            shared.count_answer();
            let mut scheduler = shared.scheduler();
            scheduler.extended(&ending, now.monotonic + lease);
            scheduler.drop_lost(&lost);
            true
        }
        Err(error) => {
            engine.observers.notify(&Occurrence::StoreFailed { error: &error });
            false
        }
    }
}
