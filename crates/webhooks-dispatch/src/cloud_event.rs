//! A delivery as a CloudEvent: CloudEvents 1.0.2, JSON event format and HTTP protocol binding.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use webhooks_core::{EventId, EventType, TenantId};

/// The media type of a CloudEvent in structured mode: CloudEvents 1.0.2, JSON event format §3.
pub(crate) const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/cloudevents+json");

/// The parts of a stored body. Those that are passed on stay as they are written.
#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    event_id: &'a RawValue,
    #[serde(borrow)]
    event_type: &'a RawValue,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: &'a RawValue,
}

/// The attributes of a stored body that are not known without it.
#[derive(Deserialize)]
struct Attributes<'a> {
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
}

/// A CloudEvent of JSON data: its required attributes, and `time` and `datacontenttype`.
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a RawValue,
    source: &'a str,
    #[serde(rename = "type")]
    event_type: &'a RawValue,
    time: &'a RawValue,
    datacontenttype: &'static str,
    data: &'a RawValue,
}

/// Returns the CloudEvent of a stored body; `None` if the body cannot be read. The same body gives the
/// same bytes, so all attempts send the same.
pub(crate) fn of_stored(body: &[u8], tenant: &TenantId) -> Option<Bytes> {
    let Stored { event_id, event_type, payload, source, timestamp } =
        serde_json::from_slice(body).ok()?;
    let source = source_of(source, tenant);
    let event = CloudEvent {
        specversion: "1.0",
        id: event_id,
        source: &source,
        event_type,
        time: timestamp,
        datacontenttype: "application/json",
        data: payload,
    };
    serde_json::to_vec(&event).ok().map(Bytes::from)
}

/// The number of headers that [`insert_headers`] adds.
pub(crate) const HEADERS: usize = 5;

/// Adds the attributes of an event to the headers of a request in binary mode; `None` if the stored body
/// cannot be read.
pub(crate) fn insert_headers(
    headers: &mut HeaderMap,
    (id, event_type, tenant): (&EventId, &EventType, &TenantId),
    stored: &[u8],
) -> Option<()> {
    let Attributes { source, timestamp } = serde_json::from_slice(stored).ok()?;
    for (name, value) in [
        (HeaderName::from_static("ce-specversion"), "1.0"),
        (HeaderName::from_static("ce-id"), &*id.to_string()),
        (HeaderName::from_static("ce-source"), &*source_of(source, tenant)),
        (HeaderName::from_static("ce-type"), event_type.as_str()),
        (HeaderName::from_static("ce-time"), &*timestamp),
    ] {
        headers.insert(name, HeaderValue::try_from(header_text(value)).ok()?);
    }
    Some(())
}

/// Returns the value of a header that stands for a text: HTTP protocol binding §3.1.3.2. "Space (U+0020),
/// Double-quote (U+0022), Percent (U+0025)" and "Any characters outside the printable ASCII range of
/// U+0021-U+007E" must be encoded, byte by byte of their UTF-8.
fn header_text(text: &str) -> String {
    percent_encoded(text, |byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'%')
}

/// Returns the `source` of an event, which may have none.
fn source_of(source: Option<Cow<'_, str>>, tenant: &TenantId) -> String {
    let source = source.filter(|source| !source.is_empty());
    source.map_or_else(|| format!("/{tenant}"), |source| uri_reference(&source))
}

/// Returns a text as a URI reference, which a `source` must be (RFC 3986 §4.1): as it is if it is one,
/// else as a relative path, with percent-encoded characters.
fn uri_reference(text: &str) -> String {
    if is_uri_reference(text) {
        return text.to_owned();
    }
    percent_encoded(text, is_unreserved)
}

/// Returns a text whose bytes are percent-encoded unless they stay.
fn percent_encoded(text: &str, stays: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if stays(byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _written = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Returns whether a text is a URI reference. Hosts in brackets count as none.
fn is_uri_reference(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_fit = |(place, byte): (usize, &u8)| match byte {
        b'%' => {
            bytes.get(place + 1..place + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
        }
        byte => is_unreserved(*byte) || b":/?#@!$&'()*+,;=".contains(byte),
    };
    // A colon in the first segment ends a scheme.
    let first = text.split(['/', '?', '#']).next().unwrap_or_default();
    let has_scheme = match first.split_once(':') {
        None => true,
        Some((scheme, _)) => {
            let is_in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(is_in_scheme)
        }
    };
    has_scheme && text.matches('#').count() <= 1 && bytes.iter().enumerate().all(is_fit)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use webhooks_core::{Event, EventId, Payload, Timestamp};

    use super::*;

    fn event(source: Option<&str>) -> Event {
        let payload = Payload::from_json("{ \"b\": 1.0,\t\"a\":[1e308] }".to_owned()).unwrap();
        let event = Event::new("com.example.someevent", payload).unwrap();
        let event = event.id(EventId::new("A234-1234-1234").unwrap());
        let event = event.timestamp(Timestamp::from_unix_seconds(1_522_949_497));
        match source {
            Some(source) => event.source(source),
            None => event,
        }
    }

    fn text(source: Option<&str>) -> String {
        let body = of_stored(event(source).to_json().as_bytes(), &TenantId::default()).unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn source(given: &str) -> String {
        let event: Value = serde_json::from_str(&text(Some(given))).unwrap();
        event["source"].as_str().unwrap().to_owned()
    }

    #[test]
    fn the_attributes_are_those_of_the_event_and_the_data_is_the_payload() {
        assert_eq!(
            text(Some("https://github.com/cloudevents?a=1#b")),
            concat!(
                r#"{"specversion":"1.0","id":"A234-1234-1234","#,
                r#""source":"https://github.com/cloudevents?a=1#b","type":"com.example.someevent","#,
                r#""time":"2018-04-05T17:31:37Z","datacontenttype":"application/json","#,
                "\"data\":{ \"b\": 1.0,\t\"a\":[1e308] }}"
            )
        );
    }

    /// "id: MUST be a non-empty string", and so on: CloudEvents 1.0.2, "Required attributes". The names
    /// "MUST consist of lower-case letters or digits".
    #[test]
    fn each_required_attribute_is_there_and_not_empty() {
        for source in [None, Some(""), Some("user-service"), Some("a b")] {
            let event: Value = serde_json::from_str(&text(source)).unwrap();
            for name in ["id", "source", "type", "specversion"] {
                assert!(event[name].as_str().is_some_and(|value| !value.is_empty()), "{name}");
            }
            let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            assert!(event.as_object().unwrap().keys().all(|name| name.bytes().all(is_fit)));
        }
        let event: Value = serde_json::from_str(&text(None)).unwrap();
        assert_eq!(event["source"], json!("/default"));
    }

    /// The examples of CloudEvents 1.0.2, "source", and those of RFC 3986 §1.1.2 without brackets.
    #[test]
    fn a_source_that_is_a_uri_reference_stays_as_it_is() {
        for text in [
            "https://github.com/cloudevents",
            "mailto:cncf-wg-serverless@lists.cncf.io",
            "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
            "cloudevents/spec/pull/123",
            "/sensors/tn-1234567/alerts",
            "1-555-123-4567",
            "tel:+1-816-555-1212",
            "//example.com/a:b",
            "a%20b",
            "./1:2",
        ] {
            assert_eq!(source(text), text);
        }
    }

    #[test]
    fn another_source_becomes_a_path() {
        for (text, expected) in [
            ("user service", "user%20service"),
            ("1:2", "1%3A2"),
            (":", "%3A"),
            ("a#b#c", "a%23b%23c"),
            ("100%", "100%25"),
            ("\u{e9}", "%C3%A9"),
            ("[::1]\n\"", "%5B%3A%3A1%5D%0A%22"),
        ] {
            assert_eq!(source(text), expected, "{text}");
        }
    }

    /// The example of HTTP protocol binding §3.1.3.2, and the characters at its limits.
    #[test]
    fn a_header_has_the_characters_that_it_may_have() {
        for (text, expected) in [
            ("Euro \u{20ac} \u{1f600}", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("!#$&'()*+,-./:;<=>?@[]^_`{|}~", "!#$&'()*+,-./:;<=>?@[]^_`{|}~"),
            ("a\"b%20\\\n\u{7f}", "a%22b%2520\\%0A%7F"),
        ] {
            assert_eq!(header_text(text), expected);
        }
    }

    fn headers(event: &Event) -> Vec<(String, String)> {
        let (mut headers, tenant) = (HeaderMap::new(), TenantId::default());
        let ids = (&event.id, &event.event_type, &tenant);
        insert_headers(&mut headers, ids, event.to_json().as_bytes()).unwrap();
        assert_eq!(headers.len(), HEADERS);
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    #[test]
    fn the_attributes_are_headers_in_binary_mode() {
        let expected = [
            ("ce-specversion", "1.0"),
            ("ce-id", "A234-1234-1234"),
            ("ce-source", "/a%2520b"),
            ("ce-type", "com.example.someevent"),
            ("ce-time", "2018-04-05T17:31:37Z"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(headers(&event(Some("/a%20b"))), expected);
        let id = EventId::new("100%\"").unwrap();
        let found = headers(&event(None).id(id));
        assert_eq!((&*found[1].1, &*found[2].1), ("100%25%22", "/default"));
    }

    #[test]
    fn a_damaged_body_is_no_event() {
        for stored in [&b""[..], b"{}", b"null", br#"{"event_id":"a","payload":1}"#] {
            assert_eq!(of_stored(stored, &TenantId::default()), None);
            let (event, mut headers) = (event(None), HeaderMap::new());
            let ids = (&event.id, &event.event_type, &TenantId::default());
            assert_eq!(insert_headers(&mut headers, ids, stored), None);
        }
    }

    proptest! {
        #[test]
        fn every_source_becomes_a_uri_reference(text in "\\PC{1,20}|[a-c:/?#%2]{1,12}") {
            let given = source(&text);
            prop_assert!(is_uri_reference(&given), "{} of {}", given, text);
        }
    }
}
