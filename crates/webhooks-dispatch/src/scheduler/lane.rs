//! What the scheduler knows of one endpoint.

use std::collections::VecDeque;
use std::sync::Arc;

use webhooks_core::{EndpointId, TenantId};
use webhooks_registry::{EndpointKey, EndpointNumber, Registration};

use crate::breaker::{Breaker, BreakerSettings};
use crate::decide::Signal;
use crate::rate::Rate;
use crate::{Claimed, MonotonicTime};

/// How many flights an endpoint may have before it has shown that it takes them.
const FIRST_ALLOWANCE: usize = 2;

/// Where a lane stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It holds nothing, or has as many flights as it may.
    Idle,
    /// It can start a flight.
    Ready,
    /// It waits: for its breaker, its rate, or because its endpoint asked.
    Waiting,
}

/// The claimed deliveries of one endpoint, and what its attempts have told.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) endpoint: EndpointNumber,
    id: EndpointId,
    pub(super) tenant: TenantId,
    pub(super) queue: VecDeque<Claimed>,
    pub(super) standing: Standing,
    pub(super) waits_until: MonotonicTime,
    pub(super) in_flight: usize,
    /// How many flights last.
    pub(super) slow: usize,
    pub(super) used_at: MonotonicTime,
    max_in_flight: usize,
    /// How many flights it may have now: one more with each success, half with each failure.
    allowance: usize,
    breaker: Breaker,
    rate: Option<Rate>,
}

impl Lane {
    pub(super) fn new(registration: &Registration, now: MonotonicTime) -> Self {
        Self {
            endpoint: registration.number,
            id: registration.id.clone(),
            tenant: registration.endpoint.tenant.clone(),
            queue: VecDeque::new(),
            standing: Standing::Idle,
            waits_until: MonotonicTime::default(),
            in_flight: 0,
            slow: 0,
            used_at: now,
            max_in_flight: 1,
            allowance: FIRST_ALLOWANCE,
            breaker: Breaker::default(),
            rate: None,
        }
    }

    /// Returns what names its endpoint.
    pub(super) fn key(&self) -> EndpointKey {
        EndpointKey::new(self.tenant.clone(), self.id.clone())
    }

    /// Takes over the endpoint's settings as they are now.
    pub(super) fn update(&mut self, registration: &Arc<Registration>, now: MonotonicTime) {
        let endpoint = &registration.endpoint;
        self.max_in_flight = usize::try_from(endpoint.max_in_flight.get()).unwrap_or(usize::MAX);
        if self.rate.as_ref().map(Rate::limit) != endpoint.rate_limit {
            self.rate = endpoint.rate_limit.map(|limit| Rate::new(limit, now));
        }
    }

    /// Returns whether it has something to start and may, if no endpoint may have more flights
    /// than `most`, and one with slow flights no more than its share of those.
    pub(super) fn can_start(&self, most: usize, slow_share: usize) -> bool {
        let mut limit = self.allowance.min(self.max_in_flight).min(most.max(1));
        if self.breaker.is_probing() {
            limit = 1;
        }
        if self.slow > 0 {
            limit = limit.min(slow_share.max(1));
        }
        !self.queue.is_empty() && self.in_flight < limit
    }

    /// Takes a token for the flight that starts now, or returns when there will be one.
    pub(super) fn token(&self, now: MonotonicTime) -> Result<(), MonotonicTime> {
        self.rate.as_ref().map_or(Ok(()), |rate| rate.take(now))
    }

    /// Starts a flight.
    pub(super) fn start(&mut self, now: MonotonicTime) -> Option<Claimed> {
        let claimed = self.queue.pop_front()?;
        self.in_flight += 1;
        self.used_at = now;
        Some(claimed)
    }

    /// Learns from a flight that has ended; returns until when to wait, if the lane should.
    pub(super) fn learn(
        &mut self,
        signal: Signal,
        settings: &BreakerSettings,
        now: MonotonicTime,
    ) -> Option<MonotonicTime> {
        match signal {
            Signal::Well => {
                self.allowance = (self.allowance + 1).min(self.max_in_flight.max(1));
                self.breaker.on_success();
                None
            }
            Signal::Alive => None,
            Signal::Trouble { pause } => {
                self.allowance = (self.allowance / 2).max(1);
                let opened = self.breaker.on_failure(settings, now);
                let asked = pause.map(|pause| now + pause);
                opened.into_iter().chain(asked).max().filter(|until| *until > now)
            }
        }
    }

    /// Forgets what its attempts have told.
    pub(super) fn forgive(&mut self) {
        self.breaker = Breaker::default();
        self.allowance = FIRST_ALLOWANCE;
    }

    /// Returns whether nothing would be lost if it were forgotten.
    pub(super) fn is_forgettable(&self) -> bool {
        self.queue.is_empty()
            && self.in_flight == 0
            && self.standing == Standing::Idle
            && self.breaker.is_at_rest()
            && self.rate.is_none()
    }
}
