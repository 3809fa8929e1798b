//! From names to addresses, past the address policy.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::Name;
use reqwest::dns::{self, Addrs, Resolve, Resolving};
use thiserror::Error;
use url::Host;
use webhooks_registry::EndpointUrl;

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
    ) -> Result<Self, io::Error> {
        let mut builder = match servers {
            [] => TokioResolver::builder_tokio().unwrap_or_else(|_none_configured| {
                // resolv.conf(5): "the default is to use the name server on the local machine".
                with_servers(&[SocketAddr::from(([127, 0, 0, 1], 53))])
            }),
            servers => with_servers(servers),
        };
        let options = builder.options_mut();
        options.cache_size = MAX_ANSWERS;
        options.positive_max_ttl = Some(MAX_TTL);
        options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        Ok(Self { dns: builder.build().map_err(io::Error::other)?, policy })
    }

    /// Returns the addresses of a host, all of which the policy allows.
    pub(crate) async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.policy.check_name(host)?;
        // The final dot keeps the system's search list out: the name is complete.
        let name = Name::from_ascii(format!("{}.", without_final_dot(host)))
            .map_err(|_no_name| ResolveError::Unknown)?;
        let found = self.dns.lookup_ip(name).await.map_err(|error| match error {
            NetError::Dns(DnsError::NoRecordsFound(_)) => ResolveError::Unknown,
            source => ResolveError::Failed { source },
        })?;
        let mut addresses: Vec<IpAddr> = found.iter().collect();
        for address in &addresses {
            self.policy.check_address(Some(host), *address)?;
        }
        addresses.truncate(MAX_ADDRESSES);
        Ok(addresses)
    }

    /// Returns the addresses and ports that a URL leads to, for people, as far as they are known
    /// already or easily had.
    pub(crate) async fn known_addresses(&self, url: &EndpointUrl) -> Option<String> {
        let port = url.as_url().port_or_known_default()?;
        let addresses = match url.as_url().host()? {
            Host::Ipv4(address) => vec![address.into()],
            Host::Ipv6(address) => vec![address.into()],
            Host::Domain(name) => Self::resolve(self, name).await.ok()?,
        };
        let shown =
            addresses.iter().take(MAX_SHOWN).map(|ip| SocketAddr::new(*ip, port).to_string());
        Some(shown.collect::<Vec<_>>().join(", "))
    }
}

fn with_servers(servers: &[SocketAddr]) -> hickory_resolver::ResolverBuilder<TokioRuntimeProvider> {
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
            let addresses = Self::resolve(&resolver, name.as_str()).await?;
            // The port is set by whoever connects.
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}
