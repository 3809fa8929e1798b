//! The secrets by which deliveries are signed.

use std::fmt;
use std::sync::{Arc, OnceLock};

use subtle::ConstantTimeEq as _;
use thiserror::Error;
use webhooks_core::Timestamp;
use webhooks_sign::{Algorithm, Key, KeyError};
use zeroize::Zeroizing;

/// What the text of a Standard Webhooks secret starts with.
const STANDARD_PREFIX: &str = "whsec_";

/// A secret that an endpoint's receiver shares.
///
/// It is compared in constant time, never shown, and wiped when dropped.
///
/// # Example
/// ```
/// use webhooks_registry::Secret;
///
/// let secret = Secret::new("my-secret-key")?;
/// assert_eq!(format!("{secret:?}"), "Secret(redacted)");
/// # Ok::<(), webhooks_registry::SecretError>(())
/// ```
#[derive(Clone)]
pub struct Secret {
    shared: Arc<Shared>,
    expires_at: Option<Timestamp>,
}

/// What all clones of a secret share: keys are made once, not for each delivery.
struct Shared {
    text: Zeroizing<String>,
    sha256: OnceLock<Key>,
    sha512: OnceLock<Key>,
}

/// Says why a text is not a secret. It does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the secret cannot be used")]
pub struct SecretError {
    #[from]
    source: KeyError,
}

impl Secret {
    /// Returns the secret with this text: `whsec_` and the base64 of 24 to 64 bytes (Standard
    /// Webhooks 1.0, "Signature scheme"), or any other text, whose bytes are then the key.
    ///
    /// # Errors
    /// [`SecretError`] when the text is empty, is the text of an ed25519 key (`whpk_`, `whsk_`), or
    /// starts with `whsec_` and is malformed.
    pub fn new(text: &str) -> Result<Self, SecretError> {
        let key = parse(text, Algorithm::HmacSha256)?;
        let text = Zeroizing::new(text.to_owned());
        let shared = Shared { text, sha256: key.into(), sha512: OnceLock::new() };
        Ok(Self { shared: Arc::new(shared), expires_at: None })
    }

    /// Sets until when the secret signs. An old one should outlive the rotation by a while.
    #[must_use]
    pub fn expires_at(self, expires_at: Timestamp) -> Self {
        Self { expires_at: Some(expires_at), ..self }
    }

    /// Borrows the text, for whoever must keep it: a store.
    pub fn dangerous_text(&self) -> &str {
        &self.shared.text
    }

    /// Returns until when the secret signs; for ever if `None`.
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
        self.shared.text.starts_with(STANDARD_PREFIX)
    }

    /// Borrows the signing key for an algorithm.
    ///
    /// # Errors
    /// [`SecretError`] when the algorithm is no HMAC.
    pub fn key(&self, algorithm: Algorithm) -> Result<&Key, SecretError> {
        let Shared { text, sha256, sha512 } = &*self.shared;
        let made = match algorithm {
            Algorithm::HmacSha256 => sha256,
            Algorithm::HmacSha512 => sha512,
            _ => return Err(SecretError { source: KeyError::Algorithm }),
        };
        if let Some(key) = made.get() {
            return Ok(key);
        }
        let key = parse(text, algorithm)?;
        Ok(made.get_or_init(|| key))
    }
}

fn parse(text: &str, algorithm: Algorithm) -> Result<Key, KeyError> {
    if text.starts_with(STANDARD_PREFIX) {
        Key::from_secret(algorithm, text)
    } else {
        Key::from_legacy_bytes(algorithm, text.as_bytes())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let is_same_text = self.shared.text.as_bytes().ct_eq(other.shared.text.as_bytes());
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
    use webhooks_sign::x_webhook;

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
        for (text, reason) in [
            ("", KeyError::Empty),
            ("whsec_", KeyError::Empty),
            ("whsec_c2hvcnQ=", KeyError::Length),
            ("whsec_%%%", KeyError::Encoding),
            ("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", KeyError::Prefix),
        ] {
            let error = Secret::new(text).unwrap_err();
            assert_eq!(error, SecretError { source: reason });
            assert!(text.is_empty() || !format!("{error:?} {error}").contains(text));
        }
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
