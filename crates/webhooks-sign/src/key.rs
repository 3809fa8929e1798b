//! Keys and rings of keys.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::mac::Mac;
use crate::{Algorithm, KeyError};

/// What the text of a symmetric Standard Webhooks secret starts with.
const PREFIX: &str = "whsec_";

/// The prefixes of ed25519 keys, which must never become HMAC keys: one of them is public.
const ASYMMETRIC_PREFIXES: [&str; 2] = ["whpk_", "whsk_"];

/// The lengths in bytes that Standard Webhooks 1.0, "Signature scheme", asks of a secret.
const STANDARD_LENGTHS: core::ops::RangeInclusive<usize> = 24..=64;

/// A secret made ready for signing and verifying.
///
/// It keeps the keyed hash state, not the secret itself, has no way to print either, and wipes the
/// state when dropped, as far as safe code can: copies that the compiler made on the way are
/// beyond its reach.
///
/// # Example
/// ```
/// use webhooks_sign::{Algorithm, Key};
///
/// let key = Key::standard(concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))?;
/// assert_eq!(format!("{key:?}"), "Key(HmacSha256, redacted)");
/// # Ok::<(), webhooks_sign::KeyError>(())
/// ```
#[derive(Clone)]
pub struct Key {
    mac: Mac,
}

impl Key {
    /// Returns the HMAC-SHA256 key of a Standard Webhooks secret: `whsec_` and the base64 of 24 to
    /// 64 bytes (Standard Webhooks 1.0, "Signature scheme").
    ///
    /// # Errors
    /// [`KeyError`] when the prefix is another, the rest is not padded base64, or the length is
    /// wrong.
    pub fn standard(secret: &str) -> Result<Self, KeyError> {
        Self::from_secret(Algorithm::HmacSha256, secret)
    }

    /// Returns the key of a secret written as [`standard`](Self::standard) reads it, for an
    /// algorithm of yours.
    ///
    /// # Errors
    /// The same as [`standard`](Self::standard).
    pub fn from_secret(algorithm: Algorithm, secret: &str) -> Result<Self, KeyError> {
        let encoded = secret.strip_prefix(PREFIX).ok_or(if secret.is_empty() {
            KeyError::Empty
        } else {
            KeyError::Prefix
        })?;
        // 64 bytes are 88 characters; a longer text is refused before it is decoded.
        let mut buffer = Zeroizing::new([0; 66]);
        if encoded.len() > 88 {
            return Err(KeyError::Length);
        }
        let Ok(len) = STANDARD.decode_slice(encoded, buffer.as_mut_slice()) else {
            return Err(KeyError::Encoding);
        };
        Self::from_bytes(algorithm, buffer.get(..len).unwrap_or_default())
    }

    /// Returns the key with these 24 to 64 bytes, from a random source of yours.
    ///
    /// # Errors
    /// [`KeyError`] when there are fewer or more bytes.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        if !bytes.is_empty() && !STANDARD_LENGTHS.contains(&bytes.len()) {
            return Err(KeyError::Length);
        }
        Self::from_legacy_bytes(algorithm, bytes)
    }

    /// Returns the key with these bytes, however few: for secrets that exist already, such as the
    /// text of a plain password. Each missing byte makes guessing easier.
    ///
    /// # Errors
    /// [`KeyError`] when there are no bytes, or they are the text of an ed25519 key (`whpk_`,
    /// `whsk_`): those have a scheme of their own.
    pub fn from_legacy_bytes(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.is_empty() {
            return Err(KeyError::Empty);
        }
        if ASYMMETRIC_PREFIXES.iter().any(|prefix| bytes.starts_with(prefix.as_bytes())) {
            return Err(KeyError::Prefix);
        }
        Mac::new(algorithm, bytes).map(|mac| Self { mac }).ok_or(KeyError::Length)
    }

    /// Returns the algorithm that the key is for.
    pub fn algorithm(&self) -> Algorithm {
        self.mac.algorithm()
    }

    pub(crate) fn start(&self) -> Mac {
        self.mac.clone()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, redacted)", self.algorithm())
    }
}

/// The live keys of one sender, at most `N`: more than one while a secret is being rotated.
///
/// # Example
/// ```
/// use webhooks_sign::{Algorithm, Key, KeyRing};
///
/// let new = Key::from_bytes(Algorithm::HmacSha256, &[7; 32])?;
/// let old = Key::from_bytes(Algorithm::HmacSha256, &[8; 32])?;
/// let ring = KeyRing::from([new, old]);
/// assert_eq!(ring.iter().count(), 2);
/// # Ok::<(), webhooks_sign::KeyError>(())
/// ```
#[derive(Debug, Clone)]
pub struct KeyRing<const N: usize> {
    keys: [Option<Key>; N],
}

impl<const N: usize> KeyRing<N> {
    /// Returns an empty ring, which verifies nothing.
    pub fn new() -> Self {
        Self { keys: [const { None }; N] }
    }

    /// Adds a key behind those that are there.
    ///
    /// # Errors
    /// [`KeyError::Full`] when the ring has `N` keys.
    pub fn push(&mut self, key: Key) -> Result<(), KeyError> {
        let slot = self.keys.iter_mut().find(|slot| slot.is_none()).ok_or(KeyError::Full)?;
        *slot = Some(key);
        Ok(())
    }

    /// Returns the keys in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().flatten()
    }
}

impl<const N: usize> Default for KeyRing<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Key> for KeyRing<1> {
    fn from(key: Key) -> Self {
        Self::from([key])
    }
}

impl<const N: usize> From<[Key; N]> for KeyRing<N> {
    fn from(keys: [Key; N]) -> Self {
        Self { keys: keys.map(Some) }
    }
}
