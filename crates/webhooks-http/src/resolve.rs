//! From names to addresses, past the address policy.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::Name;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use moka::sync::Cache;
use reqwest::dns::{self, Addrs, Resolve, Resolving};
use thiserror::Error;
use tokio::time::Instant;
use url::Host;
use webhooks_registry::EndpointUrl;

use crate::global::{effective, is_global};
use crate::names::without_final_dot;
use crate::{AddressPolicy, Refusal};

/// How long an answer is used at most, whatever its time to live says: a receiver that moves is
/// found again soon.
const MAX_TTL: Duration = Duration::from_secs(300);

/// How long it is remembered at most that there is no such name: a new receiver is found soon.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(30);

/// How many answers are remembered.
const MAX_ANSWERS: u64 = 4096;

/// How many of a name's addresses are tried.
const MAX_ADDRESSES: usize = 8;

/// How many of them people are told of.
const MAX_SHOWN: usize = 3;

/// Asks the DNS, and gives out addresses only if the policy allows every one that a name has.
#[derive(Clone)]
pub(crate) struct Resolver {
    dns: TokioResolver,
    policy: Arc<AddressPolicy>,
    /// What was answered last, used while it holds and told after that. The library's own cache
    /// keeps whole answers, which a stranger can make large.
    answers: Cache<Box<str>, Answer>,
}

/// The addresses of a name, all of them allowed; none if there is no such name.
#[derive(Debug, Clone)]
struct Answer {
    addresses: Arc<[IpAddr]>,
    holds_until: Instant,
}

/// Says why a name gave no addresses.
#[derive(Debug, Error)]
pub(crate) enum ResolveError {
    #[error("the name servers do not answer")]
    Failed { source: NetError },
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("no such name, or it has no address")]
    Unknown,
}

impl Resolver {
    /// Returns a resolver that asks these servers; those of the system if there are none.
    pub(crate) fn new(
        servers: &[SocketAddr],
        policy: Arc<AddressPolicy>,
    ) -> Result<Self, NetError> {
        let mut builder = match servers {
            [] => system()?,
            servers => with_servers(servers),
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let answers = Cache::builder().max_capacity(MAX_ANSWERS).time_to_live(MAX_TTL).build();
        Ok(Self { dns: builder.build()?, policy, answers })
    }

    /// Returns the addresses of a host, all of which the policy allows.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Arc<[IpAddr]>, ResolveError> {
        self.policy.check_name(host)?;
        let remembered = self.answers.get(host);
        let addresses = match remembered.filter(|answer| Instant::now() < answer.holds_until) {
            Some(answer) => answer.addresses,
            None => self.ask(host).await?,
        };
        if addresses.is_empty() { Err(ResolveError::Unknown) } else { Ok(addresses) }
    }

    /// Returns an address that is written as one, if the policy allows it.
    pub(crate) fn literal(&self, address: IpAddr) -> Result<Arc<[IpAddr]>, ResolveError> {
        self.policy.check_address(None, address)?;
        Ok(Arc::new([address]))
    }

    async fn ask(&self, host: &str) -> Result<Arc<[IpAddr]>, ResolveError> {
        // The final dot keeps the system's search list out: the name is complete.
        let name = Name::from_ascii(format!("{}.", without_final_dot(host)))
            .map_err(|_no_name| ResolveError::Unknown)?;
        let now = Instant::now();
        let (addresses, holds) = match self.dns.lookup_ip(name).await {
            Ok(found) => {
                let addresses: Vec<IpAddr> = found.iter().collect();
                (addresses, found.valid_until().saturating_duration_since(now.into_std()))
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let ttl = Duration::from_secs(none.negative_ttl.unwrap_or(0).into());
                (Vec::new(), ttl.min(MAX_NEGATIVE_TTL))
            }
            Err(source) => return Err(ResolveError::Failed { source }),
        };
        for address in &addresses {
            self.policy.check_address(Some(host), *address)?;
        }
        let addresses: Arc<[IpAddr]> = addresses.into_iter().take(MAX_ADDRESSES).collect();
        let answer = Answer { addresses: addresses.clone(), holds_until: now + holds.min(MAX_TTL) };
        self.answers.insert(host.into(), answer);
        Ok(addresses)
    }

    /// Returns the addresses and ports that a URL led to just now, for the owner of an endpoint:
    /// those that are written in it, and of a name those that the whole internet may know.
    pub(crate) fn told_addresses(&self, url: &EndpointUrl) -> Option<String> {
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

type Builder = ResolverBuilder<TokioRuntimeProvider>;

fn system() -> Result<Builder, NetError> {
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

fn with_servers(servers: &[SocketAddr]) -> Builder {
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
            // The port is set by whoever connects.
            let address = move |place| Some(SocketAddr::new(*addresses.get(place)?, 0));
            Ok(Box::new((0..MAX_ADDRESSES).map_while(address)) as Addrs)
        })
    }
}
