//! A lane: the claimed deliveries of one endpoint, its state and its limits.

use std::collections::VecDeque;
use std::time::Duration;

use webhooks_core::{EndpointId, TenantId};
use webhooks_registry::{EndpointKey, EndpointNumber};

use super::bytes::{Shares, weight};
use super::slots::{Trust, Wants};
use crate::breaker::{Breaker, BreakerChange, BreakerSettings};
use crate::clock::MonotonicTime;
use crate::decide::EndpointSignal;
use crate::rate::Rate;
use crate::report::{BreakerState, EndpointReport, RestReason};
use crate::store::{Claimed, RATE_SPAN};

/// The first `concurrency_limit` of an endpoint, before any of its answers is known.
const FIRST_CONCURRENCY_LIMIT: usize = 2;

/// The pause of an endpoint for which the transport had no room. Its deliveries are due again at
/// once, so without a pause they would be claimed and refused in a loop.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// The state of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneState {
    /// It holds nothing, or has as many attempts in flight as it may.
    Idle,
    /// It waits for a token of its rate limit, with what may start soon.
    Limited,
    /// It waits for a slot; the number is its turn.
    Parked(u64),
    /// It can start an attempt.
    Ready,
    /// It starts nothing for a time: its breaker is open, the transport had no room, or its endpoint
    /// asked for a pause. Its queue is empty.
    Resting,
}

/// The claimed deliveries of one endpoint, and the health that its attempts have shown.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) endpoint: EndpointNumber,
    /// Its id; `None` if the lane is vacant.
    id: Option<EndpointId>,
    pub(super) tenant: TenantId,
    pub(super) queue: VecDeque<Claimed>,
    /// The bytes of the bodies in the queue.
    pub(super) bytes: usize,
    pub(super) state: LaneState,
    /// The room for its endpoint, as it was set last.
    pub(super) room: Option<usize>,
    pub(super) rests_until: MonotonicTime,
    /// The slots for which it was parked last.
    pub(super) parked_as: Wants,
    pub(super) in_flight: usize,
    /// The bytes of their bodies, as [`weight`] counts them.
    pub(super) bytes_in_flight: usize,
    /// The number of slow attempts in flight.
    pub(super) slow: usize,
    pub(super) used_at: MonotonicTime,
    /// Set if the endpoint was disabled or unregistered: removed from those that get deliveries.
    pub(super) is_removed: bool,
    max_in_flight: usize,
    /// The number of attempts that may be in flight now. It adapts by AIMD, as TCP does: one more
    /// with each success, half with each failure.
    concurrency_limit: usize,
    /// The trust that its attempts have earned; before the first, what its store remembers.
    earned: Trust,
    breaker: Breaker,
    rate: Option<Rate>,
}

impl Lane {
    /// Returns the lane of an endpoint. One that is known to fail is on probation.
    pub(super) fn new(claimed: &Claimed, now: MonotonicTime) -> Self {
        let Claimed { registration, is_failing, .. } = claimed;
        Self {
            endpoint: registration.number,
            id: Some(registration.id.clone()),
            tenant: registration.endpoint.tenant.clone(),
            queue: VecDeque::new(),
            bytes: 0,
            state: LaneState::Idle,
            room: None,
            rests_until: MonotonicTime::default(),
            parked_as: Wants { trust: Trust::Failing, is_large: false },
            in_flight: 0,
            bytes_in_flight: 0,
            slow: 0,
            used_at: now,
            is_removed: false,
            max_in_flight: 1,
            concurrency_limit: FIRST_CONCURRENCY_LIMIT,
            earned: if *is_failing { Trust::Failing } else { Trust::Fresh },
            breaker: if *is_failing { Breaker::on_probation(now) } else { Breaker::default() },
            rate: None,
        }
    }

    /// Returns the key of its endpoint, unless the lane is vacant.
    pub(super) fn key(&self) -> Option<EndpointKey> {
        Some(EndpointKey::new(self.tenant.clone(), self.id.clone()?))
    }

    /// Makes the lane vacant, and frees its memory.
    pub(super) fn vacate(&mut self) {
        self.id = None;
        self.tenant = TenantId::default();
        self.queue = VecDeque::new();
        self.breaker = Breaker::default();
        self.rate = None;
    }

    /// Takes over the endpoint's settings from a delivery that was claimed. `is_fresh` is set if
    /// the delivery was accepted just now.
    pub(super) fn update(
        &mut self,
        claimed: &Claimed,
        is_fresh: bool,
        settings: &BreakerSettings,
        now: MonotonicTime,
    ) {
        let endpoint = &claimed.registration.endpoint;
        // A delivery was claimed for the endpoint, so it exists again.
        self.is_removed = false;
        self.max_in_flight = usize::try_from(endpoint.max_in_flight.get()).unwrap_or(usize::MAX);
        // A new bucket starts full, so it is made only if the limit has changed.
        if self.rate.as_ref().map(Rate::limit) != endpoint.rate_limit {
            self.rate = endpoint.rate_limit.map(|limit| Rate::new(limit, now));
        }
        self.breaker.age(settings, now);
        if matches!(self.earned, Trust::Fresh | Trust::Stale) {
            let is_only_one = self.queue.is_empty();
            self.earned = if is_fresh && is_only_one { Trust::Fresh } else { Trust::Stale };
        }
    }

    /// Returns how quickly the endpoint can be expected to answer. An attempt that is slow lowers
    /// it before it ends, since it may be the first that never ends.
    pub(super) fn trust(&self) -> Trust {
        match self.earned {
            _ if self.breaker.is_probing() => Trust::Failing,
            Trust::Fresh if self.slow > 0 => Trust::Stale,
            Trust::Quick if self.slow > 0 => Trust::Slow,
            earned => earned,
        }
    }

    /// Returns the slots that its next attempt needs.
    pub(super) fn wants(&self) -> Wants {
        let is_large = self.queue.front().is_some_and(|next| weight(next.event.body.len()) > 0);
        Wants { trust: self.trust(), is_large }
    }

    /// Returns whether it is parked, and its next attempt needs other slots than those it waits for.
    pub(super) fn waits_for_other_slots(&self) -> bool {
        let wants = self.wants();
        let is_parked = matches!(self.state, LaneState::Parked(_));
        // Without a next attempt, nothing is known of its body.
        let is_other_body = !self.queue.is_empty() && wants.is_large != self.parked_as.is_large;
        is_parked && (is_other_body || wants.trust != self.parked_as.trust)
    }

    /// Returns whether it holds a delivery and may start it.
    pub(super) fn can_start(&self, shares: Shares) -> bool {
        !self.queue.is_empty() && self.has_free_flight(shares)
    }

    /// Returns whether one more attempt may be in flight.
    pub(super) fn has_free_flight(&self, shares: Shares) -> bool {
        let mut limit = self.concurrency_limit.min(self.max_in_flight).min(shares.most.max(1));
        if self.breaker.is_probing() {
            limit = 1;
        }
        if self.slow > 0 {
            limit = limit.min(shares.slow.max(1));
        }
        self.in_flight < limit && self.bytes_in_flight < shares.bytes.max(1)
    }

    /// Takes a token for the attempt that starts now, or returns the time at which there is one.
    pub(super) fn token(&mut self, now: MonotonicTime) -> Result<(), MonotonicTime> {
        self.rate.as_mut().map_or(Ok(()), |rate| rate.take(now))
    }

    /// Returns the time at which there is a token, if there is none now.
    pub(super) fn next_token(&self, now: MonotonicTime) -> Option<MonotonicTime> {
        self.rate.as_ref().and_then(|rate| rate.next_token(now))
    }

    /// Returns the number of attempts that the rate limit allows within a short time.
    pub(super) fn starts_soon(&self, now: MonotonicTime) -> usize {
        self.rate.as_ref().map_or(usize::MAX, |rate| rate.tokens_within(now, RATE_SPAN))
    }

    /// Starts an attempt, and returns its delivery.
    pub(super) fn start(&mut self, now: MonotonicTime) -> Option<Claimed> {
        let claimed = self.queue.pop_front()?;
        self.bytes -= claimed.event.body.len();
        self.bytes_in_flight += weight(claimed.event.body.len());
        self.in_flight += 1;
        self.used_at = now;
        Some(claimed)
    }

    /// Notes the result of an attempt; returns the time until which the lane must rest, if it must,
    /// and the change of the breaker, if there is one.
    pub(super) fn on_result(
        &mut self,
        signal: EndpointSignal,
        was_slow: bool,
        settings: &BreakerSettings,
        now: MonotonicTime,
    ) -> (Option<MonotonicTime>, Option<BreakerChange>) {
        let closed = |had_opened: bool| had_opened.then_some(BreakerChange::Closed);
        self.earned = earned_after(self.earned, signal, was_slow);
        match signal {
            EndpointSignal::Success => {
                self.concurrency_limit =
                    (self.concurrency_limit + 1).min(self.max_in_flight.max(1));
                (None, closed(self.breaker.on_answer()))
            }
            EndpointSignal::Refused => (None, closed(self.breaker.on_answer())),
            EndpointSignal::Unhealthy { pause } => {
                self.concurrency_limit = (self.concurrency_limit / 2).max(1);
                let opened = self.breaker.on_failure(settings, now);
                let asked = pause.map(|pause| now + pause);
                let until = opened.into_iter().chain(asked).max();
                let pause = until.map_or(Duration::ZERO, |until| until.saturating_since(now));
                let change = opened.map(|_until| BreakerChange::Opened { pause });
                (until.filter(|until| *until > now), change)
            }
            EndpointSignal::NoRoom => (Some(now + NO_ROOM_PAUSE), None),
            EndpointSignal::Nothing => (None, None),
        }
    }

    /// Returns whether the endpoint itself is why the lane rests: it failed, or asked for a pause. When this machine has
    /// no room, the lane rests for a moment only, and its endpoint has not failed.
    pub(super) fn rests_by_endpoint(&self, now: MonotonicTime) -> bool {
        self.breaker.failures() > 0 || self.rests_until > now + NO_ROOM_PAUSE
    }

    /// Makes the next attempt a probe; returns the time from which it may start.
    pub(super) fn probe_early(&mut self, now: MonotonicTime) -> MonotonicTime {
        self.breaker.probe_early(self.rests_until, now)
    }

    /// Returns whether the breaker is not closed, as far as is noted.
    pub(super) fn is_probing(&self) -> bool {
        self.breaker.is_probing()
    }

    /// Returns the state of the lane for people to read; `None` if it is of no interest: its
    /// breaker is closed, it does not rest, and no attempt is in flight.
    pub(super) fn report(
        &self,
        settings: &BreakerSettings,
        now: MonotonicTime,
    ) -> Option<EndpointReport> {
        let breaker = self.breaker.state(settings, now);
        let rests_for = self.rests_until.saturating_since(now);
        let rests_by = match (self.state, breaker) {
            (LaneState::Limited, _) => Some(RestReason::RateLimit),
            (LaneState::Resting, BreakerState::Open { remaining }) if remaining >= rests_for => {
                Some(RestReason::Failures)
            }
            (LaneState::Resting, _) => Some(RestReason::Pause),
            _ => None,
        };
        if breaker == BreakerState::Closed && rests_by.is_none() && self.in_flight == 0 {
            return None;
        }
        Some(EndpointReport {
            number: self.endpoint,
            in_flight: u32::try_from(self.in_flight).unwrap_or(u32::MAX),
            waiting: u32::try_from(self.queue.len()).unwrap_or(u32::MAX),
            breaker,
            failures: self.breaker.failures(),
            rests_for: rests_by.map(|_| rests_for),
            rests_by,
            tokens: self.rate.as_ref().map(|rate| rate.tokens(now)),
        })
    }

    /// Resets the health that its attempts have shown.
    pub(super) fn reset_health(&mut self) {
        self.breaker = Breaker::default();
        self.concurrency_limit = FIRST_CONCURRENCY_LIMIT;
        self.earned = Trust::Fresh;
    }

    /// Returns whether nothing would be lost if it were forgotten.
    pub(super) fn is_forgettable(&self, settings: &BreakerSettings, now: MonotonicTime) -> bool {
        self.queue.is_empty()
            && self.in_flight == 0
            && self.state == LaneState::Idle
            && self.breaker.is_forgettable(settings, now)
            && self.rate.as_ref().is_none_or(|rate| rate.is_full(now))
    }
}

/// Returns the trust that an endpoint has earned after an attempt.
///
/// A quick failure of a quick or slow endpoint changes nothing, since it used its slot for a moment
/// only. After a slow failure, a quick endpoint is slow. After any other failure, an endpoint is
/// failing. After a long wait for room in the transport, a quick or fresh endpoint is slow: others
/// on its host hang, and all that wait with it would use up the quick slots.
fn earned_after(earned: Trust, signal: EndpointSignal, was_slow: bool) -> Trust {
    match (signal, earned) {
        (EndpointSignal::NoRoom, Trust::Quick | Trust::Fresh) if was_slow => Trust::Slow,
        (EndpointSignal::NoRoom | EndpointSignal::Nothing, earned) => earned,
        (EndpointSignal::Success | EndpointSignal::Refused, _) if was_slow => Trust::Slow,
        (EndpointSignal::Success | EndpointSignal::Refused, _) => Trust::Quick,
        (EndpointSignal::Unhealthy { .. }, Trust::Quick | Trust::Slow) if !was_slow => earned,
        (EndpointSignal::Unhealthy { .. }, Trust::Quick) => Trust::Slow,
        (EndpointSignal::Unhealthy { .. }, _) => Trust::Failing,
    }
}
