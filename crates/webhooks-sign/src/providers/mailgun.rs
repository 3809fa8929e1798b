//! Mailgun, which signs three strings in its JSON body and not the body itself.

use crate::scheme::HEX_OF_BODY;
use crate::{Error, KeyRing, Part, Scheme, TimestampFormat, TimestampSource, Tolerance, Verified};

/// `{timestamp}{token}`, with the token in place of a body.
pub const MAILGUN: Scheme = Scheme {
    name: "mailgun",
    signature: "signature",
    timestamp: Some(TimestampSource::Header("timestamp", TimestampFormat::Seconds)),
    parts: &[Part::Timestamp, Part::Body],
    ..HEX_OF_BODY
};

/// Verifies the object `signature` of a Mailgun event: its `timestamp`, `token` and `signature`.
///
/// Nothing else of the event is signed, so the verified body is the token alone: remember it, for
/// it is used once. documentation.mailgun.com, "Securing webhooks".
///
/// # Errors
/// [`Error`] says what is wrong, and whether it is malformed, stale or forged.
///
/// # Example
/// ```
/// use webhooks_sign::providers::mailgun::{MAILGUN, verify};
/// use webhooks_sign::{Envelope, KeyRing, Tolerance};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = MAILGUN.key("signing-key")?;
/// let envelope = Envelope { timestamp: "1529006854", ..Envelope::default() };
/// let signature = MAILGUN.sign(&key, &envelope, b"a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0")?;
/// let token = "a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0";
/// let keys = KeyRing::from(key);
/// let tolerance = Tolerance::default();
/// verify(&keys, "1529006854", token, signature.as_str(), 1_529_006_860, tolerance)?;
/// # Ok(())
/// # }
/// ```
pub fn verify<'a, const N: usize>(
    keys: &KeyRing<N>,
    timestamp: &str,
    token: &'a str,
    signature: &str,
    now: u64,
    tolerance: Tolerance,
) -> Result<Verified<'static, &'a str>, Error> {
    let headers = [("timestamp", timestamp), ("signature", signature)];
    let verifier = MAILGUN.verifier().tolerance(tolerance);
    let verified = verifier.verify(keys, &headers, token.as_bytes(), now)?;
    Ok(verified.without_id().with_body(token))
}
