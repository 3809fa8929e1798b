//! The transport: one request, one response, one deadline.

use std::fmt;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use thiserror::Error;
use webhooks_dispatch::{ErrorClass, Request, Response, Transport, TransportError};
use webhooks_registry::{ClientCredentials, Endpoint, EndpointUrl};

use crate::client::Clients;
use crate::credentials::{Tokens, token_request};
use crate::hosts::Hosts;
use crate::{AddressPolicy, Builder};

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
    shared: Arc<Shared>,
}

/// What all clones share.
pub(crate) struct Shared {
    pub(crate) policy: Arc<AddressPolicy>,
    pub(crate) clients: Clients,
    pub(crate) hosts: Hosts,
    pub(crate) tokens: Tokens,
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
    /// The name servers cannot be asked.
    #[error("cannot set up the resolver of host names")]
    Dns {
        /// What the resolver said.
        source: std::io::Error,
    },
    /// TLS could not be set up: a root is malformed, or the platform has none.
    #[error("cannot set up TLS; on Linux, install the package ca-certificates")]
    Tls {
        /// What the TLS library said.
        source: rustls::Error,
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
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn of(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    async fn exchange(&self, request: Request) -> Result<Response, TransportError> {
        let Request { url, mut headers, body, client_credentials, tls, .. } = request;
        let client = self.shared.clients.get(tls.as_ref())?;
        if let Some(credentials) = &client_credentials {
            headers.insert(AUTHORIZATION, Box::pin(self.token(credentials)).await?);
        }
        let _slot = self.shared.hosts.slot(url.as_url()).await;
        let response = client.post(&url, headers, body).await?;
        if response.status == 401
            && let Some(credentials) = &client_credentials
        {
            self.shared.tokens.forget(credentials).await;
        }
        Ok(response)
    }

    async fn token(
        &self,
        credentials: &Arc<ClientCredentials>,
    ) -> Result<http::HeaderValue, TransportError> {
        let exchange = async || {
            self.check_url(&credentials.token_url)?;
            let (headers, form) = token_request(credentials);
            self.shared.clients.get(None)?.post(&credentials.token_url, headers, form).await
        };
        Box::pin(self.shared.tokens.header(credentials, exchange)).await
    }

    fn check_url(&self, url: &EndpointUrl) -> Result<(), TransportError> {
        (self.shared.policy.check(url))
            .map_err(|refusal| TransportError::new(ErrorClass::Blocked).caused_by(refusal))
    }
}

impl Transport for HttpTransport {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        self.check_url(&request.url)?;
        match tokio::time::timeout(request.timeout, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(TransportError::new(ErrorClass::Timeout)),
        }
    }

    fn check(&self, endpoint: &Endpoint) -> Result<(), TransportError> {
        self.check_url(&endpoint.url)?;
        if let Some(credentials) = &endpoint.client_credentials {
            self.check_url(&credentials.token_url)?;
        }
        self.shared.clients.check(endpoint.tls.as_deref())
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("policy", &self.shared.policy).finish_non_exhaustive()
    }
}
