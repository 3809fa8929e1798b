//! The end of a run: all is well again, and every promise must be fulfilled.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use webhooks_core::DeliveryStatus;
use webhooks_dispatch::{
    clock::Clock as _,
    history::{DeliveryRecord, HistoryStore as _, Query},
};
use webhooks_registry::{Endpoint, store::StateChange};

use super::plan::{EVENT_TYPES, EndpointPlan, number, tenant, url};
use super::script::Script;
use crate::invariants::Key;

/// The largest time that all pending work may take after all is well again: far more than the
/// longest lease, pause and queue of a run together.
const ENOUGH: Duration = Duration::from_secs(3_600);

/// The largest delay of a retry that a wall clock that was ahead has set.
const CLOCK_OFF: Duration = Duration::from_secs(2 * 3_600);

/// The largest time that stalled store calls may still take.
const STALLS_END: Duration = Duration::from_secs(90);

/// The tenant of the endpoints that show that no slot was lost.
const LAST_TENANT: usize = 9;

/// Mends everything, and checks that all accepted deliveries end, that all slots are free, and how
/// everything ended.
pub(super) async fn play(script: &mut Script) {
    script.world.note(format_args!("all is well"));
    script.world.record().is_healed = true;
    script.mend();
    script.world.clock.sleep(STALLS_END).await;
    script.join().await;
    script.shelf.compare(&script.world).await;
    for endpoint in 0..script.plan.endpoints.len() {
        script.register(endpoint).await;
        for change in [StateChange::Enable, StateChange::Resume] {
            script.operator().change(endpoint, change).await;
        }
    }
    for worker in 0..script.workers.len() {
        script.start(worker);
    }
    script.publish_round().await;
    if !all_ended(script).await {
        return;
    }
    for worker in 1..script.workers.len() {
        script.shut_down(worker, Duration::from_secs(60)).await;
    }
    all_slots_are_free(script).await;
    script.shut_down(0, Duration::from_secs(60)).await;
    everything_ended_well(script).await;
}

/// Waits until no delivery is open; returns whether that happened.
async fn all_ended(script: &Script) -> bool {
    let until = script.world.now() + ENOUGH;
    let mut pause = Duration::from_millis(100);
    loop {
        script.world.clock.sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
        if script.world.is_violated() {
            return false;
        }
        let mut is_over = true;
        for status in [DeliveryStatus::Pending, DeliveryStatus::Retrying] {
            let query = Query { statuses: vec![status], ..Query::default() };
            let page = script.shelf.store.deliveries(query).await.expect("reads don't fail");
            for DeliveryRecord { event, endpoint, .. } in page.items {
                is_over = false;
                let plan = &script.plan.endpoints[number(endpoint.as_str())];
                let waits_for_retry = status == DeliveryStatus::Retrying || plan.endpoint.ordered;
                let more = if waits_for_retry { CLOCK_OFF } else { Duration::ZERO };
                if script.world.now() > until + more {
                    let line = format_args!("{event} for {endpoint} is still {status}");
                    script.world.violate(format_args!("everything ends: {line}"));
                    return false;
                }
            }
        }
        if is_over {
            return true;
        }
    }
}

/// Goal: no slot was lost. Method: as many endpoints as there are slots, quick and slow, each with
/// one attempt that lasts until all have started. Before, each endpoint shows that it is quick, so
/// that it may use any slot.
async fn all_slots_are_free(script: &mut Script) {
    let settings = &script.plan.settings;
    let expected = (settings.concurrency * 5).min(settings.max_unsettled);
    let pace = settings.slow_after * 6 + Duration::from_secs(5);
    let first = script.plan.endpoints.len();
    for number in first..first + expected {
        let endpoint = Endpoint::new(&url(number), "my-secret-key").expect("a valid endpoint");
        let endpoint =
            (endpoint.tenant(tenant(LAST_TENANT)).timeout(pace * 2)).max_in_flight(NonZeroU32::MIN);
        let plan = EndpointPlan { endpoint, moods: Vec::new(), pace: Some(Duration::ZERO) };
        script.plan.endpoints.push(plan.clone());
        script.world.record().add_endpoint(plan);
        script.register(number).await;
    }
    script.operator().publish(LAST_TENANT, EVENT_TYPES[0]).await;
    if !all_ended(script).await {
        return;
    }
    for plan in script.world.record().endpoints.iter_mut().skip(first) {
        plan.pace = Some(pace);
    }
    let worker = script.workers[0].as_ref().map_or(0, |running| running.number);
    script.world.record().checker.workers[worker].most_in_flight = 0;
    script.operator().publish(LAST_TENANT, EVENT_TYPES[0]).await;
    script.world.clock.sleep(pace * 2).await;
    let found = script.world.record().checker.workers[worker].most_in_flight;
    if found != expected {
        let line = format_args!("{found} of {expected} can be used");
        script.world.violate(format_args!("slots come back: {line}"));
    }
    all_ended(script).await;
}

async fn everything_ended_well(script: &Script) {
    let mut kept = BTreeMap::new();
    for found in script.shelf.store.all(Query::default()).await.expect("reads don't fail") {
        let event = number(&found.event.to_string());
        kept.insert(Key { event, endpoint: number(found.endpoint.as_str()) }, found.status);
    }
    let now = script.world.now();
    script.world.record().checker.on_end_of_run(&kept, now);
    script.shelf.compare(&script.world).await;
}
