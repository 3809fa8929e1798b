//! Standard Webhooks 1.0: `v1` and, with the feature `ed25519`, `v1a`.
//!
//! The signed bytes are `{id}.{timestamp}.{body}`, the signature is a version and base64. Svix
//! sends the same under names of its own.

use core::fmt;

use crate::scheme::{
    Encoding, Grammar, HEX_OF_BODY, KeyFormat, Part, Scheme, TimestampFormat, TimestampSource,
};
use crate::signing::{write_all, write_into};
use crate::{Algorithm, Envelope, Error, Headers, Key, KeyRing, SignError, Signature, Verified};

/// `webhook-id`, `webhook-timestamp` and `webhook-signature` with HMAC-SHA256, `v1`. With the feature
/// `ed25519`, keys for ed25519 verify `v1a`, in one ring with others or alone.
pub const STANDARD: Scheme = Scheme {
    #[cfg(feature = "ed25519")]
    twin: Some(&STANDARD_ASYMMETRIC),
    ..STANDARD_BY_HMAC
};

// Apart from `STANDARD`: the asymmetric scheme is made of it, and constants that refer to each other
// do not compile.
const STANDARD_BY_HMAC: Scheme = Scheme {
    name: "standard",
    signature: "webhook-signature",
    grammar: Grammar::List { separator: b' ', version: "v1," },
    encoding: Encoding::Base64,
    id: Some("webhook-id"),
    timestamp: Some(TimestampSource::Header("webhook-timestamp", TimestampFormat::Seconds)),
    parts: &[Part::Id, Part::Literal("."), Part::Timestamp, Part::Literal("."), Part::Body],
    key: KeyFormat::Standard,
    ..HEX_OF_BODY
};

/// The same under `svix-id`, `svix-timestamp` and `svix-signature`.
pub const SVIX: Scheme = Scheme {
    #[cfg(feature = "ed25519")]
    twin: Some(&SVIX_ASYMMETRIC),
    ..SVIX_BY_HMAC
};

const SVIX_BY_HMAC: Scheme = Scheme {
    name: "svix",
    signature: "svix-signature",
    id: Some("svix-id"),
    timestamp: Some(TimestampSource::Header("svix-timestamp", TimestampFormat::Seconds)),
    ..STANDARD_BY_HMAC
};

/// [`STANDARD`] with only ed25519, `v1a`.
#[cfg(feature = "ed25519")]
pub const STANDARD_ASYMMETRIC: Scheme =
    Scheme { name: "standard-asymmetric", ..asymmetric(STANDARD_BY_HMAC) };

/// [`SVIX`] with only ed25519, `v1a`.
#[cfg(feature = "ed25519")]
pub const SVIX_ASYMMETRIC: Scheme = Scheme { name: "svix-asymmetric", ..asymmetric(SVIX_BY_HMAC) };

#[cfg(feature = "ed25519")]
const fn asymmetric(scheme: Scheme) -> Scheme {
    let grammar = Grammar::List { separator: b' ', version: "v1a," };
    Scheme { algorithm: Algorithm::Ed25519, grammar, ..scheme }
}

/// Returns the scheme of the `webhook-*` headers for the keys of an algorithm.
fn scheme_of(algorithm: Algorithm) -> &'static Scheme {
    match algorithm {
        #[cfg(feature = "ed25519")]
        Algorithm::Ed25519 => const { &STANDARD_ASYMMETRIC },
        _ => const { &STANDARD },
    }
}

/// Verifies a webhook by its `webhook-*` headers, within 5 minutes of `now` (Unix seconds).
///
/// The keys decide which signatures count: `v1` for keys of HMAC-SHA256, `v1a` for keys of ed25519. A
/// ring may hold both, while a sender changes from one to the other.
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
#[inline]
pub fn verify<'h, 'b, const N: usize>(
    keys: &KeyRing<N>,
    headers: &'h (impl Headers + ?Sized),
    body: &'b [u8],
    now: u64,
) -> Result<Verified<'h, &'b [u8]>, Error> {
    const { &STANDARD }.verify(keys, headers, body, now)
}

/// Signs one attempt with one key. `timestamp` is the time of the attempt in Unix seconds.
///
/// # Errors
/// [`SignError`] when receivers would refuse the id, or the key is neither for HMAC-SHA256 nor a
/// secret one for ed25519.
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
    let digits = Digits::new(timestamp);
    let envelope = Envelope { id, timestamp: digits.as_str(), ..Envelope::default() };
    scheme_of(key.algorithm()).sign(key, &envelope, body)
}

/// Signs one attempt with every live key and writes the value of the signature header.
///
/// # Errors
/// [`SignError`] when [`sign`] refuses, there is no key, there are more than 16, or more than 4 for
/// ed25519, which receivers would refuse, or the writer fails. After an error the output is not a
/// whole header value.
pub fn sign_all<'k>(
    keys: impl IntoIterator<Item = &'k Key>,
    id: &str,
    timestamp: u64,
    body: &[u8],
    out: &mut impl fmt::Write,
) -> Result<(), SignError> {
    let digits = Digits::new(timestamp);
    let envelope = Envelope { id, timestamp: digits.as_str(), ..Envelope::default() };
    write_all(keys, scheme_of, &envelope, body, out)
}

/// Signs as [`sign_all`] does, into `buffer`. Returns the text that was written: 47 bytes for a
/// signature by HMAC-SHA256, 92 for one by ed25519, and a space between two.
///
/// # Errors
/// Those of [`sign_all`], and [`SignError::Write`] when the buffer is too small.
///
/// # Example
/// ```
/// use webhooks_sign::{Algorithm, Key, standard};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = Key::from_bytes(Algorithm::HmacSha256, &[7; 32])?;
/// let mut buffer = [0; 47];
/// let header = standard::sign_into([&key], "msg_1", 1_767_225_600, b"{}", &mut buffer)?;
/// assert!(header.starts_with("v1,"));
/// # Ok(())
/// # }
/// ```
pub fn sign_into<'b, 'k>(
    keys: impl IntoIterator<Item = &'k Key>,
    id: &str,
    timestamp: u64,
    body: &[u8],
    buffer: &'b mut [u8],
) -> Result<&'b str, SignError> {
    write_into(buffer, |out| sign_all(keys, id, timestamp, body, out))
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
