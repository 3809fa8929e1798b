//! Standard Webhooks 1.0, symmetric (`v1`), under its own header names or those of Svix.
//!
//! The signed bytes are `{id}.{timestamp}.{body}`, the signature is `v1,` and base64.

use core::fmt;

use crate::Verified;
use crate::encoding::Encoding;
use crate::scheme::{Grammar, MAX_SIGNATURES, Part, Scheme, is_valid_id};
use crate::{Algorithm, Error, Headers, Key, KeyRing, Pending, SignError, Signature, Tolerance};

/// The version ahead of each symmetric signature.
const VERSION: &str = "v1,";

const PARTS: &[Part] = &[Part::Id, Part::Literal("."), Part::Timestamp, Part::Literal(".")];

const STANDARD: Scheme = Scheme {
    name: "standard",
    signature: "webhook-signature",
    grammar: Grammar::List { version: VERSION },
    encoding: Encoding::Base64,
    id: Some("webhook-id"),
    timestamp: Some("webhook-timestamp"),
    parts: PARTS,
};

const SVIX: Scheme = Scheme {
    name: "svix",
    signature: "svix-signature",
    id: Some("svix-id"),
    timestamp: Some("svix-timestamp"),
    ..STANDARD
};

/// How webhooks are verified, where the default does not fit: other tolerance, Svix's names.
///
/// # Example
/// ```
/// use webhooks_sign::standard::Verifier;
/// use webhooks_sign::{Key, KeyRing, Tolerance};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let secret = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
/// let keys = KeyRing::from(Key::standard(secret)?);
/// let headers = [
///     ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
///     ("svix-timestamp", "1614265330"),
///     ("svix-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
/// ];
/// let verifier = Verifier::svix().tolerance(Tolerance { past: 60, future: 10 });
/// // The body may come in chunks.
/// let mut pending = verifier.begin(&keys, &headers, 1_614_265_340)?;
/// pending.update(b"{\"test\": ");
/// pending.update(b"2432232314}");
/// assert_eq!(pending.finish()?.id(), Some("msg_p5jXN8AQM9LWM0D4loKWxJek"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Verifier {
    scheme: &'static Scheme,
    tolerance: Tolerance,
}

impl Verifier {
    /// Returns a verifier for `webhook-id`, `webhook-timestamp` and `webhook-signature`.
    pub fn new() -> Self {
        Self { scheme: const { &STANDARD }, tolerance: Tolerance::default() }
    }

    /// Returns a verifier for `svix-id`, `svix-timestamp` and `svix-signature`.
    pub fn svix() -> Self {
        Self { scheme: const { &SVIX }, tolerance: Tolerance::default() }
    }

    /// Sets how far the timestamp may lie from `now`.
    #[must_use]
    pub fn tolerance(self, tolerance: Tolerance) -> Self {
        Self { tolerance, ..self }
    }

    /// Checks the headers of a webhook whose body is still to come. `now` is in Unix seconds.
    ///
    /// # Errors
    /// Every [`Error`] but a body that was changed, which [`Pending::finish`] finds.
    pub fn begin<'h, const N: usize>(
        &self,
        keys: &KeyRing<N>,
        headers: &'h (impl Headers + ?Sized),
        now: u64,
    ) -> Result<Pending<'h, N>, Error> {
        let algorithm = Some(Algorithm::HmacSha256);
        Pending::begin(self.scheme, algorithm, keys, headers, now, self.tolerance)
    }

    /// Verifies a webhook whose body is in memory. `now` is in Unix seconds.
    ///
    /// # Errors
    /// [`Error`] says what is wrong, and whether it is malformed, stale or forged.
    pub fn verify<'h, 'b, const N: usize>(
        &self,
        keys: &KeyRing<N>,
        headers: &'h (impl Headers + ?Sized),
        body: &'b [u8],
        now: u64,
    ) -> Result<Verified<'h, &'b [u8]>, Error> {
        let mut pending = self.begin(keys, headers, now)?;
        pending.update(body);
        Ok(pending.finish()?.with_body(body))
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

/// Verifies a webhook by its `webhook-*` headers, within 5 minutes of `now` (Unix seconds).
///
/// # Errors
/// [`Error`] says what is wrong, and whether it is malformed, stale or forged.
///
/// # Example
/// ```
/// use webhooks_sign::{Key, KeyRing, standard};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let secret = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
/// let keys = KeyRing::from(Key::standard(secret)?);
/// let headers = [
///     ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
///     ("webhook-timestamp", "1614265330"),
///     ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
/// ];
/// let verified = standard::verify(&keys, &headers, b"{\"test\": 2432232314}", 1_614_265_340)?;
/// assert_eq!(verified.body(), b"{\"test\": 2432232314}");
/// # Ok(())
/// # }
/// ```
pub fn verify<'h, 'b, const N: usize>(
    keys: &KeyRing<N>,
    headers: &'h (impl Headers + ?Sized),
    body: &'b [u8],
    now: u64,
) -> Result<Verified<'h, &'b [u8]>, Error> {
    Verifier::new().verify(keys, headers, body, now)
}

/// Signs one attempt with one key. `timestamp` is the time of the attempt in Unix seconds.
///
/// # Errors
/// [`SignError`] when receivers would refuse the id, or the key is not for HMAC-SHA256.
///
/// # Example
/// ```
/// use webhooks_sign::{Key, standard};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = Key::standard(concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))?;
/// let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
/// let signature = standard::sign(&key, id, 1_614_265_330, b"{\"test\": 2432232314}")?;
/// assert_eq!(signature.as_str(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
/// # Ok(())
/// # }
/// ```
pub fn sign(key: &Key, id: &str, timestamp: u64, body: &[u8]) -> Result<Signature, SignError> {
    if !is_valid_id(id.as_bytes()) {
        return Err(SignError::InvalidId);
    }
    if key.algorithm() != Algorithm::HmacSha256 {
        return Err(SignError::UnsuitableKey);
    }
    let mut mac = key.start();
    STANDARD.start(&mut mac, id, Digits::new(timestamp).as_str());
    mac.update(body);
    Ok(Signature::new(VERSION, STANDARD.encoding, &mac.finish()))
}

/// Signs one attempt with every live key and writes the value of the signature header.
///
/// # Errors
/// [`SignError`] when [`sign`] refuses, there is no key or more than 16, or the writer fails.
/// What was written by then is not a whole header value.
pub fn sign_all<'k>(
    keys: impl IntoIterator<Item = &'k Key>,
    id: &str,
    timestamp: u64,
    body: &[u8],
    out: &mut impl fmt::Write,
) -> Result<(), SignError> {
    let mut count = 0;
    for (index, key) in keys.into_iter().enumerate() {
        if index >= MAX_SIGNATURES {
            return Err(SignError::UnsuitableKey);
        }
        let separator = if index == 0 { "" } else { " " };
        let signature = sign(key, id, timestamp, body)?;
        write!(out, "{separator}{signature}").or(Err(SignError::Write))?;
        count = index.saturating_add(1);
    }
    if count == 0 { Err(SignError::UnsuitableKey) } else { Ok(()) }
}

/// A number in decimal, on the stack.
struct Digits {
    text: [u8; 20],
    start: usize,
}

impl Digits {
    fn new(mut number: u64) -> Self {
        let mut text = [b'0'; 20];
        let mut start = 20;
        for (index, digit) in text.iter_mut().enumerate().rev() {
            *digit = b'0' | u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
            start = index;
            if number == 0 {
                break;
            }
        }
        Self { text, start }
    }

    fn as_str(&self) -> &str {
        self.text.get(self.start..).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default()
    }
}
