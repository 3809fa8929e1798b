//! The checks of one endpoint: its state, its name, and whether deliveries may go there.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;
use url::Host;
use webhooks_http::AddressPolicy;
use webhooks_registry::EndpointUrl;

use super::check::Check;
use crate::client::Client;

const ENDPOINT: &str = "endpoint";
const NAME: &str = "endpoint name";
const POLICY: &str = "address policy";

/// The longest time for resolving a name.
const RESOLVING: Duration = Duration::from_secs(10);

/// Checks an endpoint against the policy of this machine's settings.
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
    let mut checks = vec![check_state(&endpoint, (app, id), &shown(&url))];
    let addresses = match url.as_url().host() {
        Some(Host::Domain(name)) => {
            let (check, addresses) = resolve(name, url.as_url().port_or_known_default()).await;
            checks.push(check);
            addresses
        }
        _ => Vec::new(),
    };
    let last = last_status(client, app, id).await;
    checks.push(check_policy(policy, &url, &addresses, last));
    checks
}

/// Returns the place of an endpoint, without path and query: they may hold a token.
fn shown(url: &EndpointUrl) -> String {
    url.as_url().origin().ascii_serialization()
}

fn check_state(endpoint: &Value, (app, id): (&str, &str), place: &str) -> Check {
    let (mend, state) = if endpoint["disabled"] == true {
        ("enable", "it is disabled: events are kept for `recover`, and nothing is sent")
    } else if endpoint["delivery"]["paused"] == true {
        ("resume", "it is paused: its events wait")
    } else {
        return Check::ok(ENDPOINT, format!("{place} is active"));
    };
    Check::failed(ENDPOINT, state, format!("`webhooks endpoint {mend} {id} --app {app}`"))
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

/// Returns whether the last attempt was answered as delivered, if there was one.
async fn last_status(client: &Client, app: &str, id: &str) -> Option<bool> {
    let path = ["app", app, "attempt", "endpoint", id];
    let found = client.list(&path, &[], 1).await.ok()?;
    found.first().map(|attempt| attempt["status"] == 0)
}

fn check_policy(
    policy: &AddressPolicy,
    url: &EndpointUrl,
    addresses: &[IpAddr],
    was_delivered: Option<bool>,
) -> Check {
    let host = url.as_url().domain();
    let by_address = || addresses.iter().try_for_each(|found| policy.check_address(host, *found));
    let Err(refusal) = policy.check(url).and_then(|()| by_address()) else {
        let last = match was_delivered {
            Some(true) => "the last attempt was delivered",
            Some(false) => "but the last attempt failed: `webhooks delivery list` says why",
            None => "nothing was sent yet",
        };
        return Check::ok(POLICY, format!("deliveries may go there; {last}"));
    };
    if was_delivered == Some(true) {
        // A service elsewhere, or with other options, decides by its own policy.
        let found =
            format!("the settings here refuse it ({refusal}), but the service delivers there");
        return Check::ok(POLICY, found);
    }
    let mend = "`serve --allow-network CIDR` allows a network, and `serve --dev` this machine; \
                `serve --https-only` refuses http";
    Check::failed(POLICY, format!("by the settings here: {refusal}"), mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(url: &str, addresses: &[&str], last: Option<bool>) -> bool {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let policy = AddressPolicy::public();
        !check_policy(&policy, &EndpointUrl::new(url).unwrap(), &addresses, last).is_failed()
    }

    #[test]
    fn each_address_of_a_name_must_be_allowed() {
        assert!(judged("https://example.com/", &["93.184.215.14"], None));
        assert!(!judged("https://example.com/", &["93.184.215.14", "10.0.0.1"], None));
        assert!(!judged("http://127.0.0.1:3000/", &[], None));
    }

    #[test]
    fn the_service_knows_better_if_it_delivered() {
        assert!(judged("http://127.0.0.1:3000/", &[], Some(true)));
        assert!(!judged("http://127.0.0.1:3000/", &[], Some(false)));
    }

    #[test]
    fn a_token_in_the_url_is_not_shown() {
        let url = EndpointUrl::new("https://hooks.example.com/T0/secret?token=secret").unwrap();
        assert_eq!(shown(&url), "https://hooks.example.com");
    }
}
