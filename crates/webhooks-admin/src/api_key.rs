//! API keys: their text, which is shown once, and the record that is stored.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use webhooks_core::Timestamp;
use zeroize::Zeroizing;

use crate::grant::Grant;
use crate::idempotency::hex;
use crate::public_id::IdKind;
use crate::record::RecordKind;
use crate::resource::{FieldError, Resource};

/// The start of a key, so that scanners for leaked secrets find it. It has no dot: client libraries of Svix
/// read a region behind the last one.
const PREFIX: &str = "whkey_";

/// The number of digits of each half of a key: those of 128 bits in base 62.
const HALF: usize = 22;

/// The longest name in bytes.
const MAX_NAME: usize = 256;

/// The bounds of a key of another service, in bytes.
const FOREIGN_LEN: (usize, usize) = (24, 256);

/// The text of a key.
#[derive(Clone)]
pub struct ApiKeyText(Zeroizing<String>);

/// The reason why a text is not that of a key. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ApiKeyTextError {
    /// It starts as a key, and is shorter or longer, or has other characters.
    #[error(
        "the API key is incomplete or was copied badly: it is whkey_ and 44 digits and letters"
    )]
    Malformed,
    /// It is no key of any service.
    #[error("this is not an API key: it has 24 to 256 letters, digits, _, - and dots")]
    NoKey,
}

/// The SHA-256 hash of a key's text, by which the key is stored and found. It is compared in constant time.
#[derive(Clone, Copy)]
pub struct ApiKeyHash([u8; 32]);

/// A key, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "callers change it")]
pub struct ApiKey {
    /// The name that its owner gave it.
    pub name: String,
    /// The hash of its text.
    pub hash: ApiKeyHash,
    /// Its rights.
    pub grant: Grant,
    /// The time at which it was made.
    pub created_at: Timestamp,
    /// The time from which it is refused; never if `None`.
    pub expires_at: Option<Timestamp>,
    /// The time at which it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The time of its last use.
    pub used_at: Option<Timestamp>,
    /// Whether it is a session of the portal, which its holder can end.
    #[serde(default)]
    pub is_session: bool,
}

/// The reason why a known key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyRefusal {
    /// Its time is over.
    #[error("the API key expired at {at}")]
    Expired {
        /// When.
        at: Timestamp,
    },
    /// It was revoked.
    #[error("the API key was revoked at {at}")]
    Revoked {
        /// When.
        at: Timestamp,
    },
}

impl ApiKeyText {
    /// Returns a new key: `whkey_` and 256 random bits in 44 digits of base 62.
    ///
    /// # Panics
    /// When the system's random source fails.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        #[expect(clippy::expect_used, reason = "without randomness no key is secret")]
        getrandom::fill(&mut *bytes).expect("the system's random source");
        // With its whole capacity from the start: a text that grows leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 2 * HALF));
        text.push_str(PREFIX);
        for half in bytes.as_chunks().0 {
            let digits = Zeroizing::new(base62::encode(u128::from_be_bytes(*half)));
            text.extend(std::iter::repeat_n('0', HALF - digits.len()));
            text.push_str(&digits);
        }
        Self(text)
    }

    /// Reads the key of a request: one of ours, or one of another service that was imported.
    ///
    /// # Errors
    /// [`ApiKeyTextError`] when no key has this text.
    pub fn parse(text: &str) -> Result<Self, ApiKeyTextError> {
        let is_digit = |character: char| character.is_ascii_alphanumeric();
        let is_key = match text.strip_prefix(PREFIX) {
            Some(digits) if digits.len() != 2 * HALF || !digits.chars().all(is_digit) => {
                return Err(ApiKeyTextError::Malformed);
            }
            Some(_) => true,
            None => {
                let allowed = |character| is_digit(character) || "_-.".contains(character);
                (FOREIGN_LEN.0..=FOREIGN_LEN.1).contains(&text.len()) && text.chars().all(allowed)
            }
        };
        let key = is_key.then(|| Self(Zeroizing::new(text.to_owned())));
        key.ok_or(ApiKeyTextError::NoKey)
    }

    /// Borrows the text, to show it once to the one who made it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the hash under which the key is stored.
    pub fn hash(&self) -> ApiKeyHash {
        ApiKeyHash(Sha256::digest(self.0.as_bytes()).into())
    }
}

impl fmt::Debug for ApiKeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyText(redacted)")
    }
}

impl ApiKeyHash {
    /// Returns the hash with these bytes, for stores.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Borrows the bytes, for stores.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyHash(redacted)")
    }
}

impl Serialize for ApiKeyHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for ApiKeyHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        base16ct::lower::decode(&text, &mut bytes).map_err(de::Error::custom)?;
        Ok(Self(bytes))
    }
}

impl PartialEq for ApiKeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for ApiKeyHash {}

impl Resource for ApiKey {
    const KIND: RecordKind = RecordKind::ApiKey;
    const ID: Option<IdKind> = Some(IdKind::ApiKey);

    fn alias(&self) -> Option<String> {
        Some(hex(self.hash.as_bytes()))
    }

    fn check(&self) -> Result<(), FieldError> {
        if (1..=MAX_NAME).contains(&self.name.len()) {
            return Ok(());
        }
        Err(FieldError::new("name", "it has not 1 to 256 bytes"))
    }

    /// A session leaves nothing behind; people want to see what became of a key.
    fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at.filter(|_| self.is_session)
    }

    fn shown(&self) -> serde_json::Result<Value> {
        let mut shown = serde_json::to_value(self)?;
        if let Some(fields) = shown.as_object_mut() {
            fields.remove("hash");
        }
        Ok(shown)
    }
}

impl ApiKey {
    /// Returns a key that was made now, and never expires.
    pub fn new(name: impl Into<String>, hash: ApiKeyHash, grant: Grant, now: Timestamp) -> Self {
        Self {
            name: name.into(),
            hash,
            grant,
            created_at: now,
            expires_at: None,
            revoked_at: None,
            used_at: None,
            is_session: false,
        }
    }

    /// Sets the time from which the key is refused.
    #[must_use]
    pub fn expiring(self, at: Timestamp) -> Self {
        Self { expires_at: Some(at), ..self }
    }

    /// Makes it a session of the portal.
    #[must_use]
    pub fn session(self) -> Self {
        Self { is_session: true, ..self }
    }

    /// Returns the key after it was revoked; the first time counts.
    #[must_use]
    pub fn revoked(self, now: Timestamp) -> Self {
        Self { revoked_at: self.revoked_at.or(Some(now)), ..self }
    }

    /// Checks that the key is accepted at this time; returns its rights.
    ///
    /// # Errors
    /// [`KeyRefusal`] when it was revoked, or its time is over.
    pub fn check(&self, now: Timestamp) -> Result<&Grant, KeyRefusal> {
        match (self.revoked_at, self.expires_at) {
            (Some(at), _) => Err(KeyRefusal::Revoked { at }),
            (None, Some(at)) if at <= now => Err(KeyRefusal::Expired { at }),
            _ => Ok(&self.grant),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::grant::Role;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn keys_are_random_and_have_one_form() {
        let texts: BTreeSet<String> =
            (0..1_000).map(|_| ApiKeyText::generate().reveal().to_owned()).collect();
        assert_eq!(texts.len(), 1_000);
        for text in texts {
            assert_eq!(text.len(), PREFIX.len() + 2 * HALF);
            assert_eq!(ApiKeyText::parse(&text).unwrap().reveal(), text);
        }
    }

    #[test]
    fn the_hash_is_that_of_the_text() {
        // `printf 'testsk_abcdefghijklmnopqrstuvwxyz' | sha256sum`
        let key = ApiKeyText::parse("testsk_abcdefghijklmnopqrstuvwxyz").unwrap();
        let hash = key.hash().as_bytes().map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(hash, "8ae9500e5ac6ed92251a03d326e8309f59b4d65e446b28cb1d3e8ebbf50d5743");
        let other = ApiKeyText::parse("testsk_abcdefghijklmnopqrstuvwxyZ").unwrap();
        assert_ne!(key.hash(), other.hash());
    }

    #[test]
    fn a_key_that_was_copied_badly_is_told_from_no_key() {
        let text = ApiKeyText::generate();
        let (short, _) = text.reveal().split_at(40);
        for malformed in [short, &format!("{}0", text.reveal()), &format!("{short}=5678901234")] {
            assert_eq!(ApiKeyText::parse(malformed).unwrap_err(), ApiKeyTextError::Malformed);
        }
        for no_key in
            ["", "Bearer", "testsk_short", "has a space has a space has", "é".repeat(20).as_str()]
        {
            assert_eq!(ApiKeyText::parse(no_key).unwrap_err(), ApiKeyTextError::NoKey, "{no_key}");
        }
        assert!(ApiKeyText::parse("testsk_abcdefghijklmnopqrst.eu").is_ok(), "imported");
    }

    proptest! {
        #[test]
        fn no_text_panics_or_shows_in_the_error(text in ".{1,300}") {
            if let Err(error) = ApiKeyText::parse(&text) {
                prop_assert!(text.len() < 6 || !error.to_string().contains(&text));
            }
        }
    }

    #[test]
    fn a_key_is_refused_once_it_is_revoked_or_its_time_is_over() {
        let hash = ApiKeyText::generate().hash();
        let key = ApiKey::new("ci", hash, Grant::new(Role::Viewer), at(100));
        assert!(key.check(at(1_000_000)).is_ok());
        let expiring = key.expiring(at(200));
        assert!(expiring.check(at(199)).is_ok());
        assert_eq!(expiring.check(at(200)), Err(KeyRefusal::Expired { at: at(200) }));
        let revoked = ApiKey { revoked_at: Some(at(150)), ..expiring };
        assert_eq!(revoked.check(at(300)), Err(KeyRefusal::Revoked { at: at(150) }));
    }

    #[test]
    fn no_text_of_a_key_is_in_its_debug_form() {
        let text = ApiKeyText::generate();
        assert!(!format!("{text:?}").contains(text.reveal()));
    }
}
