//! For implementors: the port that carries signed requests.
//!
//! An engine calls [`Transport::check`] when an endpoint is registered. Engine and dispatcher call
//! [`Transport::send`] for each attempt, many at the same time.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use webhooks_core::Timestamp;
use webhooks_registry::{
    Endpoint, EndpointUrl,
    auth::{ClientCredentials, EndpointTls},
};

use crate::headers::{SigningError, signed_headers};
use crate::serialized_event::SerializedEvent;

/// A transport: it carries one signed request to its endpoint and returns the response.
///
/// One call is one request that the endpoint may act upon: no retry, no redirect. A request that
/// the endpoint cannot have acted upon, such as one that was never read, may be sent again within
/// the call. The call should end within [`longest_wait`](Self::longest_wait) plus the request's
/// timeout; the caller stops waiting then. A panic counts as a failed exchange.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a transport",
    note = "implement `Transport`, or make one of a closure by `FnTransport::new`"
)]
pub trait Transport: Send + Sync + 'static {
    /// Sends the request and returns the response, whatever its status.
    ///
    /// # Errors
    /// [`TransportError`] when no status came. A response whose body breaks off, or never ends, is
    /// no error: the status has answered.
    ///
    /// # Cancellation
    /// Dropping the future must end the exchange; whether the receiver got it is then unknown.
    fn send(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Response, TransportError>> + Send;

    /// Returns the longest time that [`send`](Self::send) may wait for other exchanges to end,
    /// before the timeout of the request begins: zero by default. After that time,
    /// [`send`](Self::send) returns [`ErrorClass::Busy`]. A transport around another one returns
    /// the other's.
    fn longest_wait(&self) -> Duration {
        Duration::ZERO
    }

    /// Checks whether deliveries can go to this endpoint, without sending anything. An engine calls
    /// it when the endpoint is registered.
    ///
    /// # Errors
    /// [`TransportError`] that explains why deliveries cannot go there.
    fn check(&self, _endpoint: &Endpoint) -> Result<(), TransportError> {
        Ok(())
    }
}

/// A signed request: a POST of the body with the headers.
#[derive(Clone)]
pub struct Request {
    /// The address.
    pub url: EndpointUrl,
    /// The content type, the signature headers, and those that the endpoint adds.
    pub headers: HeaderMap,
    /// The signed bytes.
    pub body: Bytes,
    /// The time for the whole exchange, once the transport has room for it.
    pub timeout: Duration,
    /// The credentials for the token that is sent with it, if one is.
    pub client_credentials: Option<Arc<ClientCredentials>>,
    /// The TLS settings of this endpoint, if it has any of its own.
    pub tls: Option<Arc<EndpointTls>>,
}

impl Request {
    /// Returns a request to an endpoint with its settings.
    pub fn new(endpoint: &Endpoint, headers: HeaderMap, body: Bytes) -> Self {
        Self {
            url: endpoint.url.clone(),
            headers,
            body,
            timeout: endpoint.timeout,
            client_credentials: endpoint.client_credentials.clone(),
            tls: endpoint.tls.clone(),
        }
    }

    /// Returns the request of an attempt that starts at `started_at`, by the wall clock: the body that
    /// the endpoint wants, and the headers that sign exactly these bytes.
    ///
    /// # Errors
    /// [`SigningError`] when the endpoint has no secret that signs at this time, or its algorithm is no
    /// HMAC; and when it gets parts of the stored body that this does not have.
    pub fn signed(
        endpoint: &Endpoint,
        event: &SerializedEvent,
        started_at: Timestamp,
    ) -> Result<Self, SigningError> {
        let body = event.body_for(endpoint).ok_or(SigningError::Body)?;
        let headers = signed_headers(endpoint, event, &body, started_at)?;
        Ok(Self::new(endpoint, headers, body))
    }
}

impl fmt::Debug for Request {
    /// Leaves out the body and the values of headers: with both, the request could be replayed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header_names: Vec<&HeaderName> = self.headers.keys().collect();
        f.debug_struct("Request")
            .field("url", &self.url)
            .field("header_names", &header_names)
            .field("body_bytes", &self.body.len())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The answer of an endpoint.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// The status code (RFC 9110 §15).
    pub status: u16,
    /// The headers, of which `Retry-After` delays a retry.
    pub headers: HeaderMap,
    /// The body, as far as it came and the transport reads it.
    pub body: Bytes,
}

impl fmt::Debug for Response {
    /// Leaves out the body and the values of headers, which are private to the endpoint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header_names: Vec<&HeaderName> = self.headers.keys().collect();
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("header_names", &header_names)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// The reason why an exchange brought no response.
#[derive(Debug, thiserror::Error)]
#[error("{}", class.sentence())]
pub struct TransportError {
    /// The kind of failure.
    pub class: ErrorClass,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl TransportError {
    /// Returns an error of this class.
    pub fn new(class: ErrorClass) -> Self {
        Self { class, source: None }
    }

    /// Sets the error beneath. It is shown to the endpoint's owner: keep secrets out of it.
    #[must_use]
    pub fn caused_by(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

/// A kind of failed exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorClass {
    /// The token that the endpoint asks for could not be fetched.
    Authorization,
    /// The URL is one that deliveries may not go to: its scheme, its port, its name, or the address
    /// that is written in it. Waiting does not change that.
    Blocked,
    /// The host's name led to an address that deliveries may not go to. Nothing was sent there, and
    /// the name may lead elsewhere next time.
    BlockedAddress,
    /// The body of a response broke off where all of it is needed, for example from a token server.
    Body,
    /// The transport had no room for the exchange: too many others with the host were under way.
    /// Nothing was sent, and nothing is known of the endpoint.
    Busy,
    /// No connection came about.
    Connect,
    /// The host's name could not be resolved.
    Dns,
    /// Any other failure of the transport.
    Other,
    /// The transport panicked.
    Panic,
    /// The response was not HTTP.
    Protocol,
    /// The connection, or its stream in HTTP/2, was closed or reset before a response came.
    Reset,
    /// The delivery could not be signed, so nothing was sent.
    Signing,
    /// The exchange was not over in time.
    Timeout,
    /// No secure connection came about: certificate, name or protocol were refused.
    Tls,
}

impl ErrorClass {
    // `from_word` searches here: a class that is missing would be read from stores as `Other`.
    /// All classes, in alphabetical order.
    const ALL: [Self; 14] = [
        Self::Authorization,
        Self::Blocked,
        Self::BlockedAddress,
        Self::Body,
        Self::Busy,
        Self::Connect,
        Self::Dns,
        Self::Other,
        Self::Panic,
        Self::Protocol,
        Self::Reset,
        Self::Signing,
        Self::Timeout,
        Self::Tls,
    ];

    /// Returns the class that `word` stands for; [`Self::Other`] for a word of a later version.
    pub fn from_word(word: &str) -> Self {
        Self::ALL.into_iter().find(|class| class.as_str() == word).unwrap_or(Self::Other)
    }

    /// Borrows the word that stores and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::Blocked => "blocked",
            Self::BlockedAddress => "blocked_address",
            Self::Body => "body",
            Self::Busy => "busy",
            Self::Connect => "connect",
            Self::Dns => "dns",
            Self::Other => "other",
            Self::Panic => "panic",
            Self::Protocol => "protocol",
            Self::Reset => "reset",
            Self::Signing => "signing",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Authorization => "cannot get the token for the endpoint",
            Self::Blocked | Self::BlockedAddress => "the delivery is blocked",
            Self::Body => "the response broke off",
            Self::Busy => "too many other exchanges with the host were under way",
            Self::Connect => "cannot connect",
            Self::Dns => "cannot resolve the host name",
            Self::Other => "the transport failed",
            Self::Panic => "the transport panicked",
            Self::Protocol => "the response was not valid HTTP",
            Self::Reset => "the connection was closed before a response came",
            Self::Signing => "the delivery cannot be signed",
            Self::Timeout => "the exchange was not over in time",
            Self::Tls => "cannot set up a secure connection",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The reason why an attempt brought no response.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// The delivery could not be signed, so nothing was sent.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The exchange failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

#[cfg(test)]
mod tests {
    use webhooks_core::{Event, Payload};
    use webhooks_registry::{BodyFormat, HeaderProfile};
    use webhooks_sign::{Key, KeyRing, standard, x_webhook};

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_body_that_is_sent_is_the_one_that_is_signed() {
        let text = "{ \"b\":1.0,\t\"a\" : 1e308 }";
        let event = Event::new("created", Payload::from_json(text.to_owned()).unwrap()).unwrap();
        let event = SerializedEvent::new(&event);
        let now = Timestamp::from_unix_seconds(1_614_265_330);
        let all = [HeaderProfile::Standard, HeaderProfile::Svix, HeaderProfile::XWebhook];
        let endpoint =
            Endpoint::new("https://example.com/", SECRET).unwrap().profiles(all).unwrap();
        let whole = std::str::from_utf8(&event.body).unwrap();
        let cloud_event = event.body_for(&endpoint.clone().body(BodyFormat::CloudEvent)).unwrap();
        let cloud_event = std::str::from_utf8(&cloud_event).unwrap();
        let (json, cloud) = ("application/json", "application/cloudevents+json");
        for (format, expected, media_type) in [
            (BodyFormat::Event, whole, json),
            (BodyFormat::Payload, text, json),
            (BodyFormat::CloudEvent, cloud_event, cloud),
            (BodyFormat::CloudEventBinary, text, json),
        ] {
            let sent = Request::signed(&endpoint.clone().body(format), &event, now).unwrap();
            assert_eq!(sent.body, expected);
            assert_eq!(sent.headers["content-type"], media_type);
            let keys = KeyRing::from(Key::standard(SECRET).unwrap());
            for scheme in [standard::STANDARD, standard::SVIX] {
                scheme.verify(&keys, &sent.headers, &sent.body, now.as_unix_seconds()).unwrap();
            }
            x_webhook::verify(&keys, &sent.headers, &sent.body).unwrap();
        }
    }

    #[test]
    fn a_damaged_body_is_an_error_that_shows_nothing_of_it() {
        let event = SerializedEvent::new(&Event::new("created", ()).unwrap());
        let event = SerializedEvent { body: Bytes::from_static(b"\"hush\""), ..event };
        let endpoint = Endpoint::new("https://example.com/", SECRET).unwrap();
        let sign = |endpoint| Request::signed(&endpoint, &event, Timestamp::UNIX_EPOCH);
        assert_eq!(sign(endpoint.clone()).unwrap().body, event.body, "nothing parses it");
        for body in [BodyFormat::Payload, BodyFormat::CloudEvent, BodyFormat::CloudEventBinary] {
            let error = sign(endpoint.clone().body(body)).unwrap_err();
            let shown = format!("{error:?} {error}");
            assert!(matches!(error, SigningError::Body) && !shown.contains("hush"), "{shown}");
        }
    }
}
