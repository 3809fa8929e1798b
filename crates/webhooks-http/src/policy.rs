//! The policy for destinations: a decision over values, without any I/O.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;
use url::Host;
use webhooks_registry::EndpointUrl;

use crate::internal_names::{Pattern, is_localhost, is_special, without_final_dot};
use crate::public_addresses::{effective, is_carrier, is_global, is_local};

/// Ports of services that are no web servers (Fetch Standard, "Port blocking"). Browsers never connect to
/// them, so no receiver uses them; and the errors of connections there would show which services run.
const BAD_PORTS: [u16; 82] = [
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102,
    103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465,
    512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993,
    995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668,
    6669, 6679, 6697, 10080,
];

/// The policy for destinations: the public internet, with additions and exceptions.
///
/// It checks the URL when an endpoint is registered and before each exchange. It checks each address
/// that the name resolves to right before the connection to this address is made. A denied
/// destination stays denied, whatever else is allowed.
///
/// # Example
/// ```
/// use webhooks_http::AddressPolicy;
/// use webhooks_registry::EndpointUrl;
///
/// let policy = AddressPolicy::public().https_only().allow_network("10.20.0.0/16".parse()?);
/// assert!(policy.check(&EndpointUrl::new("https://example.com/hook")?).is_ok());
/// assert!(policy.check(&EndpointUrl::new("https://10.20.0.1/hook")?).is_ok());
/// assert!(policy.check(&EndpointUrl::new("https://10.0.0.1/hook")?).is_err());
/// assert!(policy.check(&EndpointUrl::new("http://example.com/hook")?).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct AddressPolicy {
    https_only: bool,
    is_development: bool,
    only_ports: Option<BTreeSet<u16>>,
    denied_ports: BTreeSet<u16>,
    allowed_networks: Vec<IpNet>,
    denied_networks: Vec<IpNet>,
    allowed_hosts: Vec<Pattern>,
    denied_hosts: Vec<Pattern>,
}

/// The reason why a destination is refused.
///
/// The text never contains an address that a name resolved to: the owner of the endpoint reads it, and
/// must not learn the addresses of internal names.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The address is not on the public internet, or is denied.
    #[error("the address is not an allowed destination")]
    Address,
    /// The URL is `http`, and the request has credentials, or custom headers of the endpoint, which must
    /// not be readable on the way.
    #[error("the URL must start with https://, since credentials or custom headers go there")]
    Credentials,
    /// The name is not one of the public internet, or it is denied.
    #[error("{host:?} is not an allowed host")]
    Host {
        /// The name.
        host: String,
    },
    /// The port is denied, or it is that of a service that is no web server.
    #[error("port {port} is not allowed")]
    Port {
        /// The port.
        port: u16,
    },
    /// The URL is `http`, and `https` is required.
    #[error("the URL must start with https://")]
    Scheme,
}

/// The error of a text that is neither a host name nor a pattern of host names.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is neither a host name nor '*.' followed by a host name")]
pub struct HostPatternError {
    /// The text.
    pub text: String,
}

impl AddressPolicy {
    /// Returns a policy that allows the whole public internet and nothing else, on all ports except those
    /// of services that are no web servers (the Fetch Standard's bad ports).
    pub fn public() -> Self {
        Self {
            https_only: false,
            is_development: false,
            only_ports: None,
            denied_ports: BTreeSet::from([0]),
            allowed_networks: Vec::new(),
            denied_networks: Vec::new(),
            allowed_hosts: Vec::new(),
            denied_hosts: Vec::new(),
        }
    }

    /// Returns a policy that also allows this machine, for development and tests.
    ///
    /// With it, anybody who may register an endpoint can send requests to every service on loopback, and
    /// credentials go there without TLS too. A transport with this policy prints a warning on standard
    /// error.
    pub fn development() -> Self {
        let loopback: [IpNet; 2] = [
            Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
            Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into(),
        ];
        let allowed_hosts = ["localhost", "*.localhost"].into_iter().filter_map(Pattern::new);
        Self {
            is_development: true,
            allowed_networks: loopback.to_vec(),
            allowed_hosts: allowed_hosts.collect(),
            ..Self::public()
        }
    }

    /// Refuses `http` URLs.
    pub fn https_only(self) -> Self {
        Self { https_only: true, ..self }
    }

    /// Allows the addresses of a network, public or not.
    pub fn allow_network(mut self, network: IpNet) -> Self {
        self.allowed_networks.push(network);
        self
    }

    /// Denies the addresses of a network.
    pub fn deny_network(mut self, network: IpNet) -> Self {
        self.denied_networks.push(network);
        self
    }

    /// Allows a host by its name, or all names below one by `*.` and the name, together with the internal
    /// addresses that it resolves to: for names of your own.
    ///
    /// It does not allow this machine, its link, and the metadata services of clouds, because one record
    /// below your name could lead there. For these use [`allow_network`](Self::allow_network).
    ///
    /// # Errors
    /// [`HostPatternError`] when the text is no host name, or an address: those are networks.
    pub fn allow_host(mut self, host: &str) -> Result<Self, HostPatternError> {
        self.allowed_hosts.push(pattern(host)?);
        Ok(self)
    }

    /// Denies a host by its name, or all names below one by `*.` and the name. A denied name is never
    /// resolved. To refuse its addresses under every name, deny its network.
    ///
    /// # Errors
    /// [`HostPatternError`] when the text is no host name, or an address: those are networks.
    pub fn deny_host(mut self, host: &str) -> Result<Self, HostPatternError> {
        self.denied_hosts.push(pattern(host)?);
        Ok(self)
    }

    /// Denies all ports except these, and allows these, even if they are among the bad ports.
    pub fn only_ports(self, ports: impl IntoIterator<Item = u16>) -> Self {
        Self { only_ports: Some(ports.into_iter().collect()), ..self }
    }

    /// Denies a port.
    pub fn deny_port(mut self, port: u16) -> Self {
        self.denied_ports.insert(port);
        self
    }

    /// Allows a URL by returning `Ok`. It checks all that needs no name resolution: the scheme, the port,
    /// the name itself, or the address if the host is written as one.
    ///
    /// # Errors
    /// [`Refusal`] when the destination is not allowed.
    pub fn check(&self, url: &EndpointUrl) -> Result<(), Refusal> {
        let url = url.as_url();
        if self.https_only && url.scheme() != "https" {
            return Err(Refusal::Scheme);
        }
        self.check_port(url.port_or_known_default().unwrap_or(0))?;
        match url.host() {
            Some(Host::Ipv4(address)) => self.check_address(None, address.into()),
            Some(Host::Ipv6(address)) => self.check_address(None, address.into()),
            Some(Host::Domain(name)) => self.check_name(name),
            None => Err(Refusal::Host { host: String::new() }),
        }
    }

    /// Allows an address by returning `Ok`. `host` is the name that resolved to it, or `None` if the URL
    /// has the address itself.
    ///
    /// # Errors
    /// [`Refusal::Address`] when the address is not allowed.
    pub fn check_address(&self, host: Option<&str>, address: IpAddr) -> Result<(), Refusal> {
        let (effective, plain) = (effective(address), address.to_canonical());
        // A denied network is denied behind NAT64 too, so all spellings are compared. An allowed one is
        // not allowed behind NAT64, so only the plain address is compared.
        let is_denied = self.denied_networks.iter().any(|network| {
            network.contains(&effective) || network.contains(&plain) || network.contains(&address)
        });
        let is_listed = self.allowed_networks.iter().any(|network| network.contains(&plain));
        // An address that contains another one leads to an address that no check has seen.
        let is_own_host = || {
            let is_own = host.is_some_and(|host| is_any(&self.allowed_hosts, host));
            is_own && !is_carrier(effective) && !is_local(effective)
        };
        let is_allowed = is_global(effective) || is_listed || is_own_host();
        if is_allowed && !is_denied { Ok(()) } else { Err(Refusal::Address) }
    }

    /// Returns whether this is a policy of [`development`](Self::development).
    pub(crate) fn is_development(&self) -> bool {
        self.is_development
    }

    /// Returns whether secrets may be sent to a URL: over TLS, or to this machine in development.
    pub(crate) fn is_private(&self, url: &EndpointUrl) -> bool {
        let url = url.as_url();
        let is_own_machine = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => is_localhost(name),
            None => false,
        };
        url.scheme() == "https" || (self.is_development && is_own_machine)
    }

    fn check_port(&self, port: u16) -> Result<(), Refusal> {
        let is_listed = match &self.only_ports {
            Some(ports) => ports.contains(&port),
            None => !BAD_PORTS.contains(&port),
        };
        let is_allowed = is_listed && !self.denied_ports.contains(&port);
        if is_allowed { Ok(()) } else { Err(Refusal::Port { port }) }
    }

    /// Allows a name to be resolved.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), Refusal> {
        let is_allowed = is_any(&self.allowed_hosts, name) || !is_special(name);
        let is_denied = is_any(&self.denied_hosts, name);
        if is_allowed && !is_denied { Ok(()) } else { Err(Refusal::Host { host: name.to_owned() }) }
    }
}

impl Default for AddressPolicy {
    /// Returns [`AddressPolicy::public`].
    fn default() -> Self {
        Self::public()
    }
}

fn pattern(text: &str) -> Result<Pattern, HostPatternError> {
    Pattern::new(text).ok_or_else(|| HostPatternError { text: text.to_owned() })
}

fn is_any(patterns: &[Pattern], name: &str) -> bool {
    let name = without_final_dot(name);
    patterns.iter().any(|pattern| pattern.matches(name))
}
