//! The content type of a request.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// The content type of HTML forms.
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

/// Returns whether there is one content type, and it is this one without its parameters.
pub(crate) fn is(headers: &HeaderMap, expected: &str) -> bool {
    essence(headers).eq_ignore_ascii_case(expected)
}

/// Returns the content type without its parameters: empty if there is none, or more than one.
pub(crate) fn essence(headers: &HeaderMap) -> &str {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return "" };
    value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim()
}
