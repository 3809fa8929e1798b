//! The headers that carry id, timestamp and signature, by profile; for implementors the reasons why a
//! delivery cannot be signed.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use thiserror::Error;
use webhooks_core::Timestamp;
use webhooks_registry::{BodyFormat, Endpoint, HeaderProfile, SecretError};
use webhooks_sign::{Algorithm, SignError, standard, x_webhook};

use crate::cloud_event;
use crate::serialized_event::SerializedEvent;

/// The reason why a delivery cannot be signed. Trying again does not help.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SigningError {
    /// An id or event type does not fit into a header. Ids and types that were parsed do.
    #[error("cannot write a header")]
    Header(#[from] InvalidHeaderValue),
    /// The endpoint's algorithm is none that its secrets can be keys of.
    #[error("the endpoint's algorithm does not fit its secrets")]
    Algorithm(#[from] SecretError),
    /// The endpoint's body is made of parts of the stored body, which cannot be read. The parser's
    /// error is left out: it could show a part of the body.
    #[error("the stored body of the event cannot be read")]
    Body,
    /// Every secret of the endpoint has expired.
    #[error("every secret of the endpoint has expired")]
    NoLiveSecret,
    /// The signature was refused.
    #[error("cannot sign")]
    Sign(#[from] SignError),
}

/// Returns the headers of one attempt: the content type, those that the endpoint adds, the attributes of
/// a CloudEvent in binary mode, the trace context of the event, and for each of the endpoint's profiles the id, the time of the attempt and
/// the signature of `body`, which is the event's body for this endpoint.
///
/// The id is that of the event, the same in every attempt; the timestamp is `now`, as Standard
/// Webhooks 1.0, "Webhook headers", asks ("the timestamp of the webhook transmission"). An engine
/// records this time as [`Attempt::started_at`](crate::store::Attempt::started_at).
///
/// # Errors
/// * [`SigningError::NoLiveSecret`] when every secret has expired.
/// * [`SigningError::Body`] when attributes are headers, and the stored body does not have them.
/// * [`SigningError::Algorithm`] when the endpoint's algorithm is no HMAC.
/// * [`SigningError::Sign`] when signing refuses the id, and [`SigningError::Header`] when an id or
///   event type does not fit into a header. Neither happens to ids and types that were parsed.
pub(crate) fn signed_headers(
    endpoint: &Endpoint,
    event: &SerializedEvent,
    body: &[u8],
    now: Timestamp,
) -> Result<HeaderMap, SigningError> {
    let profiles = endpoint.header_profiles();
    let traced = if event.trace.is_some() { TRACE_HEADERS } else { 0 };
    let binary =
        if endpoint.body == BodyFormat::CloudEventBinary { cloud_event::HEADERS } else { 0 };
    let more = traced + binary + MORE_HEADERS;
    let most = more + endpoint.headers().len() + PROFILE_HEADERS * profiles.len();
    let mut headers = HeaderMap::with_capacity(most);
    headers.insert(
        CONTENT_TYPE,
        match endpoint.body {
            BodyFormat::CloudEvent => cloud_event::MEDIA_TYPE,
            BodyFormat::Event | BodyFormat::Payload | BodyFormat::CloudEventBinary => {
                HeaderValue::from_static("application/json")
            }
        },
    );
    // First, so that a header of the endpoint never replaces a signature or an attribute.
    for (name, value) in endpoint.headers() {
        headers.insert(name, value.clone());
    }
    if endpoint.body == BodyFormat::CloudEventBinary {
        let ids = (&event.id, &event.event_type, &event.tenant);
        cloud_event::insert_headers(&mut headers, ids, &event.body).ok_or(SigningError::Body)?;
    }
    if let Some(trace) = &event.trace {
        // A state belongs to its parent, so the endpoint's own must not follow that of the event.
        headers.remove(TRACESTATE);
        headers.insert(TRACEPARENT, HeaderValue::from_str(trace.parent())?);
        if let Some(state) = trace.state() {
            headers.insert(TRACESTATE, HeaderValue::from_str(state)?);
        }
    }
    let mut signer = Signer { endpoint, event, body, now, headers };
    for profile in profiles {
        match profile {
            HeaderProfile::Standard => signer.standard(&STANDARD)?,
            HeaderProfile::Svix => signer.standard(&SVIX)?,
            HeaderProfile::XWebhook => signer.x_webhook()?,
        }
    }
    Ok(signer.headers)
}

/// The names of the headers of W3C Trace Context, and their number.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const TRACE_HEADERS: usize = 2;

/// The number of headers of most profiles, and that of those beside profiles and endpoint: the content
/// type, and two that an HTTP client adds. A map with more room is large enough to cost an allocation
/// that threads contend for.
const PROFILE_HEADERS: usize = 3;
const MORE_HEADERS: usize = 3;

/// The length of one `v1` signature in bytes, and that of a timestamp. Most deliveries have one
/// signature.
const SIGNATURE_LEN: usize = 47;
const TIMESTAMP_LEN: usize = 10;

/// The names of the three headers of Standard Webhooks in one profile.
struct Names {
    id: HeaderName,
    timestamp: HeaderName,
    signature: HeaderName,
}

const STANDARD: Names = Names {
    id: HeaderName::from_static("webhook-id"),
    timestamp: HeaderName::from_static("webhook-timestamp"),
    signature: HeaderName::from_static("webhook-signature"),
};

const SVIX: Names = Names {
    id: HeaderName::from_static("svix-id"),
    timestamp: HeaderName::from_static("svix-timestamp"),
    signature: HeaderName::from_static("svix-signature"),
};

/// One attempt, and its headers so far.
struct Signer<'a> {
    endpoint: &'a Endpoint,
    event: &'a SerializedEvent,
    body: &'a [u8],
    now: Timestamp,
    headers: HeaderMap,
}

impl Signer<'_> {
    fn standard(&mut self, names: &Names) -> Result<(), SigningError> {
        if self.endpoint.live_secrets(self.now).next().is_none() {
            return Err(SigningError::NoLiveSecret);
        }
        // `sign_all` takes keys and no results, so an error is set aside and ends the keys.
        let mut unsuitable = None;
        let keys = self.endpoint.live_secrets(self.now).map_while(|secret| {
            secret.key(Algorithm::HmacSha256).map_err(|error| unsuitable = Some(error)).ok()
        });
        let (id, timestamp) = (self.event.id.to_string(), self.now.as_unix_seconds());
        // One buffer for the three values: an HTTP client copies the headers several times, and all
        // copies share it.
        let mut values = String::with_capacity(SIGNATURE_LEN + TIMESTAMP_LEN + id.len());
        let signed = standard::sign_all(keys, &id, timestamp, self.body, &mut values);
        if let Some(error) = unsuitable {
            return Err(error.into());
        }
        signed?;
        let signatures = values.len();
        write!(values, "{timestamp}{id}").or(Err(SignError::Write))?;
        let mut values = Bytes::from(values);
        let (signatures, id) =
            (values.split_to(signatures), values.split_off(values.len() - id.len()));
        let names = [&names.id, &names.timestamp, &names.signature].into_iter().cloned();
        for (name, value) in names.zip([id, values, signatures]) {
            self.headers.insert(name, HeaderValue::from_maybe_shared(value)?);
        }
        Ok(())
    }

    /// Signs with the newest secret: the header has room for one signature.
    fn x_webhook(&mut self) -> Result<(), SigningError> {
        let newest = self.endpoint.live_secrets(self.now).next();
        let newest = newest.ok_or(SigningError::NoLiveSecret)?;
        let algorithm = self.endpoint.algorithm;
        let signature = x_webhook::sign(newest.key(algorithm)?, self.body)?;
        let name = HeaderName::from_static;
        self.insert(name("x-webhook-event"), self.event.event_type.to_string())?;
        self.insert(name("x-webhook-event-id"), self.event.id.to_string())?;
        self.insert(name("x-webhook-signature"), signature.to_string())?;
        self.insert(name("x-webhook-signature-algorithm"), algorithm.to_string())?;
        self.insert(name("x-webhook-timestamp"), self.now.to_string())
    }

    fn insert(&mut self, name: HeaderName, value: String) -> Result<(), SigningError> {
        self.headers.insert(name, HeaderValue::try_from(value)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use webhooks_core::{Event, TraceContext};
    use webhooks_registry::Secret;
    use webhooks_sign::{Key, KeyRing};

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const BODY: &[u8] = b"{\"test\": 2432232314}";

    fn now() -> Timestamp {
        Timestamp::from_unix_microseconds(1_614_265_330_250_000)
    }

    fn headers(endpoint: &Endpoint) -> Result<HeaderMap, SigningError> {
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek".parse().unwrap();
        let event = Event::new("user.created", ()).unwrap().id(id);
        signed_headers(endpoint, &SerializedEvent::new(&event), BODY, now())
    }

    fn check(found: &HeaderMap, expected: &[(&str, &str)]) {
        let found: Vec<(&str, &str)> =
            found.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_standard_profile_sends_the_headers_of_the_specification() {
        let endpoint = Endpoint::new("https://example.com/", SECRET).unwrap();
        check(
            &headers(&endpoint).unwrap(),
            &[
                ("content-type", "application/json"),
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                ("webhook-timestamp", "1614265330"),
                // Upstream's own vector for this id, time, body and secret.
                ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            ],
        );
    }

    #[test]
    fn the_x_webhook_profile_sends_event_id_signature_algorithm_and_time() {
        let endpoint = Endpoint::new("https://example.com/", "my-secret-key").unwrap();
        check(
            &headers(&endpoint).unwrap(),
            &[
                ("content-type", "application/json"),
                ("x-webhook-event", "user.created"),
                ("x-webhook-event-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                // printf '%s' '{"test": 2432232314}' | openssl dgst -sha256 -hmac my-secret-key
                (
                    "x-webhook-signature",
                    "3063b58000fa4e95b83072c2855e8b816bd81147569f989e507c6c5d5b1b87cd",
                ),
                ("x-webhook-signature-algorithm", "hmac_sha256"),
                ("x-webhook-timestamp", "2021-02-25T15:02:10.25Z"),
            ],
        );
        let sha512 = headers(&endpoint.algorithm(Algorithm::HmacSha512)).unwrap();
        assert_eq!(sha512["x-webhook-signature-algorithm"], "hmac_sha512");
        // … -sha512 …
        let signature = "cac3a1b5c1b6c61cc4a523b69c0e7225c7fb133ec5b051de04ebe164a03bf5d34ad9cf1fbcd0312410dcf36a42abdef6d87602219d25265a7661050b1ec759b6";
        assert_eq!(sha512["x-webhook-signature"], signature);
    }

    #[test]
    fn profiles_are_sent_together_and_rotation_signs_with_every_live_secret() {
        let later = now() + std::time::Duration::from_secs(60);
        let all = [HeaderProfile::Standard, HeaderProfile::Svix, HeaderProfile::XWebhook];
        let endpoint =
            Endpoint::new("https://example.com/", SECRET).unwrap().profiles(all).unwrap();
        let endpoint = endpoint.rotate(Secret::new(OTHER).unwrap(), later, now()).unwrap();
        let headers = headers(&endpoint).unwrap();
        assert_eq!(headers.len(), 1 + 3 + 3 + 5);
        for (secret, scheme) in [(SECRET, standard::STANDARD), (OTHER, standard::SVIX)] {
            let keys = KeyRing::from(Key::standard(secret).unwrap());
            scheme.verify(&keys, &headers, BODY, now().as_unix_seconds()).unwrap();
        }
    }

    #[test]
    fn the_trace_context_of_an_event_replaces_headers_of_the_endpoint() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let event = SerializedEvent::new(&Event::new("user.created", ()).unwrap());
        let own = Endpoint::new("https://example.com/", SECRET).unwrap();
        let own = own.header("traceparent", "own").unwrap().header("tracestate", "own").unwrap();
        let names = |trace: Option<TraceContext>| {
            let event = SerializedEvent { trace, ..event.clone() };
            let headers = signed_headers(&own, &event, BODY, now()).unwrap();
            let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            (text("traceparent"), text("tracestate"))
        };
        let own_values = (Some("own".to_owned()), Some("own".to_owned()));
        assert_eq!(names(None), own_values);
        let trace = TraceContext::parse(parent, ["a=1", "b=2"]);
        assert_eq!(names(trace), (Some(parent.to_owned()), Some("a=1,b=2".to_owned())));
        let trace = TraceContext::parse(parent, []);
        assert_eq!(names(trace), (Some(parent.to_owned()), None));
    }

    #[test]
    fn an_algorithm_that_is_no_hmac_signs_nothing() {
        let endpoint = Endpoint::new("https://example.com/", "my-secret-key").unwrap();
        let error = headers(&endpoint.algorithm(Algorithm::Token)).unwrap_err();
        assert!(matches!(error, SigningError::Algorithm(_)), "{error:?}");
    }

    #[test]
    fn expired_secrets_do_not_sign() {
        let endpoint = Endpoint::new("https://example.com/", SECRET).unwrap();
        let expired = Secret::new(OTHER).unwrap().expires_at(now());
        let endpoint = endpoint.rotate(expired, now(), now()).unwrap();
        for profile in [HeaderProfile::Standard, HeaderProfile::XWebhook] {
            let endpoint = endpoint.clone().profiles([profile]).unwrap();
            let error = headers(&endpoint).unwrap_err();
            assert!(matches!(error, SigningError::NoLiveSecret), "{error:?}");
        }
    }
}
