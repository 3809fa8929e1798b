//! Tokens for endpoints: OAuth 2.0, client credentials (RFC 6749 §4.4).

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
use serde_json::Value;
use thiserror::Error;
use url::form_urlencoded::{Serializer, byte_serialize};
use webhooks_dispatch::transport::{ErrorClass, Response, TransportError};
use webhooks_registry::auth::{ClientCredentials, EndpointTls, SecretIn};
use zeroize::Zeroizing;

/// The maximum number of tokens in the cache.
const MAX_TOKENS: u64 = 4096;

/// How many bytes of the answer of a token server are read.
pub(crate) const MAX_TOKEN_ANSWER: usize = 64 * 1024;

/// How long before its end a token is replaced, so that it does not end while a request is sent.
const MARGIN: Duration = Duration::from_secs(30);

/// The life of a token if the server does not state one.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// The maximum time for which a token is cached.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// A cache of valid tokens. If several exchanges need the same token, one of them fetches it.
#[derive(Debug, Clone)]
pub(crate) struct Tokens(Cache<Owner, Token>);

/// The client that a token was issued to. A token may be bound to the certificate with which it was
/// fetched (RFC 8705 §3), so endpoints with different certificates share no token.
pub(crate) type Owner = (Arc<ClientCredentials>, Option<Arc<EndpointTls>>);

/// The value of the header, and the time for which it is cached.
#[derive(Debug, Clone)]
struct Token {
    value: HeaderValue,
    life: Duration,
}

/// A successful answer (RFC 6749 §5.1).
#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    access_token: Value,
    #[serde(default)]
    token_type: Value,
    #[serde(default)]
    expires_in: Value,
}

/// The reason why there is no token. It shows nothing of the answer of the server.
#[derive(Debug, Clone, Error)]
pub(crate) enum TokenError {
    #[error("the token server answered {status}{}", in_brackets(*code))]
    Status { status: u16, code: Option<&'static str> },
    #[error("the token server's answer {what}")]
    Unusable { what: &'static str },
    #[error("the token server did not answer in time")]
    Late,
    #[error("cannot ask the token server")]
    Exchange(#[source] Arc<TransportError>),
}

impl From<TokenError> for TransportError {
    fn from(error: TokenError) -> Self {
        let class = match &error {
            // A blocked URL stays blocked, so a retry does not help. A busy host got no request, so there
            // was no failure.
            TokenError::Exchange(failed)
                if matches!(failed.class, ErrorClass::Blocked | ErrorClass::Busy) =>
            {
                failed.class
            }
            _ => ErrorClass::Authorization,
        };
        Self::new(class).caused_by(error)
    }
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(MAX_TOKENS).expire_after(UntilItsEnd).build())
    }

    /// Returns the header that authorizes us at an endpoint. If the cache has no token, `exchange` fetches
    /// one.
    pub(crate) async fn header<F>(
        &self,
        owner: &Owner,
        exchange: impl FnOnce() -> F,
    ) -> Result<HeaderValue, TransportError>
    where
        F: Future<Output = Result<Response, TransportError>>,
    {
        let fetched = async { exchange().await.map_err(|e| TokenError::Exchange(Arc::new(e))) };
        let token = self.0.try_get_with(owner.clone(), async { granted(&fetched.await?) });
        let token = token.await.map_err(|error| (*error).clone())?;
        Ok(token.value)
    }

    /// Removes the token that an endpoint refused, unless a newer one has replaced it.
    pub(crate) async fn forget(&self, owner: &Owner, refused: &HeaderValue) {
        if self.0.get(owner).await.is_some_and(|token| token.value == refused) {
            self.0.invalidate(owner).await;
        }
    }
}

/// Returns the headers and the body of the request for a token (RFC 6749 §4.4.2 and §2.3.1).
pub(crate) fn token_request(credentials: &ClientCredentials) -> (HeaderMap, Bytes) {
    let (id, secret) = (&credentials.client_id, credentials.dangerous_client_secret());
    let mut headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        (ACCEPT, HeaderValue::from_static("application/json")),
    ]);
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    match credentials.secret_in {
        SecretIn::Body => {
            form.append_pair("client_id", id).append_pair("client_secret", secret);
        }
        SecretIn::Header => {
            let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
            let secret = Zeroizing::new(encoded(secret));
            headers.insert(AUTHORIZATION, basic(&encoded(id), &secret));
        }
    }
    for (name, value) in [("scope", &credentials.scope), ("audience", &credentials.audience)] {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    (headers, form.finish().into())
}

/// Returns the value of an `Authorization` header with user name and password (RFC 7617 §2).
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
        let (status, code) = (response.status, refusal(&response.body));
        return Err(TokenError::Status { status, code });
    }
    let unusable = |what| TokenError::Unusable { what };
    let granted: Granted = serde_json::from_slice(&response.body)
        .map_err(|_shows_the_token| unusable("is not a JSON object"))?;
    let is_bearer = |text: &str| text.eq_ignore_ascii_case("bearer");
    if !granted.token_type.as_str().is_some_and(is_bearer) {
        return Err(unusable("has no token_type \"Bearer\""));
    }
    let token = granted.access_token.as_str().filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| unusable("has no access_token"))?;
    let value = Zeroizing::new(format!("Bearer {token}"));
    let mut value = HeaderValue::try_from(&**value).map_err(|_shows_the_token| {
        unusable("has an access_token with a character that no header may hold")
    })?;
    value.set_sensitive(true);
    let life = lifetime(&granted.expires_in).unwrap_or(DEFAULT_LIFE);
    Ok(Token { value, life: life.min(MAX_LIFE).saturating_sub(MARGIN) })
}

/// Returns the error code of the server, if it is one of RFC 6749 §5.2. Any other text of the server is
/// left out, since it may repeat the secret.
fn refusal(body: &[u8]) -> Option<&'static str> {
    const CODES: [&str; 6] = [
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
    ];
    let answer: Value = serde_json::from_slice(body).ok()?;
    let told = answer.get("error")?.as_str()?;
    CODES.into_iter().find(|code| *code == told)
}

fn in_brackets(code: Option<&str>) -> String {
    code.map(|code| format!(" ({code})")).unwrap_or_default()
}

/// Returns the life of a token, if the server states it, in seconds (RFC 6749 §5.1). Some servers send
/// it as a text or with a fraction.
fn lifetime(expires_in: &Value) -> Option<Duration> {
    let seconds = match expires_in {
        Value::String(text) => text.trim().parse().ok()?,
        other => other.as_f64()?,
    };
    Duration::try_from_secs_f64(seconds.clamp(0.0, MAX_LIFE.as_secs_f64())).ok()
}

struct UntilItsEnd;

impl Expiry<Owner, Token> for UntilItsEnd {
    fn expire_after_create(&self, _: &Owner, token: &Token, _: Instant) -> Option<Duration> {
        Some(token.life)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lifetime_is_a_number_a_text_or_not_told() {
        let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
        for (told, expected) in [
            (json!(3599), seconds(3599.0)),
            (json!(3599.5), seconds(3599.5)),
            (json!("3599"), seconds(3599.0)),
            (json!(" 3599.0 "), seconds(3599.0)),
            (json!(-1), seconds(0.0)),
            (json!(1e300), Some(MAX_LIFE)),
            (json!("inf"), Some(MAX_LIFE)),
            (json!(u64::MAX), Some(MAX_LIFE)),
            (json!("NaN"), None),
            (json!("soon"), None),
            (json!(null), None),
            (json!([3599]), None),
        ] {
            assert_eq!(lifetime(&told), expected, "{told}");
        }
    }
}
