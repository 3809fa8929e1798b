//! The guard against replays: the handler of a webhook runs once, and again only if that run failed.

mod claim_guard;
mod duplicate_key;
mod run_outcome;
mod single_flight;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use webhooks_sign::{Algorithm, Tolerance, scheme::Content};

use self::claim_guard::ClaimGuard;
use self::duplicate_key::DuplicateKey;
pub(crate) use self::single_flight::Counted;
use self::single_flight::{Ended, Role, SingleFlight, WAIT, within};
use crate::error::SetupError;
use crate::receiver::Receiver;
use crate::rejection::{MisuseError, Rejection};
use crate::seen::{BeginOutcome, SeenClaim, SeenId, SeenStore};
use crate::settings::Settings;
use crate::webhook::Webhook;

pub use self::run_outcome::{HandlerResult, RunOutcome};

/// How long an id that is done is remembered by default: longer than the 75.5 hours over which
/// Standard Webhooks 1.0, "Deliverability", tries again.
const TTL: Duration = Duration::from_secs(96 * 60 * 60);

/// How long a handler may take by default: twice as long as senders wait for an answer. When a process
/// dies, retries of its webhooks are refused until its leases have ended, so a longer lease would
/// delay them.
const LEASE: Duration = Duration::from_secs(60);

/// Runs the handler of each webhook once. Clones are one guard.
///
/// An id is done when its handler succeeded; a duplicate is then answered without the handler. When
/// the handler failed, panicked, or was dropped because the sender went away, the next attempt runs
/// it again. A duplicate that comes while the handler runs in this process waits for its result, for
/// 10 s at most. If the handler runs in another process, the duplicate is answered 409, with the
/// time after which to try again.
///
/// A handler that outlasts its lease is dropped, because another process may then run it. Processes
/// tell by their own clocks whether a lease has ended. So the clocks of machines that share a store
/// must differ by less than the time that a lease has left when its handler ends: seconds, with the
/// lease of one minute. Tasks that a handler has started go on when it is dropped: the guard does
/// not know them.
///
/// # Example
/// ```
/// # #[cfg(feature = "memory")]
/// # mod example {
/// use http::{Request, StatusCode};
/// use webhooks_receive::{MemorySeenStore, Receiver, Rejection, ReplayGuard, Webhook};
///
/// // However your framework hands you requests; `guard` is `ReplayGuard::new(&receiver, "billing", store)?`.
/// async fn hook(
///     receiver: &Receiver,
///     guard: &ReplayGuard<MemorySeenStore>,
///     request: Request<http_body_util::Full<bytes::Bytes>>,
/// ) -> Result<StatusCode, Rejection> {
///     let webhook = receiver.receive(request).await?.into_body();
///     let outcome = guard.run(&webhook, handle(&webhook)).await?;
///     Ok(outcome.status())
/// }
///
/// async fn handle(webhook: &Webhook) -> StatusCode {
///     println!("{:?}", webhook.id());
///     StatusCode::NO_CONTENT
/// }
/// # }
/// ```
pub struct ReplayGuard<S> {
    store: Arc<S>,
    single_flight: SingleFlight,
    scope: Arc<str>,
    key: DuplicateKey,
    receiver: Arc<Settings>,
    ttl: Duration,
    lease: Duration,
    /// Whether handlers outlive their connections.
    is_detached: bool,
}

impl<S: SeenStore> ReplayGuard<S> {
    /// Returns a guard that identifies a webhook by the id that its sender signed: in a header, or in
    /// the field of the body that the provider documents
    /// ([`Scheme::event_id_fields`](webhooks_sign::scheme::Scheme::event_id_fields)). A body without that
    /// field, such as the test of a new webhook, is identified by its hash.
    ///
    /// `scope` names the destination: the program or module that handles the webhooks, such as
    /// `billing`. Guards that share a store and a scope, in one process or many, share the ids that
    /// are done: once one guard has handled a webhook, the others take it for a duplicate. So give
    /// each destination a scope of its own, and each sender too: otherwise one sender could use up
    /// the ids of another. Tenants need no scope of their own.
    ///
    /// The guard takes webhooks of this receiver, of its clones, and of receivers that setters made
    /// of it.
    ///
    /// # Errors
    /// [`SetupError::UnsignedId`] when the scheme signs no id, [`SetupError::RepeatedBodies`] when
    /// two events of the provider can be equal, [`SetupError::TtlTooShort`] when the receiver's
    /// tolerance is about 96 hours.
    pub fn new<P>(receiver: &Receiver<P>, scope: &str, store: S) -> Result<Self, SetupError> {
        let scheme = &receiver.settings().rules.scheme;
        let fields = scheme.event_id_fields();
        if scheme.signs_id() {
            Self::with(receiver, scope, store, DuplicateKey::SignedId)
        } else if scheme.repeats_bodies() {
            Err(SetupError::RepeatedBodies { scheme: scheme.name() })
        } else if fields.is_empty() {
            Err(SetupError::UnsignedId { scheme: scheme.name() })
        } else {
            Self::by_fields(receiver, scope, store, fields)
        }
    }

    /// Returns a guard that identifies a webhook by these fields of its JSON together. `pointers` are
    /// JSON pointers (RFC 6901), such as `/event/id`; `*` in place of an index is each item of an
    /// array. Choose fields that are the same in all attempts of an event, and together differ
    /// between any two events. A body that lacks one of them is identified by its hash. `scope`
    /// names the destination, as in [`new`](Self::new).
    ///
    /// # Errors
    /// [`SetupError::Pointer`] when one does not start with `/`, or there is none,
    /// [`SetupError::UnsignedBody`] when the scheme is a token, [`SetupError::TtlTooShort`] when the
    /// receiver's tolerance is about 96 hours.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "memory")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use webhooks_receive::{MemorySeenStore, Receiver, ReplayGuard};
    /// use webhooks_sign::scheme::Scheme;
    ///
    /// let acme = Scheme::custom("acme", "acme-signature").build()?;
    /// let receiver = Receiver::new(acme, acme.key("my-secret-key")?)?;
    /// let guard = ReplayGuard::by_fields(&receiver, "billing", MemorySeenStore::new(), &["/event/id"])?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "memory"))]
    /// # fn main() {}
    /// ```
    pub fn by_fields<P>(
        receiver: &Receiver<P>,
        scope: &str,
        store: S,
        pointers: &[&str],
    ) -> Result<Self, SetupError> {
        check_signed(receiver)?;
        if pointers.is_empty() || !pointers.iter().all(|pointer| pointer.starts_with('/')) {
            return Err(SetupError::Pointer);
        }
        Self::with(receiver, scope, store, DuplicateKey::fields(pointers))
    }

    /// Returns a guard that identifies a webhook by a hash of its body. `scope` names the destination,
    /// as in [`new`](Self::new).
    ///
    /// It suits senders that repeat a body byte for byte when they try again, and whose events never
    /// have equal bodies, as GitHub and Shopify. If two events have the same body, the second is
    /// answered 200 and its handler does not run. If a sender counts its attempts in the body, the
    /// handler runs for each attempt. A form is identified by its fields, in whatever order and
    /// encoding. The handler of a webhook without a body runs each time.
    ///
    /// # Errors
    /// [`SetupError::UnsignedBody`] when the scheme is a token, [`SetupError::RepeatedBodies`] when
    /// the provider's bodies repeat by design (Dropbox), [`SetupError::TtlTooShort`] when the
    /// receiver's tolerance is about 96 hours.
    pub fn by_body<P>(receiver: &Receiver<P>, scope: &str, store: S) -> Result<Self, SetupError> {
        check_signed(receiver)?;
        let scheme = &receiver.settings().rules.scheme;
        if scheme.repeats_bodies() {
            return Err(SetupError::RepeatedBodies { scheme: scheme.name() });
        }
        Self::with(receiver, scope, store, DuplicateKey::BodyHash)
    }

    fn with<P>(
        receiver: &Receiver<P>,
        scope: &str,
        store: S,
        key: DuplicateKey,
    ) -> Result<Self, SetupError> {
        let receiver = Arc::clone(receiver.settings());
        let (store, single_flight) = (Arc::new(store), SingleFlight::default());
        let (scope, ttl, lease) = (Arc::from(scope), TTL, LEASE);
        let is_detached = false;
        Self { store, single_flight, scope, key, receiver, ttl, lease, is_detached }.ttl(TTL)
    }

    /// Sets how long an id that is done is remembered: 96 hours by default. If the scheme signs no
    /// time, a replay passes after that.
    ///
    /// # Errors
    /// [`SetupError::TtlTooShort`] when a webhook would pass verification longer than that.
    pub fn ttl(self, ttl: Duration) -> Result<Self, SetupError> {
        let replayable = replayable(&self.receiver);
        if ttl <= replayable {
            return Err(SetupError::TtlTooShort { ttl, replayable });
        }
        Ok(Self { ttl, ..self })
    }

    /// Sets how long a handler may take before it is dropped and another process may take over:
    /// 1 minute by default. When a process dies, its ids stay claimed for as long.
    ///
    /// # Errors
    /// [`SetupError::ZeroLease`] when it is zero.
    pub fn lease(self, lease: Duration) -> Result<Self, SetupError> {
        if lease.is_zero() {
            return Err(SetupError::ZeroLease);
        }
        Ok(Self { lease, ..self })
    }

    /// Runs the handler, unless the webhook was handled before or its handler is running. With the
    /// system's clock it needs a tokio runtime with a timer.
    ///
    /// # Errors
    /// In these cases the handler was not run:
    ///
    /// * [`Rejection::Misuse`]: another receiver than the guard's verified the webhook;
    /// * [`Rejection::InProgress`]: another process has the claim, or the handler that this call
    ///   waited for was dropped or takes more than 10 s;
    /// * [`Rejection::EarlierRunFailed`]: that handler failed, or the store failed before it;
    /// * [`Rejection::SeenStoreFailed`]: the store failed.
    ///
    /// [`Rejection::LeaseEnded`] when the handler was run, and dropped when its lease ended.
    ///
    /// # Cancellation
    /// Dropping the future drops the handler. A task of the guard then releases the id, or marks it as
    /// done if the handler had succeeded; [`idle`](Self::idle) waits for this task.
    pub async fn run<R: HandlerResult>(
        &self,
        webhook: &Webhook,
        handler: impl Future<Output = R>,
    ) -> Result<RunOutcome<R>, Rejection> {
        let outcome = self.run_once(webhook, handler).await;
        #[cfg(feature = "tracing")]
        if matches!(outcome, Ok(RunOutcome::Duplicate)) {
            let (scope, scheme) = (&*self.scope, webhook.scheme());
            tracing::debug!(
                target: "webhooks_receive",
                scope,
                scheme,
                "a duplicate is answered without its handler"
            );
        }
        outcome.inspect_err(|rejection| webhook.receiver().report_rejection(rejection))
    }

    async fn run_once<R: HandlerResult>(
        &self,
        webhook: &Webhook,
        handler: impl Future<Output = R>,
    ) -> Result<RunOutcome<R>, Rejection> {
        let Self { store, single_flight, lease, ttl, .. } = self;
        let clock = &self.receiver.rules.clock;
        let Some(id) = self.id(webhook)? else {
            // No key tells it from the next one: to handle it twice is better than not at all.
            let result = within(handler, clock.sleep(*lease)).await;
            let result = result.ok_or(Rejection::LeaseEnded { lease: *lease })?;
            return Ok(RunOutcome::Ran { result, remembered: Ok(()) });
        };
        let run = match single_flight.join(&id) {
            Role::Waits(earlier) => {
                return earlier.wait(clock.sleep(WAIT), lease.saturating_sub(WAIT)).await;
            }
            Role::Runs(run) => run,
        };
        // The time of the handler begins with the claim, before the store has answered: the store
        // counts the lease from `now`.
        let (now, lease_over) = (clock.now(), clock.sleep(*lease));
        let claim = SeenClaim { id, until: now + *lease };
        let mut claim_guard = ClaimGuard::new(store, single_flight, claim.clone());
        let begun = store.begin(claim, now).await.map_err(Rejection::from);
        match begun {
            Ok(BeginOutcome::Claimed) => {}
            // The store may have made the claim all the same. It then ends with its lease.
            Err(unavailable) => {
                claim_guard.disarm();
                run.end(Ended::Failed { status: unavailable.status() });
                return Err(unavailable);
            }
            Ok(BeginOutcome::Done) => {
                claim_guard.disarm();
                run.end(Ended::Done);
                return Ok(RunOutcome::Duplicate);
            }
            Ok(BeginOutcome::InProgress { until }) => {
                claim_guard.disarm();
                let retry_after = until.saturating_since(now);
                run.end(Ended::Elsewhere { retry_after });
                return Err(Rejection::InProgress { retry_after });
            }
        }
        // The claim is settled before `run.end` removes the run: in the other order, an attempt that
        // comes in between would meet the claim in the store and be refused.
        let Some(result) = within(handler, lease_over).await else {
            // If the release fails, the claim has ended with its lease.
            let _failed = claim_guard.settle().await;
            let ended = Rejection::LeaseEnded { lease: *lease };
            run.end(Ended::Failed { status: ended.status() });
            return Err(ended);
        };
        let status = result.status();
        let ended = if status.is_success() {
            claim_guard.mark_done(clock.now() + *ttl);
            Ended::Done
        } else {
            Ended::Failed { status }
        };
        let remembered = claim_guard.settle().await;
        run.end(ended);
        Ok(RunOutcome::Ran { result, remembered })
    }

    /// Lets handlers that a [`ReceiveLayer`](crate::ReceiveLayer) runs go on when their connections
    /// are closed, to the end of their lease: for handlers that take longer than their senders wait
    /// (Slack 3 s, GitHub 10 s). It needs a tokio runtime. [`idle`](Self::idle) waits for the
    /// handlers that go on. While 1,000 of them run, further handlers end with their connections.
    #[must_use]
    pub fn detached(self) -> Self {
        Self { is_detached: true, ..self }
    }

    /// Returns whether one more handler may outlive its connection.
    pub(crate) fn may_detach(&self) -> bool {
        self.is_detached && self.single_flight.has_room()
    }

    /// Counts a handler until the returned value is dropped.
    pub(crate) fn count(&self) -> Counted {
        self.single_flight.count()
    }

    /// Waits until the ids of dropped handlers are released, and handlers that outlive their
    /// connections have ended. Call it at shutdown: without it, the claims end with their leases.
    pub async fn idle(&self) {
        self.single_flight.idle().await;
    }

    /// Returns the id under which a webhook is remembered; `None` if it has no key.
    fn id(&self, webhook: &Webhook) -> Result<Option<SeenId>, Rejection> {
        let misuse = |source| Rejection::Misuse { source };
        if !webhook.receiver().is_same_receiver(&self.receiver) {
            return Err(misuse(MisuseError::OtherReceiver));
        }
        // A setter may have changed the tolerance since the guard was made.
        if self.ttl <= replayable(webhook.receiver()) {
            return Err(misuse(MisuseError::Tolerance));
        }
        let scope = &*scope_of(&self.scope, webhook.tenant());
        Ok(self.key.of(webhook).map(|id| SeenId::new(scope, &id)))
    }
}

/// Refuses a scheme that repeats or signs a token, and does not sign the body.
fn check_signed<P>(receiver: &Receiver<P>) -> Result<(), SetupError> {
    let scheme = &receiver.settings().rules.scheme;
    if scheme.algorithm() == Algorithm::Token || scheme.content() == Content::Token {
        return Err(SetupError::UnsignedBody { scheme: scheme.name() });
    }
    Ok(())
}

/// Returns how long after it was first handled a webhook can reach the guard again. Verification reads
/// the clock before the body arrives, which adds the read deadline; timestamps are whole seconds,
/// which adds one second.
fn replayable(settings: &Settings) -> Duration {
    if settings.rules.scheme.timestamp_source().is_none() {
        // A replay passes at any time, so no time to live would be long enough.
        return Duration::ZERO;
    }
    let Tolerance { past, future } = settings.rules.tolerance;
    Duration::from_secs(past.saturating_add(future))
        .saturating_add(settings.read_deadline)
        .saturating_add(Duration::from_secs(1))
}

/// Returns the scope of a tenant's ids. The length in front says where the guard's own part ends, since
/// both parts may contain any text.
fn scope_of(scope: &str, tenant: Option<&str>) -> String {
    let length = scope.len();
    match tenant {
        Some(tenant) => format!("{length}:{scope}/{tenant}"),
        None => format!("{length}:{scope}"),
    }
}

impl<S> Clone for ReplayGuard<S> {
    fn clone(&self) -> Self {
        let Self { ttl, lease, is_detached, .. } = *self;
        let (store, single_flight) = (Arc::clone(&self.store), self.single_flight.clone());
        let (scope, receiver) = (Arc::clone(&self.scope), Arc::clone(&self.receiver));
        let key = self.key.clone();
        Self { store, single_flight, scope, key, receiver, ttl, lease, is_detached }
    }
}

impl<S> fmt::Debug for ReplayGuard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayGuard")
            .field("scope", &self.scope)
            .field("ttl", &self.ttl)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_pairs_of_scope_and_tenant_are_one() {
        let pairs = [
            ("a", Some("b/c")),
            ("a/b", Some("c")),
            ("a/b/c", None),
            ("a/b", Some("")),
            ("a/b/", None),
            ("1:a/b", None),
            ("a", Some("b")),
        ];
        let mut scopes = pairs.map(|(scope, tenant)| scope_of(scope, tenant)).to_vec();
        scopes.sort_unstable();
        scopes.dedup();
        assert_eq!(scopes.len(), pairs.len(), "{scopes:?}");
    }
}
