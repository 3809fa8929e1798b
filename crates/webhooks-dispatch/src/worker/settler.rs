//! The task that keeps what became of deliveries, many in one commit.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use webhooks_registry::{DisableReason, EndpointStore, Registration, StateChange};

use super::Shared;
use super::pilot::Flown;
use crate::{Clock, DeliveryStore, Health, Occurrence, Outcome, Settled, Settlement, Subject};

/// How many results are settled together at most.
const MAX_BATCH: usize = 512;

/// After which part of the time that disables an endpoint its failures are told.
const WARNED_AFTER: u32 = 10;

/// How long to wait after the store failed before it is asked again: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Settles results until the last sender is gone.
pub(super) async fn run<S, T, C>(shared: Arc<Shared<S, T, C>>, mut flown: Receiver<Flown>)
where
    S: DeliveryStore + EndpointStore,
    T: Send + Sync + 'static,
    C: Clock,
{
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while flown.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let linger = shared.parts.settings.linger;
        if batch.len() < MAX_BATCH && !linger.is_zero() && !flown.is_closed() {
            shared.parts.clock.sleep(linger).await;
        }
        while batch.len() < MAX_BATCH
            && let Ok(more) = flown.try_recv()
        {
            batch.push(more);
        }
        settle(&shared, &batch).await;
        batch.clear();
        // There is room for more results, and perhaps a delivery that waited for it.
        shared.desk.work.notify_one();
    }
}

async fn settle<S, T, C>(shared: &Shared<S, T, C>, batch: &[Flown])
where
    S: DeliveryStore + EndpointStore,
    C: Clock,
{
    let parts = &shared.parts;
    let mut pause = PAUSES.0;
    let settled = loop {
        let settlements: Vec<Settlement> =
            batch.iter().map(|flown| flown.settlement.clone()).collect();
        let now = parts.now().wall;
        match parts.store.settle(settlements, now).await {
            Ok(settled) => break settled,
            Err(error) => {
                parts.observers.tell(&Occurrence::StoreFailed { error: &error });
                parts.clock.sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    };
    {
        let mut scheduler = shared.scheduler();
        for flown in batch {
            scheduler.settled(&flown.settlement.claim);
        }
    }
    for (flown, settled) in batch.iter().zip(settled) {
        tell(shared, flown, settled);
        if let Some(reason) = verdict(parts.settings.disable_after, flown, settled) {
            disable(shared, &flown.registration, reason).await;
        }
    }
}

/// Says whether the endpoint should be disabled: it said that it is gone, or has been tried and
/// failed for too long. A delivery that has retries left is tried to its end before.
fn verdict(
    disable_after: Option<Duration>,
    flown: &Flown,
    settled: Settled,
) -> Option<DisableReason> {
    match settled {
        Settled::LeaseLost => None,
        Settled::Kept { .. } if flown.disable.is_some() => flown.disable,
        Settled::Kept { health: Health::Failing { failing, .. } } => {
            let is_given_up = flown.settlement.outcome == Outcome::Failed;
            let is_too_long = disable_after.is_some_and(|span| failing.tried_for >= span);
            (is_given_up && is_too_long).then_some(DisableReason::Failing)
        }
        Settled::Kept { .. } => None,
    }
}

async fn disable<S, T, C>(shared: &Shared<S, T, C>, seen: &Registration, reason: DisableReason)
where
    S: EndpointStore,
{
    let (store, key) = (&shared.parts.store, seen.key());
    // If the store fails, or the endpoint is gone by now, the next failure asks again. One that was
    // registered anew since did not answer so.
    if let Ok(Some(current)) = store.get(key.clone()).await
        && is_same(&current, seen)
        && let Ok(Some(_)) = store.set_state(key, StateChange::Disable(reason)).await
    {
        shared.parts.workers.recall(seen.number);
        let (tenant, endpoint) = (&seen.endpoint.tenant, &seen.id);
        let disabled = Occurrence::EndpointDisabled { tenant, endpoint, reason };
        shared.parts.observers.tell(&disabled);
    }
}

/// Returns whether an endpoint is still the one that was seen. Its limits may differ: a store that
/// workers share hands each a part of them. Whether it is paused does not matter.
fn is_same(current: &Registration, seen: &Registration) -> bool {
    let mut current = current.clone();
    current.endpoint.max_in_flight = seen.endpoint.max_in_flight;
    current.endpoint.rate_limit = seen.endpoint.rate_limit;
    (current.number, &current.endpoint) == (seen.number, &seen.endpoint)
}

fn tell<S, T, C>(shared: &Shared<S, T, C>, flown: &Flown, settled: Settled) {
    let observers = &shared.parts.observers;
    let delivery = Subject {
        id: flown.settlement.claim.delivery,
        event: &flown.event.id,
        tenant: &flown.event.tenant,
        endpoint: &flown.registration.id,
        attempt: flown.number,
    };
    let Settled::Kept { health } = settled else {
        return observers.tell(&Occurrence::LeaseLost { delivery });
    };
    let attempt = flown.settlement.attempt.as_ref();
    let error = attempt.and_then(|attempt| attempt.error.as_deref()).unwrap_or_default();
    match flown.settlement.outcome {
        Outcome::Delivered => {
            let duration = attempt.map_or(Duration::ZERO, |attempt| attempt.duration);
            observers.tell(&Occurrence::Delivered { delivery, duration });
        }
        Outcome::Retrying { due_at } => {
            let retry_at = due_at;
            observers.tell(&Occurrence::AttemptFailed { delivery, error, retry_at });
        }
        Outcome::Failed => observers.tell(&Occurrence::Exhausted { delivery, error }),
        Outcome::Expired => observers.tell(&Occurrence::Expired { delivery }),
        Outcome::Released => {}
    }
    let (tenant, endpoint) = (&flown.event.tenant, &flown.registration.id);
    match health {
        Health::Recovered => observers.tell(&Occurrence::EndpointRecovered { tenant, endpoint }),
        Health::Failing { failing, before } => {
            let warned_after = shared.parts.settings.disable_after.map(|span| span / WARNED_AFTER);
            if warned_after.is_some_and(|span| before < span && span <= failing.tried_for) {
                let since = failing.since;
                observers.tell(&Occurrence::EndpointFailing { tenant, endpoint, since });
            }
        }
        Health::Well => {}
    }
}
