//! Deliveries as the run has seen them: accepted, claimed, sent, settled; and which repeats are
//! explained.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use webhooks_core::{DeliveryId, Timestamp};
use webhooks_dispatch::{Claim, Claimed, Outcome, Settled, Settlement};

use super::record::{Record, WorkerNumber};

/// One event for one endpoint, by the numbers of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) event: usize,
    pub(super) endpoint: usize,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {} for e{}", self.event, self.endpoint)
    }
}

/// All deliveries of a run.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    pub(super) by_key: BTreeMap<Key, Delivery>,
    by_id: BTreeMap<DeliveryId, Key>,
    accepted: usize,
}

/// What was seen of a delivery.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "what was seen is independent of each other")]
pub(super) struct Delivery {
    /// Its place in the order of acceptance.
    pub(super) place: usize,
    pub(super) accepted_at: Duration,
    /// Whether publish returned `Ok`, so that it must not be lost.
    pub(super) is_promised: bool,
    pub(super) id: Option<DeliveryId>,
    pub(super) is_open: bool,
    /// Why it was cancelled from outside.
    pub(super) cancelled: Option<&'static str>,
    pub(super) was_replayed: bool,
    /// Whether it was cancelled while a claim waited to be sent. If it is replayed, requests don't
    /// tell which claim they are sent by.
    pub(super) is_uncertain: bool,
    /// Whether the endpoint answered 2xx, and the engine heard it.
    pub(super) was_taken: bool,
    pub(super) due_at: Option<Timestamp>,
    pub(super) claims: Vec<ClaimRecord>,
}

/// What was seen of a claim.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "what was seen is independent of each other")]
pub(super) struct ClaimRecord {
    pub(super) token: u64,
    pub(super) worker: WorkerNumber,
    granted_at: Duration,
    pub(super) until: Timestamp,
    /// Whether the worker never heard of it.
    is_unheard: bool,
    /// Whether the retry policy has an attempt left for it.
    pub(super) is_allowed: bool,
    pub(super) is_last: bool,
    pub(super) is_expired_at: Timestamp,
    pub(super) is_sent: bool,
    /// Whether the delivery was cancelled meanwhile.
    is_over: bool,
    /// The status code that was answered, 0 if none was.
    pub(super) status: Option<u16>,
    pub(super) settled: Option<Outcome>,
}

impl Deliveries {
    /// Notes that a delivery was accepted.
    pub(super) fn accept(&mut self, key: Key, now: Duration) -> &mut Delivery {
        self.accepted += 1;
        let place = self.accepted;
        let delivery = Delivery { place, accepted_at: now, is_open: true, ..Delivery::default() };
        self.by_key.entry(key).or_insert(delivery)
    }

    pub(super) fn by_id(&mut self, id: DeliveryId) -> Option<&mut Delivery> {
        self.by_key.get_mut(self.by_id.get(&id)?)
    }

    fn claim(&mut self, claim: Claim) -> Option<&mut ClaimRecord> {
        let mut claims = self.by_id(claim.delivery)?.claims.iter_mut();
        claims.rfind(|record| record.token == claim.token)
    }
}

impl Delivery {
    /// Notes that it was cancelled from outside.
    pub(super) fn cancel(&mut self, why: &'static str) {
        self.is_open = false;
        self.cancelled = Some(why);
        if let Some(last) = self.claims.last_mut() {
            last.is_over = true;
            self.is_uncertain |= !last.is_sent && last.settled.is_none();
        }
    }
}

/// Returns the number at the end of an id.
pub(super) fn number(id: &str) -> usize {
    id.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
}

pub(super) fn key_of(claimed: &Claimed) -> Key {
    let event = number(&claimed.event.id.to_string());
    Key { event, endpoint: number(claimed.registration.id.as_str()) }
}

impl Record {
    /// Notes that a delivery was handed out, and asks what became of the claim before.
    pub(super) fn on_claimed(
        &mut self,
        worker: WorkerNumber,
        claimed: &Claimed,
        (now, time): (Duration, Timestamp),
        until: Timestamp,
        is_unheard: bool,
    ) {
        let key = key_of(claimed);
        let Claim { delivery: id, token } = claimed.claim;
        self.note(now, format_args!("worker {worker} claims {key} by {token}"));
        self.deliveries.by_id.insert(id, key);
        if !self.deliveries.by_key.contains_key(&key) {
            // An event that was missed, and replayed.
            self.deliveries.accept(key, now).was_replayed = true;
        }
        let Some(delivery) = self.deliveries.by_key.get_mut(&key) else { return };
        delivery.id = Some(id);
        let attempt = claimed.progress.next_attempt_of_policy();
        let endpoint = &claimed.registration.endpoint;
        let record = ClaimRecord {
            token,
            worker,
            granted_at: now,
            until,
            is_unheard,
            is_allowed: attempt == 1 || endpoint.retry.delay(attempt - 1, 0).is_some(),
            is_last: endpoint.retry.delay(attempt, 0).is_none(),
            is_expired_at: claimed.progress.since + endpoint.max_age,
            is_sent: false,
            is_over: false,
            status: None,
            settled: None,
        };
        let is_open = delivery.is_open;
        let before = delivery.claims.last().map(|last| {
            let worker = self.workers[last.worker];
            let is_faulty = worker.had_fault_since(last.granted_at);
            let is_explained = last.is_unheard || worker.has_ended || is_faulty;
            (last.is_over || last.settled.is_some(), last.until, is_explained)
        });
        delivery.claims.push(record);
        match before {
            _ if !is_open => {
                self.violate(now, format_args!("settled for good: {key} is handed out again"));
            }
            Some((false, until, _)) if until > time => {
                self.violate(now, format_args!("one holder at a time: {key} is leased already"));
            }
            Some((false, _, is_explained)) => {
                self.tally.lost_leases += 1;
                if !is_explained {
                    let why = "though its worker lives and its store is well";
                    self.violate(now, format_args!("leases are kept: that of {key} ran out {why}"));
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_extended(&mut self, claim: Claim, until: Timestamp) {
        if let Some(record) = self.deliveries.claim(claim) {
            record.until = record.until.max(until);
        }
    }

    /// Notes what the store made of a settlement.
    pub(super) fn on_settled(
        &mut self,
        settlement: &Settlement,
        settled: Settled,
        (now, time): (Duration, Timestamp),
    ) {
        let Settled::Kept { .. } = settled else { return };
        let (claim, outcome) = (settlement.claim, settlement.outcome);
        let Some(key) = self.deliveries.by_id.get(&claim.delivery).copied() else { return };
        self.note(now, format_args!("{key} is settled by {}: {outcome:?}", claim.token));
        let Some(record) = self.deliveries.claim(claim) else { return };
        record.settled = Some(outcome);
        let (status, is_last, is_sent) = (record.status, record.is_last, record.is_sent);
        let is_expired = record.is_expired_at <= time;
        let is_success = status.is_some_and(|status| (200..300).contains(&status));
        let fits = match outcome {
            Outcome::Delivered => is_success,
            Outcome::Retrying { .. } => is_sent && !is_success && !is_last,
            Outcome::Failed => is_sent && !is_success && (is_last || status == Some(410)),
            Outcome::Cancelled => is_expired && !is_sent,
            Outcome::Released => true,
        };
        if !fits && !self.deliveries.by_id(claim.delivery).is_some_and(|found| found.is_uncertain) {
            let answer = status.unwrap_or_default();
            let line = format_args!("{key} is settled as {outcome:?} after answer {answer}");
            self.violate(now, format_args!("results are true: {line}"));
        }
        self.tally.delivered += u64::from(outcome == Outcome::Delivered);
        self.tally.failed += u64::from(outcome == Outcome::Failed);
        self.tally.expired += u64::from(outcome == Outcome::Cancelled);
        self.tally.released += u64::from(outcome == Outcome::Released);
        if let Some(delivery) = self.deliveries.by_id(claim.delivery) {
            match outcome {
                Outcome::Retrying { due_at } => delivery.due_at = Some(due_at),
                Outcome::Released => {}
                _ => delivery.is_open = false,
            }
        }
    }
}
