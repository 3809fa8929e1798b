//! The tasks that make attempts. Each task makes one attempt after another.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;
use webhooks_registry::{DisableReason, Registration};

use super::WorkerShared;
use crate::attempt::{attempt, explain};
use crate::breaker::BreakerChange;
use crate::clock::{Clock, Now};
use crate::decide::{Decision, EndpointSignal, decide, had_no_room, signal};
use crate::observer::{Occurrence, WorkerPart};
use crate::response_record::{safe_headers, start_of};
use crate::scheduler::InFlight;
use crate::serialized_event::SerializedEvent;
use crate::store::{Attempt, Claimed, DeliveryStore, Outcome, Settlement};
use crate::transport::{AttemptError, ErrorClass, Response, Transport, TransportError};

/// The result of an attempt, to be settled; also of one that was not made, since the delivery is
/// too old or the transport had no room.
#[derive(Debug)]
pub(super) struct FinishedAttempt {
    pub(super) settlement: Settlement,
    pub(super) registration: Arc<Registration>,
    pub(super) event: Arc<SerializedEvent>,
    /// The number of the attempt, from 1; that of the last attempt if none was made now.
    pub(super) number: u32,
    /// The time since the delivery was accepted, or last replayed.
    pub(super) age: Duration,
    /// Set if the endpoint said that it is gone.
    pub(super) disable: Option<DisableReason>,
    /// The permit that the result holds until it is settled.
    #[expect(dead_code, reason = "held until it is dropped")]
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// Returns the next delivery to attempt, if there is one and a permit for its result.
pub(super) fn next<S, T, C: Clock>(
    shared: &WorkerShared<S, T, C>,
) -> Option<(InFlight, OwnedSemaphorePermit)> {
    // The permit first: `take` counts the attempt as in flight, and nothing would undo that.
    let permit = Arc::clone(&shared.scheduling.permits).try_acquire_owned().ok()?;
    let flight = shared.scheduler().take(shared.engine.clock.monotonic())?;
    Some((flight, permit))
}

/// Makes attempts until none is ready, and reports a panic.
pub(super) async fn run<S: DeliveryStore, T: Transport, C: Clock>(
    shared: Arc<WorkerShared<S, T, C>>,
    results: Sender<FinishedAttempt>,
    flight: InFlight,
    permit: OwnedSemaphorePermit,
) {
    let deliver = deliver(Arc::clone(&shared), results, flight, permit);
    if AssertUnwindSafe(deliver).catch_unwind().await.is_err() {
        shared.tell_failure(WorkerPart::Attempts);
        // The slot is free again, so the driver may start another attempt.
        shared.scheduling.wake.notify_one();
    }
}

async fn deliver<S: DeliveryStore, T: Transport, C: Clock>(
    shared: Arc<WorkerShared<S, T, C>>,
    results: Sender<FinishedAttempt>,
    flight: InFlight,
    permit: OwnedSemaphorePermit,
) {
    let mut next_up = Some((flight, permit));
    while let Some((flight, permit)) = next_up {
        let signal = EndpointSignal::Unhealthy { pause: None };
        let mut slot = SlotGuard { shared: &shared, flight, signal };
        let finished = match AssertUnwindSafe(run_attempt(&shared, &mut slot)).catch_unwind().await
        {
            Ok(finished) => finished,
            // The clock or the text of an error panicked, before the exchange or after it. That
            // counts as an attempt, so that the delivery comes to an end.
            Err(_panic) => {
                shared.tell_failure(WorkerPart::Attempts);
                let panicked = Err(TransportError::new(ErrorClass::Panic).into());
                let started_at = shared.engine.clock.clocks();
                let claimed = slot.flight.claimed.clone();
                conclude(&shared, claimed, &mut slot.signal, started_at, &panicked)
            }
        };
        let finished = FinishedAttempt { permit: Some(permit), ..finished };
        // The slot is free before the result is settled.
        drop(slot);
        let claim = finished.settlement.claim;
        // The channel has one place for each permit (`start_settling`), so it is never full here.
        // It fails only if the settler is gone; then the delivery is due again when its lease ends.
        if results.try_send(finished).is_err() {
            return shared.scheduler().forget_claim(&claim);
        }
        next_up = next(&shared);
        // This task goes on with one delivery; the driver claims, and starts others beside it.
        if next_up.is_none() || shared.scheduler().has_more_to_do() {
            shared.scheduling.wake.notify_one();
        }
    }
}

/// The slot of an attempt. It is freed when the attempt ends in any way.
struct SlotGuard<'s, S, T, C: Clock> {
    shared: &'s WorkerShared<S, T, C>,
    flight: InFlight,
    signal: EndpointSignal,
}

impl<S, T, C: Clock> Drop for SlotGuard<'_, S, T, C> {
    fn drop(&mut self) {
        // A clock that panics here, while a panic of it is being contained, would end the process.
        // The scheduler takes a time that is too early for the last one that it knows.
        let read = AssertUnwindSafe(|| self.shared.engine.clock.monotonic());
        let now = catch_unwind(read).unwrap_or_default();
        // In a block of its own: the lock must end before observers are called.
        let change = {
            let mut scheduler = self.shared.scheduler();
            if std::thread::panicking() {
                // Nothing will settle the claim, so it must not be extended for ever.
                scheduler.forget_claim(&self.flight.claimed.claim);
            }
            scheduler.finish(&self.flight, self.signal, now)
        };
        if let Some(change) = change {
            self.notify(change);
        }
    }
}

impl<S, T, C: Clock> SlotGuard<'_, S, T, C> {
    fn notify(&self, change: BreakerChange) {
        let registration = &self.flight.claimed.registration;
        let (tenant, endpoint) = (&registration.endpoint.tenant, &registration.id);
        self.shared.engine.observers.notify(&match change {
            BreakerChange::Closed => Occurrence::BreakerClosed { tenant, endpoint },
            BreakerChange::Opened { pause } => {
                Occurrence::BreakerOpened { tenant, endpoint, pause }
            }
        });
    }
}

async fn run_attempt<S: DeliveryStore, T: Transport, C: Clock>(
    shared: &WorkerShared<S, T, C>,
    slot: &mut SlotGuard<'_, S, T, C>,
) -> FinishedAttempt {
    let engine = &*shared.engine;
    let claimed = slot.flight.claimed.clone();
    let Claimed { registration, event, progress, .. } = &claimed;
    let endpoint = &registration.endpoint;
    let started_at = engine.clock.clocks();
    let now = engine.steady(started_at);
    // Before the attempt and not when the delivery is claimed: it may have waited in the lane
    // since.
    let age = now.wall.saturating_since(progress.queued_at);
    if age >= endpoint.max_age && engine.is_sure_since(progress.queued_at, now) {
        slot.signal = EndpointSignal::Nothing;
        return without_attempt(claimed, Outcome::Expired, age);
    }
    let flight = &mut slot.flight;
    let on_slow = || {
        shared.scheduler().slow_down(flight);
        shared.scheduling.wake.notify_one();
    };
    let slow_after = engine.settings.slow_after;
    let (transport, clock, signed_at) = (&engine.transport, &engine.clock, started_at.wall);
    let response = attempt(transport, clock, endpoint, event, signed_at, slow_after, on_slow).await;
    conclude(shared, claimed, &mut slot.signal, started_at, &response)
}

/// Decides on a delivery whose attempt has ended, and sets the signal about its endpoint.
/// `started_at` are the readings of the clocks at its start, with which it was signed.
fn conclude<S, T, C: Clock>(
    shared: &WorkerShared<S, T, C>,
    claimed: Claimed,
    endpoint_signal: &mut EndpointSignal,
    started_at: Now,
    response: &Result<Response, AttemptError>,
) -> FinishedAttempt {
    let engine = &*shared.engine;
    let retry = claimed.registration.endpoint.retry.as_ref();
    let of_type =
        if retry.is_none() { engine.retry_of_type(&claimed.event.event_type) } else { None };
    let policy = retry.or(of_type.as_deref()).unwrap_or(&engine.settings.retry);
    let ended_at = engine.now();
    let now = ended_at.wall;
    *endpoint_signal = signal(policy, response, now);
    let progress = claimed.progress;
    let age = now.saturating_since(progress.queued_at);
    if had_no_room(response) {
        return without_attempt(claimed, Outcome::Released, age);
    }
    let random = engine.random.lock().unwrap_or_else(PoisonError::into_inner).u32(..);
    let number = progress.next_attempt();
    let step = decide(policy, progress.next_attempt_in_policy(), response, now, random);
    let (outcome, disable) = match step {
        Decision::Delivered => (Outcome::Delivered, None),
        Decision::RetryAt { at } => (Outcome::Retrying { due_at: at }, None),
        Decision::Failed => (Outcome::Failed, None),
        Decision::Gone => (Outcome::Failed, Some(DisableReason::Gone)),
    };
    let Claimed { claim, registration, event, .. } = claimed;
    let error = (step != Decision::Delivered).then(|| explain(response, &registration.endpoint));
    let attempt = Some(Attempt { error, ..record(started_at, ended_at, response) });
    let settlement = Settlement { claim, outcome, attempt };
    FinishedAttempt { settlement, registration, event, number, age, disable, permit: None }
}

/// Returns the end of a delivery for which no attempt was made.
fn without_attempt(claimed: Claimed, outcome: Outcome, age: Duration) -> FinishedAttempt {
    let Claimed { claim, registration, event, progress, .. } = claimed;
    let settlement = Settlement { claim, outcome, attempt: None };
    let number = progress.attempts;
    FinishedAttempt { settlement, registration, event, number, age, disable: None, permit: None }
}

/// Returns the record of an attempt, without its error text.
fn record(started_at: Now, ended_at: Now, response: &Result<Response, AttemptError>) -> Attempt {
    let (status_code, error_class) = match response {
        Ok(Response { status, .. }) => (Some(*status), None),
        Err(AttemptError::Signing(_)) => (None, Some(ErrorClass::Signing)),
        Err(AttemptError::Transport(error)) => (None, Some(error.class)),
    };
    let (response_headers, start) = match response {
        Ok(Response { headers, body, .. }) => (safe_headers(headers), start_of(body)),
        Err(_) => (String::new(), Bytes::new()),
    };
    Attempt {
        started_at: started_at.wall,
        duration: ended_at.monotonic.saturating_since(started_at.monotonic),
        status_code,
        error_class,
        error: None,
        response_headers,
        response: start,
    }
}
