//! The ids of events, endpoints, tenants and deliveries.

use std::fmt;
use std::sync::{Arc, LazyLock};

use thiserror::Error;
use uuid::Uuid;

use crate::text::parsed_from_text;

/// The largest id, in bytes.
///
/// Ids travel in headers and are index keys in stores, so they stay short.
const MAX_LEN: usize = 128;

/// The reason why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdError {
    /// The text is empty.
    #[error("id is empty")]
    Empty,
    /// The text is longer than 128 bytes.
    #[error("id has {len} bytes; at most {MAX_LEN} are allowed")]
    TooLong {
        /// The length found, in bytes.
        len: usize,
    },
    /// The text is not the id of a delivery.
    #[error("id {id:?} is not a delivery's; write it like dlv_17")]
    NotADelivery {
        /// The text as it was given.
        id: String,
    },
    /// A character is not allowed in this kind of id.
    #[error("id {id:?} contains {character:?}; allowed are {allowed}")]
    Character {
        /// The text as it was given.
        id: String,
        /// The first character at fault.
        character: char,
        /// The characters that this kind of id may have, in words.
        allowed: &'static str,
    },
}

/// Returns an error unless a text is 1 to 128 bytes of allowed characters.
pub(crate) fn check(
    text: &str,
    allowed: &'static str,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_LEN {
        return Err(IdError::TooLong { len: text.len() });
    }
    match text.chars().find(|&character| !is_allowed(character)) {
        Some(character) => Err(IdError::Character { id: text.to_owned(), character, allowed }),
        None => Ok(()),
    }
}

/// Identifies an event: a random UUID unless the publisher chose the id.
///
/// Receivers deduplicate by it: it is the same in every attempt. It has 1 to 128
/// visible ASCII characters without `.`, because Standard Webhooks 1.0, "Signature scheme", joins
/// id, timestamp and payload with full stops ("not be allowed to include any `.`").
///
/// # Example
/// ```
/// use webhooks_core::EventId;
///
/// assert_eq!(EventId::random().to_string().len(), 36);
/// assert_eq!(EventId::new("order-17")?.to_string(), "order-17");
/// assert!(EventId::new("order.17").is_err());
/// # Ok::<(), webhooks_core::IdError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Repr);

/// A UUID in canonical text is always held as `Uuid`, so that equal texts are equal ids.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Uuid(Uuid),
    Text(Arc<str>),
}

impl EventId {
    /// Returns a new id: a UUID version 7 (RFC 9562 §5.7), ordered by creation within a process.
    pub fn random() -> Self {
        Self(Repr::Uuid(Uuid::now_v7()))
    }

    /// Returns the id with this text.
    ///
    /// # Errors
    /// [`IdError`] when the text is empty, longer than 128 bytes, or has a character that is not
    /// visible ASCII, or a `.`.
    pub fn new(text: &str) -> Result<Self, IdError> {
        if let Some(uuid) = canonical_uuid(text) {
            return Ok(Self(Repr::Uuid(uuid)));
        }
        check(text, "visible ASCII characters but '.'", |c| c.is_ascii_graphic() && c != '.')?;
        Ok(Self(Repr::Text(text.into())))
    }

    /// Returns the id that is this UUID.
    pub fn from_uuid_bytes(bytes: [u8; 16]) -> Self {
        Self(Repr::Uuid(Uuid::from_bytes(bytes)))
    }

    /// Borrows the 16 bytes of an id that is a UUID, the form in which stores keep it; `None` for
    /// an id that the publisher chose.
    pub fn as_uuid_bytes(&self) -> Option<&[u8; 16]> {
        match &self.0 {
            Repr::Uuid(uuid) => Some(uuid.as_bytes()),
            Repr::Text(_) => None,
        }
    }
}

/// Returns the UUID of a text that is exactly its canonical form: lower case, with hyphens. Any other
/// spelling stays a text, because an id must come back byte for byte.
fn canonical_uuid(text: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(text).ok()?;
    let mut buffer = Uuid::encode_buffer();
    (uuid.as_hyphenated().encode_lower(&mut buffer) == text).then_some(uuid)
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Uuid(uuid) => uuid.as_hyphenated().fmt(f),
            Repr::Text(text) => f.pad(text),
        }
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

/// Writes a type of names: 1 to 128 of `A-Z a-z 0-9` and some marks, cheap to clone. `$kind` is its word
/// in the documentation, and `$allowed` tells the characters in errors.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $allowed:literal, $($mark:literal)+) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            #[doc = concat!("Returns the ", $kind, " with this text.")]
            ///
            /// # Errors
            #[doc = concat!(
                "[`IdError`](crate::IdError) when the text is empty, longer than 128 bytes, or has a \
                 character other than ", $allowed, "."
            )]
            pub fn new(text: &str) -> Result<Self, crate::IdError> {
                crate::id::check(text, $allowed, |c| {
                    c.is_ascii_alphanumeric() || matches!(c, $($mark)|+)
                })?;
                Ok(Self(text.into()))
            }

            /// Borrows the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

pub(crate) use name;

name! {
    /// Identifies an endpoint, as its owner named it.
    ///
    /// # Example
    /// ```
    /// use webhooks_core::EndpointId;
    ///
    /// assert_eq!(EndpointId::new("acme-billing")?.as_str(), "acme-billing");
    /// assert!(EndpointId::new("acme billing").is_err());
    /// # Ok::<(), webhooks_core::IdError>(())
    /// ```
    EndpointId, "id", "A-Z, a-z, 0-9, '_', '.' and '-'", '_' '.' '-'
}

name! {
    /// Identifies a tenant: the owner of endpoints and of the events that go to them.
    ///
    /// A program with one tenant uses the default one and never sees it.
    ///
    /// # Example
    /// ```
    /// use webhooks_core::TenantId;
    ///
    /// assert_eq!(TenantId::default().as_str(), "default");
    /// ```
    TenantId, "id", "A-Z, a-z, 0-9, '_', '.' and '-'", '_' '.' '-'
}

/// Every event of a single-tenant program has it, so it is allocated once.
static DEFAULT_TENANT: LazyLock<TenantId> = LazyLock::new(|| TenantId("default".into()));

impl Default for TenantId {
    fn default() -> Self {
        DEFAULT_TENANT.clone()
    }
}

/// Identifies a delivery: a number that its store counts up, so that a later delivery has a larger
/// one.
///
/// # Example
/// ```
/// use webhooks_core::DeliveryId;
///
/// let id: DeliveryId = "dlv_17".parse()?;
/// assert_eq!((id.as_u64(), id.to_string()), (17, "dlv_17".to_owned()));
/// # Ok::<(), webhooks_core::IdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(u64);

impl DeliveryId {
    /// The start of the id's text.
    const PREFIX: &str = "dlv_";

    /// Returns the id with this text: `dlv_` and a number.
    ///
    /// # Errors
    /// [`IdError::NotADelivery`] when it is written otherwise.
    pub fn new(text: &str) -> Result<Self, IdError> {
        let number = text.strip_prefix(Self::PREFIX).and_then(|number| number.parse().ok());
        let id = number.map(Self).filter(|id| id.to_string() == text);
        id.ok_or_else(|| IdError::NotADelivery { id: text.to_owned() })
    }

    /// Returns the id with this number.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0)
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeliveryId({})", self.0)
    }
}

parsed_from_text!(DeliveryId, IdError);
parsed_from_text!(EventId, IdError);
parsed_from_text!(EndpointId, IdError);
parsed_from_text!(TenantId, IdError);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn random_event_ids_are_unique_uuids_of_36_characters() {
        let ids: BTreeSet<EventId> = (0..10_000).map(|_| EventId::random()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.to_string().len() == 36));
    }

    #[test]
    fn uuid_text_is_kept_as_it_was_given() {
        for text in [
            "0197b0a4-7c1e-7d3a-9a55-0c8f4f3a2b1c",
            "0197B0A4-7C1E-7D3A-9A55-0C8F4F3A2B1C",
            "0197b0a47c1e7d3a9a550c8f4f3a2b1c",
        ] {
            let id = EventId::new(text).unwrap();
            assert_eq!(id.to_string(), text);
            assert_eq!(id, EventId::new(&id.to_string()).unwrap());
        }
    }

    #[test]
    fn bad_ids_are_refused_with_the_reason() {
        let check = |text: &str, reason: &str| {
            assert_eq!(EndpointId::new(text).unwrap_err().to_string(), reason);
        };
        check("", "id is empty");
        check(&"x".repeat(129), "id has 129 bytes; at most 128 are allowed");
        check("a b", "id \"a b\" contains ' '; allowed are A-Z, a-z, 0-9, '_', '.' and '-'");
        check("é", "id \"é\" contains 'é'; allowed are A-Z, a-z, 0-9, '_', '.' and '-'");
        assert_eq!(
            EventId::new("a.b").unwrap_err().to_string(),
            "id \"a.b\" contains '.'; allowed are visible ASCII characters but '.'"
        );
        assert!(EventId::new("a\nb").is_err());
        for text in ["", "17", "dlv_", "dlv_017", "dlv_+1", "dlv_-1", "dlv_18446744073709551616"] {
            assert!(DeliveryId::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_uuid_survives_its_bytes_and_a_chosen_id_has_none() {
        let id = EventId::random();
        assert_eq!(id.as_uuid_bytes().map(|bytes| EventId::from_uuid_bytes(*bytes)), Some(id));
        assert_eq!(EventId::new("order-17").unwrap().as_uuid_bytes(), None);
    }
}
