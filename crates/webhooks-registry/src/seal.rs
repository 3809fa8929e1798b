//! Encryption of stored secrets, with keys that are not stored beside them.
//!
//! A store takes [`SealingKeys`] as a setting. It calls [`SealingKeys::seal`] before it writes the
//! secrets of an endpoint, and [`SealingKeys::open`] after it reads them. When it is opened, it seals
//! everything anew for which [`SealingKeys::is_current`] is false.

use std::fmt;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use thiserror::Error;
use zeroize::Zeroizing;

/// The start of sealed secrets: a byte that starts no JSON, and the version of the form.
const MAGIC: [u8; 2] = [0, 1];

/// The length of the nonce of XChaCha20-Poly1305, in bytes: long enough to be drawn at random.
const NONCE_LEN: usize = 24;

/// A key with which stores encrypt secrets: 32 random bytes.
///
/// # Example
/// ```
/// use webhooks_registry::seal::SealingKey;
///
/// let key = SealingKey::from_hex(&"0f".repeat(32))?;
/// assert_eq!(format!("{key:?}"), "SealingKey(redacted)");
/// # Ok::<(), webhooks_registry::seal::SealingKeyError>(())
/// ```
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

/// The error of a text that is not a sealing key. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a sealing key is 64 hexadecimal digits; make one by `openssl rand -hex 32`")]
pub struct SealingKeyError;

impl SealingKey {
    /// Returns the key with these bytes, from a random source of yours.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the key of 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`SealingKeyError`] when it is anything else.
    pub fn from_hex(text: &str) -> Result<Self, SealingKeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        if text.len() != 2 * bytes.len() {
            return Err(SealingKeyError);
        }
        // Digit by digit into the key itself: another buffer would leave a copy behind.
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            for digit in pair {
                let digit = char::from(*digit).to_digit(16).ok_or(SealingKeyError)?;
                *byte = *byte << 4 | u8::try_from(digit).map_err(|_never| SealingKeyError)?;
            }
        }
        Ok(Self(bytes))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(redacted)")
    }
}

/// The keys of a store: the first seals, all open. Without keys, secrets are stored as they are.
///
/// Sealing covers the secrets of a [`StoredEndpoint`](crate::store::StoredEndpoint): signing secrets, the
/// values of headers, clients' secrets, certificates and keys. It does not cover the settings, which
/// hold the URL and any token in it.
///
/// Sealing hides secrets from somebody who reads the database or a copy of it. It does not stop
/// somebody who writes to it. Secrets that were never sealed are accepted too, so that keys can be added
/// later, and all settings can be changed, such as the URL.
///
/// To rotate, put the new key first and leave the old one behind it: stores seal everything anew when
/// they are opened. After that the old key can be removed.
#[derive(Debug, Clone, Default)]
pub struct SealingKeys(Vec<SealingKey>);

/// The reason why secrets cannot be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The secrets were sealed, and no key is configured.
    #[error("the secrets are encrypted, and no key is configured")]
    NoKey,
    /// The system gave no random numbers.
    #[error("the system has no random numbers")]
    Random,
    /// None of the keys opens them: they were sealed with another key or for another endpoint, or were
    /// damaged.
    #[error("the secrets were encrypted with another key, or are damaged")]
    WrongKey,
}

impl SealingKeys {
    /// Returns keys of which the first seals, and all open.
    pub fn new(keys: impl IntoIterator<Item = SealingKey>) -> Self {
        Self(keys.into_iter().collect())
    }

    /// Encrypts secrets with the first key, bound to `endpoint`, which identifies the endpoint; returns
    /// them as they are if there is no key.
    ///
    /// # Errors
    /// [`SealError::Random`] when the system gives no nonce.
    pub fn seal(&self, endpoint: &str, secrets: &[u8]) -> Result<Vec<u8>, SealError> {
        let Some(key) = self.0.first() else { return Ok(secrets.to_vec()) };
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_no_detail| SealError::Random)?;
        let payload = Payload { msg: secrets, aad: endpoint.as_bytes() };
        let sealed = key.cipher().encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_too_long| SealError::Random)?;
        Ok([&MAGIC, nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts secrets of an endpoint; returns them as they are if they were not sealed.
    ///
    /// # Errors
    /// [`SealError`] when no key opens them.
    pub fn open(&self, endpoint: &str, stored: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let Some(sealed) = stored.strip_prefix(&MAGIC) else {
            return Ok(Zeroizing::new(stored.to_vec()));
        };
        if self.0.is_empty() {
            return Err(SealError::NoKey);
        }
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealError::WrongKey)?;
        let payload = || Payload { msg: sealed, aad: endpoint.as_bytes() };
        let mut keys = self.0.iter();
        let opened =
            keys.find_map(|key| key.cipher().decrypt(&XNonce::from(*nonce), payload()).ok());
        opened.map(Zeroizing::new).ok_or(SealError::WrongKey)
    }

    /// Returns whether stored secrets are sealed with the first key, or not sealed if there is no key.
    /// If not, they should be sealed anew.
    pub fn is_current(&self, endpoint: &str, stored: &[u8]) -> bool {
        match self.0.first() {
            None => !stored.starts_with(&MAGIC),
            Some(first) => {
                let first = Self(vec![first.clone()]);
                stored.starts_with(&MAGIC) && first.open(endpoint, stored).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SealingKey {
        SealingKey::from_bytes([byte; 32])
    }

    #[test]
    fn what_was_sealed_is_opened_by_its_key_for_its_endpoint_alone() {
        let keys = SealingKeys::new([key(1)]);
        let sealed = keys.seal("crm", b"hush").unwrap();
        assert!(!sealed.windows(4).any(|window| window == b"hush"));
        assert_ne!(sealed, keys.seal("crm", b"hush").unwrap(), "a new nonce each time");
        assert_eq!(**keys.open("crm", &sealed).unwrap(), *b"hush");
        assert_eq!(keys.open("erp", &sealed), Err(SealError::WrongKey));
        assert_eq!(SealingKeys::new([key(2)]).open("crm", &sealed), Err(SealError::WrongKey));
        assert_eq!(SealingKeys::default().open("crm", &sealed), Err(SealError::NoKey));
        for n in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[n] ^= 1;
            let opened = keys.open("crm", &damaged);
            // Without its mark it counts as never sealed, and is then no JSON.
            assert!(n < 2 || opened == Err(SealError::WrongKey), "byte {n}");
            assert_eq!(keys.open("crm", &sealed[..n]).is_ok(), n < 2);
        }
    }

    #[test]
    fn keys_are_rotated_and_put_in_place_later() {
        let (plain, old) = (SealingKeys::default(), SealingKeys::new([key(1)]));
        let both = SealingKeys::new([key(2), key(1)]);
        let stored = plain.seal("crm", b"[]").unwrap();
        assert!(plain.is_current("crm", &stored) && !old.is_current("crm", &stored));
        assert_eq!(**old.open("crm", &stored).unwrap(), *b"[]");
        let stored = old.seal("crm", b"[]").unwrap();
        assert!(old.is_current("crm", &stored) && !both.is_current("crm", &stored));
        let stored = both.seal("crm", &both.open("crm", &stored).unwrap()).unwrap();
        assert!(both.is_current("crm", &stored));
        assert_eq!(old.open("crm", &stored), Err(SealError::WrongKey));
    }

    #[test]
    fn a_key_is_64_hexadecimal_digits() {
        assert_eq!(
            *SealingKey::from_hex(&"0aF1".repeat(16)).unwrap().0,
            [0x0a, 0xf1].repeat(16)[..]
        );
        for text in [
            "",
            "0a",
            &"0".repeat(63),
            &"0".repeat(65),
            &"0g".repeat(32),
            &"é".repeat(32),
            &"é".repeat(64),
        ] {
            let error = SealingKey::from_hex(text).unwrap_err();
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
    }
}
