//! Writing keys as the texts by which they are shared.

use core::fmt;

use zeroize::Zeroizing;

use crate::key::SECRET_PREFIX;
#[cfg(feature = "ed25519")]
use crate::key::{Kind, PRIVATE_PREFIX, PUBLIC_PREFIX};
use crate::scheme::Encoding;
use crate::{Algorithm, Key, KeyError};

/// The longest encoded key in base64: 64 bytes.
const MAX_TEXT_LEN: usize = 88;

impl Key {
    /// Writes the secret with these 24 to 64 bytes, from a random source of yours, in the form of
    /// Standard Webhooks, which [`standard`](Self::standard) reads: `whsec_` and base64.
    ///
    /// The output is the secret itself: wipe it after use.
    ///
    /// # Errors
    /// [`KeyError`] when there are fewer or more bytes, or the writer fails.
    ///
    /// # Example
    /// ```
    /// use webhooks_sign::Key;
    ///
    /// let bytes = [7; 24]; // from your random source
    /// let mut secret = String::new();
    /// Key::write_secret(&bytes, &mut secret)?;
    /// assert_eq!(secret, concat!("whsec_", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH"));
    /// assert!(Key::standard(&secret).is_ok());
    /// # Ok::<(), webhooks_sign::KeyError>(())
    /// ```
    pub fn write_secret(bytes: &[u8], out: &mut impl fmt::Write) -> Result<(), KeyError> {
        Self::from_bytes(Algorithm::HmacSha256, bytes)?;
        write(SECRET_PREFIX, bytes, out)
    }

    /// Writes the secret ed25519 key of a seed as [`standard`](Self::standard) reads it: `whsk_`
    /// and the base64 of the seed and the public key.
    ///
    /// The output is the secret itself: wipe it after use.
    ///
    /// # Errors
    /// [`KeyError::Write`] when the writer fails.
    #[cfg(feature = "ed25519")]
    pub fn write_ed25519_secret(
        seed: &[u8; 32],
        out: &mut impl fmt::Write,
    ) -> Result<(), KeyError> {
        let pair = crate::ed25519::KeyPair::from_seed(seed);
        let mut bytes = Zeroizing::new([0; 64]);
        let (left, right) = bytes.split_at_mut(32);
        left.copy_from_slice(seed);
        right.copy_from_slice(pair.public_bytes());
        write(PRIVATE_PREFIX, &*bytes, out)
    }

    /// Writes the public half of an ed25519 key, with which receivers verify: `whpk_` and base64.
    ///
    /// # Errors
    /// [`KeyError::Algorithm`] when the key is for another algorithm, [`KeyError::Write`] when the
    /// writer fails.
    ///
    /// # Example
    /// ```
    /// use webhooks_sign::Key;
    ///
    /// let key = Key::ed25519_from_seed(&[7; 32]); // from your random source
    /// let mut public = String::new();
    /// key.write_public(&mut public)?;
    /// assert!(public.starts_with("whpk_"));
    /// assert!(Key::standard(&public).is_ok());
    /// # Ok::<(), webhooks_sign::KeyError>(())
    /// ```
    #[cfg(feature = "ed25519")]
    pub fn write_public(&self, out: &mut impl fmt::Write) -> Result<(), KeyError> {
        match &self.kind {
            Kind::Ed25519(pair) => write(PUBLIC_PREFIX, pair.public_bytes(), out),
            _ => Err(KeyError::Algorithm),
        }
    }
}

fn write(prefix: &str, bytes: &[u8], out: &mut impl fmt::Write) -> Result<(), KeyError> {
    let mut text = Zeroizing::new([0; MAX_TEXT_LEN]);
    let len = Encoding::Base64.encode(bytes, text.as_mut_slice()).ok_or(KeyError::Write)?;
    let text = text.get(..len).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default();
    out.write_str(prefix).and_then(|()| out.write_str(text)).or(Err(KeyError::Write))
}
