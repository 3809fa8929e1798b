//! The actions in the checker's terms: the calls of the store, and its answers.

use std::collections::BTreeMap;
use std::time::Duration;

use webhooks_core::{DeliveryStatus, EndpointId, EventId, Timestamp};

use super::super::journal::{Answer, Claimed, Question};
use crate::invariants::{Checker, Footing, Grant, Key, WorkerNumber};

/// The number of lines that are printed before a broken promise, besides those of its deliveries.
const TOLD: usize = 30;

/// An action, in the checker's terms.
pub(super) struct Story {
    pub(super) checker: Checker,
    pub(super) events: BTreeMap<EventId, usize>,
    pub(super) endpoints: BTreeMap<EndpointId, usize>,
}

/// A call of the store without an answer so far.
pub(super) struct Call {
    pub(super) asked_at: Timestamp,
    pub(super) question: Question,
    pub(super) footing: Footing,
}

impl Story {
    pub(super) fn on_asked(&mut self, worker: WorkerNumber, question: &Question, now: Duration) {
        match question {
            Question::Publish { events } => {
                for id in events {
                    let next = self.events.len() + 1;
                    let event = *self.events.entry(id.clone()).or_insert(next);
                    let line = format_args!("worker {worker} publishes event {event}: {id}");
                    self.checker.note(now, line);
                    for endpoint in 0..self.endpoints.len() {
                        self.checker.deliveries.may_accept(Key { event, endpoint }, now);
                    }
                }
            }
            Question::Settle { settlements } => {
                for settlement in settlements {
                    self.checker.on_settling(settlement.claim.0, settlement.outcome, now);
                }
            }
            Question::Claim { .. } | Question::Extend { .. } | Question::NextDue => {}
        }
    }

    pub(super) fn on_failed(&mut self, worker: WorkerNumber, question: &Question, now: Duration) {
        self.checker.note(now, format_args!("the store of worker {worker} fails"));
        self.checker.workers[worker].last_fault = Some(now);
        self.checker.counters.refused += u64::from(matches!(question, Question::Publish { .. }));
    }

    pub(super) fn on_answered(
        &mut self,
        worker: WorkerNumber,
        call: &Call,
        answer: &Answer,
        (now, at): (Duration, Timestamp),
    ) {
        match (&call.question, answer) {
            (Question::Publish { events }, Answer::Published { deliveries }) => {
                for (event, deliveries) in events.iter().zip(deliveries) {
                    self.on_published(event, *deliveries, now);
                }
            }
            (Question::Claim { until, .. }, Answer::Claimed { claimed }) => {
                let footing = if *until <= at { Footing::Doubtful } else { call.footing };
                for claimed in claimed {
                    let Some(grant) = self.grant(claimed, *until, footing, now) else { return };
                    self.checker.on_claimed(worker, &grant, (now, at));
                }
            }
            (Question::Extend { claims, until }, Answer::Extended { lost }) => {
                for claim in claims.iter().filter(|claim| !lost.contains(claim)) {
                    self.checker.on_extended(claim.0, *until);
                }
            }
            (Question::Settle { settlements }, Answer::Settled { kept }) => {
                for (settlement, _) in settlements.iter().zip(kept).filter(|(_, kept)| **kept) {
                    self.checker.on_settled(settlement.claim.0, settlement.outcome, (now, at));
                }
                let tried = settlements.iter().filter(|settlement| settlement.is_tried);
                self.checker.on_answered(worker, tried.count());
            }
            (Question::NextDue, Answer::Due) => {}
            (question, answer) => {
                self.checker.violate(now, format_args!("{answer:?} answers {question:?}"));
            }
        }
    }

    fn on_published(&mut self, id: &EventId, deliveries: Option<usize>, now: Duration) {
        let Some(event) = self.events.get(id).copied() else { return };
        self.checker.note(now, format_args!("event {event} is accepted"));
        self.checker.counters.accepted += 1;
        if deliveries != Some(self.endpoints.len()) {
            let line = format_args!("publish tells the truth: {id} goes to {deliveries:?}");
            self.checker.violate(now, line);
        }
        for endpoint in 0..self.endpoints.len() {
            self.checker.deliveries.accept(Key { event, endpoint }, now).is_promised = true;
        }
    }

    fn grant(
        &mut self,
        claimed: &Claimed,
        until: Timestamp,
        footing: Footing,
        now: Duration,
    ) -> Option<Grant> {
        let key = self.key(&claimed.event, &claimed.endpoint, now)?;
        let (claim, attempt, since) = (claimed.claim.0, claimed.attempt, claimed.since);
        Some(Grant { claim, key, attempt, since, until, footing })
    }

    /// Returns the numbers of a delivery; an error if nobody published its event.
    pub(super) fn key(
        &mut self,
        event: &EventId,
        endpoint: &EndpointId,
        now: Duration,
    ) -> Option<Key> {
        let known = self.events.get(event).zip(self.endpoints.get(endpoint));
        let key = known.map(|(event, endpoint)| Key { event: *event, endpoint: *endpoint });
        if key.is_none() {
            let line = format_args!("nothing is made up: {event} for {endpoint} was not published");
            self.checker.violate(now, line);
        }
        key
    }

    /// Checks how everything ended: in this run, every delivery is delivered.
    pub(super) fn end(
        &mut self,
        kept: impl IntoIterator<Item = (EventId, EndpointId, DeliveryStatus)>,
        now: Duration,
    ) {
        let mut by_key = BTreeMap::new();
        for (event, endpoint, status) in kept {
            let Some(key) = self.key(&event, &endpoint, now) else { return };
            by_key.insert(key, status);
            if status != DeliveryStatus::Delivered {
                let line = format_args!("accepted means delivered: {key} is {status}");
                self.checker.violate(now, line);
            }
        }
        self.checker.on_end_of_run(&by_key, now);
    }

    /// Returns the broken promise, the actions on the deliveries that it names, and the last
    /// actions.
    pub(super) fn tell(&mut self) -> String {
        let violation = self.checker.violation.clone().unwrap_or_default();
        let keys = self.checker.deliveries.by_key.keys().map(Key::to_string);
        let subjects: Vec<String> = keys.filter(|key| violation.contains(key)).collect();
        let trace = self.checker.take_trace();
        let first_told = trace.len().saturating_sub(TOLD);
        let is_told = |(index, line): &(usize, String)| {
            *index >= first_told || subjects.iter().any(|subject| line.contains(subject))
        };
        let told = trace.into_iter().enumerate().filter(is_told).map(|(_, line)| line);
        told.chain([violation]).collect::<Vec<_>>().join("\n")
    }
}
