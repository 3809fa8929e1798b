//! The checks of the server, of the way to it, and of the key.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::Value;
use webhooks_core::Timestamp;

use super::check::Check;
use super::endpoint::mend_failing;
use crate::client::Client;
use crate::commands::endpoint_health::Health;
use crate::context::Context;
use crate::failure::{Failure, NO_KEY};
use crate::visible::visible;

/// How far the clocks may be apart. Receivers refuse what is five minutes off.
const SKEW: Duration = Duration::from_secs(30);

/// The seconds for which a delivery may be due without a fault of the workers.
const LATE: f64 = 60.0;

/// The seconds for which a delivery may be due and is not called late.
const SOON: f64 = 1.0;

/// The most endpoints that are looked at for those that are late or held.
const MAX_ENDPOINTS: usize = 200;

/// The answers of the server.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) checks: Vec<Check>,
    /// The text of its metrics.
    pub(super) metrics: Option<String>,
    /// Its version.
    pub(super) version: Option<String>,
    /// Whether it answered and took the key.
    pub(super) is_usable: bool,
}

/// Checks the server. `refused` is why the key cannot be used, if it cannot.
pub(super) async fn check(
    context: &Context,
    client: &Client,
    refused: Option<&Failure>,
) -> Findings {
    let mut findings = Findings::default();
    let server = &context.global.server;
    let ping = match client.look(&["api", "v1", "health", "ping"]).await {
        Ok(answer) if answer.status == StatusCode::NO_CONTENT => answer,
        Ok(answer) => {
            let found = format!("{server} answers {}, not as a webhook service", answer.status);
            let mend = answer.foreign().unwrap_or("--server names the service");
            findings.push(Check::failed("server", found, mend));
            return findings;
        }
        Err(failure) => {
            findings.push(Check::failure("server", &failure, "--server names the service"));
            return findings;
        }
    };
    findings.version = version(client).await;
    let version = findings.version.as_deref().unwrap_or("of an unknown version");
    let own = env!("CARGO_PKG_VERSION");
    findings.push(Check::ok("server", format!("{server} answers: {version}; this is {own}")));
    findings.push(health(client).await);
    findings.push(clock(ping.date.as_deref(), Timestamp::now()));
    let key = key(context, client, refused).await;
    findings.is_usable = !key.is_failed();
    findings.push(key);
    let (queue, metrics) = queue(client).await;
    findings.push(queue);
    findings.metrics = metrics;
    findings
}

impl Findings {
    fn push(&mut self, check: Check) {
        self.checks.push(check);
    }
}

async fn version(client: &Client) -> Option<String> {
    let answer = client.look(&["api", "v1", "openapi.json"]).await.ok()?;
    let document: Value = answer.value().ok()?;
    document["info"]["version"].as_str().map(str::to_owned)
}

async fn health(client: &Client) -> Check {
    const MEND: &str =
        "its log says why: a worker has ended, or its database cannot be written or is full";
    match client.look(&["api", "v1", "health"]).await {
        Ok(answer) if answer.status == StatusCode::NO_CONTENT => {
            Check::ok("health", "its database writes, and its workers run")
        }
        Ok(answer) => Check::failed("health", answer.refused().one_line(), MEND),
        Err(failure) => Check::failure("health", &failure, MEND),
    }
}

async fn key(context: &Context, client: &Client, refused: Option<&Failure>) -> Check {
    if let Some(failure) = refused {
        return Check::failure("key", failure, NO_KEY);
    }
    if context.global.key.is_none() {
        let mend = "give one with --key @FILE or WEBHOOKS_KEY; the first `webhooks serve` shows it";
        return Check::failed("key", "there is no key", mend);
    }
    match client.look(&["api", "v1", "auth", "whoami"]).await {
        Ok(answer) if answer.status.is_success() => {
            let who: Value = answer.value().unwrap_or_default();
            let app = who["appId"].as_str().map_or_else(String::new, |app| format!(" of {app}"));
            let role = who["role"].as_str().unwrap_or("unknown");
            Check::ok("key", format!("it is valid, with the role {role}{app}"))
        }
        Ok(answer) => Check::failure("key", &answer.refused(), NO_KEY),
        Err(failure) => Check::failure("key", &failure, NO_KEY),
    }
}

/// Checks whether what is due is sent; also returns all figures of the service.
async fn queue(client: &Client) -> (Check, Option<String>) {
    let answer = match client.look(&["metrics"]).await {
        Ok(answer) if answer.status.is_success() => answer,
        Ok(answer) => return (Check::skipped("queue", answer.refused().one_line()), None),
        Err(failure) => return (Check::skipped("queue", failure.one_line()), None),
    };
    let text = answer.text();
    let check = match Queue::of(&text) {
        Some(queue) if queue.late <= LATE && queue.held == 0 => queue.judge(&[]),
        Some(queue) => queue.judge(&troubled(client).await.unwrap_or_default()),
        None => Check::skipped("queue", "the metrics do not tell"),
    };
    (check, Some(text))
}

/// An endpoint whose deliveries are late, or held.
struct Troubled {
    app: String,
    name: String,
    /// Whether a delivery is due for long.
    is_late: bool,
    /// Whether its deliveries fail: then it is tried seldom, so that it holds up nobody.
    is_failing: bool,
}

/// Returns the endpoints with a delivery that is due for long, and those that are held after failures.
async fn troubled(client: &Client) -> Result<Vec<Troubled>, Failure> {
    let (mut found, mut looked) = (Vec::new(), 0);
    for app in client.list(&["app"], &[], MAX_ENDPOINTS).await? {
        let Some(app_id) = app["id"].as_str() else { continue };
        let path = ["app", app_id, "endpoint"];
        let endpoints = client.list(&path, &[], MAX_ENDPOINTS - looked).await?;
        looked += endpoints.len();
        for endpoint in endpoints {
            let Some(id) = endpoint["id"].as_str() else { continue };
            let stats = client.get(&["app", app_id, "endpoint", id, "stats"], &[]).await?;
            let is_late = stats["lateSecs"].as_f64().is_some_and(|seconds| seconds > LATE);
            let is_failing = stats["failingSince"].is_string();
            let is_held = is_failing
                && Health::find(client, app_id, id).await.is_some_and(|health| health.yields());
            if is_late || is_held {
                let name = |thing: &Value, id: &str| visible(thing["uid"].as_str().unwrap_or(id));
                let (app, name) = (name(&app, app_id), name(&endpoint, id));
                found.push(Troubled { app, name, is_late, is_failing });
            }
        }
        if looked >= MAX_ENDPOINTS {
            break;
        }
    }
    Ok(found)
}

/// The state of the queue.
struct Queue {
    /// The seconds for which a delivery is due.
    late: f64,
    waiting: u64,
    /// The number of endpoints that are held by their circuit breakers.
    held: u64,
}

impl Queue {
    /// Reads the state from the metrics, if they have it.
    fn of(metrics: &str) -> Option<Self> {
        Some(Self {
            late: figure(metrics, "webhooks_queue_late_seconds")?,
            waiting: figure(metrics, "webhooks_queue_deliveries")?,
            held: figure(metrics, "webhooks_open_breakers").unwrap_or_default(),
        })
    }

    /// Judges the state. A receiver that is down is no fault of the queue.
    fn judge(&self, endpoints: &[Troubled]) -> Check {
        let is_late = self.late > LATE;
        let is_of_others = endpoints.iter().any(|endpoint| !endpoint.is_failing);
        let has_reason = self.held > 0 || endpoints.iter().any(|endpoint| endpoint.is_late);
        // Without an endpoint that fails, nobody is to blame but the workers.
        if is_late && (is_of_others || !has_reason) {
            let mend = "is a worker running (`webhooks serve --roles worker`)? `webhooks delivery list --status \
                        pending` lists what waits";
            return Check::failed("queue", self.text(), mend);
        }
        if !is_late && self.held == 0 {
            return Check::ok("queue", self.text());
        }
        let list = "`webhooks endpoint list` lists endpoints, and `webhooks endpoint show ID` tells \
                    which is held";
        let Some(Troubled { app, name, .. }) = endpoints.first() else {
            let mend = format!("{list}; `webhooks doctor --endpoint ID` says what mends it");
            return Check::warning("queue", self.text(), mend);
        };
        let (more, list) = match endpoints.len() - 1 {
            0 => (String::new(), String::new()),
            more => (format!(", and {more} more"), format!("; {list}")),
        };
        let found = format!("{}; {app}/{name} fails{more}; others get theirs", self.text());
        let look = format!("`webhooks doctor --endpoint {name} --app {app}` looks at it");
        let mend = format!("{look}; {}{list}", mend_failing(app, name));
        Check::warning("queue", found, mend)
    }

    /// Returns the numbers, which are those of all endpoints together.
    fn text(&self) -> String {
        let waiting = match self.waiting {
            1 => "1 delivery waits in all".to_owned(),
            waiting => format!("{waiting} deliveries wait in all"),
        };
        let held = match self.held {
            0 => String::new(),
            1 => "; 1 endpoint is held after failures".to_owned(),
            held => format!("; {held} endpoints are held after failures"),
        };
        match self.late {
            late if late >= SOON => format!("{waiting}; the first is due for {late:.0} s{held}"),
            _ if self.held > 0 => format!("{waiting}{held}"),
            _ => format!("{waiting}, and none is late"),
        }
    }
}

/// Returns a figure of the metrics.
fn figure<T: FromStr>(metrics: &str, name: &str) -> Option<T> {
    let mut lines = metrics.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(found, _)| *found == name)?.1.parse().ok()
}

fn clock(date: Option<&str>, now: Timestamp) -> Check {
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    let Some(date) = date else {
        return Check::skipped("clock", "the server does not tell its time");
    };
    let skew = skew(date, now);
    let found = format!("this machine and the server are {} s apart", skew.as_secs());
    if skew <= SKEW {
        Check::ok("clock", found)
    } else {
        let mend = "set the clock of both by NTP: receivers refuse what is signed five minutes off";
        Check::failed("clock", found, mend)
    }
}

fn skew(date: SystemTime, now: Timestamp) -> Duration {
    let date = Timestamp::from(date);
    date.saturating_since(now).max(now.saturating_since(date))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::State;

    #[test]
    fn clocks_far_apart_are_a_fault_in_either_direction() {
        let now: Timestamp = "2026-11-30T10:00:00Z".parse().unwrap();
        for (date, is_failed) in [
            ("Mon, 30 Nov 2026 10:00:20 GMT", false),
            ("Mon, 30 Nov 2026 10:00:31 GMT", true),
            ("Mon, 30 Nov 2026 09:59:29 GMT", true),
            ("no date", false),
        ] {
            assert_eq!(clock(Some(date), now).is_failed(), is_failed, "{date}");
        }
    }

    /// Judges these seconds and this number of open breakers. Of each endpoint: whether it is late, and fails.
    fn judged(late: &str, held: u64, endpoints: &[(bool, bool)]) -> Check {
        let metrics = format!(
            "# HELP x\nwebhooks_queue_deliveries 82\nwebhooks_open_breakers {held}\n\
             webhooks_queue_late_seconds {late}\n"
        );
        let endpoints = endpoints.iter().map(|(is_late, is_failing)| Troubled {
            app: "acme".to_owned(),
            name: "crm".to_owned(),
            is_late: *is_late,
            is_failing: *is_failing,
        });
        Queue::of(&metrics).unwrap().judge(&endpoints.collect::<Vec<_>>())
    }

    #[test]
    fn a_delivery_that_is_due_for_long_is_a_fault() {
        assert_eq!(judged("59.5", 0, &[]).state, State::Ok);
        assert_eq!(judged("60.5", 0, &[]).state, State::Failed);
        assert_eq!(judged("60.5", 0, &[(true, true), (true, false)]).state, State::Failed);
        assert!(Queue::of("").is_none());
    }

    #[test]
    fn nothing_is_late_for_less_than_a_second_alone() {
        let text = |late| judged(late, 0, &[]).found;
        assert_eq!(text("0.9"), "82 deliveries wait in all, and none is late");
        assert_eq!(text("24.3"), "82 deliveries wait in all; the first is due for 24 s");
    }

    #[test]
    fn receivers_that_are_down_are_named_and_no_fault_of_the_queue() {
        let check = judged("60.5", 0, &[(true, true), (true, true)]);
        assert_eq!(check.state, State::Warning);
        assert!(check.found.contains("acme/crm fails, and 1 more"), "{check:?}");
        assert!(check.mend.unwrap().contains("endpoint:crm --app acme"));
    }

    #[test]
    fn endpoints_that_are_held_are_told_before_their_deliveries_are_late() {
        let check = judged("24.3", 1, &[(false, true)]);
        assert_eq!(check.state, State::Warning);
        let found = "82 deliveries wait in all; the first is due for 24 s; 1 endpoint is held after failures; acme/crm \
                     fails; others get theirs";
        assert_eq!(check.found, found);
        let check = judged("0.2", 2, &[]);
        assert_eq!(check.state, State::Warning);
        assert_eq!(check.found, "82 deliveries wait in all; 2 endpoints are held after failures");
        assert!(check.mend.unwrap().contains("webhooks endpoint show ID"));
    }
}
