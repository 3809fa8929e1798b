//! The resolution of names to addresses, checked by the address policy.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, ResolverBuilder, TokioResolver};
use moka::sync::Cache;
use reqwest::dns::{self, Addrs, Resolve, Resolving};
use thiserror::Error;
use tokio::time::{Instant, timeout};
use url::Host;
use webhooks_registry::EndpointUrl;

use crate::internal_names::without_final_dot;
use crate::policy::{AddressPolicy, Refusal};
use crate::public_addresses::{effective, is_global};

/// The maximum time for which an answer is used, even if its time to live is longer, so that a receiver
/// that moves is soon found again.
const MAX_TTL: Duration = Duration::from_secs(300);

/// The maximum time for which a missing name is cached, so that a new receiver is soon found.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(30);

/// The maximum time for which addresses are cached if there was no answer for IPv4 or for IPv6.
const MAX_HALF_TTL: Duration = Duration::from_secs(30);

/// How long the resolver waits for the other kind of address once it has addresses of one kind. Both
/// answers usually arrive within milliseconds (RFC 8305 §3 waits for 50 ms). The one for IPv6 may never
/// arrive, because some routers and packet filters drop queries that they do not know.
const OTHER_KIND: Duration = Duration::from_millis(250);

/// The maximum number of answers in the cache.
const MAX_ANSWERS: u64 = 4096;

/// How many of a name's addresses are tried.
const MAX_ADDRESSES: usize = 8;

/// How many of them an error text shows.
const MAX_SHOWN: usize = 3;

/// Asks the DNS, and returns addresses only if the policy allows all addresses of the name.
#[derive(Clone)]
pub(crate) struct Resolver {
    dns: TokioResolver,
    hosts: Arc<Hosts>,
    policy: Arc<AddressPolicy>,
    /// How long a name may take.
    timeout: Duration,
    /// The last answers. An answer is used until `holds_until`; error texts show it after that, too. The
    /// cache of the library stores whole answers, which an attacker can make large.
    answers: Cache<Box<str>, Answer>,
}

/// The addresses of a name, all of them allowed; none if there is no such name.
#[derive(Debug, Clone)]
struct Answer {
    addresses: Arc<[IpAddr]>,
    holds_until: Instant,
}

/// The addresses of a name, or those of one kind; none if it has none.
#[derive(Debug)]
struct Found {
    addresses: Vec<IpAddr>,
    holds_until: Instant,
}

/// The reason why a name gave no addresses.
#[derive(Debug, Error)]
pub(crate) enum ResolveError {
    #[error("the name servers answered {}", mnemonic(*code))]
    Answered { code: ResponseCode },
    #[error("the name servers cannot be reached")]
    Failed { source: NetError },
    #[error("the name servers did not answer in time")]
    Late,
    #[error(transparent)]
    Refused(Refusal),
    /// The name resolved to an address that the policy refuses.
    #[error(transparent)]
    RefusedAddress(Refusal),
    #[error("no such name, or it has no address")]
    Unknown,
}

/// Returns the usual name of a code (RFC 1035 §4.1.1).
fn mnemonic(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::ServFail => "SERVFAIL",
        other => other.to_str(),
    }
}

impl From<NetError> for ResolveError {
    fn from(source: NetError) -> Self {
        match source {
            NetError::Dns(DnsError::ResponseCode(code)) => Self::Answered { code },
            NetError::Timeout => Self::Late,
            source => Self::Failed { source },
        }
    }
}

tokio::task_local! {
    /// Whether the exchange of this task was waiting for name servers when it was last polled.
    static IS_ASKING: Cell<bool>;
}

/// Runs an exchange, and records for [`is_asking`] whether it waits for name servers.
pub(crate) async fn watched<F: Future>(exchange: F) -> F::Output {
    let mut exchange = pin!(exchange);
    let exchange = poll_fn(|context| {
        set_asking(false);
        exchange.as_mut().poll(context)
    });
    IS_ASKING.scope(Cell::new(false), exchange).await
}

/// Returns whether the exchange waits for name servers, or did when its time was over.
pub(crate) fn is_asking() -> bool {
    IS_ASKING.try_with(Cell::get).unwrap_or(false)
}

/// Waits for name servers, and records this for the exchange that polls this future, not for the one that
/// started it: when an exchange finds another connection, the client continues the lookup by itself.
async fn asking<F: Future>(question: F) -> F::Output {
    let mut question = pin!(question);
    let question = poll_fn(|context| {
        let polled = question.as_mut().poll(context);
        set_asking(polled.is_pending());
        polled
    });
    question.await
}

fn set_asking(is_asking: bool) {
    // Outside of an exchange there is no record to set: the client then connects in advance.
    let _nobody_asks = IS_ASKING.try_with(|cell| cell.set(is_asking));
}

impl Resolver {
    /// Returns a resolver that asks these servers, or those of the system if `servers` is empty. A name
    /// fails after `timeout`.
    pub(crate) fn new(
        servers: &[SocketAddr],
        policy: Arc<AddressPolicy>,
        timeout: Duration,
    ) -> Result<Self, NetError> {
        let mut builder = match servers {
            [] => system()?,
            servers => with_servers(servers),
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        // `written` reads that file instead.
        options.use_hosts_file = ResolveHosts::Never;
        // RFC 6891 §7: servers without extensions "MUST respond with a return code (RCODE) of
        // FORMERR". If an answer then does not fit into a packet, the library asks again over TCP.
        options.edns0 = false;
        let hosts = Arc::new(hosts_of_system()?);
        let answers = Cache::builder().max_capacity(MAX_ANSWERS).time_to_live(MAX_TTL).build();
        Ok(Self { dns: builder.build()?, hosts, policy, timeout, answers })
    }

    /// Returns the addresses of a host, all of which the policy allows.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Arc<[IpAddr]>, ResolveError> {
        self.policy.check_name(host).map_err(ResolveError::Refused)?;
        let remembered = self.answers.get(host);
        let addresses = match remembered.filter(|answer| Instant::now() < answer.holds_until) {
            Some(answer) => answer.addresses,
            None => self.ask(host).await?,
        };
        if addresses.is_empty() { Err(ResolveError::Unknown) } else { Ok(addresses) }
    }

    /// Returns an address that the URL itself has, if the policy allows it.
    pub(crate) fn literal(&self, address: IpAddr) -> Result<Arc<[IpAddr]>, ResolveError> {
        self.policy.check_address(None, address).map_err(ResolveError::Refused)?;
        Ok(Arc::new([address]))
    }

    async fn ask(&self, host: &str) -> Result<Arc<[IpAddr]>, ResolveError> {
        // The final dot marks the name as complete, so that the search list of the system is not used.
        let name = Name::from_ascii(format!("{}.", without_final_dot(host)))
            .map_err(|_no_name| ResolveError::Unknown)?;
        let Found { addresses, holds_until } = asking(self.look_up(&name)).await?;
        for address in &addresses {
            let checked = self.policy.check_address(Some(host), *address);
            checked.map_err(ResolveError::RefusedAddress)?;
        }
        let addresses: Arc<[IpAddr]> = addresses.into_iter().take(MAX_ADDRESSES).collect();
        let holds_until = holds_until.min(Instant::now() + MAX_TTL);
        self.answers.insert(host.into(), Answer { addresses: addresses.clone(), holds_until });
        Ok(addresses)
    }

    async fn look_up(&self, name: &Name) -> Result<Found, ResolveError> {
        if let Some(written) = self.written(name) {
            return Ok(written);
        }
        timeout(self.timeout, self.both_kinds(name)).await.map_err(|_late| ResolveError::Late)?
    }

    /// Returns the addresses of a name in the file of hosts. If it has any, the DNS is not asked, not even
    /// for the other kind of address.
    fn written(&self, name: &Name) -> Option<Found> {
        let mut addresses = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            let written = self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
            let records = written.iter().flat_map(Lookup::answers);
            addresses.extend(records.filter_map(|record| record.data.ip_addr()));
        }
        let holds_until = Instant::now() + MAX_TTL;
        (!addresses.is_empty()).then_some(Found { addresses, holds_until })
    }

    async fn both_kinds(&self, name: &Name) -> Result<Found, ResolveError> {
        let mut v4 = pin!(self.one_kind(name, RecordType::A));
        let mut v6 = pin!(self.one_kind(name, RecordType::AAAA));
        let (first, other) = tokio::select! {
            biased;
            first = &mut v4 => (first, v6),
            first = &mut v6 => (first, v4),
        };
        let first = match first {
            Ok(first) => first,
            Err(error) => {
                return match other.await {
                    Ok(other) if !other.addresses.is_empty() => Ok(other.half()),
                    _ => Err(error.into()),
                };
            }
        };
        if first.addresses.is_empty() {
            return Ok(other.await?.and(first));
        }
        match timeout(OTHER_KIND, other).await {
            Ok(Ok(other)) => Ok(first.and(other)),
            Ok(Err(_)) | Err(_) => Ok(first.half()),
        }
    }

    async fn one_kind(&self, name: &Name, kind: RecordType) -> Result<Found, NetError> {
        match self.dns.lookup(name.clone(), kind).await {
            Ok(found) => {
                let records = found.answers().iter();
                let addresses = records.filter_map(|record| record.data.ip_addr()).collect();
                Ok(Found { addresses, holds_until: Instant::from_std(found.valid_until()) })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let ttl = Duration::from_secs(none.negative_ttl.unwrap_or(0).into());
                let holds_until = Instant::now() + ttl.min(MAX_NEGATIVE_TTL);
                Ok(Found { addresses: Vec::new(), holds_until })
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the addresses and ports that a URL led to last, for the owner of an endpoint: the address in
    /// the URL itself, or those addresses of its name that are public.
    pub(crate) fn public_addresses(&self, url: &EndpointUrl) -> Option<String> {
        let port = url.as_url().port_or_known_default()?;
        let addresses = match url.as_url().host()? {
            Host::Ipv4(address) => vec![address.into()],
            Host::Ipv6(address) => vec![address.into()],
            Host::Domain(name) => {
                let last = self.answers.get(name)?.addresses;
                last.iter().copied().filter(|address| is_global(effective(*address))).collect()
            }
        };
        let shown =
            addresses.iter().take(MAX_SHOWN).map(|ip| SocketAddr::new(*ip, port).to_string());
        let shown: Vec<String> = shown.collect();
        (!shown.is_empty()).then(|| shown.join(", "))
    }
}

impl Found {
    /// Returns these addresses and those of the other kind, IPv4 first. They hold as long as the part that
    /// ends first.
    fn and(self, other: Self) -> Self {
        let holds_until = match (self.addresses.is_empty(), other.addresses.is_empty()) {
            (false, true) => self.holds_until,
            (true, false) => other.holds_until,
            _ => self.holds_until.min(other.holds_until),
        };
        let mut addresses = self.addresses;
        addresses.extend(other.addresses);
        addresses.sort_by_key(IpAddr::is_ipv6);
        Self { addresses, holds_until }
    }

    /// Returns these addresses as perhaps incomplete, which holds for a shorter time.
    fn half(self) -> Self {
        Self { holds_until: self.holds_until.min(Instant::now() + MAX_HALF_TTL), ..self }
    }
}

/// Returns the entries of the system's file of hosts, if there is one.
fn hosts_of_system() -> io::Result<Hosts> {
    let path = match std::env::var_os("SystemRoot") {
        Some(root) if cfg!(windows) => Path::new(&root).join(r"System32\drivers\etc\hosts"),
        _ => "/etc/hosts".into(),
    };
    match std::fs::read(path) {
        Ok(file) => hosts_of(&file),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Hosts::default()),
        Err(error) => Err(error),
    }
}

/// Returns the entries of a file of hosts. Invalid UTF-8 is replaced first: because of one such byte, for
/// example in a comment, the library would reject the whole file.
fn hosts_of(file: &[u8]) -> io::Result<Hosts> {
    let mut hosts = Hosts::default();
    hosts.read_hosts_conf(String::from_utf8_lossy(file).as_bytes())?;
    Ok(hosts)
}

type DnsBuilder = ResolverBuilder<TokioRuntimeProvider>;

fn system() -> Result<DnsBuilder, NetError> {
    match TokioResolver::builder_tokio() {
        Err(NetError::Io(error))
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Other) =>
        {
            // There is no file, or no server in it. resolv.conf(5): "the default is to use the name
            // server on the local machine".
            Ok(with_servers(&[SocketAddr::from(([127, 0, 0, 1], 53))]))
        }
        other => other,
    }
}

fn with_servers(servers: &[SocketAddr]) -> DnsBuilder {
    let server = |address: &SocketAddr| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut connections {
            connection.port = address.port();
        }
        NameServerConfig::new(address.ip(), true, connections)
    };
    let servers = servers.iter().map(server).collect();
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
}

impl Resolve for Resolver {
    fn resolve(&self, name: dns::Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.addresses(name.as_str()).await?;
            // The client sets the port.
            let address = move |place| Some(SocketAddr::new(*addresses.get(place)?, 0));
            Ok(Box::new((0..MAX_ADDRESSES).map_while(address)) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_in_the_file_of_hosts_leads_where_it_says_and_nowhere_else() {
        let file = b"# caf\xe9, in Latin-1\n93.184.215.14 hook.example.com\n\xff name\n\
                     93.184.215.15 Two.example.com\n\
                     2606:2800::1 two.example.com # both kinds\n";
        let hosts = hosts_of(file).unwrap();
        // Nobody answers there, so that whatever is asked for fails.
        let nobody = [SocketAddr::from(([127, 0, 0, 1], 9))];
        let policy = Arc::new(AddressPolicy::public());
        let resolver = Resolver::new(&nobody, policy, Duration::from_millis(100)).unwrap();
        let resolver = Resolver { hosts: Arc::new(hosts), ..resolver };
        for (name, expected) in [
            ("hook.example.com", &["93.184.215.14"][..]),
            ("two.example.com", &["93.184.215.15", "2606:2800::1"]),
        ] {
            let found = resolver.addresses(name).await.unwrap();
            let expected: Vec<IpAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(*found, *expected, "{name}");
        }
        assert!(resolver.addresses("other.example.com").await.is_err());
    }
}
