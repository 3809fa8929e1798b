//! The HTTP clients: one for all endpoints, and one for each that has a TLS of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use moka::sync::Cache;
use reqwest::redirect;
use rustls::ClientConfig;
use webhooks_dispatch::{ErrorClass, Response, TransportError};
use webhooks_registry::{EndpointTls, EndpointUrl};

use crate::body;
use crate::outcome::{Stage, body_failed, failed, is_unresolved};
use crate::proxy::{ByAddress, Proxy};
use crate::resolve::Resolver;
use crate::tls::{Tls, TlsError};

/// What requests call themselves.
const AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// How many clients with a TLS of their own are kept: each has connections of its own.
const MAX_CLIENTS: u64 = 1024;

/// How long such a client is kept without an exchange.
const CLIENT_IDLE: Duration = Duration::from_secs(600);

/// The protocols that TLS negotiates, the best first (RFC 7301 §6).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What all clients have in common.
#[derive(Clone)]
pub(crate) struct ClientSettings {
    pub(crate) tls: Tls,
    pub(crate) resolver: Resolver,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) limits: Limits,
}

/// What bounds an exchange and its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_idle_per_host: usize,
    pub(crate) max_response_body: usize,
    pub(crate) max_response_headers: u32,
}

type ProxiedClient = legacy::Client<HttpsConnector<ByAddress>, Full<Bytes>>;

/// Hands out the client for an endpoint.
pub(crate) struct Clients {
    settings: ClientSettings,
    common: Arc<Client>,
    special: Cache<Arc<EndpointTls>, Arc<Client>>,
}

/// One pool of connections, whose TLS is the same.
pub(crate) enum Client {
    Direct { client: reqwest::Client, resolver: Resolver, limits: Limits },
    Proxied { client: Box<ProxiedClient>, limits: Limits },
}

impl Clients {
    /// # Errors
    /// The HTTP client's, when it refuses the settings.
    pub(crate) fn new(settings: ClientSettings) -> Result<Self, ClientError> {
        let common = Arc::new(settings.client(None)?);
        let special = Cache::builder().max_capacity(MAX_CLIENTS).time_to_idle(CLIENT_IDLE).build();
        Ok(Self { settings, common, special })
    }

    /// Returns the client for an endpoint with this TLS, which needs one of its own if it is not
    /// that of all: connections are never shared between them.
    pub(crate) fn get(
        &self,
        tls: Option<&Arc<EndpointTls>>,
    ) -> Result<Arc<Client>, TransportError> {
        let Some(tls) = tls else { return Ok(Arc::clone(&self.common)) };
        self.special
            .try_get_with(Arc::clone(tls), || self.settings.client(Some(tls)).map(Arc::new))
            .map_err(|error| TransportError::new(ErrorClass::Tls).caused_by(error))
    }

    /// Says whether a client can be made for an endpoint with this TLS.
    pub(crate) fn check(&self, tls: Option<&EndpointTls>) -> Result<(), TransportError> {
        let checked = self.settings.tls.config(tls).map(drop);
        checked.map_err(|error| TransportError::new(ErrorClass::Tls).caused_by(error))
    }
}

/// Says why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("the HTTP client refused its settings")]
    Http(#[from] reqwest::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl ClientSettings {
    fn client(&self, tls: Option<&EndpointTls>) -> Result<Client, ClientError> {
        let (config, limits) = (self.tls.config(tls)?, self.limits);
        Ok(match &self.proxy {
            None => {
                let resolver = self.resolver.clone();
                Client::Direct { client: self.direct(config)?, resolver, limits }
            }
            Some(proxy) => {
                Client::Proxied { client: Box::new(self.proxied(config, proxy)), limits }
            }
        })
    }

    fn direct(&self, mut config: ClientConfig) -> Result<reqwest::Client, reqwest::Error> {
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .dns_resolver(Arc::new(self.resolver.clone()))
            .user_agent(AGENT)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .connect_timeout(self.limits.connect_timeout)
            .pool_idle_timeout(self.limits.idle_timeout)
            .pool_max_idle_per_host(self.limits.max_idle_per_host)
            .http2_max_header_list_size(self.limits.max_response_headers)
            .build()
    }

    /// The other client cannot be told how to connect, and would leave names to the proxy.
    fn proxied(&self, config: ClientConfig, proxy: &Proxy) -> ProxiedClient {
        let by_address = ByAddress::new(proxy, self.resolver.clone(), self.limits.connect_timeout);
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
            .http2_max_header_list_size(self.limits.max_response_headers)
            .build(connector)
    }
}

impl Client {
    /// Posts a body, and returns what was answered.
    pub(crate) async fn post(
        &self,
        url: &EndpointUrl,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, TransportError> {
        match self {
            Self::Direct { client, resolver, limits } => {
                // Put together by hand: a builder would copy the headers one by one.
                let mut post = reqwest::Request::new(Method::POST, url.as_url().clone());
                *post.headers_mut() = headers;
                *post.body_mut() = Some(body.into());
                let response = match client.execute(post).await {
                    Ok(response) => http::Response::from(response),
                    Err(error) if error.is_connect() => {
                        let to = if is_unresolved(&error) {
                            None
                        } else {
                            resolver.known_addresses(url).await
                        };
                        return Err(failed(error.without_url().into(), &Stage::Connecting { to }));
                    }
                    Err(error) => {
                        return Err(failed(error.without_url().into(), &Stage::Exchanging));
                    }
                };
                read(response, limits.max_response_body).await
            }
            Self::Proxied { client, limits } => {
                let response =
                    client.request(post(url, headers, body)?).await.map_err(|error| {
                        let connecting = Stage::Connecting { to: None };
                        let stage = if error.is_connect() { connecting } else { Stage::Exchanging };
                        failed(error.into(), &stage)
                    })?;
                read(response, limits.max_response_body).await
            }
        }
    }
}

fn post(
    url: &EndpointUrl,
    mut headers: HeaderMap,
    body: Bytes,
) -> Result<http::Request<Full<Bytes>>, TransportError> {
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    let uri: Result<Uri, _> = url.as_str().parse();
    let mut post = http::Request::new(Full::new(body));
    *post.method_mut() = Method::POST;
    *post.uri_mut() =
        uri.map_err(|error| TransportError::new(ErrorClass::Other).caused_by(error))?;
    *post.headers_mut() = headers;
    Ok(post)
}

async fn read<B>(response: http::Response<B>, max: usize) -> Result<Response, TransportError>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let (head, body) = response.into_parts();
    let body = body::read(body, max).await.map_err(|error| body_failed(error.into()))?;
    Ok(Response { status: head.status.as_u16(), headers: head.headers, body })
}
