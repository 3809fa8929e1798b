//! Handshakes: what senders ask before they send webhooks, answered by pure functions.

mod cloud_events;
mod dropbox;
mod meta;
mod slack;
mod zoom;

use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Response};

use crate::{Rejection, Webhook};

pub use cloud_events::CloudEvents;

/// How many bytes of a signed body are looked at; handshakes have a few hundred.
const MAX_SIGNED: usize = 4096;

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
    CloudEvents(CloudEvents),
    Dropbox,
    Meta { verify_token: String },
    Slack,
    Zoom,
}

impl Handshake {
    /// CloudEvents' abuse protection: an `OPTIONS` request that asks whether a sender may.
    pub fn cloud_events(policy: CloudEvents) -> Self {
        Self(Kind::CloudEvents(policy))
    }

    /// Dropbox: a `GET` request whose challenge is echoed.
    pub fn dropbox() -> Self {
        Self(Kind::Dropbox)
    }

    /// Meta: a `GET` request with the token that you gave, whose challenge is echoed.
    pub fn meta(verify_token: impl Into<String>) -> Self {
        Self(Kind::Meta { verify_token: verify_token.into() })
    }

    /// Slack: a signed webhook of the type `url_verification`, whose challenge is echoed.
    pub fn slack() -> Self {
        Self(Kind::Slack)
    }

    /// Zoom: a signed webhook `endpoint.url_validation`, whose token is answered with its HMAC.
    pub fn zoom() -> Self {
        Self(Kind::Zoom)
    }

    /// Answers a request that is a handshake and by its nature not signed.
    ///
    /// # Errors
    /// [`Rejection::Handshake`] when it is one, but the token or the origin is not the one expected.
    pub fn answer(&self, head: &Parts) -> Option<Result<Response<Bytes>, Rejection>> {
        match &self.0 {
            Kind::CloudEvents(policy) => policy.answer(head),
            Kind::Dropbox => dropbox::answer(head).map(Ok),
            Kind::Meta { verify_token } => meta::answer(head, verify_token),
            Kind::Slack | Kind::Zoom => None,
        }
    }

    /// Answers a webhook that is a handshake.
    pub fn answer_webhook(&self, webhook: &Webhook) -> Option<Response<Bytes>> {
        if webhook.body().len() > MAX_SIGNED {
            return None;
        }
        match &self.0 {
            Kind::Slack => slack::answer(webhook.body()),
            Kind::Zoom => zoom::answer(webhook.body(), webhook.key()?),
            Kind::CloudEvents(_) | Kind::Dropbox | Kind::Meta { .. } => None,
        }
    }
}

impl fmt::Debug for Handshake {
    /// Leaves out tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::CloudEvents(policy) => policy.fmt(f),
            Kind::Dropbox => f.write_str("Dropbox"),
            Kind::Meta { .. } => f.write_str("Meta"),
            Kind::Slack => f.write_str("Slack"),
            Kind::Zoom => f.write_str("Zoom"),
        }
    }
}

/// Returns the first value of this name in the query, decoded.
fn query_value(head: &Parts, name: &str) -> Option<String> {
    let query = head.uri.query()?;
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

/// Echoes what somebody else chose, as text that no browser takes for a page.
fn echo(text: impl Into<Bytes>) -> Response<Bytes> {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    with_headers(text.into(), [(CONTENT_TYPE, plain), no_sniff()])
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
