//! Receivers that answer, refuse, ask for time, hang, stop in the middle, panic and vanish.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use webhooks_dispatch::{
    clock::Clock as _,
    transport::{Request, Response, Transport, TransportError},
};

use super::moods::{Mood, Reaction, react};
use super::plan::number;
use super::record::World;
use crate::invariants::{Ending, Key, WorkerNumber};

/// A worker's access to the receivers.
#[derive(Debug, Clone)]
pub(super) struct FaultyTransport {
    pub(super) world: Arc<World>,
    pub(super) worker: WorkerNumber,
    pub(super) slow_after: Duration,
}

/// Notes the result of an attempt, even if its future is dropped.
struct Exchange {
    world: Arc<World>,
    worker: WorkerNumber,
    key: Key,
    claim: Option<usize>,
    ending: Ending,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = self.world.now();
        self.world.record().checker.on_end(self.worker, self.key, self.claim, self.ending, now);
        if !matches!(self.ending, Ending::Answered { status: 200..300, .. }) {
            self.world.failures.send_replace(Some(self.key));
        }
    }
}

impl FaultyTransport {
    fn arrive(&self, request: &Request) -> (Exchange, Duration, Reaction) {
        let id = request.headers.get("x-webhook-event-id").and_then(|id| id.to_str().ok());
        let event = id.map(number).expect("the event's id is sent");
        let key = Key { event, endpoint: number(request.url.as_str()) };
        let now = self.world.now();
        let time = self.world.even();
        let mut record = self.world.record();
        if record.silent.get(&key.endpoint).is_some_and(|since| *since < now) {
            let line = format_args!("a change holds at once: {key} is sent behind it");
            record.checker.violate(now, line);
        }
        let claim = record.checker.on_send(self.worker, key, (now, time));
        let plan = &record.endpoints[key.endpoint];
        let mood = if record.is_healed { Mood::Well } else { plan.mood(now) };
        let pace = plan.pace;
        let (after, reaction) = react(mood, self.slow_after, request.timeout, &mut record.rng);
        record
            .checker
            .note(now, format_args!("e{} is {mood:?}: {reaction:?} in {after:?}", key.endpoint));
        record.checker.counters.panics += u64::from(reaction == Reaction::Panic);
        let (world, worker, ending) = (Arc::clone(&self.world), self.worker, Ending::Dropped);
        (Exchange { world, worker, key, claim, ending }, pace.unwrap_or(after), reaction)
    }
}

impl Transport for FaultyTransport {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let (mut exchange, after, reaction) = self.arrive(&request);
        if !after.is_zero() {
            self.world.clock.sleep(after).await;
        }
        match reaction {
            Reaction::Answer { status, retry_after } => {
                exchange.ending = Ending::Answered { status, retry_after };
                let asked = retry_after.map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds)));
                let headers: HeaderMap = asked.into_iter().collect();
                Ok(Response { status, headers, ..Response::default() })
            }
            Reaction::Break { class } => {
                exchange.ending = Ending::Broken;
                Err(TransportError::new(class))
            }
            Reaction::Panic => {
                exchange.ending = Ending::Broken;
                // Unwinds without output on standard error.
                std::panic::resume_unwind(Box::new("a planned panic"))
            }
        }
    }
}
