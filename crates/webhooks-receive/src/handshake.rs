//! Handshakes: the requests that senders make before they send webhooks, answered by pure functions.

mod asana;
mod cloud_events;
mod discord;
mod dropbox;
mod meta;
mod notion;
mod probe;
mod slack;
mod twitch;
mod x;
mod zoom;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Response};
use webhooks_sign::Key;

use crate::rejection::Rejection;
use crate::webhook::Webhook;

pub use cloud_events::CloudEvents;

/// The largest signed body, in bytes, that may be a handshake. Handshakes have a few hundred bytes.
const MAX_SIGNED: usize = 4096;

/// A callback that takes the secret in a request, and returns whether one is expected.
type OnSecret = Arc<dyn Fn(&Parts, &str) -> bool + Send + Sync>;

/// One sender's handshake. Give it to a [`ReceiveLayer`](crate::ReceiveLayer), or call
/// [`answer`](Self::answer) and [`answer_webhook`](Self::answer_webhook) yourself.
///
/// # Example
/// ```
/// use http::Request;
/// use webhooks_receive::Handshake;
///
/// let meta = Handshake::meta("my-verify-token");
/// let query = "hub.mode=subscribe&hub.verify_token=my-verify-token&hub.challenge=1158201444";
/// let (head, ()) = Request::get(format!("/hook?{query}")).body(())?.into_parts();
/// let answer = meta.answer(&head).expect("a handshake")?;
/// assert_eq!(answer.body(), "1158201444");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Handshake(Kind);

#[derive(Clone)]
enum Kind {
    Asana { on_secret: OnSecret },
    CloudEvents(CloudEvents),
    Discord,
    Dropbox,
    Meta { verify_token: String },
    Notion { on_token: OnSecret },
    Probe,
    Slack,
    Twitch,
    WooCommerce,
    X { key: Box<Key> },
    Zoom,
}

impl Handshake {
    /// The maximum number of bytes to read of an unsigned body; Notion's has a hundred.
    pub const MAX_UNSIGNED: usize = 4096;

    /// Asana: an unsigned request with a header that contains the secret for later webhooks. The answer
    /// repeats the secret.
    ///
    /// `on_secret` takes the head of the request and the secret, and returns whether one is expected;
    /// otherwise the answer is 403. Anybody who reaches the URL can send one. So expect it only at a
    /// path of its own, and only while your request to Asana that creates the webhook is running:
    /// otherwise an attacker who comes first chooses the key. `on_secret` runs on the task of the
    /// request and must not block.
    pub fn asana(on_secret: impl Fn(&Parts, &str) -> bool + Send + Sync + 'static) -> Self {
        Self(Kind::Asana { on_secret: Arc::new(on_secret) })
    }

    /// CloudEvents' abuse protection: an `OPTIONS` request that asks whether a sender may send.
    pub fn cloud_events(policy: CloudEvents) -> Self {
        Self(Kind::CloudEvents(policy))
    }

    /// Discord: a signed `PING`, of interactions or of webhook events, each with its own answer.
    pub fn discord() -> Self {
        Self(Kind::Discord)
    }

    /// Dropbox: a `GET` request; the answer is its challenge.
    pub fn dropbox() -> Self {
        Self(Kind::Dropbox)
    }

    /// Meta: a `GET` request with your token; the answer is its challenge.
    pub fn meta(verify_token: impl Into<String>) -> Self {
        Self(Kind::Meta { verify_token: verify_token.into() })
    }

    /// Notion: an unsigned request whose JSON body contains the `verification_token`. A person enters
    /// the token at Notion, and it signs all later webhooks.
    ///
    /// `on_token` takes the head of the request and the token, and returns whether one is expected;
    /// otherwise the answer is 403. Anybody who reaches the URL can send one. So show it to the person
    /// who sets the webhook up: only Notion can confirm it. Make no key of it before. `on_token` runs
    /// on the task of the request and must not block. The token is a secret: keep it out of logs.
    pub fn notion(on_token: impl Fn(&Parts, &str) -> bool + Send + Sync + 'static) -> Self {
        Self(Kind::Notion { on_token: Arc::new(on_token) })
    }

    /// Trello, Mandrill and others that test whether the URL exists: a `HEAD` request, or a `GET` request
    /// without a query; the answer is 200.
    pub fn probe() -> Self {
        Self(Kind::Probe)
    }

    /// Slack: a signed webhook of the type `url_verification`; the answer is its challenge.
    pub fn slack() -> Self {
        Self(Kind::Slack)
    }

    /// Twitch: a signed webhook that confirms a subscription; the answer is its challenge.
    pub fn twitch() -> Self {
        Self(Kind::Twitch)
    }

    /// WooCommerce: an unsigned form, sent when a webhook is saved; the answer is 200. It reaches no
    /// handler.
    pub fn woo_commerce() -> Self {
        Self(Kind::WooCommerce)
    }

    /// X, formerly Twitter: a `GET` request with a `crc_token`; the answer is its HMAC by this key, which
    /// also verifies webhooks.
    ///
    /// X uses one key for tokens and webhooks, so the answer to a token that looks like a webhook would
    /// be the signature of that webhook. Tokens that could be JSON, except a number or a word, are
    /// refused.
    pub fn x(key: Key) -> Self {
        Self(Kind::X { key: Box::new(key) })
    }

    /// Zoom: a signed webhook `endpoint.url_validation`; the answer is the HMAC of its token.
    pub fn zoom() -> Self {
        Self(Kind::Zoom)
    }

    /// Answers a request that is a handshake of a kind that is not signed.
    ///
    /// # Errors
    /// [`Rejection::Handshake`] when it is one, but the token, the secret or the origin is not one
    /// that is expected.
    pub fn answer(&self, head: &Parts) -> Option<Result<Response<Bytes>, Rejection>> {
        match &self.0 {
            Kind::CloudEvents(policy) => policy.answer(head),
            Kind::Dropbox => dropbox::answer(head).map(Ok),
            Kind::Asana { on_secret } => asana::answer(head, &**on_secret),
            Kind::Meta { verify_token } => meta::answer(head, verify_token),
            Kind::Probe => probe::answer(head).map(Ok),
            Kind::WooCommerce => probe::answer_ping(head).map(Ok),
            Kind::X { key } => x::answer(head, key),
            Kind::Discord | Kind::Notion { .. } | Kind::Slack | Kind::Twitch | Kind::Zoom => None,
        }
    }

    /// Returns whether a request may be an unsigned handshake that only its body identifies. If so, read
    /// at most [`MAX_UNSIGNED`](Self::MAX_UNSIGNED) bytes of the body for
    /// [`answer_unsigned`](Self::answer_unsigned). A signed request is never one.
    pub fn needs_body(&self, head: &Parts) -> bool {
        match &self.0 {
            Kind::Notion { .. } => notion::needs_body(head),
            _ => false,
        }
    }

    /// Answers an unsigned request whose body is a handshake, if [`needs_body`](Self::needs_body)
    /// returned that it may be one.
    ///
    /// # Errors
    /// [`Rejection::Handshake`] when it is one, but the secret is not one that is expected.
    pub fn answer_unsigned(
        &self,
        head: &Parts,
        body: &[u8],
    ) -> Option<Result<Response<Bytes>, Rejection>> {
        match &self.0 {
            Kind::Notion { on_token } if self.needs_body(head) => {
                notion::answer(head, body, &**on_token)
            }
            _ => None,
        }
    }

    /// Answers a webhook that is a handshake.
    pub fn answer_webhook(&self, webhook: &Webhook) -> Option<Response<Bytes>> {
        // Every webhook passes here, and those that are too large for a handshake are not parsed.
        if webhook.body().len() > MAX_SIGNED {
            return None;
        }
        match &self.0 {
            Kind::Discord => discord::answer(webhook.body()),
            Kind::Slack => slack::answer(webhook.body()),
            Kind::Twitch => twitch::answer(webhook.body()),
            Kind::Zoom => zoom::answer(webhook.body(), webhook.key()?),
            _ => None,
        }
    }
}

impl fmt::Debug for Handshake {
    /// Leaves out tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::CloudEvents(policy) => return policy.fmt(f),
            Kind::Asana { .. } => "Asana",
            Kind::Discord => "Discord",
            Kind::Dropbox => "Dropbox",
            Kind::Meta { .. } => "Meta",
            Kind::Notion { .. } => "Notion",
            Kind::Probe => "Probe",
            Kind::Slack => "Slack",
            Kind::Twitch => "Twitch",
            Kind::WooCommerce => "WooCommerce",
            Kind::X { .. } => "X",
            Kind::Zoom => "Zoom",
        })
    }
}

/// Returns the first value of this name in the query, decoded.
fn query_value(head: &Parts, name: &str) -> Option<String> {
    let query = head.uri.query()?;
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

/// Echoes an untrusted text in a form that no browser renders as a page.
fn echo(text: impl Into<Bytes>) -> Response<Bytes> {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    with_headers(text.into(), [(CONTENT_TYPE, plain), no_sniff()])
}

/// Answers with JSON.
fn json(value: &serde_json::Value) -> Response<Bytes> {
    let content_type = HeaderValue::from_static("application/json");
    with_headers(value.to_string().into(), [(CONTENT_TYPE, content_type), no_sniff()])
}

fn no_sniff() -> (HeaderName, HeaderValue) {
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
}

fn with_headers<const N: usize>(
    body: Bytes,
    headers: [(HeaderName, HeaderValue); N],
) -> Response<Bytes> {
    let mut response = Response::new(body);
    response.headers_mut().extend(headers);
    response
}
