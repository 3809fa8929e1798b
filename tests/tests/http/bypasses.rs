//! Nothing reaches a forbidden address, however it is asked for.
//!
//! Each case of `vectors/addresses/bypasses.json` is sent, as often as its name has answers, while
//! a canary listens on every address of this machine. One address of it stands for the good ones of
//! the cases, and answers redirects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use webhooks_dispatch::{ErrorClass, Transport as _};
use webhooks_http::{AddressPolicy, HttpTransport, Proxy, Roots};
use webhooks_registry::EndpointUrl;
use webhooks_tests::NameServer;

use crate::proxy::TestProxy;
use crate::short_request;

const CASES: &str = include_str!("../../vectors/addresses/bypasses.json");

/// Stands for the good addresses.
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
    /// Returns the case with the canary's port and the good address's stand-in.
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

    /// Returns whether the good address plays a part, so that something may be sent.
    fn has_good_address(&self) -> bool {
        let good = GOOD.to_string();
        self.dns.values().flatten().flatten().any(|answer| *answer == good)
    }

    /// Returns how often to send, so that every answer of a name is used.
    fn turns(&self) -> usize {
        self.dns.values().map(Vec::len).max().unwrap_or(1) + 1
    }
}

fn is_good(address: &str) -> bool {
    address.starts_with("93.184.215.") || address.starts_with("2606:2800:")
}

/// Listens on every address, on one port, and notes who comes to other than the good one.
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
        // One socket takes both families; where there is no IPv6, IPv4 is all there is.
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

/// Returns what became of a case, a word a send.
async fn try_out(case: &Case, policy: AddressPolicy, proxy: Option<&TestProxy>) -> Vec<String> {
    if EndpointUrl::new(&case.url).is_err() {
        return vec!["invalid".to_owned()];
    }
    let dns = case.dns.iter().map(|(name, turns)| (name.as_str(), turns.clone()));
    let names = NameServer::start(0, dns).await;
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
        outcomes.push(match transport.send(short_request(&case.url)).await {
            Ok(response) => response.status.to_string(),
            Err(error) if error.class == ErrorClass::Dns => "unresolved".to_owned(),
            Err(error) => error.class.to_string(),
        });
    }
    outcomes
}

fn good_allowed() -> AddressPolicy {
    AddressPolicy::public().allow_network(IpAddr::V4(GOOD).into())
}

/// All cases go out at once, since most wait for nothing.
async fn try_all(
    canary: &Canary,
    redirects: &Redirects,
    policy: impl Fn() -> AddressPolicy,
) -> Vec<(Case, Vec<String>)> {
    let cases = serde_json::from_str::<Cases>(CASES).unwrap().bypasses;
    let mut tried = Vec::new();
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
        let outcomes = try_out(&case, policy(), proxy).await;
        tried.push((case, outcomes));
    }
    tried
}

#[tokio::test]
async fn no_bypass_reaches_the_inside() {
    let redirects = Redirects::default();
    let canary = Canary::start(Arc::clone(&redirects)).await;
    let tried = try_all(&canary, &redirects, good_allowed).await;
    assert_eq!(canary.reached(), [] as [IpAddr; 0]);

    let mut wrong = Vec::new();
    for (case, outcomes) in &tried {
        let is_refused =
            |outcome: &String| matches!(outcome.as_str(), "invalid" | "blocked" | "unresolved");
        let is_expected = match &case.expect {
            // Our URLs have no fragments, so that some are refused before they are looked at.
            Some(expected) => {
                outcomes.iter().all(|outcome| outcome == expected || outcome == "invalid")
            }
            None => case.has_good_address() || outcomes.iter().all(is_refused),
        };
        if !is_expected {
            wrong.push(format!("{} {}: {outcomes:?}", case.category, case.url));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");

    let categories: BTreeSet<&str> = tried.iter().map(|(case, _)| &*case.category).collect();
    assert!(tried.len() >= 300 && categories.len() == 42, "{categories:?}");
    assert!(*canary.good.lock().unwrap() > 40, "redirects and rebinding begin at the good one");
}

/// Shows that the canary can be reached by the same cases: the policy is what keeps them off.
#[tokio::test]
async fn without_the_policy_the_same_cases_reach_the_inside() {
    let redirects = Redirects::default();
    let canary = Canary::start(Arc::clone(&redirects)).await;
    let unspecified = |policy: AddressPolicy| {
        policy.allow_network("0.0.0.0/32".parse().unwrap()).allow_network("::/128".parse().unwrap())
    };
    try_all(&canary, &redirects, || unspecified(AddressPolicy::development())).await;
    let reached = canary.reached().len();
    assert!(reached > 200, "only {reached} connections");
}
