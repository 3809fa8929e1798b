//! The transport: one request, one response, one deadline.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use webhooks_dispatch::transport::{ErrorClass, Request, Response, Transport, TransportError};
use webhooks_registry::{Endpoint, EndpointUrl, auth::ClientCredentials};

use crate::body;
use crate::client::Clients;
use crate::credentials::{MAX_TOKEN_ANSWER, Owner, TokenError, Tokens, token_request};
use crate::hosts::Hosts;
use crate::outcome::body_failed;
use crate::resolve::{ResolveError, is_asking, watched};
use crate::tls::Peer;
use crate::{AddressPolicy, HttpTransportBuilder, Refusal};

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
    pub(crate) max_response_body: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) slot_wait: Duration,
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

    pub(crate) fn of(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    async fn exchange(&self, request: Request) -> Result<Response, TransportError> {
        let begun = Instant::now();
        let Request { url, mut headers, body, client_credentials, tls, timeout: time } = request;
        let shared = &*self.shared;
        let client = shared.clients.get(tls.as_ref(), Peer::Endpoint)?;
        let mut used = None;
        if let Some(credentials) = client_credentials {
            let owner = (credentials, tls);
            // On the heap: it would make every exchange larger by half.
            let token = timeout(time, Box::pin(self.token(&owner, time))).await;
            let token = token.map_err(|_late| TokenError::Late)??;
            headers.insert(AUTHORIZATION, token.clone());
            used = Some((owner, token));
        }
        let time = time.saturating_sub(begun.elapsed());
        // The endpoint's time stands still here: what takes it is others' exchanges.
        let _slot = self.slot(&url, shared.slot_wait).await?;
        let begun = Instant::now();
        let answered = timeout(time, client.post(&url, headers, body));
        let response = answered.await.map_err(|_late| late())??;
        let (head, body) = response.into_parts();
        let status = head.status.as_u16();
        if let (401, Some((owner, token))) = (status, &used) {
            shared.tokens.forget(owner, token).await;
        }
        // The status alone says what became of the event: a body that breaks off or never ends is
        // no reason to send it again.
        let time = shared.body_timeout.min(time.saturating_sub(begun.elapsed()));
        let mut kept = BytesMut::new();
        let _all = timeout(time, body::read(body, shared.max_response_body, &mut kept)).await;
        Ok(Response { status, headers: head.headers, body: kept.freeze() })
    }

    /// Waits for one of a host's slots.
    async fn slot(
        &self,
        url: &EndpointUrl,
        patience: Duration,
    ) -> Result<OwnedSemaphorePermit, TransportError> {
        let slot = timeout(patience, self.shared.hosts.slot(url.as_url())).await;
        slot.map_err(|_late| TransportError::new(ErrorClass::Busy))
    }

    /// Returns a token, fetched if need be, while `time` lasts.
    async fn token(&self, owner: &Owner, time: Duration) -> Result<HeaderValue, TransportError> {
        let (credentials, tls) = owner;
        let (shared, url) = (&*self.shared, &credentials.token_url);
        let exchange = async || {
            self.check_token_url(url)?;
            let (headers, form) = token_request(credentials);
            let client = shared.clients.get(tls.as_ref(), Peer::TokenServer)?;
            // Half of the time, so that it is told from a server that does not answer.
            let _slot = self.slot(url, shared.slot_wait.min(time / 2)).await?;
            let (head, body) = client.post(url, headers, form).await?.into_parts();
            let mut kept = BytesMut::new();
            let read = body::read(body, MAX_TOKEN_ANSWER, &mut kept).await;
            read.map_err(|error| body_failed(error.into()))?;
            let (status, headers) = (head.status.as_u16(), head.headers);
            Ok(Response { status, headers, body: kept.freeze() })
        };
        shared.tokens.header(owner, exchange).await
    }

    /// A client's secret goes out over TLS alone (RFC 6749 §3.2), except to a developer's own machine.
    fn check_token_url(&self, url: &EndpointUrl) -> Result<(), TransportError> {
        self.check_url(url)?;
        self.check_clear(url, Refusal::Scheme)
    }

    /// What lets us in goes out over TLS alone as well (RFC 6750 §5.3, RFC 7617 §4).
    fn check_access(
        &self,
        url: &EndpointUrl,
        headers: &HeaderMap,
        credentials: Option<&Arc<ClientCredentials>>,
    ) -> Result<(), TransportError> {
        self.check_url(url)?;
        if credentials.is_none() && !headers.iter().any(is_secret) {
            return Ok(());
        }
        self.check_clear(url, Refusal::Credentials)
    }

    fn check_clear(&self, url: &EndpointUrl, refusal: Refusal) -> Result<(), TransportError> {
        if self.shared.policy.is_private(url) {
            return Ok(());
        }
        Err(TransportError::new(ErrorClass::Blocked).caused_by(refusal))
    }

    fn check_url(&self, url: &EndpointUrl) -> Result<(), TransportError> {
        (self.shared.policy.check(url))
            .map_err(|refusal| TransportError::new(ErrorClass::Blocked).caused_by(refusal))
    }
}

/// Returns whether a header is kept like a secret: those of an endpoint's own are marked so. A few of
/// them are never secrets.
fn is_secret((name, value): (&HeaderName, &HeaderValue)) -> bool {
    value.is_sensitive() && ![ACCEPT, CONTENT_TYPE, USER_AGENT].contains(name)
}

/// Returns what it means that the time is over.
fn late() -> TransportError {
    if is_asking() {
        TransportError::new(ErrorClass::Dns).caused_by(ResolveError::Late)
    } else {
        TransportError::new(ErrorClass::Timeout)
    }
}

impl Transport for HttpTransport {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let Request { url, headers, client_credentials, .. } = &request;
        self.check_access(url, headers, client_credentials.as_ref())?;
        watched(self.exchange(request)).await
    }

    fn longest_wait(&self) -> Duration {
        self.shared.slot_wait
    }

    fn check(&self, endpoint: &Endpoint) -> Result<(), TransportError> {
        let credentials = endpoint.client_credentials.as_ref();
        self.check_access(&endpoint.url, endpoint.headers(), credentials)?;
        if let Some(credentials) = &endpoint.client_credentials {
            self.check_token_url(&credentials.token_url)?;
        }
        endpoint.tls.as_deref().map_or(Ok(()), |tls| self.shared.clients.check(tls))
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("policy", &self.shared.policy).finish_non_exhaustive()
    }
}
