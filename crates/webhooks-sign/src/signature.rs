//! The text of a signature.

use core::fmt;

use crate::encoding::Encoding;
use crate::tag::Tag;

/// The longest prefix in bytes. Those of the providers have up to 10.
pub(crate) const MAX_PREFIX_LEN: usize = 32;

/// The longest text: that prefix and a hexadecimal HMAC-SHA512 or ed25519 signature.
const CAPACITY: usize = MAX_PREFIX_LEN + 128;

/// One signature as a header carries it, on the stack.
///
/// # Example
/// ```
/// use webhooks_sign::{Algorithm, Key, x_webhook};
///
/// let key = Key::from_legacy_bytes(Algorithm::HmacSha256, b"my-secret-key")?;
/// let signature = x_webhook::sign(&key, b"{}")?;
/// assert_eq!(signature.as_str().len(), 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct Signature {
    text: [u8; CAPACITY],
    len: usize,
}

impl Signature {
    /// Returns the text of a MAC with a prefix such as `v1,`; `None` if it is too long.
    pub(crate) fn new(prefix: &str, encoding: Encoding, tag: &Tag) -> Option<Self> {
        let mut text = [0; CAPACITY];
        let (start, rest) = text.split_at_mut_checked(prefix.len())?;
        start.copy_from_slice(prefix.as_bytes());
        let len = encoding.encode(tag.as_bytes(), rest)?.checked_add(prefix.len())?;
        Some(Self { text, len })
    }

    /// Borrows the text.
    pub fn as_str(&self) -> &str {
        self.text.get(..self.len).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl AsRef<str> for Signature {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({self})")
    }
}
