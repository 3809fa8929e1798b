//! A verification under way: while the body streams in, or once it is there as a whole.

use http::request::Parts;
use webhooks_sign::{Algorithm, Error, Pending, Tolerance, Verified, scheme::Scheme};

use crate::MAX_KEYS;
use crate::keys::Found;
use crate::whole::{self, Whole};

/// One request, the headers of which are in order.
pub(crate) enum Verification<'a> {
    /// With curves it takes 8 KiB, which all futures around this one would have to carry.
    Streamed(Box<Pending<'a, 'a, MAX_KEYS>>),
    Whole(Whole<'a>, &'a Found),
}

impl<'a> Verification<'a> {
    /// Checks what needs no body. `now` is in Unix seconds.
    pub(crate) fn begin(
        scheme: &'a Scheme,
        tolerance: Tolerance,
        head: &'a Parts,
        by: &'a Found,
        now: u64,
    ) -> Result<Self, Error> {
        if whole::is_needed(scheme) {
            let whole = Whole { scheme, tolerance, head, url: &by.url, now };
            whole.check_head(&by.ring)?;
            return Ok(Self::Whole(whole, by));
        }
        let verifier = scheme.verifier().tolerance(tolerance);
        let verifier = verifier.method(head.method.as_str()).url(&by.url);
        // A token says nothing of the body: a wrong one is no reason to read it. Tenants are not told
        // apart by how far a body is read, so theirs is.
        if scheme.algorithm() == Algorithm::Token && by.tenant.is_none() && !by.is_decoy {
            verifier.verify(&by.ring, &head.headers, b"", now)?;
        }
        verifier.begin(&by.ring, &head.headers, now).map(|begun| Self::Streamed(Box::new(begun)))
    }

    /// Takes the next chunk of the body.
    pub(crate) fn update(&mut self, chunk: &[u8]) {
        match self {
            Self::Streamed(pending) => pending.update(chunk),
            Self::Whole(..) => {}
        }
    }

    /// Ends with the whole body, which was taken chunk by chunk before.
    pub(crate) fn finish<'v>(self, body: &'v [u8]) -> Result<Verified<'v, ()>, Error>
    where
        'a: 'v,
    {
        match self {
            Self::Streamed(pending) => pending.finish(),
            Self::Whole(whole, by) => whole.verify(&by.ring, body),
        }
    }
}
