//! The setup of a transport.

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

/// The default `user-agent` of requests.
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
    /// [`AGENT`] if `None`.
    user_agent: Option<String>,
    max_per_host: usize,
    max_response_body: usize,
    body_timeout: Duration,
    slot_wait: Duration,
    limits: Limits,
}

/// The reason why a transport could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpTransportError {
    /// The HTTP client refused its settings.
    #[error("cannot set up the HTTP client")]
    Client {
        /// The error of the client.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The system's name servers or its file of hosts cannot be read.
    #[error("cannot set up the resolver of host names")]
    Dns {
        /// The error of the resolver.
        source: Box<dyn Error + Send + Sync>,
    },
    /// TLS could not be set up: a root is malformed, or there is none.
    #[error("cannot set up TLS; on Linux, install the package ca-certificates")]
    Tls {
        /// The error of the TLS library.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The user agent contains a character that is not allowed in a header.
    #[error("the user agent cannot be sent")]
    UserAgent {
        /// The error of the parser.
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

    /// Returns a transport that also reaches this machine, as [`AddressPolicy::development`] allows, and
    /// prints a warning on standard error.
    ///
    /// # Errors
    /// [`HttpTransportError::Tls`] when the platform has no root certificates.
    pub fn development() -> Result<Self, HttpTransportError> {
        Self::builder().address_policy(AddressPolicy::development()).build()
    }

    /// Returns a builder with the settings of [`new`](Self::new).
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
            user_agent: None,
            max_per_host: 512,
            max_response_body: 16 * 1024,
            body_timeout: Duration::from_secs(5),
            // The default timeout of an endpoint: within this time, exchanges that hang free their slots.
            slot_wait: Duration::from_secs(30),
            limits: Limits {
                connect_timeout: Duration::from_secs(10),
                // Shorter than the 5 s of Node.js and Apache. The side that closes first knows it; if the
                // receiver closes while a request is on its way, the request is lost.
                idle_timeout: Duration::from_secs(4),
                max_idle_per_host: 64,
            },
        }
    }

    /// Sets the policy for destinations: the public internet by default.
    pub fn address_policy(self, policy: AddressPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Sets the certificate authorities that are trusted for endpoints: those of the platform by default.
    pub fn roots(self, roots: Roots) -> Self {
        Self { roots, ..self }
    }

    /// Trusts a root certificate (DER) beside those of [`roots`](Self::roots).
    pub fn extra_root(mut self, der: Vec<u8>) -> Self {
        self.extra_roots.push(der.into());
        self
    }

    /// Trusts every certificate, for development only: anybody on the way can then read and change the
    /// deliveries. The transport prints a warning on standard error.
    pub fn dangerous_accept_invalid_certificates(self) -> Self {
        Self { verifies: false, ..self }
    }

    /// Sets the `user-agent` of requests: `webhooks-http/` and its version by default. A custom header of
    /// an endpoint with this name replaces it.
    pub fn user_agent(self, agent: &str) -> Self {
        Self { user_agent: Some(agent.to_owned()), ..self }
    }

    /// Connects through a proxy. Proxies in environment variables are ignored.
    pub fn proxy(self, proxy: Proxy) -> Self {
        Self { proxy: Some(proxy), ..self }
    }

    /// Adds a name server. If there is any, those of the system are not used.
    pub fn dns_server(mut self, server: SocketAddr) -> Self {
        self.dns_servers.push(server);
        self
    }

    /// Sets how long it may take to make a connection: 10 s by default. TLS is included, and so is the name
    /// resolution, which may take half of the time.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.limits.connect_timeout = timeout;
        self
    }

    /// Sets how long an idle connection stays open for the next request: 4 s by default. Common receivers
    /// close theirs later (Node.js and Apache after 5 s). A longer time saves handshakes with receivers that
    /// keep connections longer, and loses attempts with others.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle_timeout = timeout;
        self
    }

    /// Sets the maximum number of idle connections per host: 64 by default.
    pub fn max_idle_per_host(mut self, max: usize) -> Self {
        self.limits.max_idle_per_host = max;
        self
    }

    /// Sets the maximum number of concurrent exchanges per host, over all its endpoints, and so the number
    /// of connections in use: 512 by default. Further exchanges wait for [`slot_wait`](Self::slot_wait).
    pub fn max_per_host(self, max: usize) -> Self {
        Self { max_per_host: max.max(1), ..self }
    }

    /// Sets how long an exchange waits for a slot of its host: 30 s by default. This time is not part of
    /// the endpoint's timeout. If it ends, nothing was sent, and the error is
    /// [`ErrorClass::Busy`](webhooks_dispatch::transport::ErrorClass::Busy), which is no fault of the endpoint.
    pub fn slot_wait(self, wait: Duration) -> Self {
        Self { slot_wait: wait, ..self }
    }

    /// Sets how many bytes of a response body are read: 16 KiB by default.
    pub fn max_response_body(self, bytes: usize) -> Self {
        Self { max_response_body: bytes, ..self }
    }

    /// Sets how long a response body may take once the status has arrived: 5 s by default, and never longer
    /// than the endpoint's timeout. The bytes that arrive in this time are returned. The status alone
    /// decides about the event, even if the body does not end.
    pub fn body_timeout(self, timeout: Duration) -> Self {
        Self { body_timeout: timeout, ..self }
    }

    /// Returns the transport.
    ///
    /// # Errors
    /// [`HttpTransportError::Tls`] when an extra root is malformed or there are no roots at all,
    /// [`HttpTransportError::Dns`] when the resolver cannot be set up, or the file of hosts cannot be read,
    /// [`HttpTransportError::UserAgent`] when the user agent is no valid header value, and
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
        // A static value, so that no exchange counts its copies.
        let agent = (self.user_agent)
            .map_or(Ok(HeaderValue::from_static(AGENT)), HeaderValue::try_from)
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

/// Prints a warning on standard error, once per process, if a protection is off.
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
