//! Attempts that readers of pollers reported, such as `listen --app`, beside those at endpoints.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::client::Client;
use crate::failure::{Exit, Failure};

/// The most attempts at one event that are shown.
const MAX_ATTEMPTS: usize = 250;

/// Returns whether an id is one of a poller, which is no endpoint.
pub(super) fn is_poller(id: &str) -> bool {
    id.starts_with("poll_")
}

/// Returns the attempts at an event, in the form of those at endpoints, and the pollers as they got it.
pub(super) async fn of_event(
    client: &Client,
    (app, event): (&str, &str),
    poller: Option<&str>,
) -> Result<(Vec<Value>, Vec<Value>), Failure> {
    let mut query = vec![("msg_id", event.to_owned())];
    query.extend(poller.map(|poller| ("poller_id", poller.to_owned())));
    let attempts = list(client, app, &query, MAX_ATTEMPTS).await?;
    let poller = |attempt: &Value| {
        json!({
            "id": attempt["endpointId"],
            "url": "(poller)",
            "status": attempt["status"],
            "statusText": attempt["statusText"],
        })
    };
    let pollers = latest(&attempts).map(poller).collect();
    Ok((attempts, pollers))
}

/// Returns the events that readers of pollers got, in the form of deliveries.
pub(super) async fn deliveries(
    client: &Client,
    app: &str,
    query: &[(&str, String)],
    limit: usize,
) -> Result<Vec<Value>, Failure> {
    let attempts = list(client, app, query, limit).await?;
    let delivery = |attempt: &Value| {
        json!({
            "id": attempt["msgId"],
            "eventType": attempt["eventType"],
            "endpointId": attempt["endpointId"],
            "status": attempt["status"],
            "statusText": attempt["statusText"],
            "responseStatusCode": attempt["responseStatusCode"],
            "timestamp": attempt["acceptedAt"],
        })
    };
    Ok(latest(&attempts).map(delivery).collect())
}

/// Lists attempts, each with its poller in the place of an endpoint.
async fn list(
    client: &Client,
    app: &str,
    query: &[(&str, String)],
    limit: usize,
) -> Result<Vec<Value>, Failure> {
    let names_poller = query.iter().any(|(name, _)| *name == "poller_id");
    let mut found = match client.list(&["app", app, "poller-attempt"], query, limit).await {
        // A service of an older version records none. It has nothing of a poller that somebody names.
        Err(failure) if failure.exit == Exit::NotFound && !names_poller => Vec::new(),
        found => found?,
    };
    for attempt in &mut found {
        attempt["endpointId"] = attempt["pollerId"].take();
    }
    Ok(found)
}

/// Returns the last attempt of each poller at each event.
fn latest(attempts: &[Value]) -> impl Iterator<Item = &Value> {
    let time = |attempt: &Value| attempt["timestamp"].as_str().map(str::to_owned);
    let mut all: Vec<&Value> = attempts.iter().collect();
    all.sort_by_key(|attempt| std::cmp::Reverse(time(attempt)));
    let name = |attempt: &Value| (attempt["msgId"].to_string(), attempt["endpointId"].to_string());
    let mut known = BTreeSet::new();
    all.into_iter().filter(move |attempt| known.insert(name(attempt)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_attempt_of_a_poller_at_an_event_counts() {
        let attempt = |event: &str, time: &str| json!({ "msgId": event, "timestamp": time });
        let attempts = [
            attempt("a", "2026-01-01T00:00:01Z"),
            attempt("a", "2026-01-01T00:00:02Z"),
            attempt("b", "2026-01-01T00:00:00Z"),
        ];
        let found: Vec<_> = latest(&attempts).collect();
        assert_eq!(found, [&attempts[1], &attempts[2]]);
    }
}
