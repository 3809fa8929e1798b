//! The HTTP clients: one for all endpoints, and one for each endpoint with its own TLS settings.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use moka::sync::Cache;
use reqwest::{Body, Response, redirect};
use rustls::ClientConfig;
use webhooks_dispatch::transport::{ErrorClass, TransportError};
use webhooks_registry::{EndpointUrl, auth::EndpointTls};

use crate::body::RequestBody;
use crate::connect_timeout::ConnectTimeout;
use crate::outcome::{BoxError, Stage, Unprocessed, failed, unprocessed};
use crate::proxy::{Proxy, ProxyConnector};
use crate::resolve::Resolver;
use crate::tls::{Peer, Tls, TlsError};

/// The maximum number of clients with their own TLS settings. Each has connections of its own.
const MAX_CLIENTS: u64 = 1024;

/// The time without an exchange after which such a client is dropped.
const CLIENT_IDLE: Duration = Duration::from_secs(600);

/// The protocols that TLS negotiates, the best first (RFC 7301 §6).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The maximum size of the headers of an HTTP/2 response, in bytes.
const MAX_RESPONSE_HEADERS: u32 = 64 * 1024;

/// The window of an HTTP/2 connection in bytes, which limits how much of its responses is in memory.
const WINDOW: u32 = 64 * 1024;

/// The time after which a silent HTTP/2 connection with requests on it gets a ping, and the time in which
/// it must answer.
const PING: Duration = Duration::from_secs(10);

/// The maximum number of times that a request is sent again because its connection ended. Most receivers
/// take 100 requests or more over a connection before they end it, so a request meets several ends in a
/// row only if many more than that are in flight.
const MAX_ENDS: u32 = 16;

/// The maximum number of times that a request is sent again because its stream was refused. A new connection
/// may carry more streams than the receiver allows until its settings have arrived. If the receiver
/// refuses more often, the next attempt repeats the request.
const MAX_REFUSALS: u32 = 2;

/// How long a request waits before it is sent again after its stream was refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// The settings of all clients.
#[derive(Clone)]
pub(crate) struct ClientSettings {
    pub(crate) tls: Tls,
    pub(crate) resolver: Resolver,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) agent: HeaderValue,
    pub(crate) limits: Limits,
}

/// The limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_idle_per_host: usize,
}

type ProxiedClient = legacy::Client<ConnectTimeout<HttpsConnector<ProxyConnector>>, RequestBody>;

/// The clients, by the TLS settings of the endpoint.
pub(crate) struct Clients {
    settings: ClientSettings,
    common: Arc<Client>,
    special: Cache<(Arc<EndpointTls>, Peer), Arc<Client>>,
}

/// One pool of connections with the same TLS settings.
pub(crate) struct Client {
    kind: Kind,
    agent: HeaderValue,
    resolver: Resolver,
}

enum Kind {
    Direct(reqwest::Client),
    Proxied(Box<ProxiedClient>),
}

impl Clients {
    /// # Errors
    /// The HTTP client's, when it refuses the settings.
    pub(crate) fn new(settings: ClientSettings) -> Result<Self, ClientError> {
        let common = Arc::new(settings.client(None, Peer::Endpoint)?);
        let special = Cache::builder().max_capacity(MAX_CLIENTS).time_to_idle(CLIENT_IDLE).build();
        Ok(Self { settings, common, special })
    }

    /// Returns the client for an endpoint with these TLS settings, or for its token server. Without own TLS
    /// settings it is the common client. Otherwise the endpoint and its token server have a client each,
    /// since connections are never shared between different settings.
    pub(crate) fn get(
        &self,
        tls: Option<&Arc<EndpointTls>>,
        peer: Peer,
    ) -> Result<Arc<Client>, TransportError> {
        let Some(tls) = tls else { return Ok(Arc::clone(&self.common)) };
        self.special
            .try_get_with((Arc::clone(tls), peer), || {
                self.settings.client(Some(tls), peer).map(Arc::new)
            })
            .map_err(|error| TransportError::new(ErrorClass::Tls).caused_by(error))
    }

    /// Checks whether a client can be made for an endpoint with these TLS settings.
    pub(crate) fn check(&self, tls: &EndpointTls) -> Result<(), TransportError> {
        let checked = self.settings.tls.config(Some(tls), Peer::Endpoint).map(drop);
        checked.map_err(|error| TransportError::new(ErrorClass::Tls).caused_by(error))
    }
}

/// The reason why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("the HTTP client refused its settings")]
    Http(#[from] reqwest::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl ClientSettings {
    fn client(&self, tls: Option<&EndpointTls>, peer: Peer) -> Result<Client, ClientError> {
        let config = self.tls.config(tls, peer)?;
        let kind = match &self.proxy {
            None => Kind::Direct(self.direct(config)?),
            Some(proxy) => Kind::Proxied(Box::new(self.proxied(config, proxy))),
        };
        Ok(Client { kind, agent: self.agent.clone(), resolver: self.resolver.clone() })
    }

    fn direct(&self, mut config: ClientConfig) -> Result<reqwest::Client, reqwest::Error> {
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .dns_resolver(Arc::new(self.resolver.clone()))
            // One call is one request: a redirect would be a second one, to a URL that the policy has not
            // checked. Without redirects there is no use for a `referer` either.
            .redirect(redirect::Policy::none())
            // `Client::post` decides about repeats; a client that never repeats needs no copy of the request.
            .retry(reqwest::retry::never().max_retries_per_request(0))
            .referer(false)
            .no_proxy()
            // Another crate of the same program may have turned these features on.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(self.limits.connect_timeout)
            .pool_idle_timeout(self.limits.idle_timeout)
            .pool_max_idle_per_host(self.limits.max_idle_per_host)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http1_ignore_invalid_headers_in_responses(true)
            .http2_max_header_list_size(MAX_RESPONSE_HEADERS)
            .http2_initial_stream_window_size(WINDOW)
            .http2_initial_connection_window_size(WINDOW)
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(PING)
            .build()
    }

    /// `reqwest` has no way to set the connector, and would let the proxy resolve names.
    fn proxied(&self, config: ClientConfig, proxy: &Proxy) -> ProxiedClient {
        let by_address =
            ProxyConnector::new(proxy, self.resolver.clone(), self.limits.connect_timeout);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(by_address);
        legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.limits.idle_timeout)
            .pool_max_idle_per_host(self.limits.max_idle_per_host)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http1_ignore_invalid_headers_in_responses(true)
            .http2_max_header_list_size(MAX_RESPONSE_HEADERS)
            .http2_initial_stream_window_size(WINDOW)
            .http2_initial_connection_window_size(WINDOW)
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(PING)
            .build(ConnectTimeout::new(connector, self.limits.connect_timeout))
    }
}

/// A failure without a response. `connecting`: there was no connection yet. `was_read`: the client has taken
/// some of the body.
struct Failure {
    error: BoxError,
    connecting: bool,
    was_read: bool,
}

impl Client {
    /// Posts a body, and returns the response once its head has arrived.
    ///
    /// The request is sent again only if no receiver can have acted upon it. If the receiver ended the
    /// connection, the request then gets a new one.
    #[expect(clippy::disallowed_methods, reason = "the deadline goes by the same clock")]
    pub(crate) async fn post(
        &self,
        url: &EndpointUrl,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, TransportError> {
        headers.entry(USER_AGENT).or_insert_with(|| self.agent.clone());
        // For sending again. A list costs less than a copy of the map, and the client gets the map that has
        // room for its own headers.
        let copy: Vec<_> =
            headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let (mut ends, mut refusals) = (0, 0);
        loop {
            let failure = match self.post_once(url, headers, body.clone()).await? {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            match unprocessed(&*failure.error, failure.was_read) {
                Some(Unprocessed::Ended) if ends < MAX_ENDS => ends += 1,
                Some(Unprocessed::Refused) if refusals < MAX_REFUSALS => {
                    refusals += 1;
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                _ => return Err(self.failed(url, failure)),
            }
            headers = copy.iter().cloned().collect();
        }
    }

    fn failed(&self, url: &EndpointUrl, failure: Failure) -> TransportError {
        let stage = if failure.connecting {
            let by_tls = url.as_url().scheme() == "https";
            Stage::Connecting { to: self.resolver.public_addresses(url), by_tls }
        } else {
            Stage::Exchanging
        };
        failed(failure.error, &stage)
    }

    async fn post_once(
        &self,
        url: &EndpointUrl,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Result<Response, Failure>, TransportError> {
        let (body, was_read) = RequestBody::new(body);
        let failure = |error, connecting| Failure {
            error,
            connecting,
            was_read: was_read.load(Ordering::Acquire),
        };
        Ok(match &self.kind {
            Kind::Direct(client) => {
                // Built by hand, because the builder of reqwest copies the headers one by one.
                let mut post = reqwest::Request::new(Method::POST, url.as_url().clone());
                *post.headers_mut() = headers;
                *post.body_mut() = Some(Body::wrap(body));
                client.execute(post).await.map_err(|error| {
                    let connecting = error.is_connect();
                    failure(error.without_url().into(), connecting)
                })
            }
            Kind::Proxied(client) => {
                let sent = client.request(post(url, headers, body)?).await;
                sent.map(|response| response.map(Body::wrap).into()).map_err(|error| {
                    let connecting = error.is_connect();
                    failure(error.into(), connecting)
                })
            }
        })
    }
}

fn post(
    url: &EndpointUrl,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<http::Request<RequestBody>, TransportError> {
    let uri: Result<Uri, _> = url.as_str().parse();
    let mut post = http::Request::new(body);
    *post.method_mut() = Method::POST;
    *post.uri_mut() =
        uri.map_err(|error| TransportError::new(ErrorClass::Other).caused_by(error))?;
    *post.headers_mut() = headers;
    Ok(post)
}
