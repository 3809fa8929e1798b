//! How a transport is set up.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use http::HeaderValue;
use rustls::pki_types::CertificateDer;

use crate::client::{ClientSettings, Clients, Limits};
use crate::credentials::Tokens;
use crate::host_limits::HostLimits;
use crate::policy::AddressPolicy;
use crate::proxy::Proxy;
use crate::resolve::Resolver;
use crate::tls::{Roots, Tls};
use crate::transport::{HttpTransport, TransportInner};

/// What requests call themselves unless told otherwise.
const AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// Sets up an [`HttpTransport`].
///
/// # Example
/// ```
/// use webhooks_http::{AddressPolicy, HttpTransport};
///
/// let policy = AddressPolicy::public().https_only().deny_port(8080).deny_host("*.example.com")?;
/// let transport = HttpTransport::builder().address_policy(policy).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct HttpTransportBuilder {
    policy: AddressPolicy,
    roots: Roots,
    extra_roots: Vec<CertificateDer<'static>>,
    verifies: bool,
    proxy: Option<Proxy>,
    dns_servers: Vec<SocketAddr>,
    user_agent: String,
    max_per_host: usize,
    max_response_body: usize,
    body_timeout: Duration,
    slot_wait: Duration,
    limits: Limits,
}

/// Says why no transport could be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpTransportError {
    /// The HTTP client refused its settings.
    #[error("cannot set up the HTTP client")]
    Client {
        /// What the client said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The system's name servers or its file of hosts cannot be read.
    #[error("cannot set up the resolver of host names")]
    Dns {
        /// What the resolver said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// TLS could not be set up: a root is malformed, or there is none.
    #[error("cannot set up TLS; on Linux, install the package ca-certificates")]
    Tls {
        /// What the TLS library said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The user agent has a character that no header may hold.
    #[error("the user agent cannot be sent")]
    UserAgent {
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl HttpTransport {
    /// Returns a transport that trusts the platform's roots and reaches the public internet, and
    /// nothing else.
    ///
    /// # Errors
    /// [`HttpTransportError::Tls`] when the platform has no root certificates.
    pub fn new() -> Result<Self, HttpTransportError> {
        Self::builder().build()
    }

    /// Returns a transport that reaches this machine too, as
    /// [`AddressPolicy::development`] allows, and says so on standard error.
    ///
    /// # Errors
    /// [`HttpTransportError::Tls`] when the platform has no root certificates.
    pub fn development() -> Result<Self, HttpTransportError> {
        Self::builder().address_policy(AddressPolicy::development()).build()
    }

    /// Returns a builder, to set what differs from [`new`](Self::new).
    pub fn builder() -> HttpTransportBuilder {
        HttpTransportBuilder::new()
    }
}

impl HttpTransportBuilder {
    pub(crate) fn new() -> Self {
        Self {
            policy: AddressPolicy::public(),
            roots: Roots::default(),
            extra_roots: Vec::new(),
            verifies: true,
            proxy: None,
            dns_servers: Vec::new(),
            user_agent: AGENT.to_owned(),
            max_per_host: 512,
            max_response_body: 16 * 1024,
            body_timeout: Duration::from_secs(5),
            // As long as an exchange may last unless its endpoint says otherwise: in that time those
            // that hang give their slots back.
            slot_wait: Duration::from_secs(30),
            limits: Limits {
                connect_timeout: Duration::from_secs(10),
                // Shorter than Node.js and Apache keep a connection, 5 s both: whoever closes first
                // knows, and a request that meets the other's end on its way is lost.
                idle_timeout: Duration::from_secs(4),
                max_idle_per_host: 64,
            },
        }
    }

    /// Sets where requests may go: the public internet unless set.
    pub fn address_policy(self, policy: AddressPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Sets which authorities may vouch for endpoints: those of the platform unless set.
    pub fn roots(self, roots: Roots) -> Self {
        Self { roots, ..self }
    }

    /// Trusts a root certificate (DER) beside those of [`roots`](Self::roots).
    pub fn extra_root(mut self, der: Vec<u8>) -> Self {
        self.extra_roots.push(der.into());
        self
    }

    /// Trusts every certificate, for development alone: anybody on the way can then read and
    /// change what is delivered. The transport says so on standard error.
    pub fn dangerous_accept_invalid_certificates(self) -> Self {
        Self { verifies: false, ..self }
    }

    /// Sets what requests call themselves in `user-agent`: `webhooks-http/` and its version unless set.
    /// A header of this name that an endpoint has of its own replaces it.
    pub fn user_agent(self, agent: &str) -> Self {
        Self { user_agent: agent.to_owned(), ..self }
    }

    /// Connects through a proxy; proxies of the environment are ignored.
    pub fn proxy(self, proxy: Proxy) -> Self {
        Self { proxy: Some(proxy), ..self }
    }

    /// Asks this name server, beside others that are set, in place of those of the system.
    pub fn dns_server(mut self, server: SocketAddr) -> Self {
        self.dns_servers.push(server);
        self
    }

    /// Sets how long a connection may take to come about: 10 s unless set. TLS is included, and so is
    /// the name, which may take half of it.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.limits.connect_timeout = timeout;
        self
    }

    /// Sets how long a connection is kept for the next request: 4 s unless set, which is shorter than
    /// common receivers keep theirs (Node.js and Apache 5 s). Longer saves handshakes with receivers
    /// that are known to keep connections longer, and loses attempts with others.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle_timeout = timeout;
        self
    }

    /// Sets how many idle connections to one host are kept: 64 unless set.
    pub fn max_idle_per_host(mut self, max: usize) -> Self {
        self.limits.max_idle_per_host = max;
        self
    }

    /// Sets how many exchanges one host has at once, over all its endpoints, and thereby how many
    /// connections are in use: 512 unless set. Others wait for [`slot_wait`](Self::slot_wait).
    pub fn max_per_host(self, max: usize) -> Self {
        Self { max_per_host: max.max(1), ..self }
    }

    /// Sets how long an exchange waits for one of its host's slots: 30 s unless set. That is no part
    /// of the endpoint's timeout. When it is over, nothing was sent: the error is
    /// [`ErrorClass::Busy`](webhooks_dispatch::ErrorClass::Busy), which tells nothing of the endpoint.
    pub fn slot_wait(self, wait: Duration) -> Self {
        Self { slot_wait: wait, ..self }
    }

    /// Sets how much of a response's body is read, in bytes: 16 KiB unless set.
    pub fn max_response_body(self, bytes: usize) -> Self {
        Self { max_response_body: bytes, ..self }
    }

    /// Sets how long a response's body may take once its status has come: 5 s unless set, and never
    /// longer than the endpoint's timeout. What came by then is kept; the status says what became of
    /// the event, whether or not its body ends.
    pub fn body_timeout(self, timeout: Duration) -> Self {
        Self { body_timeout: timeout, ..self }
    }

    /// Sets the transport up.
    ///
    /// # Errors
    /// [`HttpTransportError::Tls`] when an extra root is malformed or there are no roots at all,
    /// [`HttpTransportError::Dns`] when the resolver cannot be set up, or the file of hosts not be read,
    /// [`HttpTransportError::UserAgent`] when that is no header's value, and
    /// [`HttpTransportError::Client`] when the HTTP client refuses its settings, which are fixed.
    pub fn build(self) -> Result<HttpTransport, HttpTransportError> {
        let policy = Arc::new(self.policy);
        warn(&policy, self.verifies);
        let mut tls = Tls::new(self.roots, self.extra_roots)
            .map_err(|source| HttpTransportError::Tls { source: source.into() })?;
        if !self.verifies {
            tls = tls.dangerous_without_verification();
        }
        let resolver =
            Resolver::new(&self.dns_servers, Arc::clone(&policy), self.limits.connect_timeout / 2)
                .map_err(|source| HttpTransportError::Dns { source: source.into() })?;
        let agent = HeaderValue::try_from(self.user_agent)
            .map_err(|source| HttpTransportError::UserAgent { source: source.into() })?;
        let (proxy, limits) = (self.proxy, self.limits);
        let settings = ClientSettings { tls, resolver, proxy, agent, limits };
        let clients = Clients::new(settings)
            .map_err(|source| HttpTransportError::Client { source: source.into() })?;
        let (host_limits, tokens) = (HostLimits::new(self.max_per_host), Tokens::new());
        let Self { max_response_body, body_timeout, slot_wait, .. } = self;
        Ok(HttpTransport::of(TransportInner {
            policy,
            clients,
            host_limits,
            tokens,
            max_response_body,
            body_timeout,
            slot_wait,
        }))
    }
}

/// Says on standard error, once in a process, that what protects production is off.
#[expect(clippy::print_stderr, reason = "it must be seen even where nobody set up logging")]
fn warn(policy: &AddressPolicy, verifies: bool) {
    static LOOPBACK: Once = Once::new();
    static TLS: Once = Once::new();
    if policy.is_development() {
        LOOPBACK.call_once(|| {
            eprintln!(
                "webhooks-http: DEVELOPMENT MODE: deliveries may go to this machine (loopback); \
                 do not use it where others register endpoints"
            );
        });
    }
    if !verifies {
        TLS.call_once(|| {
            eprintln!("webhooks-http: CERTIFICATES ARE NOT CHECKED; do not use it in production");
        });
    }
}
