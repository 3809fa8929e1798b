//! The transport: one request, one response, one deadline.

use std::fmt;
use std::mem::take;
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
use crate::host_limits::HostLimits;
use crate::outcome::body_failed;
use crate::policy::{AddressPolicy, Refusal};
use crate::resolve::{ResolveError, is_asking, watched};
use crate::tls::Peer;

/// Sends requests over HTTP. It is cheap to clone; all clones share one pool of connections.
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
    inner: Arc<TransportInner>,
}

/// The parts that all clones share.
pub(crate) struct TransportInner {
    pub(crate) policy: Arc<AddressPolicy>,
    pub(crate) clients: Clients,
    pub(crate) host_limits: HostLimits,
    pub(crate) tokens: Tokens,
    pub(crate) max_response_body: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) slot_wait: Duration,
}

impl HttpTransport {
    pub(crate) fn of(inner: TransportInner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    async fn exchange(&self, request: Request) -> Result<Response, TransportError> {
        let begun = Instant::now();
        let Request { url, mut headers, body, client_credentials, tls, timeout: time } = request;
        let inner = &*self.inner;
        let client = inner.clients.get(tls.as_ref(), Peer::Endpoint)?;
        let mut used = None;
        if let Some(credentials) = client_credentials {
            let owner = (credentials, tls);
            // On the heap, because it would make the future of every exchange larger by half.
            let token = timeout(time, Box::pin(self.token(&owner, time))).await;
            let token = token.map_err(|_late| TokenError::Late)??;
            headers.insert(AUTHORIZATION, token.clone());
            used = Some((owner, token));
        }
        let time = time.saturating_sub(begun.elapsed());
        // The wait for a slot does not count for the endpoint's timeout, since other exchanges cause it.
        let _slot = self.slot(&url, inner.slot_wait).await?;
        let begun = Instant::now();
        let answered = timeout(time, client.post(&url, headers, body));
        let mut response = answered.await.map_err(|_late| late())??;
        let status = response.status().as_u16();
        let headers = take(response.headers_mut());
        if let (401, Some((owner, token))) = (status, &used) {
            inner.tokens.forget(owner, token).await;
        }
        // The status alone decides about the event: a body that breaks off or never ends is no reason to
        // send the event again.
        let time = inner.body_timeout.min(time.saturating_sub(begun.elapsed()));
        let mut kept = BytesMut::new();
        let _all = timeout(time, body::read(response, inner.max_response_body, &mut kept)).await;
        Ok(Response { status, headers, body: kept.freeze() })
    }

    /// Waits for a slot of the URL's host, for `wait` at most.
    async fn slot(
        &self,
        url: &EndpointUrl,
        wait: Duration,
    ) -> Result<OwnedSemaphorePermit, TransportError> {
        let (limits, url) = (&self.inner.host_limits, url.as_url());
        if let Some(slot) = limits.free_slot(url) {
            return Ok(slot);
        }
        let slot = timeout(wait, limits.slot(url)).await;
        slot.map_err(|_late| TransportError::new(ErrorClass::Busy))
    }

    /// Returns the token for an endpoint, from the cache or from its token server. `time` is the time that the
    /// exchange has for it.
    async fn token(&self, owner: &Owner, time: Duration) -> Result<HeaderValue, TransportError> {
        let (credentials, tls) = owner;
        let (inner, url) = (&*self.inner, &credentials.token_url);
        let exchange = async || {
            self.check_token_url(url)?;
            let (headers, form) = token_request(credentials);
            let client = inner.clients.get(tls.as_ref(), Peer::TokenServer)?;
            // Half of the time, so that a busy host and a server that does not answer are different errors.
            let _slot = self.slot(url, inner.slot_wait.min(time / 2)).await?;
            let mut response = client.post(url, headers, form).await?;
            let (status, headers) = (response.status().as_u16(), take(response.headers_mut()));
            let mut kept = BytesMut::new();
            let read = body::read(response, MAX_TOKEN_ANSWER, &mut kept).await;
            read.map_err(|error| body_failed(error.into()))?;
            Ok(Response { status, headers, body: kept.freeze() })
        };
        inner.tokens.header(owner, exchange).await
    }

    /// Allows a token server only over TLS, since it gets the client secret (RFC 6749 §3.2), except on this
    /// machine in development.
    fn check_token_url(&self, url: &EndpointUrl) -> Result<(), TransportError> {
        self.check_url(url)?;
        self.check_clear(url, Refusal::Scheme)
    }

    /// Allows credentials and secret headers only over TLS (RFC 6750 §5.3, RFC 7617 §4).
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
        if self.inner.policy.is_private(url) {
            return Ok(());
        }
        Err(TransportError::new(ErrorClass::Blocked).caused_by(refusal))
    }

    fn check_url(&self, url: &EndpointUrl) -> Result<(), TransportError> {
        (self.inner.policy.check(url))
            .map_err(|refusal| TransportError::new(ErrorClass::Blocked).caused_by(refusal))
    }
}

/// Returns whether a header may be a secret. Custom headers of an endpoint are marked as sensitive; a few
/// names are never secrets.
fn is_secret((name, value): (&HeaderName, &HeaderValue)) -> bool {
    value.is_sensitive() && ![ACCEPT, CONTENT_TYPE, USER_AGENT].contains(name)
}

/// Returns the error for an exchange whose time is over.
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
        self.inner.slot_wait
    }

    fn check(&self, endpoint: &Endpoint) -> Result<(), TransportError> {
        let credentials = endpoint.client_credentials.as_ref();
        self.check_access(&endpoint.url, endpoint.headers(), credentials)?;
        if let Some(credentials) = &endpoint.client_credentials {
            self.check_token_url(&credentials.token_url)?;
        }
        endpoint.tls.as_deref().map_or(Ok(()), |tls| self.inner.clients.check(tls))
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("policy", &self.inner.policy).finish_non_exhaustive()
    }
}
