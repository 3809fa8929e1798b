//! The request of an attempt of the history, made once more to be shown.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};
use thiserror::Error;
use webhooks_core::Timestamp;
use webhooks_registry::{Endpoint, EndpointUrl};

use super::record::{EventRecord, EventSummary};
use crate::headers::SigningError;
use crate::serialized_event::SerializedEvent;
use crate::transport::Request;

/// The value that is shown in place of one that may be a credential.
const REDACTED: &str = "[redacted]";

/// The request of an attempt, made once more from the records of the history.
///
/// Signatures depend on nothing but the endpoint, the event and the time at which the attempt
/// started, so stores need not keep them. The request is the same as the one that was sent if the
/// endpoint has not been changed since. A rotation adds a secret that was not there before, and
/// drops those that have expired; the signatures then differ.
///
/// Headers that a transport adds are missing: `host`, `user-agent`, `content-length` and the token
/// of client credentials.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use webhooks_core::Event;
/// use webhooks_dispatch::history::{HistoryStore as _, Query, SentRequest};
/// use webhooks_dispatch::{Engine, FnTransport, MemoryStore};
/// use webhooks_registry::Endpoint;
///
/// let engine = Engine::new(MemoryStore::new(), FnTransport::new(|_, _, _, _| async { (200, "") }));
/// engine.endpoints().register("crm", Endpoint::new("https://example.com/", "my-secret-key")?).await?;
/// let event = Event::new("created", 1)?;
/// engine.publish(&event).await?;
/// engine.start().drain(Duration::from_secs(30)).await;
///
/// let history = engine.history();
/// let attempts = history.attempts(Query::default()).await?.items;
/// let event = history.event(event.tenant, event.id).await?.ok_or("it was forgotten")?;
/// let endpoint = engine.endpoints().get("crm").await?.ok_or("it was removed")?;
/// let started_at = attempts[0].attempt.started_at;
/// let sent = SentRequest::new(&endpoint.endpoint, &event, started_at)?;
/// let names: Vec<&str> = sent.shown_headers().map(|(name, _)| name.as_str()).collect();
/// assert!(names.contains(&"x-webhook-signature"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SentRequest {
    /// The address.
    pub url: EndpointUrl,
    /// The content type, the signature headers, and those that the endpoint adds. For people to
    /// read, use [`shown_headers`](Self::shown_headers).
    pub headers: HeaderMap,
    /// The signed bytes.
    pub body: Bytes,
}

/// The reason why a request cannot be made once more.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SentRequestError {
    /// The content of the event was expunged.
    #[error("the event's content was expunged, and what was sent cannot be told any more")]
    Expunged,
    /// The delivery cannot be signed, for example because no secret of the endpoint was live then.
    #[error(transparent)]
    Signing(#[from] SigningError),
}

impl SentRequest {
    /// Returns the request of an attempt that started at
    /// [`started_at`](crate::store::Attempt::started_at).
    ///
    /// # Errors
    /// [`SentRequestError`] when the event was expunged, or the delivery cannot be signed.
    pub fn new(
        endpoint: &Endpoint,
        event: &EventRecord,
        started_at: Timestamp,
    ) -> Result<Self, SentRequestError> {
        // Its body is gone: the signature would be one that was never sent.
        if event.summary.expunged_at.is_some() {
            return Err(SentRequestError::Expunged);
        }
        let EventSummary { id, event_type, tenant, trace, .. } = event.summary.clone();
        let event = SerializedEvent::claimed(id, event_type, tenant, event.body.clone());
        let event = SerializedEvent { trace, ..event };
        let Request { url, mut headers, body, .. } = Request::signed(endpoint, &event, started_at)?;
        for name in endpoint.headers().keys() {
            if let Some(value) = headers.get_mut(name) {
                value.set_sensitive(name != CONTENT_TYPE);
            }
        }
        Ok(Self { url, headers, body })
    }

    /// Returns the headers for people to read. The values of headers that the endpoint adds are
    /// replaced by `[redacted]`, since they may be credentials. Signatures are shown.
    pub fn shown_headers(&self) -> impl Iterator<Item = (&HeaderName, Cow<'_, str>)> {
        self.headers.iter().map(|(name, value)| {
            let is_secret = value.is_sensitive();
            let shown = || String::from_utf8_lossy(value.as_bytes());
            (name, if is_secret { Cow::Borrowed(REDACTED) } else { shown() })
        })
    }
}

impl fmt::Debug for SentRequest {
    /// Leaves out the body and the values of headers: with both, the request could be replayed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header_names: Vec<&HeaderName> = self.headers.keys().collect();
        f.debug_struct("SentRequest")
            .field("url", &self.url)
            .field("header_names", &header_names)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use webhooks_core::{Event, Payload, TraceContext};
    use webhooks_registry::BodyFormat;
    use webhooks_sign::{Key, KeyRing, standard};

    use super::*;
    use crate::history::{HistoryStore as _, Query};
    use crate::{Engine, FnTransport, MemoryStore, Publication};

    /// Goal: the payload alone is signed, sent and made again, byte for byte. Method: an engine delivers
    /// one event to an endpoint for each body, and the request that the transport got is compared with
    /// the one that is made from the history.
    #[tokio::test(start_paused = true)]
    async fn the_body_is_the_one_that_the_endpoint_wants() {
        const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        const PAYLOAD: &str = "{ \"b\": 1.0,\t\"a\":[1e308 , 0.10] }";
        let requests: Arc<Mutex<Vec<(String, Bytes, HeaderMap)>>> = Arc::default();
        let transport = FnTransport::new({
            let requests = Arc::clone(&requests);
            move |url, body, headers, _timeout| {
                requests.lock().unwrap().push((url, body, headers));
                async { (200, "") }
            }
        });
        let engine = Engine::new(MemoryStore::new(), transport);
        for (id, body) in [
            ("event", BodyFormat::Event),
            ("payload", BodyFormat::Payload),
            ("cloud-event", BodyFormat::CloudEvent),
            ("binary", BodyFormat::CloudEventBinary),
        ] {
            let endpoint = Endpoint::new(&format!("https://example.com/{id}"), SECRET).unwrap();
            engine.endpoints().register(id, endpoint.body(body)).await.unwrap();
        }
        let payload = Payload::from_json(PAYLOAD.to_owned()).unwrap();
        let event = Event::new("created", payload).unwrap();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = TraceContext::parse(parent, ["a=1"]).unwrap();
        engine.publish(Publication::new(&event).trace(trace)).await.unwrap();
        engine.start().drain(Duration::from_secs(30)).await;

        let history = engine.history();
        let stored = history.event(event.tenant.clone(), event.id.clone()).await.unwrap().unwrap();
        let attempts = history.attempts(Query::default()).await.unwrap().items;
        let requests = requests.lock().unwrap().clone();
        assert_eq!((attempts.len(), requests.len()), (4, 4));
        let keys = KeyRing::from(Key::standard(SECRET).unwrap());
        for found in attempts {
            let id = found.endpoint.as_str();
            let endpoint = engine.endpoints().get(id).await.unwrap().unwrap();
            let started_at = found.attempt.started_at;
            let again = SentRequest::new(&endpoint.endpoint, &stored, started_at).unwrap();
            match id {
                "event" => assert_eq!(again.body, event.to_json()),
                "payload" | "binary" => assert_eq!(again.body, PAYLOAD),
                _ => assert!(again.body.ends_with(format!("\"data\":{PAYLOAD}}}").as_bytes())),
            }
            let now = started_at.as_unix_seconds();
            standard::verify(&keys, &again.headers, &again.body, now).unwrap();
            let again = (again.url.to_string(), again.body, again.headers);
            assert!(requests.contains(&again), "{id} got another request");
        }
    }

    #[test]
    fn headers_of_the_endpoint_are_not_shown() {
        let endpoint = Endpoint::new("https://example.com/hush", "hush-hush").unwrap();
        let endpoint = endpoint.header("x-key", "hush").unwrap().bearer_auth("hush").unwrap();
        let endpoint = endpoint.header("content-type", "application/x+json").unwrap();
        let event = SerializedEvent::new(&Event::new("created", "hush").unwrap());
        let event = EventRecord {
            summary: EventSummary {
                id: event.id,
                event_type: event.event_type,
                tenant: event.tenant,
                channels: Vec::new(),
                tags: Vec::new(),
                accepted_at: Timestamp::UNIX_EPOCH,
                deliver_at: None,
                only: None,
                deliveries: 1,
                body_len: event.body.len(),
                expunged_at: None,
                trace: None,
            },
            body: event.body,
        };
        assert!(!format!("{event:?}").contains("hush"));
        let sent = SentRequest::new(&endpoint, &event, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(sent.headers["authorization"], "Bearer hush");
        let shown: Vec<String> =
            sent.shown_headers().map(|(name, value)| format!("{name}: {value}")).collect();
        for expected in [
            "content-type: application/x+json",
            "x-key: [redacted]",
            "authorization: [redacted]",
            "x-webhook-event: created",
            "x-webhook-timestamp: 1970-01-01T00:00:00Z",
        ] {
            assert!(shown.iter().any(|line| line == expected), "{expected} in {shown:?}");
        }
        assert!(!shown.concat().contains("hush") && !format!("{sent:?}").contains("hush"));
        let mut expunged = event.clone();
        expunged.summary.expunged_at = Some(Timestamp::UNIX_EPOCH);
        let refused = SentRequest::new(&endpoint, &expunged, Timestamp::UNIX_EPOCH);
        assert!(matches!(refused, Err(SentRequestError::Expunged)));
    }
}
