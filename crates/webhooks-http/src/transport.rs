//! The transport: one request, one response, one deadline.

use std::fmt;
use std::mem::take;
use std::sync::Arc;

use reqwest::{Method, redirect};
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls_platform_verifier::Verifier;
use thiserror::Error;
use webhooks_dispatch::{ErrorClass, Request, Response, Transport, TransportError};

use crate::address::check_literal;
use crate::outcome::{body_failed, exchange_failed};
use crate::resolve::PolicedResolver;
use crate::{AddressPolicy, AllowAll, body};

/// What requests call themselves.
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// How many idle connections to one host are kept for the next request.
const MAX_IDLE_PER_HOST: usize = 64;

/// Sends requests over HTTP; cheap to clone, all clones share one pool of connections.
///
/// # Example
/// ```
/// use webhooks_http::HttpTransport;
///
/// let transport = HttpTransport::new()?;
/// # Ok::<(), webhooks_http::HttpTransportError>(())
/// ```
#[derive(Clone)]
pub struct HttpTransport {
    client: reqwest::Client,
    policy: Arc<dyn AddressPolicy>,
}

/// Says why no transport could be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HttpTransportError {
    /// The HTTP client refused its settings.
    #[error("cannot set up the HTTP client")]
    Client {
        /// What the client said.
        source: reqwest::Error,
    },
    /// TLS could not be set up: a root is malformed, or the platform has none.
    #[error("cannot set up TLS; on Linux, install the package ca-certificates")]
    Tls {
        /// What the TLS library said.
        source: rustls::Error,
    },
}

impl HttpTransport {
    /// Returns a transport that trusts the platform's roots and allows every address.
    ///
    /// # Errors
    /// [`HttpTransportError::Tls`] when the platform has no root certificates, and
    /// [`HttpTransportError::Client`] when the HTTP client refuses its settings, which are fixed.
    pub fn new() -> Result<Self, HttpTransportError> {
        Self::builder().build()
    }

    /// Returns a builder, to set what differs from [`new`](Self::new).
    pub fn builder() -> Builder {
        Builder { policy: Arc::new(AllowAll), extra_roots: Vec::new() }
    }

    async fn exchange(&self, request: Request) -> Result<Response, TransportError> {
        let Request { url, headers, body, .. } = request;
        // Put together by hand: a builder would copy the headers one by one.
        let mut post = reqwest::Request::new(Method::POST, url.as_url().clone());
        *post.headers_mut() = headers;
        *post.body_mut() = Some(body.into());
        let mut response = self.client.execute(post).await.map_err(exchange_failed)?;
        let (status, headers) = (response.status().as_u16(), take(response.headers_mut()));
        let body = body::read(response).await.map_err(body_failed)?;
        Ok(Response { status, headers, body })
    }
}

impl Transport for HttpTransport {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        check_literal(&*self.policy, &request.url)
            .map_err(|blocked| TransportError::new(ErrorClass::Blocked).caused_by(blocked))?;
        match tokio::time::timeout(request.timeout, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(TransportError::new(ErrorClass::Timeout)),
        }
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Sets up an [`HttpTransport`].
///
/// # Example
/// ```
/// use std::net::IpAddr;
/// use webhooks_http::{AddressPolicy, Blocked, HttpTransport};
///
/// /// Keeps deliveries off this machine.
/// #[derive(Debug)]
/// struct NoLoopback;
///
/// impl AddressPolicy for NoLoopback {
///     fn check(&self, address: IpAddr) -> Result<(), Blocked> {
///         // On Linux, 0.0.0.0 leads to this machine too.
///         let is_local = address.is_loopback() || address.is_unspecified();
///         if is_local { Err(Blocked { address }) } else { Ok(()) }
///     }
/// }
///
/// let transport = HttpTransport::builder().address_policy(NoLoopback).build()?;
/// # Ok::<(), webhooks_http::HttpTransportError>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct Builder {
    policy: Arc<dyn AddressPolicy>,
    extra_roots: Vec<CertificateDer<'static>>,
}

impl Builder {
    /// Sets which addresses requests may go to.
    pub fn address_policy(self, policy: impl AddressPolicy) -> Self {
        Self { policy: Arc::new(policy), ..self }
    }

    /// Trusts a root certificate (DER) beside those of the platform.
    pub fn extra_root(mut self, der: Vec<u8>) -> Self {
        self.extra_roots.push(der.into());
        self
    }

    /// Sets the transport up.
    ///
    /// # Errors
    /// [`HttpTransportError::Tls`] when an extra root is malformed or there are no roots at all, and
    /// [`HttpTransportError::Client`] when the HTTP client refuses its settings, which are fixed.
    pub fn build(self) -> Result<HttpTransport, HttpTransportError> {
        let Self { policy, extra_roots } = self;
        let tls = tls_config(extra_roots).map_err(|source| HttpTransportError::Tls { source })?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::new(PolicedResolver { policy: Arc::clone(&policy) }))
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .build()
            .map_err(|source| HttpTransportError::Client { source })?;
        Ok(HttpTransport { client, policy })
    }
}

fn tls_config(roots: Vec<CertificateDer<'static>>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous() // rustls' word for a verifier of one's own; this one checks everything
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
