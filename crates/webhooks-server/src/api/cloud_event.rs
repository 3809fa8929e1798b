//! CloudEvents as messages: CloudEvents 1.0.2, HTTP protocol binding and JSON event format.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::value::RawValue;
use webhooks_core::{Timestamp, TraceContext};

use crate::error::ApiError;
use crate::extract::{Object, parse};

/// The mode in which a request has a CloudEvent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Batch,
    /// The attributes are headers, and the body is the data.
    Binary,
    Structured,
}

/// A CloudEvent, as far as a message has room for it.
#[derive(Debug)]
pub(crate) struct CloudEvent {
    pub(crate) event_type: String,
    /// The text of its source and id.
    pub(crate) event_id: String,
    pub(crate) data: Box<RawValue>,
    pub(crate) time: Option<Timestamp>,
    pub(crate) trace: Option<TraceContext>,
}

impl Mode {
    /// Returns the mode of a request; `None` if it has no CloudEvent.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        match &*essence(media.unwrap_or_default()) {
            "application/cloudevents+json" => Some(Self::Structured),
            "application/cloudevents-batch+json" => Some(Self::Batch),
            _ => headers.contains_key("ce-specversion").then_some(Self::Binary),
        }
    }
}

impl CloudEvent {
    /// Reads a request in structured mode.
    pub(crate) fn structured(body: &[u8]) -> Result<Self, ApiError> {
        let Object(members) = parse(body)?;
        Self::of_members(members)
    }

    /// Reads a request in batch mode.
    pub(crate) fn batch(body: &[u8]) -> Result<Vec<Self>, ApiError> {
        let events: Vec<Object<BTreeMap<String, Box<RawValue>>>> = parse(body)?;
        events.into_iter().map(|Object(members)| Self::of_members(members)).collect()
    }

    /// Reads a request in binary mode.
    pub(crate) fn binary(headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        let mut attributes = BTreeMap::new();
        for (name, value) in headers {
            let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
            let text = value.to_str().ok().and_then(decoded);
            let text = text.ok_or_else(|| header_error(name, "it is no text of this binding"))?;
            if attributes.insert(name.to_owned(), text).is_some() {
                return Err(header_error(name, "it is there more than once"));
            }
        }
        if let Some(media) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) {
            attributes.insert("datacontenttype".to_owned(), media.to_owned());
        }
        Self::of_attributes(attributes, parse(body)?)
    }

    fn of_members(mut members: BTreeMap<String, Box<RawValue>>) -> Result<Self, ApiError> {
        let data = members.remove("data");
        if members.contains_key("data_base64") {
            return Err(ApiError::value("data_base64", "the data must be JSON, in data"));
        }
        let mut attributes = BTreeMap::new();
        for (name, value) in members {
            // "null" stands for an attribute that is absent; numbers and booleans for their texts.
            let text = match value.get() {
                "null" => continue,
                quoted if quoted.starts_with('"') => serde_json::from_str(quoted).ok(),
                other => (!other.starts_with(['{', '['])).then(|| other.to_owned()),
            };
            let text = text.ok_or_else(|| ApiError::value(&name, "it must be a text"))?;
            attributes.insert(name, text);
        }
        let data = data.ok_or_else(|| ApiError::value("data", "it is missing"))?;
        Self::of_attributes(attributes, data)
    }

    fn of_attributes(
        mut attributes: BTreeMap<String, String>,
        data: Box<RawValue>,
    ) -> Result<Self, ApiError> {
        let mut required = |name: &str| {
            let value = attributes.remove(name).filter(|value| !value.is_empty());
            value.ok_or_else(|| ApiError::value(name, "it is missing or empty"))
        };
        if required("specversion")? != "1.0" {
            return Err(ApiError::value("specversion", "only 1.0 is known"));
        }
        let (id, source, event_type) = (required("id")?, required("source")?, required("type")?);
        if let Some(media) = attributes.remove("datacontenttype")
            && !is_json(&media)
        {
            return Err(ApiError::value("datacontenttype", "the data must be JSON"));
        }
        let time = attributes.remove("time").map(|time| time.parse()).transpose();
        let time = time.map_err(|error| ApiError::value("time", error))?;
        // The extension "Distributed Tracing".
        let state = attributes.remove("tracestate");
        let parent = attributes.remove("traceparent");
        let trace = parent.and_then(|parent| TraceContext::parse(&parent, state.as_deref()));
        if let Some(name) = attributes.keys().next() {
            let reason = "a message has no room for this attribute; put it into data";
            return Err(ApiError::value(name, reason));
        }
        let event_id = format!("{}__{}", name_of(&source), name_of(&id));
        Ok(Self { event_type, event_id, data, time, trace })
    }
}

fn header_error(name: &str, reason: &str) -> ApiError {
    ApiError::field(["header".to_owned(), format!("ce-{name}")], reason, "value_error")
}

/// Returns the media type without its parameters.
fn essence(media: &str) -> String {
    media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_json(media: &str) -> bool {
    let essence = essence(media);
    essence == "application/json" || essence.ends_with("+json")
}

/// Returns a text of the characters that an `eventId` may have. Other characters become `_` and two
/// digits for each byte, so that different texts stay different.
fn name_of(text: &str) -> String {
    let mut name = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-.".contains(&byte) {
            name.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _written = write!(name, "_{byte:02x}");
        }
    }
    name
}

/// Returns the text of a header, whose characters may be percent-encoded: HTTP protocol binding
/// §3.1.3.2. `None` if it is not UTF-8 then.
fn decoded(value: &str) -> Option<String> {
    let bytes = value.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while let Some(byte) = bytes.get(place) {
        let hex = value.get(place + 1..place + 3).filter(|_| *byte == b'%');
        let hex = hex.filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(encoded) => {
                decoded.push(encoded);
                place += 3;
            }
            None => {
                decoded.push(*byte);
                place += 1;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the JSON event format, without the attributes that a message has no room for.
    const EXAMPLE: &str = r#"{ "specversion" : "1.0", "type" : "com.example.someevent",
        "source" : "/mycontext", "id" : "C234-1234-1234", "time" : "2018-04-05T17:31:00Z",
        "subject": null, "datacontenttype" : "application/json; charset=utf-8",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "data" : { "appinfoA" : "abc", "appinfoB" : 1.0 } }"#;

    fn check_refused(body: &str, field: &str) {
        let refused = format!(
            "{:?}",
            CloudEvent::structured(body.as_bytes()).map_err(|error| {
                let body = axum::response::IntoResponse::into_response(error);
                body.status()
            })
        );
        assert!(refused.contains("422"), "{field}: {refused}");
    }

    #[test]
    fn a_structured_event_is_read() {
        let event = CloudEvent::structured(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(event.event_type, "com.example.someevent");
        assert_eq!(event.event_id, "_2fmycontext__C234-1234-1234");
        assert_eq!(event.data.get(), r#"{ "appinfoA" : "abc", "appinfoB" : 1.0 }"#);
        assert_eq!(event.time.unwrap().to_string(), "2018-04-05T17:31:00Z");
        assert!(event.trace.is_some());
        let batch = format!("[{EXAMPLE},{EXAMPLE}]");
        assert_eq!(CloudEvent::batch(batch.as_bytes()).unwrap().len(), 2);
    }

    #[test]
    fn an_event_that_cannot_be_kept_is_refused() {
        for (from, to) in [
            (r#""1.0""#, r#""0.3""#),
            (r#""C234-1234-1234""#, r#""""#),
            (r#""source""#, r#""from""#),
            (r#""subject": null"#, r#""subject": "a""#),
            (r#""subject": null"#, r#""comexampleextension": 1"#),
            ("application/json;", "text/xml;"),
            (r#""data""#, r#""data_base64""#),
            ("2018-04-05T17:31:00Z", "yesterday"),
        ] {
            assert!(EXAMPLE.contains(from));
            check_refused(&EXAMPLE.replacen(from, to, 1), to);
        }
    }

    #[test]
    fn a_binary_event_is_read() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-type", "com.example.someevent"),
            ("ce-source", "Euro%20%E2%82%AC%20100%"),
            ("ce-id", "a"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        assert_eq!(Mode::of(&headers), Some(Mode::Binary));
        let event = CloudEvent::binary(&headers, b"{\"a\": 1.0}").unwrap();
        assert_eq!(event.event_id, "Euro_20_e2_82_ac_20100_25__a");
        assert_eq!(event.data.get(), "{\"a\": 1.0}");
        headers.insert("ce-subject", "a".parse().unwrap());
        assert!(CloudEvent::binary(&headers, b"{}").is_err());
    }

    #[test]
    fn different_sources_and_ids_have_different_names() {
        let texts = ["", "_", "__", "a", "a_", "_a", "/", "_2f", "a__a", "A"];
        let mut names: Vec<String> = Vec::new();
        for source in texts {
            names.extend(texts.map(|id| format!("{}__{}", name_of(source), name_of(id))));
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
