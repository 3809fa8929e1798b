//! Keys, made of secrets.

use core::fmt;
use core::ops::RangeInclusive;

use zeroize::Zeroizing;

use crate::encoding::decode_lenient;
use crate::mac::Mac;
use crate::scheme::{Encoding, KeyFormat, Scheme};
use crate::tag::Tag;
use crate::{Algorithm, KeyError, SignError};

/// The start of the text of a symmetric Standard Webhooks secret.
pub(crate) const SECRET_PREFIX: &str = "whsec_";

/// The start of the text of a public ed25519 key.
pub(crate) const PUBLIC_PREFIX: &str = "whpk_";

/// The start of the text of a secret ed25519 key.
pub(crate) const PRIVATE_PREFIX: &str = "whsk_";

/// The prefixes of texts that must never become HMAC keys: one of them is public.
const ASYMMETRIC_PREFIXES: [&str; 2] = [PUBLIC_PREFIX, PRIVATE_PREFIX];

/// The lengths in bytes that Standard Webhooks 1.0, "Signature scheme", allows for a secret.
const STANDARD_LENGTHS: RangeInclusive<usize> = 24..=64;

/// The longest encoded key in bytes, a multiple of the three bytes that base64 encodes together. A
/// P-256 public key has 91.
const MAX_KEY_LEN: usize = 96;

/// The longest encoded legacy key in bytes. Svix accepts up to 75. A key that is longer than a
/// block of the hash, 64 or 128 bytes, is no stronger.
const MAX_LEGACY_LEN: usize = 255;

/// A secret made ready for signing and verifying, or a public key for verifying alone.
///
/// It holds the keyed hash state, not the secret itself, and has no way to print either. It wipes the
/// state when dropped, as far as safe code can: copies that the compiler made in between are out of
/// reach.
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
    pub(crate) kind: Kind,
}

#[derive(Clone)]
pub(crate) enum Kind {
    Mac(Mac),
    Token(Zeroizing<Tag>),
    #[cfg(feature = "ed25519")]
    Ed25519(crate::ed25519::KeyPair),
    #[cfg(feature = "p256")]
    EcdsaP256(crate::p256::PublicKey),
}

impl Key {
    /// Returns the key of a Standard Webhooks secret (1.0, "Signature scheme"): `whsec_` and the
    /// base64 of 24 to 64 bytes for HMAC-SHA256; with the feature `ed25519` also `whpk_` and 32
    /// bytes, a public key, or `whsk_` and 64 bytes, the seed and the public key.
    ///
    /// # Errors
    /// [`KeyError`] when the prefix is another, the rest is not padded base64, the length is wrong,
    /// or an ed25519 key is weak or its halves do not belong together.
    pub fn standard(secret: &str) -> Result<Self, KeyError> {
        #[cfg(feature = "ed25519")]
        if ASYMMETRIC_PREFIXES.iter().any(|prefix| secret.starts_with(prefix)) {
            return Self::from_secret(Algorithm::Ed25519, secret);
        }
        Self::from_secret(Algorithm::HmacSha256, secret)
    }

    /// Returns the key of a secret in the form that [`standard`](Self::standard) reads, for this
    /// algorithm.
    ///
    /// # Errors
    /// The same as [`standard`](Self::standard), and [`KeyError::Prefix`] when the prefix is not
    /// one of the algorithm's.
    pub fn from_secret(algorithm: Algorithm, secret: &str) -> Result<Self, KeyError> {
        if secret.is_empty() {
            return Err(KeyError::Empty);
        }
        #[cfg(feature = "ed25519")]
        if algorithm == Algorithm::Ed25519 {
            let parse = |encoded: &str, pair: fn(&[u8]) -> Result<_, _>| {
                let kind = Kind::Ed25519(decode(Encoding::Base64, encoded, pair)?);
                Ok(Self { kind })
            };
            let strip = |prefix| secret.strip_prefix(prefix);
            return match (strip(PUBLIC_PREFIX), strip(PRIVATE_PREFIX)) {
                (Some(encoded), _) => parse(encoded, crate::ed25519::KeyPair::from_public),
                (_, Some(encoded)) => parse(encoded, crate::ed25519::KeyPair::from_secret),
                _ => Err(wrong_prefix(PUBLIC_PREFIX, secret)),
            };
        }
        let encoded = secret.strip_prefix(SECRET_PREFIX);
        let encoded = encoded.ok_or_else(|| wrong_prefix(SECRET_PREFIX, secret))?;
        check_surroundings(encoded)?;
        decode(Encoding::Base64, encoded, |bytes| Self::from_bytes(algorithm, bytes))
    }

    /// Returns the HMAC key with these 24 to 64 bytes, from a random source of yours.
    ///
    /// # Errors
    /// [`KeyError`] when there are fewer or more bytes, or the algorithm is no HMAC.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        if !bytes.is_empty() && !STANDARD_LENGTHS.contains(&bytes.len()) {
            let (min, max) = (*STANDARD_LENGTHS.start(), *STANDARD_LENGTHS.end());
            return Err(KeyError::Length { min, max });
        }
        Self::hmac(algorithm, bytes)
    }

    /// Returns the ed25519 key with this seed (RFC 8032 §5.1.5, the "private key"), from a random
    /// source of yours.
    #[cfg(feature = "ed25519")]
    pub fn ed25519_from_seed(seed: &[u8; 32]) -> Self {
        Self { kind: Kind::Ed25519(crate::ed25519::KeyPair::from_seed(seed)) }
    }

    /// Returns the HMAC key with these bytes, one or more: for secrets that exist already, such as the
    /// text of a plain password. Each missing byte makes guessing easier.
    ///
    /// # Errors
    /// [`KeyError`] when there are no bytes, they are the text of a secret of Standard Webhooks
    /// (`whsec_`), whose base64 is the key, or of an ed25519 key (`whpk_`, `whsk_`), or the
    /// algorithm is no HMAC.
    pub fn from_legacy_bytes(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.starts_with(SECRET_PREFIX.as_bytes()) {
            return Err(KeyError::StandardSecret);
        }
        Self::hmac(algorithm, bytes)
    }

    /// Returns the HMAC key with these bytes, also if they look like the text of a secret: for some
    /// providers the text is the key.
    fn hmac(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.is_empty() {
            return Err(KeyError::Empty);
        }
        if ASYMMETRIC_PREFIXES.iter().any(|prefix| bytes.starts_with(prefix.as_bytes())) {
            return Err(KeyError::Asymmetric);
        }
        let mac = Mac::new(algorithm, bytes).ok_or(KeyError::Algorithm)?;
        Ok(Self { kind: Kind::Mac(mac) })
    }

    /// Returns the HMAC key of a secret in base64 that exists already and that
    /// [`from_secret`](Self::from_secret) refuses: without `whsec_`, without padding, or of another
    /// length up to 255 bytes. Each byte below 24 makes guessing easier.
    ///
    /// # Errors
    /// [`KeyError`] when there are no bytes or too many, the text is not base64, it is or holds the
    /// text of an ed25519 key (`whpk_`, `whsk_`), or the algorithm is no HMAC.
    ///
    /// # Example
    /// ```
    /// use webhooks_sign::{Algorithm, Key, KeyError};
    ///
    /// let secret = "c2hvcnQ"; // "short", unpadded
    /// assert_eq!(Key::standard(secret).unwrap_err(), KeyError::Prefix { expected: "whsec_" });
    /// assert!(Key::from_legacy_secret(Algorithm::HmacSha256, secret).is_ok());
    /// ```
    pub fn from_legacy_secret(algorithm: Algorithm, secret: &str) -> Result<Self, KeyError> {
        if ASYMMETRIC_PREFIXES.iter().any(|prefix| secret.starts_with(prefix)) {
            return Err(KeyError::Asymmetric);
        }
        let encoded = secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret);
        let mut buffer = Zeroizing::new([0; MAX_LEGACY_LEN]);
        if Encoding::Base64.decoded_len(encoded.len()) > MAX_LEGACY_LEN {
            return Err(KeyError::Length { min: 1, max: MAX_LEGACY_LEN });
        }
        let len = decode_lenient(encoded.as_bytes(), buffer.as_mut_slice());
        let len = len.ok_or(KeyError::Encoding { expected: Encoding::Base64 })?;
        Self::hmac(algorithm, buffer.get(..len).unwrap_or_default())
    }

    /// Returns the key of a secret of Supabase's hooks, as its dashboard shows it: `v1,whsec_` and
    /// base64. A text with several, separated by `|`, holds several keys: pass them one by one. The
    /// webhooks follow [`STANDARD`](crate::standard::STANDARD).
    /// supabase.com/docs/guides/auth/auth-hooks.
    ///
    /// # Errors
    /// [`KeyError::Prefix`] when the text does not start with `v1,`, and those of
    /// [`standard`](Self::standard) for the rest.
    ///
    /// # Example
    /// ```
    /// use webhooks_sign::Key;
    ///
    /// let secret = concat!("v1,whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    /// assert!(Key::supabase(secret).is_ok());
    /// ```
    pub fn supabase(secret: &str) -> Result<Self, KeyError> {
        if secret.is_empty() {
            return Err(KeyError::Empty);
        }
        check_surroundings(secret)?;
        let expected = concat!("v1,", "whsec_");
        let secret = secret.strip_prefix("v1,").ok_or(KeyError::Prefix { expected })?;
        Self::from_secret(Algorithm::HmacSha256, secret)
    }

    /// Returns the key of a secret of Polar, as its dashboard shows it: the whole text is the key,
    /// `polar_whs_` included, and no part of it is base64. The webhooks follow
    /// [`STANDARD`](crate::standard::STANDARD). polar.sh/docs/integrate/webhooks.
    ///
    /// # Errors
    /// [`KeyError`] when the text is empty, that of an ed25519 key (`whpk_`, `whsk_`), or has white
    /// space or quotes around it.
    ///
    /// # Example
    /// ```
    /// use webhooks_sign::{Key, KeyError};
    ///
    /// let secret = "polar_whs_0123456789abcdef";
    /// assert!(Key::polar(secret).is_ok());
    /// assert_eq!(Key::standard(secret).unwrap_err(), KeyError::Prefix { expected: "whsec_" });
    /// ```
    pub fn polar(secret: &str) -> Result<Self, KeyError> {
        check_surroundings(secret)?;
        Self::hmac(Algorithm::HmacSha256, secret.as_bytes())
    }

    /// Returns the key of a secret in the form of a scheme's provider.
    pub(crate) fn parse(
        algorithm: Algorithm,
        format: KeyFormat,
        secret: &str,
    ) -> Result<Self, KeyError> {
        let from_bytes = |bytes: &[u8]| Self::from_provider_bytes(algorithm, bytes);
        check_surroundings(secret)?;
        match format {
            KeyFormat::Base64 => decode(Encoding::Base64, secret, from_bytes),
            KeyFormat::Hex => decode(Encoding::Hex, secret, from_bytes),
            KeyFormat::Standard => Self::from_secret(algorithm, secret),
            KeyFormat::StandardOrText => match Self::from_secret(algorithm, secret) {
                Err(KeyError::Prefix { .. }) => from_bytes(secret.as_bytes()),
                key => key,
            },
            KeyFormat::Text => {
                check_prefix_inside(secret)?;
                from_bytes(secret.as_bytes())
            }
        }
    }

    fn from_provider_bytes(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        let kind = match algorithm {
            _ if bytes.is_empty() => return Err(KeyError::Empty),
            Algorithm::Token => {
                Kind::Token(Zeroizing::new(Tag::of_token(bytes).ok_or(KeyError::Algorithm)?))
            }
            #[cfg(feature = "ed25519")]
            Algorithm::Ed25519 => Kind::Ed25519(crate::ed25519::KeyPair::from_public(bytes)?),
            #[cfg(feature = "p256")]
            Algorithm::EcdsaP256 => Kind::EcdsaP256(crate::p256::PublicKey::from_spki(bytes)?),
            _ => return Self::hmac(algorithm, bytes),
        };
        Ok(Self { kind })
    }

    /// Returns the algorithm that the key is for.
    #[inline]
    pub fn algorithm(&self) -> Algorithm {
        match &self.kind {
            Kind::Mac(mac) => mac.algorithm(),
            Kind::Token(_) => Algorithm::Token,
            #[cfg(feature = "ed25519")]
            Kind::Ed25519(_) => Algorithm::Ed25519,
            #[cfg(feature = "p256")]
            Kind::EcdsaP256(_) => Algorithm::EcdsaP256,
        }
    }

    /// Signs the pieces together. It may iterate over them more than once.
    pub(crate) fn sign<'p>(
        &self,
        pieces: impl Iterator<Item = &'p [u8]> + Clone,
    ) -> Result<Tag, SignError> {
        match &self.kind {
            Kind::Mac(mac) => Ok(mac.of(pieces, Tag::from_slice)),
            #[cfg(feature = "ed25519")]
            Kind::Ed25519(pair) => pair.sign(&pieces),
            _ => Err(SignError::UnsuitableKey),
        }
    }
}

impl Scheme {
    /// Returns the key of a secret as the provider shows it: as text, or decoded from base64 or
    /// hexadecimal where the scheme says so.
    ///
    /// # Errors
    /// [`KeyError`] when the secret is empty or not in the scheme's form.
    pub fn key(&self, secret: &str) -> Result<Key, KeyError> {
        Key::parse(self.algorithm, self.key, secret)
    }
}

fn decode<T>(
    encoding: Encoding,
    text: &str,
    use_bytes: impl FnOnce(&[u8]) -> Result<T, KeyError>,
) -> Result<T, KeyError> {
    let mut buffer = Zeroizing::new([0; MAX_KEY_LEN]);
    if encoding.decoded_len(text.len()) > MAX_KEY_LEN {
        let (min, max) = (*STANDARD_LENGTHS.start(), *STANDARD_LENGTHS.end());
        return Err(KeyError::Length { min, max });
    }
    let len = encoding.decode(text.as_bytes(), buffer.as_mut_slice());
    let len = len.ok_or(KeyError::Encoding { expected: encoding })?;
    use_bytes(buffer.get(..len).unwrap_or_default())
}

/// Returns the error for a secret that does not start with the prefix of its scheme: usually it was
/// copied together with other text.
fn wrong_prefix(expected: &'static str, secret: &str) -> KeyError {
    // Without the `_` at the end.
    let (word, _) = expected.split_at(expected.len().saturating_sub(1));
    let start = secret.as_bytes().get(..word.len()).unwrap_or_default();
    // Surroundings before `PrefixInside`: a secret in quotes has text before its prefix, too.
    let is_asymmetric = ASYMMETRIC_PREFIXES.iter().any(|prefix| secret.starts_with(prefix));
    if is_asymmetric {
        KeyError::Asymmetric
    } else if let Err(surrounded) = check_surroundings(secret) {
        surrounded
    } else if start.eq_ignore_ascii_case(word.as_bytes()) {
        KeyError::PrefixSpelling { expected }
    } else if secret.contains(expected) {
        KeyError::PrefixInside { expected }
    } else {
        KeyError::Prefix { expected }
    }
}

/// Refuses a secret with other text before `whsec_`, such as the `v1,` of a dashboard.
fn check_prefix_inside(secret: &str) -> Result<(), KeyError> {
    match secret.find(SECRET_PREFIX) {
        None | Some(0) => Ok(()),
        Some(_) => Err(KeyError::PrefixInside { expected: SECRET_PREFIX }),
    }
}

/// Refuses a secret surrounded by characters that files and shells add, such as a line break or
/// quotes.
fn check_surroundings(secret: &str) -> Result<(), KeyError> {
    let is_quote = |character| matches!(character, '"' | '\'' | '`');
    let is_quoted = secret.starts_with(is_quote) && secret.ends_with(is_quote);
    let is_mark = |character: char| {
        character.is_whitespace() || character.is_control() || character == '\u{feff}'
    };
    let is_surrounded = secret.starts_with(is_mark) || secret.ends_with(is_mark) || is_quoted;
    if is_surrounded { Err(KeyError::Surrounded) } else { Ok(()) }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, redacted)", self.algorithm())
    }
}
