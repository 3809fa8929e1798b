//! The proof that a webhook was verified.

use core::fmt;

/// A webhook whose signature was found right. Only this crate can make one, so that code which
/// takes it cannot be reached by an unverified body.
///
/// `B` is the body: `&[u8]` from the calls that take it whole, `()` from a
/// [`Pending`](crate::Pending), which has passed it on in chunks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Verified<'h, B> {
    /// Visible ASCII.
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

    /// Returns when the attempt was signed, in Unix seconds, if the scheme signs it.
    pub fn timestamp(&self) -> Option<u64> {
        self.timestamp
    }

    /// Returns the place of the key in its ring, from 0: it tells when an old key falls out of use.
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

    /// Takes the body out.
    pub fn into_body(self) -> B {
        self.body
    }

    /// Lets go of the body, and keeps what is known of it.
    pub fn without_body(self) -> Verified<'h, ()> {
        self.with_body(())
    }

    pub(crate) fn with_body<C>(self, body: C) -> Verified<'h, C> {
        let Self { id, timestamp, key_index, scheme, body: _ } = self;
        Verified { id, timestamp, key_index, scheme, body }
    }

    /// Puts an id in place of that in the headers, and of what borrows them.
    pub(crate) fn with_id(self, id: Option<&[u8]>) -> Verified<'_, B> {
        let Self { id: _, timestamp, key_index, scheme, body } = self;
        Verified { id, timestamp, key_index, scheme, body }
    }
}

impl<B> fmt::Debug for Verified<'_, B> {
    /// Leaves out the body: logs are no place for what webhooks are about.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("id", &self.id())
            .field("timestamp", &self.timestamp)
            .field("key_index", &self.key_index)
            .field("scheme", &self.scheme)
            .finish_non_exhaustive()
    }
}
