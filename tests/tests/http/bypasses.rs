//! Nothing reaches a forbidden address, however a request asks for it.
//!
//! Each case of `vectors/addresses/bypasses.json` is sent once for each answer of its name, while a
//! canary listens on every address of this machine. One address of it stands for the good ones of
//! the cases, and answers with redirects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use webhooks_dispatch::transport::{ErrorClass, Transport as _};
use webhooks_http::{AddressPolicy, HttpTransport, Proxy, Roots};
use webhooks_registry::EndpointUrl;
use webhooks_tests::NameServer;

use crate::proxy::TestProxy;
use crate::request;

const CASES: &str = include_str!("../../vectors/addresses/bypasses.json");

/// Every category that must exist, in order.
const ALL: [&str; 42] = [
    "cgnat",
    "decimal-ip",
    "dns-rebinding",
    "dns-to-inside",
    "documentation-and-benchmark",
    "empty-port",
    "fragment-and-query-confusion",
    "header-injection-in-url",
    "hex-ip",
    "ideographic-full-stop",
    "idna-circled-and-other-digits",
    "idna-full-width",
    "ipv4-compatible",
    "ipv4-mapped",
    "isatap",
    "local-suffixes",
    "localhost-name",
    "localhost-subdomain",
    "many-dots",
    "metadata-ip",
    "metadata-name",
    "mixed-base-ip",
    "multicast-and-broadcast",
    "nat64",
    "nat64-local",
    "octal-ip",
    "odd-port",
    "overflow-ip",
    "percent-encoded-host",
    "proxy",
    "redirect-to-inside",
    "rfc1918",
    "scheme",
    "short-ip",
    "six-to-four",
    "teredo",
    "trailing-dot",
    "ula-and-link-local",
    "unspecified",
    "userinfo",
    "wildcard-dns-services",
    "zone-id",
];

/// The categories of which no case arrives even if this machine is allowed: they aim at other
/// machines or another port, are no URLs, are names that development does not allow, or redirect.
const NEVER: [&str; 19] = [
    "cgnat",
    "documentation-and-benchmark",
    "empty-port",
    "ipv4-compatible",
    "isatap",
    "local-suffixes",
    "many-dots",
    "metadata-ip",
    "metadata-name",
    "multicast-and-broadcast",
    "nat64",
    "nat64-local",
    "overflow-ip",
    "redirect-to-inside",
    "rfc1918",
    "six-to-four",
    "teredo",
    "ula-and-link-local",
    "zone-id",
];

/// The address that stands for the good addresses.
const GOOD: Ipv4Addr = Ipv4Addr::new(127, 93, 184, 215);

#[derive(Deserialize)]
struct Cases {
    bypasses: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    url: String,
    category: String,
    expect: Option<String>,
    #[serde(default)]
    dns: BTreeMap<String, Vec<Vec<String>>>,
    proxy: Option<String>,
    redirect: Option<String>,
    header: Option<String>,
    status: Option<u16>,
}

impl Case {
    /// Returns the case with the canary's port, and with `GOOD` in place of the good addresses.
    fn at(mut self, port: u16) -> Self {
        let port = port.to_string();
        self.url = self.url.replace("{port}", &port);
        if self.redirect.is_some() {
            self.url = self.url.replace("receiver.example/", &format!("receiver.example:{port}/"));
        }
        self.redirect = self.redirect.map(|target| target.replace("{port}", &port));
        for answer in self.dns.values_mut().flatten().flatten() {
            if is_good(answer) {
                *answer = GOOD.to_string();
            }
        }
        self
    }

    /// Returns whether the case uses the good address, so that something may be sent.
    fn has_good_address(&self) -> bool {
        let good = GOOD.to_string();
        self.dns.values().flatten().flatten().any(|answer| *answer == good)
    }

    /// Returns how many times to send, so that every answer of a name is used.
    fn turns(&self) -> usize {
        self.dns.values().map(Vec::len).max().unwrap_or(1) + 1
    }
}

fn is_good(address: &str) -> bool {
    address.starts_with("93.184.215.") || address.starts_with("2606:2800:")
}

/// Listens on every address, on one port, and notes the requests to other addresses than the good
/// one.
struct Canary {
    port: u16,
    reached: Arc<Mutex<Vec<IpAddr>>>,
    good: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

type Redirects = Arc<Mutex<BTreeMap<String, (u16, String, String)>>>;

impl Canary {
    async fn start(redirects: Redirects) -> Self {
        let v6 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await;
        // One socket takes both families; without IPv6 it takes IPv4 only.
        let listener = match v6 {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap(),
        };
        let port = listener.local_addr().unwrap().port();
        let (reached, good) =
            (Arc::<Mutex<Vec<IpAddr>>>::default(), Arc::<Mutex<usize>>::default());
        let mut tasks = JoinSet::new();
        let noted = (Arc::clone(&reached), Arc::clone(&good));
        tasks.spawn(async move {
            let mut answers = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let address = stream.local_addr().unwrap().ip().to_canonical();
                if address == GOOD {
                    *noted.1.lock().unwrap() += 1;
                } else {
                    noted.0.lock().unwrap().push(address);
                }
                answers.spawn(answer(stream, Arc::clone(&redirects)));
            }
        });
        Self { port, reached, good, _tasks: tasks }
    }

    fn reached(&self) -> Vec<IpAddr> {
        self.reached.lock().unwrap().clone()
    }
}

async fn answer(mut stream: TcpStream, redirects: Redirects) {
    let mut head = vec![0; 4096];
    let Ok(len) = stream.read(&mut head).await else { return };
    let head = String::from_utf8_lossy(&head[..len]).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let redirect = redirects.lock().unwrap().get(path).cloned();
    let answer = match redirect {
        Some((status, name, value)) => {
            format!(
                "HTTP/1.1 {status} -\r\n{name}: {value}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
        }
        None => "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
    };
    let _client_may_be_gone = stream.write_all(answer.as_bytes()).await;
}

/// Returns the outcomes of a case, one word per request.
async fn try_out(case: &Case, policy: AddressPolicy, proxy: Option<&TestProxy>) -> Vec<String> {
    if EndpointUrl::new(&case.url).is_err() {
        return vec!["invalid".to_owned()];
    }
    let dns = case.dns.iter().map(|(name, turns)| (name.as_str(), turns.clone()));
    // All other names lead to this machine.
    let others = ("*", vec![vec!["127.0.0.1".to_owned(), "::1".to_owned()]]);
    let names = NameServer::start(0, dns.chain([others])).await;
    let mut builder = HttpTransport::builder()
        .address_policy(policy)
        .roots(Roots::Bundled)
        .dns_server(names.address())
        .max_idle_per_host(0);
    if let Some(proxy) = proxy {
        builder = builder.proxy(Proxy::new(&proxy.url()).unwrap());
    }
    let transport = builder.build().unwrap();
    let mut outcomes = Vec::new();
    for _ in 0..case.turns() {
        outcomes.push(match transport.send(request(&case.url)).await {
            Ok(response) => response.status.to_string(),
            Err(error) if error.class == ErrorClass::BlockedAddress => "blocked".to_owned(),
            Err(error) if error.class == ErrorClass::Dns => "unresolved".to_owned(),
            Err(error) => error.class.to_string(),
        });
    }
    outcomes
}

/// Tries all cases, one after another, and passes the outcomes of each to `note`.
async fn try_all(
    canary: &Canary,
    redirects: &Redirects,
    policy: AddressPolicy,
    mut note: impl FnMut(&Case, &[String]),
) {
    let cases = serde_json::from_str::<Cases>(CASES).unwrap().bypasses;
    let proxies = [TestProxy::http().await, TestProxy::socks5().await];
    for case in cases {
        let case = case.at(canary.port);
        if let (Some(target), Some(header), Some(status)) =
            (&case.redirect, &case.header, case.status)
        {
            let path = EndpointUrl::new(&case.url).unwrap().as_url().path().to_owned();
            let redirect = (status, header.clone(), target.clone());
            redirects.lock().unwrap().insert(path, redirect);
        }
        let proxy = case.proxy.as_deref().map(|kind| match kind {
            "http" => &proxies[0],
            _ => &proxies[1],
        });
        let outcomes = try_out(&case, policy.clone(), proxy).await;
        note(&case, &outcomes);
    }
}

/// Returns whether a case ended as it must, before anything was sent.
fn is_as_expected(case: &Case, outcomes: &[String]) -> bool {
    let is_refused =
        |outcome: &String| matches!(outcome.as_str(), "invalid" | "blocked" | "unresolved");
    match case.expect.as_deref() {
        // In this test every name resolves.
        Some("unresolved") => outcomes.iter().all(is_refused),
        // Our URLs have no fragments, so some are refused before their addresses are checked.
        Some(expected) => {
            outcomes.iter().all(|outcome| outcome == expected || outcome == "invalid")
        }
        None => case.has_good_address() || outcomes.iter().all(is_refused),
    }
}

#[tokio::test]
async fn no_bypass_reaches_the_inside() {
    let redirects = Redirects::default();
    let canary = Canary::start(Arc::clone(&redirects)).await;
    let policy = AddressPolicy::public().allow_network(IpAddr::V4(GOOD).into());
    let (mut wrong, mut categories, mut count) = (Vec::new(), BTreeSet::new(), 0);
    try_all(&canary, &redirects, policy, |case, outcomes| {
        count += 1;
        categories.insert(case.category.clone());
        if !is_as_expected(case, outcomes) {
            wrong.push(format!("{} {}: {outcomes:?}", case.category, case.url));
        }
    })
    .await;
    assert_eq!(canary.reached(), [] as [IpAddr; 0]);
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count >= 300 && categories.iter().eq(ALL.iter()), "{count}: {categories:?}");
    assert!(*canary.good.lock().unwrap() > 40, "redirects and rebinding begin at the good one");
}

/// Shows that the canary can be reached: if this machine is allowed, cases of all other categories
/// arrive.
#[tokio::test]
async fn without_the_policy_the_same_cases_reach_the_inside() {
    let redirects = Redirects::default();
    let canary = Canary::start(Arc::clone(&redirects)).await;
    let machine = ["0.0.0.0/32", "::/128"].map(|network| network.parse().unwrap());
    let policy =
        machine.into_iter().fold(AddressPolicy::development(), AddressPolicy::allow_network);
    let (mut arrived, mut before) = (BTreeSet::new(), 0);
    try_all(&canary, &redirects, policy, |case, _| {
        let reached = canary.reached().len();
        if reached > before {
            arrived.insert(case.category.clone());
        }
        before = reached;
    })
    .await;
    let never: Vec<&str> = ALL.into_iter().filter(|name| !arrived.contains(*name)).collect();
    assert_eq!(never, NEVER);
}
