//! The proof that a webhook was verified.

use core::fmt;

/// A webhook whose signature was verified. Only this crate can make one, so no unverified body
/// reaches code that takes it.
///
/// `B` is the body: `&[u8]` from functions that take it whole, `()` from a
/// [`Pending`](crate::Pending), which took it in chunks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Verified<'h, B> {
    /// The id: visible ASCII.
    pub(crate) id: Option<&'h [u8]>,
    pub(crate) timestamp: Option<u64>,
    pub(crate) key_index: usize,
    pub(crate) scheme: &'static str,
    pub(crate) body: B,
}

impl<'h, B> Verified<'h, B> {
    /// Returns the id of the message, by which to deduplicate, if the scheme signs one.
    pub fn id(&self) -> Option<&'h str> {
        self.id.and_then(|id| str::from_utf8(id).ok())
    }

    /// Returns the time at which the attempt was signed, in Unix seconds, if the scheme signs it.
    pub fn timestamp(&self) -> Option<u64> {
        self.timestamp
    }

    /// Returns the index of the key in its ring, from 0: it shows when an old key is no longer used.
    pub fn key_index(&self) -> usize {
        self.key_index
    }

    /// Returns the name of the scheme, such as `standard`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Borrows the body.
    pub fn body(&self) -> &B {
        &self.body
    }

    /// Returns the body.
    pub fn into_body(self) -> B {
        self.body
    }

    /// Returns the same without the body.
    pub fn without_body(self) -> Verified<'h, ()> {
        self.with_body(())
    }

    pub(crate) fn with_body<C>(self, body: C) -> Verified<'h, C> {
        let Self { id, timestamp, key_index, scheme, body: _ } = self;
        Verified { id, timestamp, key_index, scheme, body }
    }

    /// Replaces the id. The result no longer borrows the headers.
    pub(crate) fn with_id(self, id: Option<&[u8]>) -> Verified<'_, B> {
        let Self { id: _, timestamp, key_index, scheme, body } = self;
        Verified { id, timestamp, key_index, scheme, body }
    }
}

impl<B> fmt::Debug for Verified<'_, B> {
    /// Leaves out the body: it must not get into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("id", &self.id())
            .field("timestamp", &self.timestamp)
            .field("key_index", &self.key_index)
            .field("scheme", &self.scheme)
            .finish_non_exhaustive()
    }
}
