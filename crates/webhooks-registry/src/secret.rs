//! The secrets with which deliveries are signed.

use std::fmt;
use std::sync::{Arc, OnceLock};

use subtle::ConstantTimeEq as _;
use thiserror::Error;
use webhooks_core::Timestamp;
use webhooks_sign::{Algorithm, Fingerprint, Key, KeyError};
use zeroize::Zeroizing;

/// The start of the text of a Standard Webhooks secret.
const STANDARD_PREFIX: &str = "whsec_";

/// The longest text in bytes, as for other credentials.
const MAX_LEN: usize = 4 * 1024;

/// The length of a new secret in bytes: that of the hash.
const GENERATED_LEN: usize = 32;

/// The longest text of a secret of Standard Webhooks in bytes: the prefix, and 64 bytes in base64.
const MAX_STANDARD_LEN: usize = 6 + 88;

/// A secret that an endpoint's receiver shares.
///
/// It is compared in constant time, never shown, and wiped when dropped.
///
/// # Example
/// ```
/// use webhooks_registry::{Endpoint, Secret};
///
/// let secret = Secret::generate();
/// // Show it to the receiver's owner, once.
/// assert!(secret.dangerous_text().starts_with("whsec_"));
/// assert_eq!(format!("{secret:?}"), "Secret(redacted)");
/// let endpoint = Endpoint::new("https://example.com/webhook", secret)?;
/// # Ok::<(), webhooks_registry::EndpointError>(())
/// ```
#[derive(Clone)]
pub struct Secret {
    inner: Arc<SecretInner>,
    expires_at: Option<Timestamp>,
}

/// The part that all clones of a secret share. Keys are made once, not for each delivery, and when they
/// are needed: each takes as much memory as the rest of an endpoint.
struct SecretInner {
    text: Zeroizing<String>,
    fingerprint: Fingerprint,
    sha256: OnceLock<Box<Key>>,
    sha512: OnceLock<Box<Key>>,
}

/// The reason why a text is not a secret. It does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the secret cannot be used")]
pub struct SecretError {
    #[from]
    source: KeyError,
}

impl Secret {
    /// Returns a new secret of Standard Webhooks: `whsec_` and the base64 of 32 random bytes.
    ///
    /// # Panics
    /// When the system's random source fails.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; GENERATED_LEN]);
        // With its whole capacity from the start: a text that grows leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_STANDARD_LEN));
        #[expect(clippy::expect_used, reason = "without randomness nothing can be kept secret")]
        let key = {
            getrandom::fill(&mut *bytes).expect("the system's random source");
            Key::write_secret(&*bytes, &mut *text).expect("32 bytes are a secret");
            Key::standard(&text).expect("what was written is read")
        };
        Self::with(text, &key)
    }

    /// Returns the secret with this text: `whsec_` and the base64 of 24 to 64 bytes (Standard
    /// Webhooks 1.0, "Signature scheme"), or any other text of at most 4 KiB, whose bytes are then
    /// the key.
    ///
    /// # Errors
    /// [`SecretError`] when the text is empty, too long, is the text of an ed25519 key (`whpk_`,
    /// `whsk_`), starts with `whsec_` and is malformed, or was copied badly: white space or quotes
    /// surround it, `whsec_` stands behind other text (`v1,whsec_…`) or is spelt otherwise.
    pub fn new(text: &str) -> Result<Self, SecretError> {
        let key = parse(text, Algorithm::HmacSha256)?;
        Ok(Self::with(Zeroizing::new(text.to_owned()), &key))
    }

    fn with(text: Zeroizing<String>, key: &Key) -> Self {
        let (fingerprint, none) = (key.fingerprint(), OnceLock::new);
        let inner = SecretInner { text, fingerprint, sha256: none(), sha512: none() };
        Self { inner: Arc::new(inner), expires_at: None }
    }

    /// Sets the time until which the secret signs. An old one should sign for some time after a rotation.
    #[must_use]
    pub fn expires_at(self, expires_at: Timestamp) -> Self {
        Self { expires_at: Some(expires_at), ..self }
    }

    /// Borrows the text, for stores.
    pub fn dangerous_text(&self) -> &str {
        &self.inner.text
    }

    /// Returns four bytes for comparing this secret with the receiver's without showing them, as
    /// [`Key::fingerprint`] does.
    pub fn fingerprint(&self) -> Fingerprint {
        self.inner.fingerprint
    }

    /// Returns the time until which the secret signs; for ever if `None`.
    pub fn expiry(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Makes the secret expire at this time, unless it expires sooner.
    pub(crate) fn limit(&mut self, expires_at: Timestamp) {
        self.expires_at = Some(self.expires_at.map_or(expires_at, |sooner| sooner.min(expires_at)));
    }

    /// Returns whether the secret signs at this time.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    /// Returns whether the secret meets Standard Webhooks: `whsec_`, 24 to 64 bytes.
    pub fn is_standard(&self) -> bool {
        self.inner.text.starts_with(STANDARD_PREFIX)
    }

    /// Borrows the signing key for an algorithm.
    ///
    /// # Errors
    /// [`SecretError`] when the algorithm is no HMAC.
    pub fn key(&self, algorithm: Algorithm) -> Result<&Key, SecretError> {
        let made = match algorithm {
            Algorithm::HmacSha256 => &self.inner.sha256,
            Algorithm::HmacSha512 => &self.inner.sha512,
            _ => return Err(SecretError { source: KeyError::Algorithm }),
        };
        if let Some(key) = made.get() {
            return Ok(key);
        }
        let key = parse(&self.inner.text, algorithm)?;
        Ok(made.get_or_init(|| Box::new(key)))
    }
}

fn parse(text: &str, algorithm: Algorithm) -> Result<Key, KeyError> {
    if text.len() > MAX_LEN {
        return Err(KeyError::Length { min: 1, max: MAX_LEN });
    }
    match Key::from_secret(algorithm, text) {
        // A text without any trace of the prefix is a plain one.
        Err(KeyError::Prefix { .. }) => Key::from_legacy_bytes(algorithm, text.as_bytes()),
        key => key,
    }
}

impl TryFrom<&str> for Secret {
    type Error = SecretError;

    fn try_from(text: &str) -> Result<Self, SecretError> {
        Self::new(text)
    }
}

impl TryFrom<&String> for Secret {
    type Error = SecretError;

    fn try_from(text: &String) -> Result<Self, SecretError> {
        Self::new(text)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let is_same_text = self.inner.text.as_bytes().ct_eq(other.inner.text.as_bytes());
        bool::from(is_same_text) && self.expires_at == other.expires_at
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use webhooks_sign::{scheme::Encoding, x_webhook};

    use super::*;

    #[test]
    fn a_plain_text_is_the_key_itself() {
        let secret = Secret::new("Jefe").unwrap();
        let key = secret.key(Algorithm::HmacSha256).unwrap();
        // RFC 4231 §4.3, test case 2.
        assert_eq!(
            x_webhook::sign(key, b"what do ya want for nothing?").unwrap().as_str(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn bad_secrets_are_refused_without_being_shown() {
        let expected = STANDARD_PREFIX;
        let good = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        for (text, reason) in [
            ("", KeyError::Empty),
            ("whsec_", KeyError::Empty),
            ("whsec_c2hvcnQ=", KeyError::Length { min: 24, max: 64 }),
            ("whsec_%%%", KeyError::Encoding { expected: Encoding::Base64 }),
            ("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", KeyError::Asymmetric),
            // As people paste them.
            (&format!("v1,{good}"), KeyError::PrefixInside { expected }),
            (&good.to_uppercase(), KeyError::PrefixSpelling { expected }),
            (&good.replace('_', "-"), KeyError::PrefixSpelling { expected }),
            (&format!("{good}\n"), KeyError::Surrounded),
            (&format!(" {good}"), KeyError::Surrounded),
            (&format!("\"{good}\""), KeyError::Surrounded),
            ("my-secret-key\n", KeyError::Surrounded),
            ("\u{feff}my-secret-key", KeyError::Surrounded),
            ("   ", KeyError::Surrounded),
            (&"x".repeat(MAX_LEN + 1), KeyError::Length { min: 1, max: MAX_LEN }),
        ] {
            let error = Secret::new(text).unwrap_err();
            assert_eq!(error, SecretError { source: reason }, "{text:?}");
            assert!(text.is_empty() || !format!("{error:?} {error} {reason}").contains(text));
        }
        assert!(Secret::new(&"x".repeat(MAX_LEN)).is_ok());
    }

    #[test]
    fn a_new_secret_is_standard_and_no_other_one() {
        let (one, other) = (Secret::generate(), Secret::generate());
        assert!(one.is_standard() && one != other);
        assert_eq!(Secret::new(one.dangerous_text()).unwrap(), one);
    }

    #[test]
    fn a_secret_is_no_key_for_what_is_no_hmac() {
        for text in ["plain", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert!(Secret::new(text).unwrap().key(Algorithm::Token).is_err());
            assert!(Secret::new(text).unwrap().key(Algorithm::HmacSha512).is_ok());
        }
    }

    #[test]
    fn an_expiring_secret_signs_until_then() {
        let at = Timestamp::from_unix_seconds;
        let secret = Secret::new("s").unwrap().expires_at(at(10));
        assert!(secret.is_live(at(9)));
        assert!(!secret.is_live(at(10)));
    }
}
