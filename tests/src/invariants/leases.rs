//! Deliveries as a run has seen them: accepted, claimed, sent, settled; and the explanations of
//! duplicates.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use webhooks_core::{DeliveryId, RetryPolicy, Timestamp};
use webhooks_dispatch::store::{Claim, Outcome};

use super::checker::{Checker, WorkerNumber};

/// One event for one endpoint, by the numbers of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) event: usize,
    pub(crate) endpoint: usize,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {} for e{}", self.event, self.endpoint)
    }
}

/// All deliveries of a run.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    pub(crate) by_key: BTreeMap<Key, Delivery>,
    by_id: BTreeMap<DeliveryId, Key>,
    /// The number of places in the order of acceptance so far.
    places: usize,
}

/// The observations of a delivery.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "what was seen is independent of each other")]
pub(crate) struct Delivery {
    /// Its place in the order of acceptance: the earliest possible one, and the latest possible one
    /// if it was certainly accepted.
    pub(super) earliest: usize,
    pub(super) latest: Option<usize>,
    pub(super) accepted_at: Duration,
    /// Whether publish returned `Ok`, so that the store must not lose it.
    pub(crate) is_promised: bool,
    pub(crate) id: Option<DeliveryId>,
    pub(crate) is_open: bool,
    /// Whether the engine asked the store to end it, so that the store may have done so.
    pub(super) may_have_ended: bool,
    /// The reason for which it was cancelled from outside.
    pub(crate) cancelled: Option<&'static str>,
    pub(crate) was_replayed: bool,
    /// Whether it was cancelled while a claim waited to be sent. If it is replayed, a request does
    /// not show by which claim it is sent.
    pub(super) is_uncertain: bool,
    /// Whether the endpoint answered 2xx, and the engine got the answer.
    pub(crate) was_taken: bool,
    pub(crate) due_at: Option<Timestamp>,
    pub(crate) claims: Vec<ClaimRecord>,
}

/// A claim of a delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grant {
    pub(crate) claim: Claim,
    pub(crate) key: Key,
    /// The number of the next attempt, as the retry policy counts.
    pub(crate) attempt: u32,
    /// The time at which the delivery was accepted, or last replayed.
    pub(crate) since: Timestamp,
    /// The earliest possible end of the lease.
    pub(crate) until: Timestamp,
    pub(crate) footing: Footing,
}

/// The certainty of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Footing {
    /// It holds, and its worker knows.
    Firm,
    /// It holds, and its worker did not get the answer.
    Unheard,
    /// It may not hold: the store crashed after the worker asked for it, or its lease had ended
    /// when the worker got the answer.
    Doubtful,
}

/// The observations of a claim.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "what was seen is independent of each other")]
pub(crate) struct ClaimRecord {
    token: u64,
    pub(crate) worker: WorkerNumber,
    granted_at: Duration,
    pub(super) until: Timestamp,
    footing: Footing,
    /// Whether the retry policy allows one more attempt.
    pub(super) is_allowed: bool,
    is_last: bool,
    is_expired_at: Timestamp,
    pub(super) is_sent: bool,
    /// Whether the delivery was cancelled while it was claimed.
    is_over: bool,
    /// Whether the endpoint was closed while the delivery was claimed.
    pub(super) is_closed: bool,
    /// Whether the engine asked the store to make the delivery pending again, so that the store may
    /// have done so.
    may_be_back: bool,
    /// The status code of the answer; `None` if there was none.
    pub(super) status: Option<u16>,
    pub(crate) settled: Option<Outcome>,
}

impl Deliveries {
    /// Notes that a delivery is certainly accepted now.
    pub(crate) fn accept(&mut self, key: Key, now: Duration) -> &mut Delivery {
        let places = self.places + 1;
        let delivery = self.may_accept(key, now);
        delivery.latest.get_or_insert(places);
        delivery
    }

    /// Returns the number of places in the order of acceptance so far.
    pub(super) fn place(&self) -> usize {
        self.places
    }

    /// Notes that a delivery may be accepted now or later.
    pub(crate) fn may_accept(&mut self, key: Key, now: Duration) -> &mut Delivery {
        self.places += 1;
        let earliest = self.places;
        let delivery =
            Delivery { earliest, accepted_at: now, is_open: true, ..Delivery::default() };
        self.by_key.entry(key).or_insert(delivery)
    }

    /// Notes that a delivery was replayed, or made for a missed event.
    pub(crate) fn replay(&mut self, key: Key, now: Duration) {
        let is_known = self.by_key.contains_key(&key);
        let delivery = self.accept(key, now);
        delivery.was_replayed = true;
        if is_known {
            delivery.is_open = true;
            delivery.was_taken = false;
            delivery.cancelled = None;
            delivery.due_at = None;
        }
    }

    /// Notes that retention deleted a delivery that had ended.
    pub(crate) fn forget(&mut self, key: Key) {
        if let Some(delivery) = self.by_key.remove(&key)
            && let Some(id) = delivery.id
        {
            self.by_id.remove(&id);
        }
    }

    pub(crate) fn by_id(&mut self, id: DeliveryId) -> Option<&mut Delivery> {
        self.by_key.get_mut(self.by_id.get(&id)?)
    }

    fn claim(&mut self, claim: Claim) -> Option<&mut ClaimRecord> {
        let mut claims = self.by_id(claim.delivery)?.claims.iter_mut();
        claims.rfind(|record| record.token == claim.token)
    }
}

impl ClaimRecord {
    /// Returns whether another worker may have the delivery, although the lease has not ended and
    /// the store has not answered so.
    fn may_be_over(&self) -> bool {
        self.is_over || self.may_be_back || self.is_doubtful()
    }

    /// Returns whether a worker still has the claim.
    pub(crate) fn is_unsettled(&self) -> bool {
        !self.is_over && self.settled.is_none()
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.footing == Footing::Doubtful
    }
}

impl Delivery {
    /// Notes that it was cancelled from outside.
    pub(crate) fn cancel(&mut self, why: &'static str) {
        self.is_open = false;
        self.cancelled = Some(why);
        if let Some(last) = self.claims.last_mut() {
            last.is_over = true;
            self.is_uncertain |= !last.is_sent && last.settled.is_none();
        }
    }
}

impl Delivery {
    /// Notes that its endpoint is closed, and cancels it if it is open.
    pub(crate) fn close(&mut self, why: &'static str) {
        if self.is_open {
            self.cancel(why);
        }
        self.claims.iter_mut().for_each(|claim| claim.is_closed = true);
    }
}

impl Checker {
    /// Notes that a worker claimed a delivery, and checks the end of the claim before. Leases had
    /// to end by `time`.
    pub(crate) fn on_claimed(
        &mut self,
        worker: WorkerNumber,
        grant: &Grant,
        (now, time): (Duration, Timestamp),
    ) {
        let Grant { claim: Claim { delivery: id, token }, key, attempt, footing, .. } = *grant;
        self.note(now, format_args!("worker {worker} claims {key} by {token}"));
        self.deliveries.by_id.insert(id, key);
        if !self.deliveries.by_key.contains_key(&key) {
            // A missed event that was replayed.
            self.deliveries.accept(key, now).was_replayed = true;
        }
        let Some(delivery) = self.deliveries.by_key.get_mut(&key) else { return };
        delivery.id = Some(id);
        let endpoint = &self.endpoints[key.endpoint].endpoint;
        let standard = RetryPolicy::standard();
        let retry = endpoint.retry.as_ref().unwrap_or(&standard);
        let record = ClaimRecord {
            token,
            worker,
            granted_at: now,
            until: grant.until,
            footing,
            is_allowed: attempt == 1 || retry.delay(attempt - 1, 0).is_some(),
            is_last: retry.delay(attempt, 0).is_none(),
            is_expired_at: grant.since + endpoint.max_age,
            is_sent: false,
            is_over: false,
            is_closed: false,
            may_be_back: false,
            status: None,
            settled: None,
        };
        // The request of an earlier claim to end the delivery was not carried out, and never will
        // be.
        delivery.may_have_ended &= footing != Footing::Firm;
        let is_open = delivery.is_open;
        let before = delivery.claims.last().map(|last| {
            let worker = self.workers[last.worker];
            let is_faulty = worker.had_fault_since(last.granted_at);
            let is_explained = last.footing == Footing::Unheard || worker.has_ended || is_faulty;
            (last.may_be_over() || last.settled.is_some(), last.until, is_explained)
        });
        delivery.claims.push(record);
        match before {
            _ if footing == Footing::Doubtful => {}
            _ if !is_open => {
                self.violate(now, format_args!("settled for good: {key} is handed out again"));
            }
            Some((false, until, _)) if until > time => {
                self.violate(now, format_args!("one holder at a time: {key} is leased already"));
            }
            Some((false, _, is_explained)) => {
                self.counters.lost_leases += 1;
                if !is_explained {
                    let why = "though its worker lives and its store is well";
                    self.violate(now, format_args!("leases are kept: that of {key} ran out {why}"));
                }
            }
            _ => {}
        }
    }

    /// Notes that the store crashed: it may have forgotten the claims that are not settled.
    pub(crate) fn on_store_crashed(&mut self, now: Duration) {
        self.note(now, format_args!("the store crashes"));
        let claims = self.deliveries.by_key.values_mut().flat_map(|delivery| &mut delivery.claims);
        for claim in claims.filter(|claim| claim.settled.is_none()) {
            claim.footing = Footing::Doubtful;
        }
    }

    /// Notes that the store and all its workers crashed: no earlier claim holds.
    pub(crate) fn on_all_crashed(&mut self, now: Duration) {
        self.note(now, format_args!("the store and its workers crash"));
        let claims = self.deliveries.by_key.values_mut().flat_map(|delivery| &mut delivery.claims);
        claims.for_each(|claim| claim.is_over = true);
    }

    pub(crate) fn on_extended(&mut self, claim: Claim, until: Timestamp) {
        if let Some(record) = self.deliveries.claim(claim) {
            record.until = record.until.max(until);
        }
    }

    /// Notes that the engine asks the store to record a settlement, which may hold from now on.
    pub(crate) fn on_settling(&mut self, claim: Claim, outcome: Outcome, now: Duration) {
        let Some(key) = self.deliveries.by_id.get(&claim.delivery).copied() else { return };
        self.note(now, format_args!("{key} may be settled by {}: {outcome:?}", claim.token));
        if matches!(outcome, Outcome::Released | Outcome::Retrying { .. }) {
            if let Some(record) = self.deliveries.claim(claim) {
                record.may_be_back = true;
            }
        } else if let Some(delivery) = self.deliveries.by_id(claim.delivery) {
            delivery.may_have_ended = true;
        }
    }

    /// Notes that the store recorded a settlement.
    pub(crate) fn on_settled(
        &mut self,
        claim: Claim,
        outcome: Outcome,
        (now, time): (Duration, Timestamp),
    ) {
        let Some(key) = self.deliveries.by_id.get(&claim.delivery).copied() else { return };
        self.note(now, format_args!("{key} is settled by {}: {outcome:?}", claim.token));
        let Some(record) = self.deliveries.claim(claim) else { return };
        record.settled = Some(outcome);
        let (status, is_last, is_sent) = (record.status, record.is_last, record.is_sent);
        let is_expired = record.is_expired_at <= time || self.limits.is_wall_off;
        let is_success = status.is_some_and(|status| (200..300).contains(&status));
        let fits = match outcome {
            Outcome::Delivered => is_success,
            Outcome::Retrying { .. } => is_sent && !is_success && !is_last,
            Outcome::Failed => is_sent && !is_success && (is_last || status == Some(410)),
            Outcome::Expired => is_expired && !is_sent,
            Outcome::Released => true,
        };
        if !fits && !self.deliveries.by_id(claim.delivery).is_some_and(|found| found.is_uncertain) {
            let answer = status.unwrap_or_default();
            let line = format_args!("{key} is settled as {outcome:?} after answer {answer}");
            self.violate(now, format_args!("results are true: {line}"));
        }
        self.counters.delivered += u64::from(outcome == Outcome::Delivered);
        self.counters.failed += u64::from(outcome == Outcome::Failed);
        self.counters.expired += u64::from(outcome == Outcome::Expired);
        self.counters.released += u64::from(outcome == Outcome::Released);
        if matches!(outcome, Outcome::Retrying { .. })
            && self.endpoints[key.endpoint].endpoint.ordered
        {
            // The endpoint waits for this retry. Others were in flight when the endpoint became
            // ordered.
            let others = self.deliveries.by_key.iter_mut();
            let others = others.filter(|(other, _)| other.endpoint == key.endpoint);
            others.for_each(|(_, other)| other.due_at = None);
        }
        if let Some(delivery) = self.deliveries.by_id(claim.delivery) {
            match outcome {
                Outcome::Retrying { due_at } => delivery.due_at = Some(due_at),
                Outcome::Released => {}
                _ => delivery.is_open = false,
            }
        }
    }
}
