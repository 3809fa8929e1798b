//! The guard against replays: each webhook is handled once, and again only if that failed.

mod flight;
mod handled;
mod identity;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use webhooks_sign::{Algorithm, Tolerance, scheme::Content};

use crate::receiver::Settings;
use crate::{MisuseError, Receiver, Rejection, SetupError, Webhook};

pub(crate) use flight::Counted;
use flight::{Ended, Flights, Held, Role, WAIT, within};
pub use handled::{HandlerResult, RunOutcome};
use identity::Identity;
#[cfg(feature = "memory")]
pub use memory::MemorySeenStore;
#[cfg(feature = "postgres")]
pub use postgres::PostgresSeenStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteSeenStore;
pub use store::{BeginOutcome, SeenClaim, SeenError, SeenId, SeenStore};

/// How long what is done is remembered unless set: longer than the 75.5 hours over which Standard
/// Webhooks 1.0, "Deliverability", tries again.
const TTL: Duration = Duration::from_secs(96 * 60 * 60);

/// How long a handler may take unless set: twice what senders wait for an answer. Longer would keep
/// the retries from what a process that died has left.
const LEASE: Duration = Duration::from_secs(60);

/// Runs the handler of each webhook once. Clones are one guard.
///
/// An id is done when its handler succeeded, and then a repetition is answered without it; when the
/// handler failed, panicked or was dropped, because the sender went away, the next one runs it
/// again. Repetitions that come while it runs wait for how it ends: in this process by themselves,
/// for 10 s at most, in others by an answer of 409 that says when to come again.
///
/// A handler that outlasts its lease is dropped, for another process may then run it. Processes
/// know of each other's leases by their clocks, so the clocks of machines that share a store must
/// agree by less than what a lease has left when its handler ends: seconds, with the lease of a
/// minute. What a handler has left behind when it is dropped, such as tasks of its own, is its
/// affair.
///
/// # Example
/// ```
/// # #[cfg(feature = "memory")]
/// # mod example {
/// use http::{Request, StatusCode};
/// use webhooks_receive::{ReplayGuard, MemorySeenStore, Receiver, Rejection, Webhook};
///
/// // However your framework hands you requests; `guard` is `ReplayGuard::new(&receiver, "billing", store)?`.
/// async fn hook(
///     receiver: &Receiver,
///     guard: &ReplayGuard<MemorySeenStore>,
///     request: Request<http_body_util::Full<bytes::Bytes>>,
/// ) -> Result<StatusCode, Rejection> {
///     let webhook = receiver.receive(request).await?.into_body();
///     let guarded = guard.run(&webhook, handle(&webhook)).await?;
///     Ok(guarded.status())
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
    flights: Flights,
    scope: Arc<str>,
    identity: Identity,
    receiver: Arc<Settings>,
    ttl: Duration,
    lease: Duration,
    /// Whether handlers outlive their connections.
    is_detached: bool,
}

impl<S: SeenStore> ReplayGuard<S> {
    /// Returns a guard that knows webhooks by the id that their sender signed: in a header, or in the
    /// field of the body that the provider documents
    /// ([`Scheme::event_id_fields`](webhooks_sign::scheme::Scheme::event_id_fields)). A body without that
    /// field, such as the test of a new webhook, is known by its hash.
    ///
    /// `scope` names the destination: what handles them, such as `billing`. Guards that share a
    /// store under one scope, in one process or many, share what is done, so that a webhook which
    /// one has handled the others answer without: give each destination a scope of its own, and
    /// each sender too, or one could use up the ids of another. Tenants are told apart without.
    ///
    /// The guard knows this receiver, its clones, and what setters make of it.
    ///
    /// # Errors
    /// [`SetupError::UnsignedId`] when the scheme signs none, [`SetupError::RepeatedBodies`] when
    /// nothing of a webhook tells it from the next, [`SetupError::TtlTooShort`] when the receiver's
    /// tolerance is some 96 hours.
    pub fn new<P>(receiver: &Receiver<P>, scope: &str, store: S) -> Result<Self, SetupError> {
        let scheme = &receiver.settings().scheme;
        let fields = scheme.event_id_fields();
        if scheme.signs_id() {
            Self::with(receiver, scope, store, Identity::SignedId)
        } else if scheme.repeats_bodies() {
            Err(SetupError::RepeatedBodies { scheme: scheme.name() })
        } else if fields.is_empty() {
            Err(SetupError::UnsignedId { scheme: scheme.name() })
        } else {
            Self::by_fields(receiver, scope, store, fields)
        }
    }

    /// Returns a guard that knows webhooks by these fields of their JSON together, each given by its
    /// JSON pointer (RFC 6901), such as `/event/id`; `*` in place of an index is each item of an
    /// array. Take those that are the same in all attempts, and in no other event. A body without
    /// any of them is known by its hash. `scope` names the destination, as in [`new`](Self::new).
    ///
    /// # Errors
    /// [`SetupError::Pointer`] when one does not start with `/`, or there is none,
    /// [`SetupError::UnsignedBody`] when the scheme is a token, [`SetupError::TtlTooShort`] when the
    /// receiver's tolerance is some 96 hours.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "memory")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use webhooks_receive::{ReplayGuard, MemorySeenStore, Receiver};
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
        Self::with(receiver, scope, store, Identity::fields(pointers))
    }

    /// Returns a guard that knows webhooks by a hash of their bodies. `scope` names the destination,
    /// as in [`new`](Self::new).
    ///
    /// It suits senders that repeat a body byte for byte when they try again, and put something into
    /// it that no other event has, as GitHub and Shopify do. Two events with the same body are one
    /// to it: the second is answered 200, and its handler does not run. Of a sender that counts its
    /// attempts in the body, each attempt is handled. A form is known by its fields, however it is
    /// written; a webhook without a body is handled each time.
    ///
    /// # Errors
    /// [`SetupError::UnsignedBody`] when the scheme is a token, [`SetupError::RepeatedBodies`] when
    /// the provider's bodies repeat by design (Dropbox), [`SetupError::TtlTooShort`] when the
    /// receiver's tolerance is some 96 hours.
    pub fn by_body<P>(receiver: &Receiver<P>, scope: &str, store: S) -> Result<Self, SetupError> {
        check_signed(receiver)?;
        let scheme = &receiver.settings().scheme;
        if scheme.repeats_bodies() {
            return Err(SetupError::RepeatedBodies { scheme: scheme.name() });
        }
        Self::with(receiver, scope, store, Identity::BodyHash)
    }

    fn with<P>(
        receiver: &Receiver<P>,
        scope: &str,
        store: S,
        identity: Identity,
    ) -> Result<Self, SetupError> {
        let receiver = Arc::clone(receiver.settings());
        let (store, flights) = (Arc::new(store), Flights::default());
        let (scope, ttl, lease) = (Arc::from(scope), TTL, LEASE);
        let is_detached = false;
        Self { store, flights, scope, identity, receiver, ttl, lease, is_detached }.ttl(TTL)
    }

    /// Sets how long what is done is remembered; 96 hours unless set. Where the scheme signs no
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

    /// Sets how long a handler may take before it is dropped, and another process may take over;
    /// 1 minute unless set. It is also how long an id is kept by a process that died.
    ///
    /// # Errors
    /// [`SetupError::ZeroLease`] when it is nothing.
    pub fn lease(self, lease: Duration) -> Result<Self, SetupError> {
        if lease.is_zero() {
            return Err(SetupError::ZeroLease);
        }
        Ok(Self { lease, ..self })
    }

    /// Runs the handler, unless the webhook was or is being handled. With the system's clock it must
    /// run in a tokio runtime with a timer.
    ///
    /// # Errors
    /// [`Rejection::Misuse`] when it is not the guard's receiver that verified the webhook;
    /// [`Rejection::InProgress`] when another process is at it, or the handler that this one waited
    /// for vanished or takes more than 10 s; [`Rejection::EarlierRunFailed`] when that handler failed, or the
    /// store did before it; [`Rejection::SeenStoreFailed`] when the store fails. The handler was not run then.
    /// [`Rejection::LeaseEnded`] when it was, for as long as its lease.
    ///
    /// # Cancellation
    /// Dropping the future drops the handler. The id is given back by a task of the guard's, or
    /// marked as done if the handler had succeeded; [`idle`](Self::idle) waits for it.
    pub async fn run<R: HandlerResult>(
        &self,
        webhook: &Webhook,
        handler: impl Future<Output = R>,
    ) -> Result<RunOutcome<R>, Rejection> {
        let guarded = self.run_once(webhook, handler).await;
        #[cfg(feature = "tracing")]
        if matches!(guarded, Ok(RunOutcome::Duplicate)) {
            let (scope, scheme) = (&*self.scope, webhook.scheme());
            tracing::debug!(
                target: "webhooks_receive",
                scope,
                scheme,
                "a repetition is answered without its handler"
            );
        }
        guarded.inspect_err(|rejection| webhook.by().tell_of(rejection))
    }

    async fn run_once<R: HandlerResult>(
        &self,
        webhook: &Webhook,
        handler: impl Future<Output = R>,
    ) -> Result<RunOutcome<R>, Rejection> {
        let Self { store, flights, lease, ttl, .. } = self;
        let clock = &self.receiver.clock;
        let Some(id) = self.id(webhook)? else {
            // Nothing tells it from the next one: better twice than not at all.
            let result = within(handler, clock.sleep(*lease)).await;
            let result = result.ok_or(Rejection::LeaseEnded { lease: *lease })?;
            return Ok(RunOutcome::Ran { result, remembered: Ok(()) });
        };
        let flight = match flights.join(&id) {
            Role::Waits(outcome) => {
                return outcome.wait(clock.sleep(WAIT), lease.saturating_sub(WAIT)).await;
            }
            Role::Runs(flight) => flight,
        };
        // The handler's time begins with the claim, before the store has answered.
        let (now, lease_over) = (clock.now(), clock.sleep(*lease));
        let claim = SeenClaim { id, until: now + *lease };
        let mut held = Held::new(store, flights, claim.clone());
        let begun = store.begin(claim, now).await.map_err(Rejection::from);
        match begun {
            Ok(BeginOutcome::Claimed) => {}
            // If the claim is made all the same, it ends by itself.
            Err(unavailable) => {
                held.is_no_claim();
                flight.end(Ended::Failed { status: unavailable.status() });
                return Err(unavailable);
            }
            Ok(BeginOutcome::Done) => {
                held.is_no_claim();
                flight.end(Ended::Done);
                return Ok(RunOutcome::Duplicate);
            }
            Ok(BeginOutcome::InProgress { until }) => {
                held.is_no_claim();
                let retry_after = until.saturating_since(now);
                flight.end(Ended::Elsewhere { retry_after });
                return Err(Rejection::InProgress { retry_after });
            }
        }
        let Some(result) = within(handler, lease_over).await else {
            // If it fails, the claim has ended by itself.
            let _failed = held.settle().await;
            let ended = Rejection::LeaseEnded { lease: *lease };
            flight.end(Ended::Failed { status: ended.status() });
            return Err(ended);
        };
        let status = result.status();
        let ended = if status.is_success() {
            held.is_done(clock.now() + *ttl);
            Ended::Done
        } else {
            Ended::Failed { status }
        };
        let remembered = held.settle().await;
        flight.end(ended);
        Ok(RunOutcome::Ran { result, remembered })
    }

    /// Lets handlers that a [`ReceiveLayer`](crate::ReceiveLayer) runs go on when their connections
    /// are closed, to the end of their lease: for senders that wait less than they take (Slack 3 s,
    /// GitHub 10 s). It needs a tokio runtime. [`idle`](Self::idle) waits for those that go on; while
    /// there are 1,000, others end with their connections.
    #[must_use]
    pub fn detached(self) -> Self {
        Self { is_detached: true, ..self }
    }

    /// Returns whether one more handler may outlive its connection.
    pub(crate) fn may_detach(&self) -> bool {
        self.is_detached && self.flights.has_room()
    }

    /// Counts a handler until what is returned is dropped.
    pub(crate) fn count(&self) -> Counted {
        self.flights.count()
    }

    /// Waits until the ids of handlers that were dropped are given back, and handlers that outlive
    /// their connections have ended: at shutdown, or the claims end by themselves.
    pub async fn idle(&self) {
        self.flights.idle().await;
    }

    /// Returns the name under which a webhook is remembered, if anything tells it from others.
    fn id(&self, webhook: &Webhook) -> Result<Option<SeenId>, Rejection> {
        let misuse = |source| Rejection::Misuse { source };
        if !webhook.by().is_same(&self.receiver) {
            return Err(misuse(MisuseError::OtherReceiver));
        }
        // A setter may have changed it since the guard was made.
        if self.ttl <= replayable(webhook.by()) {
            return Err(misuse(MisuseError::Tolerance));
        }
        let scope = &*scope_of(&self.scope, webhook.tenant());
        Ok(self.identity.of(webhook).map(|id| SeenId::new(scope, &id)))
    }
}

/// Refuses a scheme that repeats a token, or signs one, and no body.
fn check_signed<P>(receiver: &Receiver<P>) -> Result<(), SetupError> {
    let scheme = &receiver.settings().scheme;
    if scheme.algorithm() == Algorithm::Token || scheme.content() == Content::Token {
        return Err(SetupError::UnsignedBody { scheme: scheme.name() });
    }
    Ok(())
}

/// Returns how long after it was first handled a webhook can come to the guard again: verification
/// looks at the clock before the body comes, and timestamps are whole seconds.
fn replayable(settings: &Settings) -> Duration {
    if settings.scheme.timestamp_source().is_none() {
        // For ever: no time to live would be long enough.
        return Duration::ZERO;
    }
    let Tolerance { past, future } = settings.tolerance;
    Duration::from_secs(past.saturating_add(future))
        .saturating_add(settings.read_deadline)
        .saturating_add(Duration::from_secs(1))
}

/// Returns the scope of a tenant's ids. Its length in front tells where the guard's own part ends,
/// for either may hold any text.
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
        let (store, flights) = (Arc::clone(&self.store), self.flights.clone());
        let (scope, receiver) = (Arc::clone(&self.scope), Arc::clone(&self.receiver));
        let identity = self.identity.clone();
        Self { store, flights, scope, identity, receiver, ttl, lease, is_detached }
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
