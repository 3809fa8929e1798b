//! The judge: it reads a journal, and passes the actions to the checker of invariants, line by
//! line.
//!
//! A call changes the database at some moment between its two lines. A call that failed, or that a
//! kill cut off, may have changed the database or not, at that time or a little later. The judge
//! must not report a correct run. So for each thing it uses either the moment from which it is
//! certain, or the first moment at which it is possible:
//!
//! * An event may be accepted from the moment it is published, and certainly is once the store has
//!   answered. An event came before another if its answer came before the other was published.
//! * A claim counts once it is answered, because nobody acts on it earlier. A claim whose answer
//!   was lost is unknown; its deliveries wait until that lease ends.
//! * A lease lasts at least as long as the worker asked for, until the answer to the claim that
//!   comes after: it uses the database's clock, which a claim reads between its question and its
//!   answer. It may last longer, because the store may have granted it later than the worker asked.
//!   So the judge does not say when a delivery must be claimed again, but that it must be in the
//!   end. An extension counts once it is answered.
//! * A settlement may hold from the moment the worker asks for it, answered or not: another worker
//!   may have the delivery, or it may have ended, so that the next one in order is sent. It
//!   certainly holds once it is answered.
//! * Claims do not wait for the disk. When the server crashes, it may forget claims that are not
//!   settled, answered or not, and other workers may claim these deliveries.
//! * If the answer to a claim arrives after its lease has ended, another worker may have the
//!   delivery already.
//! * A live worker loses a lease only if it stalled, or if its store did.
//! * A worker counts its attempts and unsettled results up before it writes the line and down after
//!   it, so the judge never counts more than the worker.
//!
//! No journal records in which order results reach a worker's breakers. The simulation checks when
//! a breaker opens.

mod story;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use webhooks_core::{DeliveryStatus, EndpointId, EventId, Timestamp};
use webhooks_dispatch::{BreakerSettings, EngineSettings, history::DeliveryRecord};
use webhooks_registry::Endpoint;

use self::story::{Call, Story};
use super::journal::{self, Happening, Line, Response};
use crate::invariants::{Checker, Counters, Ending, Footing, Key, Limits, Terms, WorkerNumber};

/// The largest time between the decision to send and the request's line on a busy machine, in
/// addition to the time that its process was silent just before.
const LAG: Duration = Duration::from_secs(1);

/// A worker stalls if it is silent, or waits for one call of the store, for longer than its lease
/// divided by this. A worker checks its leases each quarter of the lease, and makes a few calls in
/// between.
const STALL: u32 = 20;

/// Judges a run in which all events went to these endpoints. The engines had these settings, and
/// the store has these deliveries at the end. Returns the counters of the run.
///
/// # Errors
/// The first broken promise, with the actions around it.
pub fn judge(
    journal: &Path,
    endpoints: &BTreeMap<EndpointId, Endpoint>,
    settings: &EngineSettings,
    kept: &[DeliveryRecord],
) -> Result<Counters, String> {
    let kept = kept.iter().map(|found| (found.event.clone(), found.endpoint.clone(), found.status));
    judge_lines(&journal::read(journal), endpoints, settings, kept)
}

fn judge_lines(
    lines: &[Line],
    endpoints: &BTreeMap<EndpointId, Endpoint>,
    settings: &EngineSettings,
    kept: impl IntoIterator<Item = (EventId, EndpointId, DeliveryStatus)>,
) -> Result<Counters, String> {
    let began = lines.first().map_or(Timestamp::UNIX_EPOCH, |line| line.at);
    let mut judge = Judge::new(endpoints, settings, began);
    for line in lines {
        judge.follow(line);
        if judge.story.checker.violation.is_some() {
            return Err(judge.story.tell());
        }
    }
    let ended = lines.last().map_or(Duration::ZERO, |line| line.at.saturating_since(began));
    judge.story.end(kept, ended);
    if judge.story.checker.violation.is_some() {
        return Err(judge.story.tell());
    }
    Ok(judge.story.checker.counters)
}

struct Judge {
    began: Timestamp,
    stall: Duration,
    /// The live workers.
    processes: BTreeMap<String, Process>,
    story: Story,
}

struct Process {
    worker: WorkerNumber,
    /// The time of its last sign of life.
    heard_at: Timestamp,
    /// The calls without an answer.
    calls: BTreeMap<u64, Call>,
    /// The attempts that have not ended, with their claims.
    exchanges: BTreeMap<u64, (Key, Option<usize>)>,
}

impl Judge {
    fn new(
        endpoints: &BTreeMap<EndpointId, Endpoint>,
        settings: &EngineSettings,
        began: Timestamp,
    ) -> Self {
        let mut checker = Checker::new(true);
        let breaker = BreakerSettings { failures: u32::MAX, ..settings.breaker };
        checker.limits = Limits { breaker, lag: LAG, ..Limits::of(settings) };
        let terms = |endpoint: &Endpoint| Terms::new(endpoint.clone(), None);
        checker.endpoints = endpoints.values().map(terms).collect();
        let endpoints = endpoints.keys().cloned().zip(0..).collect();
        let story = Story { checker, events: BTreeMap::new(), endpoints };
        Self { began, stall: settings.lease / STALL, processes: BTreeMap::new(), story }
    }

    fn follow(&mut self, line: &Line) {
        let (at, now) = (line.at, line.at.saturating_since(self.began));
        match &line.happening {
            Happening::Crashed => return self.on_crashed(now),
            Happening::Killed => return self.on_killed(&line.process),
            _ => {}
        }
        let story = &mut self.story;
        let process = self.processes.entry(line.process.clone()).or_insert_with(|| {
            let worker = story.checker.add_worker();
            story.checker.note(now, format_args!("worker {worker} is {}", line.process));
            Process { worker, heard_at: at, calls: BTreeMap::new(), exchanges: BTreeMap::new() }
        });
        let worker = process.worker;
        self.note_stalls(at, now);
        let story = &mut self.story;
        let Some(process) = self.processes.get_mut(&line.process) else { return };
        let silence = at.saturating_since(process.heard_at);
        story.checker.limits.lag = LAG + silence;
        process.heard_at = at;
        match &line.happening {
            Happening::Asked { call, question } => {
                story.on_asked(worker, question, now);
                let (question, footing) = (question.clone(), Footing::Firm);
                process.calls.insert(*call, Call { asked_at: at, question, footing });
            }
            Happening::Answered { call, answer } => {
                let Some(call) = process.calls.remove(call) else { return };
                match answer {
                    Some(answer) => story.on_answered(worker, &call, answer, (now, at)),
                    None => story.on_failed(worker, &call.question, now),
                }
            }
            Happening::Sent { exchange, event, endpoint } => {
                let Some(key) = story.key(event, endpoint, now) else { return };
                let claim = story.checker.on_send(worker, key, (now, at));
                process.exchanges.insert(*exchange, (key, claim));
            }
            Happening::Ended { exchange, response } => {
                let Some((key, claim)) = process.exchanges.remove(exchange) else { return };
                story.checker.on_end(worker, key, claim, ending(*response), now);
            }
            Happening::Crashed | Happening::Killed => {}
        }
    }

    /// Notes which workers stall: their leases may end.
    fn note_stalls(&mut self, at: Timestamp, now: Duration) {
        for process in self.processes.values() {
            let first_call = process.calls.values().next().map(|call| call.asked_at);
            let since = first_call.map_or(process.heard_at, |asked| asked.min(process.heard_at));
            if at.saturating_since(since) >= self.stall {
                self.story.checker.workers[process.worker].last_fault = Some(now);
            }
        }
    }

    fn on_killed(&mut self, process: &str) {
        // A process that was killed before its first action is unknown.
        if let Some(process) = self.processes.remove(process) {
            self.story.checker.counters.crashes += 1;
            self.story.checker.on_worker_ended(process.worker);
        }
    }

    fn on_crashed(&mut self, now: Duration) {
        self.story.checker.on_store_crashed(now);
        for call in self.processes.values_mut().flat_map(|process| process.calls.values_mut()) {
            call.footing = Footing::Doubtful;
        }
    }
}

fn ending(response: Response) -> Ending {
    match response {
        Response::Status(status) => Ending::Answered { status, retry_after: None },
        Response::Broken => Ending::Broken,
        Response::Dropped => Ending::Dropped,
    }
}
