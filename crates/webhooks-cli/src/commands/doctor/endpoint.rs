//! The checks of one endpoint: its state, its name, and whether deliveries may go there.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;
use url::Host;
use webhooks_core::Timestamp;
use webhooks_http::AddressPolicy;
use webhooks_registry::EndpointUrl;

use super::check::Check;
use crate::client::Client;
use crate::commands::endpoint_health::Health;
use crate::visible::visible;

const ENDPOINT: &str = "endpoint";
const NAME: &str = "endpoint name";
const POLICY: &str = "address policy";

/// The beginning of the reason for an attempt that the policy of the service refused.
const BLOCKED: &str = "the delivery is blocked";

/// The longest time for resolving a name.
const RESOLVING: Duration = Duration::from_secs(10);

/// Checks an endpoint. `policy` is that of the settings here, which a service elsewhere need not have.
pub(super) async fn check(
    client: &Client,
    app: &str,
    id: &str,
    policy: &AddressPolicy,
) -> Vec<Check> {
    let endpoint = match client.get(&["app", app, "endpoint", id], &[]).await {
        Ok(endpoint) => endpoint,
        Err(failure) => {
            let mend = format!("`webhooks endpoint list --app {app}` lists them");
            return vec![Check::failure(ENDPOINT, &failure, &mend)];
        }
    };
    let url = EndpointUrl::new(endpoint["url"].as_str().unwrap_or_default());
    let Ok(url) = url else {
        let mend = format!("`webhooks endpoint edit {id} --url URL --app {app}` sets another one");
        return vec![Check::failed(ENDPOINT, "its URL is not valid", mend)];
    };
    let last = last_attempt(client, app, id).await;
    let health = Health::find(client, app, id).await;
    let mut checks =
        vec![check_state(&endpoint, (app, id), &shown(&url), (last.as_ref(), health.as_ref()))];
    let addresses = match url.as_url().host() {
        Some(Host::Domain(name)) => {
            let (check, addresses) = resolve(name, url.as_url().port_or_known_default()).await;
            checks.push(check);
            addresses
        }
        _ => Vec::new(),
    };
    checks.push(check_policy(policy, &url, &addresses, last.as_ref()));
    checks
}

/// Returns the place of an endpoint, without path and query: they may hold a token.
fn shown(url: &EndpointUrl) -> String {
    url.as_url().origin().ascii_serialization()
}

fn check_state(
    endpoint: &Value,
    (app, id): (&str, &str),
    place: &str,
    (last, health): (Option<&LastAttempt>, Option<&Health>),
) -> Check {
    let (mend, state) = if endpoint["disabled"] == true {
        ("enable", "it is disabled: events are kept for `recover`, and nothing is sent")
    } else if endpoint["delivery"]["paused"] == true {
        ("resume", "it is paused: its events wait")
    } else if let Some(last) = last.filter(|last| !last.is_delivered) {
        let LastAttempt { status_code, told, at, .. } = last;
        let why = match status_code {
            0 => visible(told),
            code => format!("the answer was {code}"),
        };
        let mut found = format!("{place} is active, and its last attempt failed at {at}: {why}");
        if let Some(health) = health.filter(|health| health.holds()) {
            found = format!("{found}; {}", health.text(Timestamp::now()));
        }
        return Check::warning(ENDPOINT, found, mend_failing(app, id));
    } else {
        return Check::ok(ENDPOINT, format!("{place} is active"));
    };
    Check::failed(ENDPOINT, state, format!("`webhooks endpoint {mend} {id} --app {app}`"))
}

/// Returns what to do about an endpoint whose deliveries fail: see why, try again once its receiver is mended, and
/// only then end the attempts.
pub(super) fn mend_failing(app: &str, endpoint: &str) -> String {
    format!(
        "`webhooks delivery list endpoint:{endpoint} --app {app}` lists its deliveries, and `webhooks delivery show \
         EVENT --app {app}` the text of each answer; once the receiver is mended, `webhooks delivery retry --where \
         endpoint:{endpoint} --app {app}` tries again; `webhooks endpoint disable {endpoint} --app {app}` ends the \
         attempts"
    )
}

async fn resolve(name: &str, port: Option<u16>) -> (Check, Vec<IpAddr>) {
    const MEND: &str = "is the name right, and does this machine reach its DNS servers?";
    let looked = timeout(RESOLVING, tokio::net::lookup_host((name, port.unwrap_or(443)))).await;
    match looked {
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            addresses.sort_unstable();
            addresses.dedup();
            let check = Check::ok(NAME, format!("{name} has {} addresses", addresses.len()));
            (check, addresses)
        }
        Ok(Err(error)) => {
            (Check::failed(NAME, format!("{name} does not resolve: {error}"), MEND), Vec::new())
        }
        Err(_late) => (Check::failed(NAME, format!("no answer about {name}"), MEND), Vec::new()),
    }
}

/// The last attempt at an endpoint, as the service tells it.
#[derive(Debug, Default)]
struct LastAttempt {
    is_delivered: bool,
    /// Zero if there was no response.
    status_code: u64,
    /// The start of the response; without one, the reason.
    told: String,
    /// The time, as the service writes it.
    at: String,
}

async fn last_attempt(client: &Client, app: &str, id: &str) -> Option<LastAttempt> {
    let path = ["app", app, "attempt", "endpoint", id];
    let found = client.list(&path, &[], 1).await.ok()?;
    let attempt = found.first()?;
    Some(LastAttempt {
        is_delivered: attempt["status"] == 0,
        status_code: attempt["responseStatusCode"].as_u64().unwrap_or_default(),
        told: attempt["response"].as_str().unwrap_or_default().to_owned(),
        at: visible(attempt["timestamp"].as_str().unwrap_or_default()),
    })
}

/// Judges by the last attempt, which went through the policy of the service, and by the settings here if there was
/// none.
fn check_policy(
    policy: &AddressPolicy,
    url: &EndpointUrl,
    addresses: &[IpAddr],
    last: Option<&LastAttempt>,
) -> Check {
    const MEND: &str = "`serve --allow-network CIDR` allows a network, and `serve --dev` this machine; \
                        `serve --https-only` refuses http";
    match last {
        Some(LastAttempt { is_delivered: true, .. }) => {
            Check::ok(POLICY, "the service delivers there")
        }
        Some(LastAttempt { status_code: 0, told, .. }) if told.starts_with(BLOCKED) => {
            Check::failed(POLICY, format!("the service refuses it: {}", visible(told)), MEND)
        }
        Some(LastAttempt { status_code, .. }) => {
            let answer = match status_code {
                0 => "there was no answer".to_owned(),
                code => format!("the answer was {code}"),
            };
            let found = format!(
                "the service sends there; {answer}, and `webhooks delivery show` tells more"
            );
            Check::ok(POLICY, found)
        }
        None => {
            let host = url.as_url().domain();
            let by_address =
                |()| addresses.iter().try_for_each(|found| policy.check_address(host, *found));
            match policy.check(url).and_then(by_address) {
                Ok(()) => Check::ok(POLICY, "nothing was sent yet; the settings here allow it"),
                Err(refusal) => {
                    let found =
                        format!("nothing was sent yet; the settings here refuse it: {refusal}");
                    Check::warning(POLICY, found, MEND)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::State;

    fn judged(url: &str, addresses: &[&str], last: Option<&LastAttempt>) -> State {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let policy = AddressPolicy::public();
        check_policy(&policy, &EndpointUrl::new(url).unwrap(), &addresses, last).state
    }

    #[test]
    fn each_address_of_a_name_must_be_allowed() {
        assert_eq!(judged("https://example.com/", &["93.184.215.14"], None), State::Ok);
        let two = ["93.184.215.14", "10.0.0.1"];
        assert_eq!(judged("https://example.com/", &two, None), State::Warning);
        assert_eq!(judged("http://127.0.0.1:3000/", &[], None), State::Warning);
    }

    #[test]
    fn the_service_knows_better_if_it_has_sent_something() {
        let sent = |is_delivered, status_code, told: &str| {
            let told = told.to_owned();
            let last = LastAttempt { is_delivered, status_code, told, ..LastAttempt::default() };
            judged("http://127.0.0.1:3000/", &[], Some(&last))
        };
        assert_eq!(sent(true, 204, ""), State::Ok);
        assert_eq!(sent(false, 500, "the delivery is blocked"), State::Ok);
        assert_eq!(sent(false, 0, "cannot connect: connection refused"), State::Ok);
        let told = "the delivery is blocked: the address is not an allowed destination";
        assert_eq!(sent(false, 0, told), State::Failed);
    }

    #[test]
    fn a_token_in_the_url_is_not_shown() {
        let url = EndpointUrl::new("https://hooks.example.com/T0/secret?token=secret").unwrap();
        assert_eq!(shown(&url), "https://hooks.example.com");
    }
}
