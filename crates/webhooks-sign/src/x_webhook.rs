//! The plain scheme: a lower-case hexadecimal HMAC of the body in `X-Webhook-Signature`.
//!
//! Only the body is signed, so a message can be replayed: store the ids that you have seen, or use
//! [`standard`](crate::standard) if you have the choice.

use crate::scheme::{Encoding, HEX_OF_BODY, KeyFormat, Scheme};
use crate::{Algorithm, Envelope, Error, Headers, Key, KeyRing, SignError, Signature, Verified};

/// `X-Webhook-Signature` with HMAC-SHA256.
pub const X_WEBHOOK: Scheme = Scheme {
    name: "x-webhook",
    signature: "x-webhook-signature",
    encoding: Encoding::LowerHex,
    key: KeyFormat::StandardOrText,
    // The field of the body that our senders make by default.
    event_id: &["/event_id"],
    ..HEX_OF_BODY
};

/// `X-Webhook-Signature` with HMAC-SHA512.
pub const X_WEBHOOK_SHA512: Scheme =
    Scheme { name: "x-webhook-sha512", algorithm: Algorithm::HmacSha512, ..X_WEBHOOK };

/// Returns the scheme for the keys of an algorithm.
fn scheme_of(algorithm: Algorithm) -> &'static Scheme {
    match algorithm {
        Algorithm::HmacSha512 => const { &X_WEBHOOK_SHA512 },
        _ => const { &X_WEBHOOK },
    }
}

/// Signs a body by HMAC-SHA256 or HMAC-SHA512, depending on the key, in lower-case hexadecimal.
///
/// # Errors
/// [`SignError::UnsuitableKey`] when the key is for neither.
///
/// # Example
/// ```
/// use webhooks_sign::{Algorithm, Key, x_webhook};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // RFC 4231 §4.3, test case 2.
/// let key = Key::from_legacy_bytes(Algorithm::HmacSha256, b"Jefe")?;
/// assert_eq!(
///     x_webhook::sign(&key, b"what do ya want for nothing?")?.as_str(),
///     "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
/// );
/// # Ok(())
/// # }
/// ```
pub fn sign(key: &Key, body: &[u8]) -> Result<Signature, SignError> {
    scheme_of(key.algorithm()).sign(key, &Envelope::default(), body)
}

/// Verifies a webhook whose body is in memory.
///
/// The algorithm is that of the keys. `X-Webhook-Signature-Algorithm` is ignored: a header must never
/// choose the algorithm.
///
/// # Errors
/// [`Error`] says what is wrong, and whether it is malformed or forged.
///
/// # Example
/// ```
/// use webhooks_sign::{Algorithm, Key, KeyRing, x_webhook};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = Key::from_legacy_bytes(Algorithm::HmacSha512, b"my-secret-key")?;
/// let signature = x_webhook::sign(&key, b"{}")?;
/// let headers = [("X-Webhook-Signature", signature.as_str())];
/// let keys = KeyRing::from(key);
/// assert_eq!(x_webhook::verify(&keys, &headers, b"{}")?.body(), b"{}");
/// assert!(x_webhook::verify(&keys, &headers, b"{ }").is_err());
/// # Ok(())
/// # }
/// ```
pub fn verify<'h, 'b, const N: usize>(
    keys: &KeyRing<N>,
    headers: &'h (impl Headers + ?Sized),
    body: &'b [u8],
) -> Result<Verified<'h, &'b [u8]>, Error> {
    let first = keys.iter().next().ok_or(Error::UnsuitableKey)?;
    scheme_of(first.algorithm()).verify(keys, headers, body, 0)
}
