//! The record of a response, for the endpoint's owner to read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;

/// The part of a response's body that is recorded with the attempt, in bytes.
const MAX_BODY: usize = 1024;

/// The part of a header's value that is recorded, in bytes.
const MAX_VALUE: usize = 256;

/// The headers that explain an answer, or with which the receiver's owner finds the request in
/// logs. None of them holds cookies or credentials.
const SAFE_HEADERS: [&str; 9] = [
    "content-type",
    "retry-after",
    "location",
    "allow",
    "server",
    "via",
    "x-request-id",
    "x-amzn-requestid",
    "cf-ray",
];

/// The start of a response's body, as people can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "bytes are a text or they are not")]
pub enum Excerpt<'a> {
    /// Bytes that are no text, in base64 (RFC 4648 §4).
    Base64(String),
    /// A text.
    Text(&'a str),
}

impl<'a> Excerpt<'a> {
    /// Returns the bytes as a text if they are one (UTF-8 without control characters, except tabs
    /// and line ends), or else in base64.
    pub fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(is_unreadable) => Self::Text(text),
            _ => Self::Base64(STANDARD.encode(bytes)),
        }
    }
}

fn is_unreadable(character: char) -> bool {
    character.is_control() && !matches!(character, '\t' | '\n' | '\r')
}

/// Returns the part of a body that is recorded; if it is a text, whole characters.
pub(crate) fn start_of(body: &Bytes) -> Bytes {
    let start = body.slice(..body.len().min(MAX_BODY));
    match std::str::from_utf8(&start) {
        // Without a length, the error is a last character that was cut off.
        Err(error) if error.error_len().is_none() => start.slice(..error.valid_up_to()),
        _ => start,
    }
}

/// Returns the headers that may be recorded, one per line.
pub(crate) fn safe_headers(headers: &HeaderMap) -> String {
    let mut lines = String::new();
    for name in SAFE_HEADERS {
        let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) else { continue };
        let value = value.get(..MAX_VALUE).unwrap_or(value);
        let value = if name == "location" { &place(value) } else { value };
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.extend([name, ": ", value]);
    }
    lines
}

/// Returns a URL without the parts that are often secret: query, fragment and credentials.
fn place(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    match bare.split_once("//") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}//{host}{path}")
        }
        None => bare.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_other_bytes_anywhere() {
        let text = Bytes::from(format!("x{}", "é".repeat(MAX_BODY)));
        assert_eq!(start_of(&text).len(), MAX_BODY - 1);
        assert!(matches!(Excerpt::of(&start_of(&text)), Excerpt::Text(_)));
        let bytes = Bytes::from(vec![0xff; MAX_BODY + 1]);
        assert_eq!(start_of(&bytes).len(), MAX_BODY);
        assert_eq!(Excerpt::of(&[0xff, 0, 0xfe]), Excerpt::Base64("/wD+".to_owned()));
        assert_eq!(Excerpt::of(b"a\0"), Excerpt::Base64("YQA=".to_owned()));
        assert_eq!(Excerpt::of(b"thank you\r\n"), Excerpt::Text("thank you\r\n"));
    }

    #[test]
    fn headers_that_may_hold_secrets_are_left_out() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("set-cookie", "session=hush"),
            ("authorization", "hush"),
            ("location", "https://hush:hush@example.com/login@?token=hush#hush"),
            ("retry-after", "120"),
            ("content-type", "text/plain"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let kept =
            "content-type: text/plain\nretry-after: 120\nlocation: https://example.com/login@";
        assert_eq!(safe_headers(&headers), kept);
        let long = HeaderValue::from_str(&"x".repeat(MAX_VALUE * 2)).unwrap();
        headers.insert("server", long);
        assert_eq!(safe_headers(&headers).len(), kept.len() + "\nserver: ".len() + MAX_VALUE);
        assert_eq!(safe_headers(&HeaderMap::new()), "");
    }

    proptest! {
        #[test]
        fn a_text_stays_a_text(text in "\\PC{0,2000}") {
            let start = start_of(&Bytes::from(text.clone()));
            prop_assert!(start.len() > MAX_BODY - 4 || start.len() == text.len());
            let kept = text.get(..start.len()).expect("whole characters");
            prop_assert_eq!(Excerpt::of(&start), Excerpt::Text(kept));
        }
    }
}
