//! Many deliveries, repaired one by one from here.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use clap::ValueEnum as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use webhooks_core::Timestamp;
use webhooks_dispatch::clock::{Clock as _, MonotonicTime, SystemClock};

use super::delivery_list::endpoints;
use super::delivery_repair::{Found, MAX_NAMED, Repair, grouped};
use super::endpoint_health::Health;
use crate::body::name_of;
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::query::{Query, Status};
use crate::visible::visible;

/// The most refusals that are told with their reasons.
const MAX_TOLD: usize = 10;

/// The width of a bar.
const BAR: usize = 20;

/// A repair of many deliveries.
pub(crate) struct Bulk<'c> {
    pub(crate) client: &'c Client,
    pub(crate) context: &'c Context,
    pub(crate) app: &'c str,
    pub(crate) repair: Repair,
    pub(crate) rate: Option<NonZeroU32>,
    /// The statuses of which a delivery must have one when its turn comes; any if empty.
    pub(crate) statuses: Vec<Status>,
    /// Whether jobs of the server are left to themselves.
    pub(crate) no_wait: bool,
}

/// The pace of a bulk.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Option<NonZeroU32>,
    start: MonotonicTime,
    number: u32,
}

/// The outcome of the repair of one delivery.
pub(crate) enum Repaired {
    Done,
    /// It had another status than those that were asked for, so it was left as it is.
    PassedOver(Failure),
}

/// A delivery that was refused.
pub(crate) struct Refusal {
    pub(crate) event: String,
    pub(crate) endpoint: String,
    pub(crate) failure: Failure,
}

/// The end of a bulk.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) done: usize,
    pub(crate) refused: usize,
    /// The deliveries that had another status when their turn came.
    pub(crate) passed_over: usize,
    /// The ids of the jobs of the server that did it.
    pub(crate) jobs: Vec<String>,
    /// Whether the server may have begun a job whose id is not known.
    pub(crate) may_have_begun: bool,
    /// The reason why it ended early.
    pub(crate) stopped: Option<Failure>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.endpoint.is_empty() { "" } else { " to " };
        let (event, endpoint) = (visible(&self.event), visible(&self.endpoint));
        write!(f, "{event}{between}{endpoint}: {}", self.failure.one_line())
    }
}

impl Pace {
    pub(crate) fn new(rate: Option<NonZeroU32>) -> Self {
        Self { rate, start: SystemClock.monotonic(), number: 0 }
    }

    /// Waits for the turn of the next delivery.
    pub(crate) async fn turn(&mut self) {
        let Some(rate) = self.rate else { return };
        let due = Duration::from_secs(1) * self.number / rate.get();
        self.number = self.number.saturating_add(1);
        let waited = SystemClock.monotonic().saturating_since(self.start);
        SystemClock.sleep(due.saturating_sub(waited)).await;
    }
}

impl Bulk<'_> {
    /// Returns whether a failure is about one delivery, so that others may go well.
    pub(crate) fn is_refusal(failure: &Failure) -> bool {
        matches!(failure.exit, Exit::NotFound | Exit::Refused)
    }

    /// Repairs one delivery.
    pub(crate) async fn one(&self, event: &str, endpoint: &str) -> Result<Repaired, Failure> {
        let path = ["app", self.app, "msg", event, "endpoint", endpoint, self.repair.operation()];
        let mut body = json!({});
        if !self.statuses.is_empty() {
            let numbers = self.statuses.iter().map(|status| status.number());
            body["statuses"] = numbers.collect();
        }
        let answer = self.client.post_for_answer(&path, &body, None).await?;
        if answer.status == StatusCode::CONFLICT && answer.json()["code"] == "other_status" {
            return Ok(Repaired::PassedOver(answer.refused()));
        }
        answer.value().map(|_told| Repaired::Done)
    }

    /// Returns the health of an endpoint to which something is to be delivered, if people are told of it.
    pub(crate) async fn health(&self, endpoint: &str) -> Option<Health> {
        if self.repair == Repair::Cancel || self.context.output.is_json() {
            return None;
        }
        Health::find(self.client, self.app, endpoint).await
    }

    /// Says that one delivery was repaired, whose endpoint had this health before.
    pub(crate) fn tell(
        &self,
        event: &str,
        endpoint: &str,
        before: Option<&Health>,
    ) -> Result<(), Failure> {
        let output = self.context.output;
        if output.is_json() {
            let done = self.repair.done();
            return Ok(output.json(&json!({ "id": event, "endpoint": endpoint, "done": done }))?);
        }
        output.note(match self.repair {
            Repair::Cancel => format!("{event} is cancelled for {endpoint}"),
            Repair::Replay | Repair::Retry if before.is_some_and(Health::holds) => {
                format!("{event} waits for its turn at {endpoint}")
            }
            Repair::Replay => format!("{event} is tried again at {endpoint}"),
            Repair::Retry => format!("{event} is tried now at {endpoint}"),
        });
        Ok(())
    }

    /// Says what the health of an endpoint means for deliveries that somebody wants to be tried. `verb` is *is* or
    /// *was*.
    pub(crate) fn tell_health(&self, endpoint: &str, verb: &str, health: &Health) {
        if !health.holds() {
            return;
        }
        self.context.output.note(if health.yields() {
            format!(
                "{endpoint} {verb} {}; the delivery that has waited longest there is tried at once, and the rest \
                 follows if it succeeds",
                health.why()
            )
        } else {
            format!("{endpoint} is {}", health.text(Timestamp::now()))
        });
    }

    /// Suggests how to see what becomes of events that are tried.
    pub(crate) fn hint_at(&self, events: &BTreeSet<&String>) {
        let (output, app) = (self.context.output, self.app);
        if self.repair == Repair::Cancel {
            return;
        }
        match (events.first(), events.len()) {
            (None, _) => {}
            (Some(event), 1) => output
                .hint(format!("what becomes of it: webhooks delivery show {event} --app {app}")),
            _ => self.hint_at_tail(),
        }
    }

    fn hint_at_tail(&self) {
        let app = self.app;
        self.context
            .output
            .hint(format!("what becomes of them: webhooks delivery tail since:10m --app {app}"));
    }

    /// Returns the failure for an event that is named and has no delivery of these statuses: it tells those of the
    /// deliveries that were `found`, and the command that is for them.
    pub(crate) fn none_is_meant(
        &self,
        event: &str,
        (query, statuses): (&Query, &[Status]),
        found: &[Value],
    ) -> Failure {
        let refused = |text: String| Failure::new(Exit::Refused, text);
        if found.is_empty() {
            return refused(format!("there is no delivery of {event}"));
        }
        let words: Vec<_> = statuses.iter().map(|status| status.word()).collect();
        let status = |found: &Value| visible(found["statusText"].as_str().unwrap_or_default());
        let present = found.iter().take(MAX_NAMED);
        let present = present.map(|one| format!("{} at {}", status(one), visible(name_of(one))));
        let failure = refused(format!(
            "no delivery of {event} has the status {}: {}",
            words.join(" or "),
            present.collect::<Vec<_>>().join(", ")
        ));
        let first = |wanted: &[Status]| {
            found.iter().find(|one| wanted.iter().any(|status| one["statusText"] == status.word()))
        };
        let of = |word: &str, one: &Value, is_any: bool| {
            let endpoint = if is_any || !query.endpoints.is_empty() {
                format!(" --endpoint {}", name_of(one))
            } else {
                String::new()
            };
            format!("webhooks delivery {word} {event}{endpoint} --app {}", self.app)
        };
        if self.repair == Repair::Cancel {
            failure
        } else if let Some(one) = first(&[Status::Pending, Status::Sending]) {
            failure.hint(format!("it waits; to try it now: {}", of("retry", one, false)))
        } else if let Some(one) = first(&[Status::Fail, Status::Canceled]) {
            failure.hint(format!("it has ended; to deliver it: {}", of("replay", one, false)))
        } else if let Some(one) = first(&[Status::Success]) {
            let again = of("replay", one, true);
            failure.hint(format!("it was delivered; to deliver it once more: {again}"))
        } else {
            failure
        }
    }

    /// Says how many deliveries have other statuses than those of a query that finds nothing, and what holds them
    /// back, if the numbers cost a request for each of a few endpoints.
    pub(crate) async fn tell_others(&self, query: &Query) {
        let output = self.context.output;
        // A time chooses by acceptance here, and a replay changes it in the numbers.
        let has_numbers = query.types.is_empty()
            && query.codes.is_empty()
            && query.channel.is_none()
            && query.tag.is_none()
            && query.since.is_none()
            && query.until.is_none();
        if output.is_json() || !has_numbers {
            return;
        }
        let Ok(endpoints) = endpoints(self.client, self.app, query).await else { return };
        if endpoints.len() > MAX_NAMED {
            return;
        }
        for endpoint in endpoints {
            let path = ["app", self.app, "endpoint", &endpoint, "stats"];
            let Ok(stats) = self.client.get(&path, &[]).await else { continue };
            let count = |status: Status| stats[status.word()].as_u64().unwrap_or_default();
            let others =
                Status::value_variants().iter().filter(|one| !query.statuses.contains(one));
            let others = others.copied().filter(|one| count(*one) > 0);
            let others: Vec<_> =
                others.map(|one| format!("{} {}", count(one), one.word())).collect();
            if others.is_empty() {
                continue;
            }
            output.note(format!("{endpoint} has others: {}", others.join(", ")));
            let waits = count(Status::Pending) + count(Status::Sending) > 0;
            if waits && let Some(health) = self.health(&endpoint).await {
                if health.holds() {
                    output.note(format!("{endpoint} is {}", health.text(Timestamp::now())));
                }
                if self.repair == Repair::Replay {
                    let app = self.app;
                    output.hint(format!(
                        "to try now what waits: webhooks delivery retry --endpoint {endpoint} --app {app}"
                    ));
                }
            }
        }
    }

    /// Repairs all, one after the other, until Ctrl-C.
    pub(crate) async fn run(&self, found: &Found, count: usize) -> Result<Ended, Failure> {
        let (mut ended, mut signals) = (Ended::default(), self.context.interruption.take());
        let all = found.endpoints.iter();
        let all =
            all.flat_map(|of| of.deliveries.iter().map(move |(event, _)| (&of.endpoint, event)));
        let mut pace = Pace::new(self.rate);
        for (endpoint, event) in all {
            let turn = async {
                pace.turn().await;
                self.one(event, endpoint).await
            };
            let result = tokio::select! {
                result = turn => result,
                () = signals.next() => Err(Failure::new(Exit::Interrupted, "interrupted")),
            };
            match result {
                Ok(Repaired::Done) => ended.done += 1,
                Ok(Repaired::PassedOver(_)) => ended.passed_over += 1,
                Err(failure) if Self::is_refusal(&failure) => {
                    ended.refused += 1;
                    if ended.refused <= MAX_TOLD {
                        self.context.output.end_progress();
                        let (event, endpoint) = (event.clone(), endpoint.clone());
                        self.context.output.note(Refusal { event, endpoint, failure }.to_string());
                    }
                }
                Err(failure) => {
                    ended.stopped = Some(failure);
                    break;
                }
            }
            self.progress(&ended, count);
        }
        self.context.output.end_progress();
        Ok(ended)
    }

    pub(crate) fn progress(&self, ended: &Ended, count: usize) {
        let so_far = ended.done + ended.refused + ended.passed_over;
        let full = (BAR * so_far.min(count)).checked_div(count).unwrap_or(BAR);
        let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR - full));
        let refused = ended.refused;
        let text = format!("{}/{} [{bar}] refused {refused}", grouped(so_far), grouped(count));
        self.context.output.progress(text);
    }

    /// Prints what was done, and fails unless all was.
    pub(crate) fn end(&self, matched: usize, ended: Ended) -> Result<(), Failure> {
        let Ended { done, refused, passed_over, jobs, may_have_begun, stopped } = ended;
        let output = self.context.output;
        let counted = self.counted(done, matched);
        let passed = self.passed(passed_over);
        if output.is_json() {
            let mut summary = self.summary(matched, (done, refused));
            if passed_over > 0 {
                summary["passedOver"] = json!(passed_over);
            }
            if !jobs.is_empty() {
                summary["jobs"] = json!(jobs);
            }
            output.json(&summary)?;
        } else if matched == 0 {
            output.note("nothing matches");
        } else if self.no_wait {
            jobs.iter().try_for_each(|id| output.line(id))?;
            output.hint("its progress: webhooks delivery jobs ID");
        } else if stopped.is_none() {
            output.note(format!("{counted}{passed}"));
            if self.repair != Repair::Cancel && done > 0 {
                self.hint_at_tail();
            }
        }
        if let Some(failure) = stopped {
            let text = format!("{}: {counted}, {refused} refused{passed}", failure.one_line());
            return Err(Failure::new(failure.exit, text).hint(how_to_go_on(&jobs, may_have_begun)));
        }
        if refused > 0 {
            let text = format!("{} of {} were refused", grouped(refused), grouped(matched));
            return Err(Failure::new(Exit::Partly, text));
        }
        Ok(())
    }

    /// Returns the object that says how a bulk ended.
    pub(crate) fn summary(&self, matched: usize, (done, refused): (usize, usize)) -> Value {
        let word = self.repair.done();
        json!({ "done": word, "matched": matched, "deliveries": done, "refused": refused })
    }

    /// Returns the words for the number that was repaired. An attempt at them is still to be made.
    fn counted(&self, done: usize, matched: usize) -> String {
        let (done, matched) = (grouped(done), grouped(matched));
        match self.repair {
            Repair::Replay | Repair::Retry => {
                format!("{done} of {matched} are back in the queue")
            }
            Repair::Cancel => format!("cancelled {done} of {matched}"),
        }
    }

    /// Returns the words about the deliveries that were passed over, if there are any.
    fn passed(&self, number: usize) -> String {
        match (number, self.repair) {
            (0, _) => String::new(),
            (_, Repair::Retry) => format!(", {} had ended meanwhile", grouped(number)),
            _ => format!(", {} had another status meanwhile", grouped(number)),
        }
    }
}

/// Returns the hint after a bulk that ended early.
fn how_to_go_on(jobs: &[String], may_have_begun: bool) -> String {
    let jobs = jobs.iter().map(|id| format!("`webhooks delivery jobs {id}`"));
    let jobs = jobs.collect::<Vec<_>>().join(", ");
    match (jobs.is_empty(), may_have_begun) {
        (true, false) => "the others are as before: the same command finds them".to_owned(),
        // The same command would deliver everything twice.
        (true, true) => "it may have begun: `webhooks delivery jobs`".to_owned(),
        (false, false) => format!("the server goes on with it; to see how far it is: {jobs}"),
        (false, true) => format!(
            "the server goes on with it; to see how far it is: {jobs}; one more may have begun: \
             `webhooks delivery jobs`"
        ),
    }
}
