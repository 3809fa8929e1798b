//! Twilio, which signs the URL and, of a form, its fields sorted by name.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::headers::Headers;
use crate::scheme::HEX_OF_BODY;
use crate::{Algorithm, Encoding, Error, Expected, KeyRing, Part, Scheme, Verified};

/// The URL, and in place of the body the fields of the form: each name and value, joined.
pub const TWILIO: Scheme = Scheme {
    name: "twilio",
    algorithm: Algorithm::HmacSha1,
    signature: "x-twilio-signature",
    encoding: Encoding::Base64,
    parts: &[Part::Url, Part::Body],
    ..HEX_OF_BODY
};

/// The query parameter that carries the hash of a body which is no form.
const BODY_HASH: &str = "bodySHA256=";

/// Verifies a request with a form. `fields` are its decoded names and values; they are sorted in
/// place, unless the headers are refused. twilio.com/docs/usage/webhooks/webhooks-security.
///
/// # Errors
/// [`Error`] says what is wrong, and whether it is malformed or forged.
pub fn verify_form<'h, const N: usize>(
    keys: &KeyRing<N>,
    headers: &'h (impl Headers + ?Sized),
    url: &str,
    fields: &mut [(&str, &str)],
) -> Result<Verified<'h, ()>, Error> {
    let mut pending = TWILIO.verifier().url(url).begin(keys, headers, 0)?;
    fields.sort_unstable();
    let mut last = None;
    for field in fields.iter() {
        // Twilio counts a name and value that come twice once.
        if last.replace(*field) != Some(*field) {
            pending.update(field.0.as_bytes());
            pending.update(field.1.as_bytes());
        }
    }
    pending.finish()
}

/// Verifies a request with any other body: the URL is signed and holds the body's SHA-256.
///
/// # Errors
/// [`Error`] says what is wrong, and whether it is malformed or forged; a URL without `bodySHA256`
/// would leave the body unprotected and is [`Error::InvalidHeader`].
pub fn verify_body<'h, 'b, const N: usize>(
    keys: &KeyRing<N>,
    headers: &'h (impl Headers + ?Sized),
    url: &str,
    body: &'b [u8],
) -> Result<Verified<'h, &'b [u8]>, Error> {
    let verified = TWILIO.verifier().url(url).begin(keys, headers, 0)?.finish()?;
    let malformed =
        Error::InvalidHeader { header: TWILIO.signature, expected: Expected::Field(BODY_HASH) };
    let (_, query) = url.split_once('?').ok_or(malformed)?;
    let mut hashes = query.split('&').filter_map(|pair| pair.strip_prefix(BODY_HASH));
    let expected = hashes.next().ok_or(malformed)?;
    let mut decoded = [0; 32];
    if Encoding::Hex.decode(expected.as_bytes(), &mut decoded) != Some(decoded.len()) {
        return Err(malformed);
    }
    let is_same = Sha256::digest(body).as_slice().ct_eq(&decoded);
    if bool::from(is_same) { Ok(verified.with_body(body)) } else { Err(Error::NoMatch) }
}
