//! The wait for the deliveries of an event.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use webhooks_core::Timestamp;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use super::delivery::ENDPOINTS;
use super::endpoint_health::Health;
use crate::body::{name_of, name_statuses, waits};
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::outage::outlast;
use crate::visible::visible;

/// The most endpoints that are named because they do not get an event.
const NAMED: usize = 10;

/// The pause between two looks at the deliveries.
const PAUSE: Duration = Duration::from_millis(200);

/// The time for the last look, after that of the wait.
const LAST_LOOK: Duration = Duration::from_secs(5);

/// The looks without news after which the health of endpoints is asked for; then after twice as many each time.
const QUIET: u32 = 4;

/// The options for what follows the publishing.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Follow {
    /// Wait until no delivery of it is pending, and fail if one failed
    #[arg(long)]
    wait: bool,
    /// Longest time to wait
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "wait", value_parser = humantime::parse_duration)]
    within: Duration,
}

impl Follow {
    /// Waits, if it is asked to, until all deliveries of the event that was accepted have ended.
    pub(crate) async fn run(
        self,
        client: &Client,
        context: &Context,
        app: &str,
        accepted: &Value,
    ) -> Result<(), Failure> {
        let event = accepted["id"].as_str().unwrap_or_default();
        if !self.wait {
            context
                .output
                .hint(format!("what became of it: webhooks delivery show {event} --app {app}"));
            return Ok(());
        }
        context.interruption.advise(format!(
            "the event is accepted; what becomes of it: webhooks delivery show {event} --app {app}"
        ));
        let start = SystemClock.monotonic();
        let path = ["app", app, "msg", event, "endpoint"];
        let (mut told, mut quiet) = (Told::default(), Quiet::default());
        loop {
            let left = self.within.saturating_sub(SystemClock.monotonic().saturating_since(start));
            let list = async || client.list(&path, &[], usize::MAX).await;
            let patience = if left.is_zero() { LAST_LOOK } else { left };
            let mut found = tokio::select! {
                found = outlast(context.output, list) => found?,
                () = SystemClock.sleep(patience) => {
                    if left.is_zero() {
                        let text = "the server did not say in time what became of the event";
                        return Err(Failure::new(Exit::TimedOut, text));
                    }
                    continue;
                }
            };
            name_statuses(&mut found);
            told.tell((client, context), (app, event), &found).await;
            quiet.tell((client, context), app, &found).await;
            let (waiting, all) = (found.iter().filter(|found| waits(found)).count(), found.len());
            if waiting == 0 || left.is_zero() {
                context.output.end_progress();
                context.output.rows(&ENDPOINTS, &found)?;
                if found.is_empty() {
                    tell_why(client, context, app).await;
                }
                return end(waiting, &found);
            }
            context.output.progress(format!("{} of {all} have ended", all - waiting));
            SystemClock.sleep(PAUSE).await;
        }
    }
}

fn end(waiting: usize, found: &[Value]) -> Result<(), Failure> {
    let (all, failed) =
        (found.len(), found.iter().filter(|found| found["statusText"] != "success").count());
    if waiting > 0 {
        return Err(Failure::new(Exit::TimedOut, format!("{waiting} of {all} still wait")));
    }
    if failed > 0 {
        return Err(Failure::new(Exit::Failed, format!("{failed} of {all} were not delivered")));
    }
    Ok(())
}

/// The failed attempts that people were told of: the time of the attempt after them, by endpoint.
#[derive(Default)]
struct Told(HashMap<String, String>);

impl Told {
    /// Tells of the attempts that have failed since the last look.
    async fn tell(
        &mut self,
        (client, context): (&Client, &Context),
        (app, event): (&str, &str),
        found: &[Value],
    ) {
        for delivery in found {
            let status = delivery["statusText"].as_str();
            let next = delivery["nextAttempt"].as_str().unwrap_or_default();
            let id = delivery["id"].as_str().unwrap_or_default();
            let is_told = self.0.get(id).is_some_and(|told| told == next);
            if is_told || !matches!(status, Some("sending" | "fail")) {
                continue;
            }
            let path = ["app", app, "attempt", "msg", event];
            let of_endpoint = [("endpoint_id", id.to_owned())];
            // The wait goes on if nobody knows why it failed.
            let Ok(attempts) = client.list(&path, &of_endpoint, 1).await else { continue };
            let Some(attempt) = attempts.first() else { continue };
            context.output.end_progress();
            context.output.note(failed(name_of(delivery), attempt, next));
            self.0.insert(id.to_owned(), next.to_owned());
        }
    }
}

/// The looks since the last delivery ended, and the endpoints of which people were told that they are held back.
#[derive(Default)]
struct Quiet {
    looks: u32,
    waiting: usize,
    told: HashSet<String>,
}

impl Quiet {
    /// Tells what holds back the deliveries that wait, once nothing has happened for a while.
    async fn tell(&mut self, (client, context): (&Client, &Context), app: &str, found: &[Value]) {
        let waiting: Vec<_> = found.iter().filter(|found| waits(found)).collect();
        self.looks = if self.waiting == waiting.len() { self.looks.saturating_add(1) } else { 0 };
        self.waiting = waiting.len();
        if self.looks < QUIET || !self.looks.is_power_of_two() {
            return;
        }
        let is_new =
            |delivery: &&Value| delivery["id"].as_str().is_some_and(|id| !self.told.contains(id));
        let new: Vec<_> = waiting.into_iter().filter(is_new).take(NAMED).collect();
        for delivery in new {
            let id = delivery["id"].as_str().unwrap_or_default();
            let health = Health::find(client, app, id).await.filter(Health::holds);
            let Some(health) = health else { continue };
            context.output.end_progress();
            let text = health.text(Timestamp::now());
            context.output.note(visible(&format!("{} is {text}", name_of(delivery))));
            self.told.insert(id.to_owned());
        }
    }
}

/// Returns the words for an attempt that failed.
fn failed(name: &str, attempt: &Value, next: &str) -> String {
    let why = match attempt["responseStatusCode"].as_u64() {
        None | Some(0) => {
            format!("no answer: {}", attempt["response"].as_str().unwrap_or_default())
        }
        Some(code) => code.to_string(),
    };
    let next = match next {
        "" => "no attempt follows".to_owned(),
        time => format!("next attempt at {time}"),
    };
    visible(&format!("{name}: {why}; {next}"))
}

/// Tells that no endpoint got the event, and why.
async fn tell_why(client: &Client, context: &Context, app: &str) {
    context.output.note("no endpoint wants this event");
    let endpoints = client.list(&["app", app, "endpoint"], &[], NAMED).await.unwrap_or_default();
    for endpoint in &endpoints {
        let types = endpoint["eventTypes"].as_array().into_iter().flatten();
        let types: Vec<&str> = types.filter_map(Value::as_str).collect();
        let why = if endpoint["disabled"] == true {
            "is disabled".to_owned()
        } else if types.is_empty() {
            "wants other channels".to_owned()
        } else {
            format!("wants {}", types.join(", "))
        };
        context.output.note(visible(&format!("{} {why}", name_of(endpoint))));
    }
}
