//! The schemes that are known, and those by which a request may be signed.

use http::HeaderMap;
use webhooks_sign::standard::{STANDARD, SVIX};
use webhooks_sign::x_webhook::{X_WEBHOOK, X_WEBHOOK_SHA512};
use webhooks_sign::{
    providers,
    scheme::{Content, Scheme},
};

/// The schemes that belong to no provider.
static OWN: [Scheme; 4] = [STANDARD, SVIX, X_WEBHOOK, X_WEBHOOK_SHA512];

/// Returns all schemes that webhooks-sign has, as far as its features are on.
pub fn schemes() -> impl Iterator<Item = &'static Scheme> {
    OWN.iter().chain(providers::ALL)
}

/// Returns the schemes by which a request may be signed, to judge by its headers. A scheme that signs a token
/// in the body is not among them.
///
/// # Example
/// ```
/// use http::HeaderMap;
/// use webhooks_receive::recognition;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("stripe-signature", "t=1767225600,v1=00".parse()?);
/// let names: Vec<_> = recognition::schemes_of(&headers).iter().map(|scheme| scheme.name()).collect();
/// assert_eq!(names, ["stripe"]);
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
pub fn schemes_of(headers: &HeaderMap) -> Vec<&'static Scheme> {
    schemes()
        .filter(|scheme| headers.keys().any(|name| reads(scheme, headers, name.as_str())))
        .collect()
}

/// Returns the schemes that read this header as a signature.
pub(crate) fn readers(headers: &HeaderMap, name: &str) -> impl Iterator<Item = &'static Scheme> {
    schemes().filter(move |scheme| reads(scheme, headers, name))
}

/// Returns whether a scheme reads this header as a signature, it has the scheme's prefix, and the header with
/// its id exists.
fn reads(scheme: &Scheme, headers: &HeaderMap, name: &str) -> bool {
    let value = headers.get(name).map(http::HeaderValue::as_bytes).unwrap_or_default();
    scheme.content() != Content::Token
        && is_signature(scheme, name)
        && has_part(value, scheme.signature_prefix())
        && scheme.id_header().is_none_or(|id| headers.contains_key(id))
}

pub(crate) fn has_part(value: &[u8], part: &str) -> bool {
    part.is_empty() || value.windows(part.len()).any(|window| window == part.as_bytes())
}

pub(crate) fn is_signature(scheme: &Scheme, name: &str) -> bool {
    name == scheme.signature_header() || scheme.more_signature_headers().contains(&name)
}
