//! Direct dispatch: the call returns the results, and nothing is stored.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Semaphore;
use webhooks_core::{DeliveryResult, DeliveryStatus, Event};
use webhooks_registry::{DisableReason, Registration, Registry};

use crate::attempt::{attempt, explain};
use crate::clock::{Clock, SystemClock};
use crate::decide::{Decision, decide};
use crate::serialized_event::SerializedEvent;
use crate::transport::{AttemptError, Response, Transport};

/// The default number of attempts that a dispatcher has in flight at once.
///
/// Each holds a socket; 256 stays well below the usual limit of 1,024 open files.
const DEFAULT_CONCURRENCY: usize = 256;

/// A direct sender: it delivers events to the endpoints of a [`Registry`] and returns the results.
///
/// All matching endpoints are served at once, within one bound on the attempts in flight. A
/// delivery that waits for its retry uses no slot. An endpoint without a policy of its own gets
/// [`RetryPolicy::default`](webhooks_core::RetryPolicy::default): 3 retries, a second apart.
///
/// A transport without room ([`ErrorClass::Busy`](crate::transport::ErrorClass::Busy)) is a failed
/// attempt here, and uses up a retry.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use webhooks_core::{DeliveryStatus, Event};
/// use webhooks_dispatch::{Dispatcher, FnTransport};
/// use webhooks_registry::{Endpoint, Registry};
///
/// let registry = Registry::new();
/// registry.register("crm", Endpoint::new("https://example.com/", "my-secret-key")?)?;
/// let teapot = FnTransport::new(|_, _, _, _| async { (418, "") });
/// let results = Dispatcher::new(registry, teapot).dispatch(&Event::new("created", 1)?).await;
/// assert_eq!(results[0].status, DeliveryStatus::Failed);
/// assert_eq!(results[0].error.as_deref(), Some("endpoint answered 418 I'm a teapot"));
/// # Ok(())
/// # }
/// ```
pub struct Dispatcher<T, C = SystemClock> {
    registry: Arc<Registry>,
    transport: T,
    clock: C,
    slots: Semaphore,
    random: Mutex<fastrand::Rng>,
}

impl<T: Transport> Dispatcher<T> {
    /// Returns a dispatcher with the system's clock and at most 256 attempts in flight.
    ///
    /// The registry may be shared (`Arc<Registry>`) or given away.
    pub fn new(registry: impl Into<Arc<Registry>>, transport: T) -> Self {
        Self {
            registry: registry.into(),
            transport,
            clock: SystemClock,
            slots: Semaphore::new(DEFAULT_CONCURRENCY),
            random: Mutex::new(fastrand::Rng::new()),
        }
    }
}

impl<T: Transport, C: Clock> Dispatcher<T, C> {
    /// Sets the clock.
    #[must_use]
    pub fn clock<D: Clock>(self, clock: D) -> Dispatcher<T, D> {
        let Self { registry, transport, clock: _, slots, random } = self;
        Dispatcher { registry, transport, clock, slots, random }
    }

    /// Sets the number of attempts that may be in flight at once; 0 counts as 1.
    #[must_use]
    pub fn concurrency(self, exchanges: usize) -> Self {
        let exchanges = exchanges.clamp(1, Semaphore::MAX_PERMITS);
        Self { slots: Semaphore::new(exchanges), ..self }
    }

    /// Sets the seed of the jitter, so that a run can be repeated.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { random: Mutex::new(fastrand::Rng::with_seed(seed)), ..self }
    }

    /// Borrows the registry, to register endpoints later.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Sends the event once to each endpoint that wants it and returns a result for each, ordered
    /// by endpoint id.
    ///
    /// # Cancellation
    /// Dropping the future ends the attempts in flight; which of them arrived is then unknown.
    pub async fn dispatch(&self, event: &Event) -> Vec<DeliveryResult> {
        self.dispatch_with_retry(event, Some(0)).await
    }

    /// Sends the event to each endpoint that wants it, tries again as the endpoint's policy says,
    /// and returns a result for each, ordered by endpoint id.
    ///
    /// `max_retries` overrides the number of retries of every policy; 0 means one attempt.
    ///
    /// An endpoint that answers 410 is disabled in the registry. A delivery that waits for its
    /// retry is cancelled if its endpoint is unregistered, is disabled, or no longer wants the
    /// event. If the endpoint is replaced otherwise, the retry goes to its new URL.
    ///
    /// The call returns when all results are there, so it takes as long as the slowest endpoint's
    /// retries, with a receiver's `Retry-After` up to the policy's cap.
    ///
    /// # Cancellation
    /// Dropping the future ends the attempts in flight and forgets the retries; which attempts
    /// arrived is then unknown.
    pub async fn dispatch_with_retry(
        &self,
        event: &Event,
        max_retries: Option<u32>,
    ) -> Vec<DeliveryResult> {
        let serialized = SerializedEvent::new(event);
        let registrations = self.registry.matching(event);
        let deliver = |registration| self.deliver(registration, &serialized, max_retries);
        join_all(registrations.into_iter().map(deliver)).await
    }

    async fn deliver(
        &self,
        mut registration: Arc<Registration>,
        event: &SerializedEvent,
        max_retries: Option<u32>,
    ) -> DeliveryResult {
        let mut number = 1;
        loop {
            let response = self.run_attempt(&registration, event).await;
            let now = self.clock.now();
            let policy = registration.endpoint.retry.clone().unwrap_or_default();
            let policy = match max_retries {
                Some(retries) => policy.retries(retries),
                None => policy,
            };
            let status = match decide(&policy, number, &response, now, self.draw()) {
                Decision::Delivered => DeliveryStatus::Delivered,
                Decision::Failed => DeliveryStatus::Failed,
                Decision::Gone => {
                    self.registry.disable(&registration, DisableReason::Gone);
                    DeliveryStatus::Failed
                }
                Decision::RetryAt { at } => {
                    self.clock.sleep(at.saturating_since(now)).await;
                    // It may have another URL or secret by now, be gone, or be another tenant's.
                    match self.registry.get_of(&registration.key()) {
                        Some(current) if is_wanted(&current, event) => {
                            registration = current;
                            number += 1;
                            continue;
                        }
                        _ => DeliveryStatus::Cancelled,
                    }
                }
            };
            return DeliveryResult {
                endpoint_id: registration.id.clone(),
                event_id: event.id.clone(),
                status,
                status_code: response.as_ref().ok().map(|response| response.status),
                attempt: number,
                error: (status != DeliveryStatus::Delivered)
                    .then(|| explain(&response, &registration.endpoint)),
                timestamp: now,
            };
        }
    }

    /// Makes one attempt, within the bound on the attempts in flight.
    async fn run_attempt(
        &self,
        registration: &Registration,
        event: &SerializedEvent,
    ) -> Result<Response, AttemptError> {
        // An error would mean that the semaphore was closed, which nothing does.
        let _permit = self.slots.acquire().await;
        let (endpoint, started_at) = (&registration.endpoint, self.clock.now());
        attempt(&self.transport, &self.clock, endpoint, event, started_at, Duration::MAX, || {})
            .await
    }

    fn draw(&self) -> u32 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).u32(..)
    }
}

impl<T, C> fmt::Debug for Dispatcher<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").field("registry", &self.registry).finish_non_exhaustive()
    }
}

fn is_wanted(registration: &Registration, event: &SerializedEvent) -> bool {
    registration.state.is_open()
        && registration.is_recipient(&event.event_type, &event.channels, None)
}

#[cfg(test)]
mod tests;
