//! Rings of keys, for rotation.

use crate::{Key, KeyError};

/// The live keys of one sender, at most `N`. There are several while a secret is rotated.
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

    /// Adds a key at the end.
    ///
    /// # Errors
    /// [`KeyError::Full`] when the ring has `N` keys.
    pub fn push(&mut self, key: Key) -> Result<(), KeyError> {
        let slot = self.keys.iter_mut().find(|slot| slot.is_none()).ok_or(KeyError::Full)?;
        *slot = Some(key);
        Ok(())
    }

    /// Returns the keys in the order of their addition.
    #[inline]
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
