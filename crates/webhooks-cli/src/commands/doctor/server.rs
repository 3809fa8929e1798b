//! The checks of the server, of the way to it, and of the key.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::Value;
use webhooks_core::Timestamp;

use super::check::Check;
use crate::client::Client;
use crate::context::Context;
use crate::failure::Failure;
use crate::visible::visible;

/// How far the clocks may be apart. Receivers refuse what is five minutes off.
const SKEW: Duration = Duration::from_secs(30);

/// How long a delivery may be due.
const LATE: f64 = 60.0;

/// The most endpoints that are looked at for one that is late.
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
            findings.push(Check::failed("server", found, "--server names the service"));
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
    const MEND: &str = "make one with `webhooks key create`, and give it with --key @FILE";
    if let Some(failure) = refused {
        return Check::failure("key", failure, MEND);
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
        Ok(answer) => Check::failure("key", &answer.refused(), MEND),
        Err(failure) => Check::failure("key", &failure, MEND),
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
        Some(queue) if queue.late <= LATE => queue.judge(&[]),
        // Without a list, nobody is to blame but the workers.
        Some(queue) => queue.judge(&late_endpoints(client).await.unwrap_or_default()),
        None => Check::skipped("queue", "the metrics do not tell"),
    };
    (check, Some(text))
}

/// An endpoint with a delivery that is due for long.
struct LateEndpoint {
    app: String,
    name: String,
    /// Whether its deliveries fail: then it is tried seldom, so that it holds up nobody.
    is_failing: bool,
}

async fn late_endpoints(client: &Client) -> Result<Vec<LateEndpoint>, Failure> {
    let (mut late, mut looked) = (Vec::new(), 0);
    for app in client.list(&["app"], &[], MAX_ENDPOINTS).await? {
        let Some(app_id) = app["id"].as_str() else { continue };
        let path = ["app", app_id, "endpoint"];
        let endpoints = client.list(&path, &[], MAX_ENDPOINTS - looked).await?;
        looked += endpoints.len();
        for endpoint in endpoints {
            let Some(id) = endpoint["id"].as_str() else { continue };
            let stats = client.get(&["app", app_id, "endpoint", id, "stats"], &[]).await?;
            if stats["lateSecs"].as_f64().is_some_and(|seconds| seconds > LATE) {
                let name = |thing: &Value, id: &str| visible(thing["uid"].as_str().unwrap_or(id));
                let (app, name) = (name(&app, app_id), name(&endpoint, id));
                late.push(LateEndpoint {
                    app,
                    name,
                    is_failing: stats["failingSince"].is_string(),
                });
            }
        }
        if looked >= MAX_ENDPOINTS {
            break;
        }
    }
    Ok(late)
}

/// The state of the queue.
struct Queue {
    /// The seconds for which a delivery is due.
    late: f64,
    waiting: f64,
}

impl Queue {
    /// Reads the state from the metrics, if they have it.
    fn of(metrics: &str) -> Option<Self> {
        let figure = |name: &str| {
            let mut lines = metrics.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(found, _)| *found == name)?.1.parse::<f64>().ok()
        };
        let late = figure("webhooks_queue_late_seconds")?;
        Some(Self { late, waiting: figure("webhooks_queue_deliveries")? })
    }

    /// Judges the state. A receiver that is down is no fault of the queue.
    fn judge(&self, endpoints: &[LateEndpoint]) -> Check {
        let Self { late, waiting } = self;
        if *late <= LATE {
            return Check::ok("queue", format!("{waiting} deliveries wait, and none is late"));
        }
        let found = format!("{waiting} deliveries wait; the first is due for {late:.0} s");
        let others = endpoints.iter().any(|endpoint| !endpoint.is_failing);
        match endpoints.first() {
            Some(LateEndpoint { app, name, .. }) if !others => {
                let more = match endpoints.len() - 1 {
                    0 => String::new(),
                    more => format!(", and {more} more"),
                };
                let found =
                    format!("{found}: its endpoint {app}/{name} fails{more}; others get theirs");
                let mend = format!(
                    "`webhooks delivery list --app {app} --endpoint {name}` says why; \
                     `webhooks endpoint disable {name} --app {app}` ends the attempts"
                );
                Check::warning("queue", found, mend)
            }
            _ => {
                let mend = "is a worker running (`webhooks serve --roles worker`)? `webhooks delivery list --status \
                            pending` lists what waits";
                Check::failed("queue", found, mend)
            }
        }
    }
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

    fn judged(late: &str, endpoints: &[bool]) -> Check {
        let metrics =
            format!("# HELP x\nwebhooks_queue_deliveries 3\nwebhooks_queue_late_seconds {late}\n");
        let endpoints = endpoints.iter().map(|is_failing| LateEndpoint {
            app: "acme".to_owned(),
            name: "crm".to_owned(),
            is_failing: *is_failing,
        });
        Queue::of(&metrics).unwrap().judge(&endpoints.collect::<Vec<_>>())
    }

    #[test]
    fn a_delivery_that_is_due_for_long_is_a_fault() {
        assert_eq!(judged("59.5", &[]).state, State::Ok);
        assert_eq!(judged("60.5", &[]).state, State::Failed);
        assert_eq!(judged("60.5", &[true, false]).state, State::Failed);
        assert!(Queue::of("").is_none());
    }

    #[test]
    fn receivers_that_are_down_are_named_and_no_fault_of_the_queue() {
        let check = judged("60.5", &[true, true]);
        assert_eq!(check.state, State::Warning);
        assert!(check.found.contains("acme/crm fails, and 1 more"), "{check:?}");
        assert!(check.mend.unwrap().contains("--app acme --endpoint crm"));
    }
}
