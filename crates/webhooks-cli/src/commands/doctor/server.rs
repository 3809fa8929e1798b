//! The checks of the server, of the way to it, and of the key.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::Value;
use webhooks_core::Timestamp;

use super::check::Check;
use crate::client::{Answer, Client};
use crate::context::Context;
use crate::failure::Failure;

/// How far the clocks may be apart. Receivers refuse what is five minutes off.
const SKEW: Duration = Duration::from_secs(30);

/// How long a delivery may be due.
const LATE: f64 = 60.0;

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
    findings.push(clock(&ping, Timestamp::now()));
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
    let document: Value = serde_json::from_str(&answer.text).ok()?;
    document["info"]["version"].as_str().map(str::to_owned)
}

async fn health(client: &Client) -> Check {
    const MEND: &str =
        "its log says why: a worker has ended, or its database cannot be written or is full";
    match client.look(&["api", "v1", "health"]).await {
        Ok(answer) if answer.status == StatusCode::NO_CONTENT => {
            Check::ok("health", "its database writes, and its workers run")
        }
        Ok(answer) => Check::failed("health", said(&answer), MEND),
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
            let who: Value = serde_json::from_str(&answer.text).unwrap_or_default();
            let app = who["appId"].as_str().map_or_else(String::new, |app| format!(" of {app}"));
            let role = who["role"].as_str().unwrap_or("unknown");
            Check::ok("key", format!("it is valid, with the role {role}{app}"))
        }
        Ok(answer) => Check::failed("key", said(&answer), MEND),
        Err(failure) => Check::failure("key", &failure, MEND),
    }
}

/// Checks whether what is due is sent; also returns all figures of the service.
async fn queue(client: &Client) -> (Check, Option<String>) {
    let answer = match client.look(&["metrics"]).await {
        Ok(answer) if answer.status.is_success() => answer,
        Ok(answer) => return (Check::skipped("queue", said(&answer)), None),
        Err(failure) => return (Check::skipped("queue", failure.one_line()), None),
    };
    (judge_queue(&answer.text), Some(answer.text))
}

fn judge_queue(metrics: &str) -> Check {
    let figure = |name: &str| {
        let lines = metrics.lines().filter_map(|line| line.split_once(' '));
        lines.filter(|(found, _)| *found == name).find_map(|(_, value)| value.parse::<f64>().ok())
    };
    let (Some(late), Some(waiting)) =
        (figure("webhooks_queue_late_seconds"), figure("webhooks_queue_deliveries"))
    else {
        return Check::skipped("queue", "the metrics do not tell");
    };
    let found = format!("{waiting} deliveries wait; the first is due for {late:.0} s");
    if late <= LATE {
        Check::ok("queue", found)
    } else {
        let mend = "is a worker running (`webhooks serve --roles worker`)? A paused endpoint or an open breaker makes \
                    deliveries wait too: `webhooks endpoint list`, `webhooks delivery list --status pending`";
        Check::failed("queue", found, mend)
    }
}

fn clock(answer: &Answer, now: Timestamp) -> Check {
    let date = answer.date.as_deref().and_then(|date| httpdate::parse_http_date(date).ok());
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

/// Returns the answer in a few words.
fn said(answer: &Answer) -> String {
    let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
    let detail = body["detail"].as_str().unwrap_or_default();
    let detail: String = detail.chars().filter(|letter| !letter.is_control()).take(500).collect();
    if detail.is_empty() {
        format!("it answers {}", answer.status)
    } else {
        format!("it answers {}: {detail}", answer.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(date: &str) -> Answer {
        let date = Some(date.to_owned());
        Answer { status: StatusCode::NO_CONTENT, date, text: String::new() }
    }

    #[test]
    fn clocks_far_apart_are_a_fault_in_either_direction() {
        let now: Timestamp = "2026-11-30T10:00:00Z".parse().unwrap();
        for (date, is_failed) in [
            ("Mon, 30 Nov 2026 10:00:20 GMT", false),
            ("Mon, 30 Nov 2026 10:00:31 GMT", true),
            ("Mon, 30 Nov 2026 09:59:29 GMT", true),
            ("no date", false),
        ] {
            assert_eq!(clock(&at(date), now).is_failed(), is_failed, "{date}");
        }
    }

    #[test]
    fn a_delivery_that_is_due_for_long_is_a_fault() {
        let metrics = |late: &str| {
            format!("# HELP x\nwebhooks_queue_deliveries 3\nwebhooks_queue_late_seconds {late}\n")
        };
        assert!(!judge_queue(&metrics("59.5")).is_failed());
        assert!(judge_queue(&metrics("60.5")).is_failed());
        assert_eq!(judge_queue("").state, super::super::check::State::Skipped);
    }
}
