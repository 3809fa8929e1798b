//! Connections through a proxy: names are resolved here, and the proxy connects to an address. TLS and
//! `Host` have the name.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tower_service::Service;
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::credentials::basic;
use crate::resolve::{ResolveError, Resolver};

/// A proxy that all connections go through.
///
/// Names are resolved and checked here, and the proxy gets an address, so it decides nothing.
///
/// # Example
/// ```
/// use webhooks_http::Proxy;
///
/// let tunnel = Proxy::new("http://proxy.example.com:3128")?;
/// let socks = Proxy::new("socks5://user:password@10.0.0.1:1080")?;
/// assert!(!format!("{socks:?}").contains("password"));
/// # Ok::<(), webhooks_http::ProxyError>(())
/// ```
#[derive(Clone)]
pub struct Proxy {
    kind: Kind,
    uri: Uri,
    credentials: Option<(String, Zeroizing<String>)>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Http,
    Socks5,
}

/// The reason why a text is not the URL of a proxy. It does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The text is no URL, or has no host.
    #[error("the proxy is not a URL such as http://proxy.example.com:3128")]
    Malformed,
    /// The scheme is neither `http` nor `socks5`.
    #[error("the proxy's scheme is {scheme:?}; it must be http or socks5")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
}

impl Proxy {
    /// Returns the proxy at `http://…` (HTTP CONNECT, RFC 9110 §9.3.6) or `socks5://…` (RFC 1928).
    /// If the proxy needs a user name and a password, put them before an `@`.
    ///
    /// The default port is 80 or 1080. An HTTP proxy must allow CONNECT to all ports that endpoints use:
    /// many allow only 443.
    ///
    /// # Errors
    /// [`ProxyError`] when the text is no such URL.
    pub fn new(url: &str) -> Result<Self, ProxyError> {
        let url = Url::parse(url).map_err(|_shows_the_password| ProxyError::Malformed)?;
        let (kind, default_port) = match url.scheme() {
            "http" => (Kind::Http, 80),
            "socks5" => (Kind::Socks5, 1080),
            scheme => return Err(ProxyError::Scheme { scheme: scheme.to_owned() }),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(ProxyError::Malformed)?;
        let is_bare =
            matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        if !is_bare {
            return Err(ProxyError::Malformed);
        }
        let uri = format!("http://{host}:{}", url.port().unwrap_or(default_port));
        let uri = uri.parse().map_err(|_no_host| ProxyError::Malformed)?;
        let decoded = |text: &str| {
            let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
            decoded.map(std::borrow::Cow::into_owned).map_err(|_not_utf8| ProxyError::Malformed)
        };
        let credentials = match (url.username(), url.password().unwrap_or_default()) {
            ("", "") => None,
            (user, password) => Some((decoded(user)?, Zeroizing::new(decoded(password)?))),
        };
        Ok(Self { kind, uri, credentials })
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("kind", &self.kind)
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

/// The time after which a silent connection to the proxy gets a keep-alive probe.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Connects through a proxy to one of the addresses of a URI's host.
#[derive(Clone)]
pub(crate) struct ProxyConnector {
    via: Via,
    resolver: Resolver,
    timeout: Duration,
}

#[derive(Clone)]
enum Via {
    Socks(SocksV5<HttpConnector>),
    Tunnel(Tunnel<HttpConnector>),
}

type BoxError = Box<dyn Error + Send + Sync>;

impl ProxyConnector {
    pub(crate) fn new(proxy: &Proxy, resolver: Resolver, timeout: Duration) -> Self {
        let (uri, mut connector) = (proxy.uri.clone(), HttpConnector::new());
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEP_ALIVE));
        let via = match (proxy.kind, &proxy.credentials) {
            (Kind::Http, None) => Via::Tunnel(Tunnel::new(uri, connector)),
            (Kind::Http, Some((user, password))) => {
                Via::Tunnel(Tunnel::new(uri, connector).with_auth(basic(user, password)))
            }
            (Kind::Socks5, None) => Via::Socks(SocksV5::new(uri, connector)),
            (Kind::Socks5, Some((user, password))) => {
                let (user, password) = (user.clone(), password.to_string());
                Via::Socks(SocksV5::new(uri, connector).with_auth(user, password))
            }
        };
        Self { via, resolver, timeout }
    }

    async fn connect(mut self, target: Uri) -> Result<TokioIo<TcpStream>, BoxError> {
        let host = target.host().ok_or("the URL has no host")?;
        let default_port = if target.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = target.port_u16().unwrap_or(default_port);
        let addresses = self.addresses(host).await?;
        // Each address gets an equal share of the time, so that a silent one does not use up all of it.
        let share = self.timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let mut failed: BoxError = "the name has no address".into();
        for address in addresses.iter() {
            let connecting = self.via.connect(SocketAddr::new(*address, port));
            failed = match tokio::time::timeout(share, connecting).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => error,
                Err(late) => io::Error::new(io::ErrorKind::TimedOut, late).into(),
            };
        }
        Err(failed)
    }

    /// Returns the addresses of a URI's host, all of which the policy allows.
    async fn addresses(&self, host: &str) -> Result<Arc<[IpAddr]>, ResolveError> {
        match Host::parse(host).map_err(|_no_host| ResolveError::Unknown)? {
            Host::Ipv4(address) => self.resolver.literal(address.into()),
            Host::Ipv6(address) => self.resolver.literal(address.into()),
            Host::Domain(name) => self.resolver.addresses(&name).await,
        }
    }
}

impl Via {
    async fn connect(&mut self, address: SocketAddr) -> Result<TokioIo<TcpStream>, BoxError> {
        // Both connectors read only the host and the port of the target. The scheme completes the URI.
        let target: Uri = format!("https://{address}/").parse()?;
        let connected = match self {
            Self::Socks(socks) => socks.call(target).await.map_err(BoxError::from),
            Self::Tunnel(tunnel) => tunnel.call(target).await.map_err(BoxError::from),
        };
        connected.map_err(|source| ProxyFailed { source }.into())
    }
}

/// The error of a connection through the proxy. The text does not say where the proxy is, since the
/// owner of the endpoint reads it.
#[derive(Debug, Error)]
#[error("no connection through the proxy")]
pub(crate) struct ProxyFailed {
    source: BoxError,
}

impl Service<Uri> for ProxyConnector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        Box::pin(self.clone().connect(target))
    }
}
