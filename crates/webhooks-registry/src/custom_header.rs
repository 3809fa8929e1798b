//! Headers that an endpoint adds to its deliveries.

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use thiserror::Error;

/// The most headers that an endpoint may add.
const MAX_HEADERS: usize = 32;

/// The longest name and value of one header together, in bytes.
const MAX_LEN: usize = 4096;

/// The reserved names: headers of the connection (RFC 9110 §7.6.1), of the framing or of proxies, and
/// those that make a server read another body than the one that was signed.
const RESERVED: [&str; 16] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

/// The reserved prefixes: headers that the delivery sets, and headers for proxies.
const RESERVED_PREFIXES: [&str; 4] = ["proxy-", "svix-", "webhook-", "x-webhook-"];

/// The reason why a header cannot be added. It does not repeat the value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The value is not a media type of JSON, and the body of a delivery is JSON.
    #[error("the body is JSON: content-type must be application/json or end in +json")]
    ContentType,
    /// The name is not valid for a header (RFC 9110 §5.1).
    #[error("{name:?} is not the name of a header")]
    Name {
        /// The name, its first 64 characters at most.
        name: String,
    },
    /// The header is set by the delivery or the connection.
    #[error("header {name:?} is reserved")]
    Reserved {
        /// The name.
        name: String,
    },
    /// Name and value together exceed 4,096 bytes.
    #[error("header {name:?} is too long; name and value may have {MAX_LEN} bytes together")]
    TooLong {
        /// The name, its first 64 characters at most.
        name: String,
    },
    /// There are 32 headers already.
    #[error("an endpoint has at most {MAX_HEADERS} headers of its own")]
    TooMany,
    /// The value has a line break or another character that no header may hold (RFC 9110 §5.5).
    #[error("the value of header {name:?} has a character that is not allowed")]
    Value {
        /// The name.
        name: String,
    },
}

/// Returns the header if deliveries may carry it. Its value is marked as sensitive.
pub(crate) fn parse(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), HeaderError> {
    let shown = || name.chars().take(64).collect::<String>();
    if name.len().saturating_add(value.len()) > MAX_LEN {
        return Err(HeaderError::TooLong { name: shown() });
    }
    let parsed =
        HeaderName::try_from(name).map_err(|_says_no_more| HeaderError::Name { name: shown() })?;
    let lower = parsed.as_str();
    let is_prefixed = RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix));
    if is_prefixed || RESERVED.contains(&lower) {
        return Err(HeaderError::Reserved { name: shown() });
    }
    if parsed == CONTENT_TYPE && !is_json(value) {
        return Err(HeaderError::ContentType);
    }
    let mut value = HeaderValue::try_from(value)
        .map_err(|_says_no_more| HeaderError::Value { name: shown() })?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

/// Returns whether a media type, with its parameters, is one of JSON: RFC 8259, or with the suffix of
/// RFC 6839 §3.1.
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json") && essence.contains('/')
}

/// Returns `Ok` if an endpoint may have `count` headers.
pub(crate) fn check_count(count: usize) -> Result<(), HeaderError> {
    if count > MAX_HEADERS { Err(HeaderError::TooMany) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_delivery_or_the_connection_sets_is_reserved() {
        for name in RESERVED.into_iter().chain([
            "Host",
            "Webhook-Signature",
            "webhook-id",
            "SVIX-ID",
            "svix-timestamp",
            "X-Webhook-Event",
            "Proxy-Authorization",
            "proxy-connection",
            "Transfer-Encoding",
        ]) {
            let name = name.to_owned();
            let reserved = HeaderError::Reserved { name: name.clone() };
            assert_eq!(parse(&name, "1"), Err(reserved), "{name}");
        }
        for name in ["Authorization", "X-Api-Key", "User-Agent", "webhooks"] {
            assert!(parse(name, "1").is_ok(), "{name}");
        }
    }

    #[test]
    fn a_content_type_says_that_the_body_is_json() {
        for value in [
            "application/json",
            "application/cloudevents+json; charset=utf-8",
            "Application/JSON;charset=utf-8",
        ] {
            assert!(parse("Content-Type", value).is_ok(), "{value}");
        }
        for value in
            ["text/plain", "", "+json", "application/xml", "text/plain; a=application/json"]
        {
            assert_eq!(parse("content-type", value), Err(HeaderError::ContentType), "{value}");
        }
    }

    #[test]
    fn neither_name_nor_value_can_start_another_line() {
        for name in ["", " ", "a b", "a:", "a\r\nb", "é", "a\0", ":path"] {
            assert!(matches!(parse(name, "1"), Err(HeaderError::Name { .. })), "{name:?}");
        }
        for value in ["a\r\nhost: b", "a\nb", "a\rb", "a\0b", "\u{7f}"] {
            let error = parse("x-key", value).unwrap_err();
            assert_eq!(error, HeaderError::Value { name: "x-key".to_owned() });
        }
    }

    #[test]
    fn a_value_is_not_shown() {
        let (_, value) = parse("authorization", "Bearer hush").unwrap();
        assert!(!format!("{value:?}").contains("hush"));
        let long = "hush".repeat(1024);
        assert!(!parse("x-key", &long).unwrap_err().to_string().contains("hush"));
    }
}
