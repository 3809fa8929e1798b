//! Tokens that endpoints ask for: OAuth 2.0, client credentials (RFC 6749 §4.4).

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use moka::Expiry;
use moka::future::Cache;
use serde::Deserialize;
use thiserror::Error;
use url::form_urlencoded::{Serializer, byte_serialize};
use webhooks_dispatch::{ErrorClass, Response, TransportError};
use webhooks_registry::ClientCredentials;
use zeroize::Zeroizing;

/// How many tokens are kept.
const MAX_TOKENS: u64 = 4096;

/// How much of the answer to the request for a token is read, in bytes.
pub(crate) const MAX_TOKEN_ANSWER: usize = 64 * 1024;

/// How long before its end a token is replaced, so that it does not end on the way.
const MARGIN: Duration = Duration::from_secs(30);

/// How long a token is kept whose end was not told.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// How long a token is kept at most.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Keeps tokens while they are valid; of those who need the same one, one fetches it.
#[derive(Debug, Clone)]
pub(crate) struct Tokens(Cache<Arc<ClientCredentials>, Token>);

/// What goes into the header, and for how long.
#[derive(Debug, Clone)]
struct Token {
    value: HeaderValue,
    life: Duration,
}

/// A successful answer (RFC 6749 §5.1).
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
}

/// Says why there is no token. It shows nothing of what was answered.
#[derive(Debug, Clone, Error)]
pub(crate) enum TokenError {
    #[error("the token server answered {status}")]
    Status { status: u16 },
    #[error("the token server's answer is not a bearer token")]
    Unusable,
    #[error("cannot ask the token server")]
    Exchange(#[source] Arc<TransportError>),
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(MAX_TOKENS).expire_after(UntilItsEnd).build())
    }

    /// Returns the header by which an endpoint lets us in, fetching the token by `exchange` if
    /// there is none.
    pub(crate) async fn header<F>(
        &self,
        credentials: &Arc<ClientCredentials>,
        exchange: impl FnOnce() -> F,
    ) -> Result<HeaderValue, TransportError>
    where
        F: Future<Output = Result<Response, TransportError>>,
    {
        let fetched = async { exchange().await.map_err(|e| TokenError::Exchange(Arc::new(e))) };
        let token =
            self.0.try_get_with(Arc::clone(credentials), async { granted(&fetched.await?) });
        match token.await {
            Ok(token) => Ok(token.value),
            Err(error) => {
                // What is blocked stays so: trying again does not help.
                let class = match &*error {
                    TokenError::Exchange(failed) if failed.class == ErrorClass::Blocked => {
                        ErrorClass::Blocked
                    }
                    _ => ErrorClass::Authorization,
                };
                Err(TransportError::new(class).caused_by((*error).clone()))
            }
        }
    }

    /// Forgets a token that an endpoint refused, unless another one has taken its place.
    pub(crate) async fn forget(&self, credentials: &Arc<ClientCredentials>, refused: &HeaderValue) {
        if self.0.get(credentials).await.is_some_and(|token| token.value == refused) {
            self.0.invalidate(credentials).await;
        }
    }
}

/// Returns headers and body of the request for a token (RFC 6749 §4.4.2 and §2.3.1).
pub(crate) fn token_request(credentials: &ClientCredentials) -> (HeaderMap, Bytes) {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let id = encoded(&credentials.client_id);
    let secret = Zeroizing::new(encoded(credentials.dangerous_client_secret()));
    let headers = HeaderMap::from_iter([
        (AUTHORIZATION, basic(&id, &secret)),
        (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        (ACCEPT, HeaderValue::from_static("application/json")),
    ]);
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    for (name, value) in [("scope", &credentials.scope), ("audience", &credentials.audience)] {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    (headers, form.finish().into())
}

/// Returns the value of an `Authorization` header by user name and password (RFC 7617 §2).
#[expect(clippy::expect_used, reason = "base64 is made of characters that headers may hold")]
pub(crate) fn basic(user: &str, password: &str) -> HeaderValue {
    let pair = Zeroizing::new(format!("{user}:{password}"));
    let value = Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair)));
    let mut value = HeaderValue::try_from(&**value).expect("base64 fits into a header");
    value.set_sensitive(true);
    value
}

fn granted(response: &Response) -> Result<Token, TokenError> {
    if response.status != 200 {
        return Err(TokenError::Status { status: response.status });
    }
    let granted: Granted =
        serde_json::from_slice(&response.body).map_err(|_shows_the_token| TokenError::Unusable)?;
    if !granted.token_type.eq_ignore_ascii_case("bearer") {
        return Err(TokenError::Unusable);
    }
    let value = Zeroizing::new(format!("Bearer {}", granted.access_token));
    let mut value =
        HeaderValue::try_from(&**value).map_err(|_shows_the_token| TokenError::Unusable)?;
    value.set_sensitive(true);
    let life = granted.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
    Ok(Token { value, life: life.min(MAX_LIFE).saturating_sub(MARGIN) })
}

struct UntilItsEnd;

impl Expiry<Arc<ClientCredentials>, Token> for UntilItsEnd {
    fn expire_after_create(
        &self,
        _: &Arc<ClientCredentials>,
        token: &Token,
        _: Instant,
    ) -> Option<Duration> {
        Some(token.life)
    }
}
