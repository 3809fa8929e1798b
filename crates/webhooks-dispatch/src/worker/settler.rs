//! The task that settles results, many in one commit.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::mpsc::{Receiver, Sender};
use webhooks_core::Timestamp;
use webhooks_registry::DisableReason;

use super::WorkerShared;
use super::attempts::FinishedAttempt;
use super::disabler::DisableRequest;
use crate::clock::Clock;
use crate::observer::{DeliveryRef, Failure, Occurrence};
use crate::store::{Attempt, DeliveryStore, Health, Outcome, Settled, Settlement, StoreError};

/// The largest number of results that are settled together.
const MAX_BATCH: usize = 512;

/// The pause after the store failed: the first one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The number of times that a result that fails alone is tried before it is set aside, so that
/// others go on.
const TRIES_ALONE: u32 = 3;

/// The number of times that a result that was set aside is tried again while others succeed. The
/// second half of the tries leave out its texts, since the store may refuse those.
const TRIES_ASIDE: u32 = 6;

/// The time after which results that were set aside are tried again if nothing else comes.
const RETRY_ASIDE: Duration = Duration::from_secs(5);

/// Settles results until the last sender is gone, and passes endpoints to disable on to the
/// disabler.
pub(super) async fn run<S, T, C>(
    shared: Arc<WorkerShared<S, T, C>>,
    mut finished: Receiver<FinishedAttempt>,
    requests: Sender<DisableRequest>,
) where
    S: DeliveryStore,
    T: Send + Sync + 'static,
    C: Clock,
{
    let mut settler = Settler { shared: &shared, requests, aside: Vec::new(), answers: 0 };
    let mut batch = Vec::with_capacity(MAX_BATCH);
    loop {
        let received = {
            let receive = finished.recv_many(&mut batch, MAX_BATCH);
            if settler.aside.is_empty() {
                Some(receive.await)
            } else {
                tokio::select! {
                    biased;
                    received = receive => Some(received),
                    () = shared.engine.clock.sleep(RETRY_ASIDE) => None,
                }
            }
        };
        let is_last = received == Some(0);
        let linger = shared.engine.settings.linger;
        // Once the last sender is gone, nothing more comes to wait for.
        if received.is_some()
            && batch.len() < MAX_BATCH
            && !linger.is_zero()
            && !finished.is_closed()
        {
            shared.engine.clock.sleep(linger).await;
        }
        while batch.len() < MAX_BATCH
            && let Ok(more) = finished.try_recv()
        {
            batch.push(more);
        }
        settler.settle(&mut batch).await;
        settler.retry_aside().await;
        // Permits are free again, and perhaps a delivery waits for one.
        shared.scheduling.wake.notify_one();
        if is_last {
            return;
        }
    }
}

struct Settler<'s, S, T, C> {
    shared: &'s WorkerShared<S, T, C>,
    requests: Sender<DisableRequest>,
    /// Results that failed alone, with the number of tries since. They hold their permits, so there
    /// are at most `max_unsettled` of them.
    aside: Vec<(FinishedAttempt, u32)>,
    /// `WorkerShared::answers` when they were last tried.
    answers: u64,
}

impl<S, T, C> Settler<'_, S, T, C>
where
    S: DeliveryStore,
    C: Clock,
{
    /// Settles results in their order, until none is left. Each time the store fails, half as many are tried at once,
    /// so that one that cannot be settled is found and set aside.
    async fn settle(&mut self, left: &mut Vec<FinishedAttempt>) {
        let (mut size, mut pause, mut alone) = (left.len(), PAUSES.0, 0);
        while !left.is_empty() {
            let batch = &left[..size.clamp(1, left.len())];
            let settlements = batch.iter().map(|finished| finished.settlement.clone()).collect();
            match self.ask(settlements).await {
                Ok(settled) => {
                    self.finish(batch, settled);
                    let done = batch.len();
                    left.drain(..done);
                    (size, pause, alone) = (done * 2, PAUSES.0, 0);
                    continue;
                }
                Err(error) => self.tell_failure(&error),
            }
            if batch.len() > 1 {
                size = batch.len().div_ceil(2);
            } else {
                alone += 1;
                if alone == TRIES_ALONE {
                    self.aside.push((left.remove(0), 0));
                    (size, alone) = (left.len(), 0);
                }
            }
            self.shared.engine.clock.sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Tries results that were set aside once more. Drops those that have failed too often while
    /// the store answered other calls.
    async fn retry_aside(&mut self) {
        if self.aside.is_empty() {
            return;
        }
        let answers = self.shared.answers.load(Ordering::Relaxed);
        // While the whole store is down, a failure says nothing about the one result.
        let counts = u32::from(std::mem::replace(&mut self.answers, answers) != answers);
        for (finished, tries) in std::mem::take(&mut self.aside) {
            let mut settlement = finished.settlement.clone();
            if tries >= TRIES_ASIDE / 2 {
                settlement.attempt = settlement.attempt.map(without_texts);
            }
            match self.ask(vec![settlement]).await {
                Ok(settled) => self.finish(std::slice::from_ref(&finished), settled),
                Err(error) => {
                    self.tell_failure(&error);
                    if tries + counts < TRIES_ASIDE {
                        self.aside.push((finished, tries + counts));
                    } else {
                        // Its lease is no longer extended; when it ends, the delivery is due again.
                        let claim = finished.settlement.claim;
                        self.shared.scheduler().forget_claim(&claim);
                        self.notify(&finished, Settled::LeaseLost);
                    }
                }
            }
        }
    }

    /// Asks the store to settle. A panic of the store counts as a failure.
    async fn ask(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>, StoreError> {
        let engine = &self.shared.engine;
        let expected = settlements.len();
        let now = engine.now().wall;
        let settle = AssertUnwindSafe(async { engine.store.settle(settlements, now).await });
        let settled = settle.catch_unwind().await.unwrap_or_else(|_panic| {
            Err(StoreError::Unavailable { source: "the store panicked".into() })
        })?;
        if settled.len() != expected {
            let source = "the store did not answer every settlement".into();
            return Err(StoreError::Unavailable { source });
        }
        self.shared.count_answer();
        Ok(settled)
    }

    fn tell_failure(&self, error: &StoreError) {
        self.shared.engine.observers.notify(&Occurrence::StoreFailed { error });
    }

    fn finish(&self, batch: &[FinishedAttempt], settled: Vec<Settled>) {
        // In a block of its own: the lock must end before observers are called.
        {
            let mut scheduler = self.shared.scheduler();
            for finished in batch {
                scheduler.forget_claim(&finished.settlement.claim);
            }
        }
        let disable_after = self.shared.engine.settings.disable_after;
        let mut requested = BTreeSet::new();
        for (finished, settled) in batch.iter().zip(settled) {
            self.notify(finished, settled);
            if let Some(reason) = disable_reason(disable_after, finished, settled)
                && requested.insert(finished.registration.number)
            {
                let seen = Arc::clone(&finished.registration);
                let failing_since = failing_since(settled);
                let request = DisableRequest { seen, reason, failing_since };
                // If too many wait, the next attempt for the endpoint asks again.
                let _asked_again = self.requests.try_send(request);
            }
        }
    }

    /// Notifies observers of the outcome of a delivery.
    fn notify(&self, finished: &FinishedAttempt, settled: Settled) {
        let engine = &self.shared.engine;
        let observers = &engine.observers;
        let (tenant, endpoint) = (&finished.event.tenant, &finished.registration.id);
        let attempt = finished.settlement.attempt.as_ref();
        let delivery = DeliveryRef {
            id: finished.settlement.claim.delivery,
            event: &finished.event.id,
            event_type: &finished.event.event_type,
            tenant,
            endpoint,
            attempt: finished.number,
            started_at: attempt.map(|attempt| attempt.started_at),
            trace: finished.event.trace.as_ref(),
        };
        let Settled::Recorded { health } = settled else {
            return observers.notify(&Occurrence::LeaseLost { delivery });
        };
        let status_code = attempt.and_then(|attempt| attempt.status_code);
        let duration = attempt.map_or(Duration::ZERO, |attempt| attempt.duration);
        let failure = Failure {
            error: attempt.and_then(|attempt| attempt.error.as_deref()).unwrap_or_default(),
            class: attempt.and_then(|attempt| attempt.error_class),
            status_code,
            duration,
        };
        let age = finished.age;
        match finished.settlement.outcome {
            Outcome::Delivered => {
                let delivered = Occurrence::Delivered { delivery, duration, age, status_code };
                observers.notify(&delivered);
            }
            Outcome::Retrying { due_at: retry_at } => {
                observers.notify(&Occurrence::AttemptFailed { delivery, failure, retry_at });
            }
            Outcome::Failed => {
                observers.notify(&Occurrence::DeliveryFailed { delivery, age, failure });
            }
            Outcome::Expired => observers.notify(&Occurrence::Expired { delivery, age }),
            // For lack of room in the transport: the driver makes all other releases itself.
            Outcome::Released => observers.notify(&Occurrence::TransportBusy { delivery }),
        }
        match health {
            Health::Recovered => {
                observers.notify(&Occurrence::EndpointRecovered { tenant, endpoint });
            }
            Health::Failing { failing, before } => {
                let warned_after = engine.settings.warn_after();
                if warned_after.is_some_and(|span| before < span && span <= failing.tried_for) {
                    let since = failing.since;
                    observers.notify(&Occurrence::EndpointFailing { tenant, endpoint, since });
                }
            }
            Health::Healthy => {}
        }
    }
}

/// Returns an attempt without the texts of receivers and errors.
fn without_texts(attempt: Attempt) -> Attempt {
    let error = attempt.error.map(|_text| "it cannot be stored what went wrong".to_owned());
    Attempt { error, response_headers: String::new(), response: Bytes::new(), ..attempt }
}

/// Returns the time of the first failure of an endpoint since its last success.
fn failing_since(settled: Settled) -> Option<Timestamp> {
    match settled {
        Settled::Recorded { health: Health::Failing { failing, .. } } => Some(failing.since),
        Settled::Recorded { .. } | Settled::LeaseLost => None,
    }
}

/// Returns the reason to disable an endpoint, if there is one: it answered that it is gone, or all
/// its attempts have failed for too long and a delivery has failed for good. So a delivery that has
/// retries left is tried to its end before.
fn disable_reason(
    disable_after: Option<Duration>,
    finished: &FinishedAttempt,
    settled: Settled,
) -> Option<DisableReason> {
    match settled {
        Settled::LeaseLost => None,
        Settled::Recorded { .. } if finished.disable.is_some() => finished.disable,
        Settled::Recorded { health: Health::Failing { failing, .. } } => {
            let has_failed = finished.settlement.outcome == Outcome::Failed;
            let is_too_long = disable_after.is_some_and(|span| failing.tried_for >= span);
            (has_failed && is_too_long).then_some(DisableReason::Failing)
        }
        Settled::Recorded { .. } => None,
    }
}
