//! The plain scheme: a lower-case hexadecimal HMAC of the body in `X-Webhook-Signature`.
//!
//! Nothing but the body is signed, so a message can be replayed: keep the ids that you have seen,
//! or use [`standard`](crate::standard) where you have the choice.

use crate::encoding::Encoding;
use crate::scheme::{Grammar, Scheme};
use crate::{Error, Headers, Key, KeyRing, Pending, Signature, Tolerance, Verified};

const X_WEBHOOK: Scheme = Scheme {
    name: "x-webhook",
    signature: "x-webhook-signature",
    grammar: Grammar::One,
    encoding: Encoding::Hex,
    id: None,
    timestamp: None,
    parts: &[],
};

/// Signs a body: HMAC-SHA256 or HMAC-SHA512, as the key says, in lower-case hexadecimal.
///
/// # Example
/// ```
/// use webhooks_sign::{Algorithm, Key, x_webhook};
///
/// // RFC 4231 §4.3, test case 2.
/// let key = Key::from_legacy_bytes(Algorithm::HmacSha256, b"Jefe")?;
/// assert_eq!(
///     x_webhook::sign(&key, b"what do ya want for nothing?").as_str(),
///     "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
/// );
/// # Ok::<(), webhooks_sign::KeyError>(())
/// ```
#[must_use]
pub fn sign(key: &Key, body: &[u8]) -> Signature {
    let mut mac = key.start();
    mac.update(body);
    Signature::new("", X_WEBHOOK.encoding, &mac.finish())
}

/// Checks the headers of a webhook whose body is still to come.
///
/// The algorithm is that of the keys. `X-Webhook-Signature-Algorithm` is not looked at: a header
/// must never choose it.
///
/// # Errors
/// Every [`Error`] but a body that was changed, which [`Pending::finish`] finds.
pub fn begin<'h, const N: usize>(
    keys: &KeyRing<N>,
    headers: &'h (impl Headers + ?Sized),
) -> Result<Pending<'h, N>, Error> {
    Pending::begin(const { &X_WEBHOOK }, None, keys, headers, 0, Tolerance::default())
}

/// Verifies a webhook whose body is in memory.
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
/// let signature = x_webhook::sign(&key, b"{}");
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
    let mut pending = begin(keys, headers)?;
    pending.update(body);
    Ok(pending.finish()?.with_body(body))
}
