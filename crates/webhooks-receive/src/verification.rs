//! One verification: while the body streams in, or once the whole body has arrived.

use std::sync::Arc;

use http::request::Parts;
use webhooks_sign::{Algorithm, Error, Pending, Tolerance, Verified, scheme::Scheme};

use crate::clock::Clock;
use crate::keys::{FoundKeys, MAX_KEYS};
use crate::whole::{self, Whole};

/// The rules by which requests are verified.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) scheme: Scheme,
    pub(crate) tolerance: Tolerance,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Rules {
    /// Checks what needs no body.
    pub(crate) fn begin<'r>(
        &'r self,
        head: &'r Parts,
        keys: &'r FoundKeys,
        now: u64,
    ) -> Result<Verification<'r>, Error> {
        let Self { scheme, tolerance, .. } = self;
        if whole::is_needed(scheme) {
            let whole = Whole { scheme, tolerance: *tolerance, head, url: &keys.url, now };
            whole.check_head(&keys.ring)?;
            return Ok(Verification::Whole(whole, keys));
        }
        let verifier = scheme.verifier().tolerance(*tolerance);
        let verifier = verifier.method(head.method.as_str()).url(&keys.url);
        // The body does not change whether a token is right, so a wrong token is refused before the
        // body is read. Except with tenants: how far a body is read would show which tenants exist.
        if scheme.algorithm() == Algorithm::Token && keys.tenant.is_none() && !keys.is_decoy {
            verifier.verify(&keys.ring, &head.headers, b"", now)?;
        }
        let pending = verifier.begin(&keys.ring, &head.headers, now)?;
        Ok(Verification::Streamed(Box::new(pending)))
    }

    /// Returns whether a request would pass with another body.
    pub(crate) fn would_pass(&self, head: &Parts, keys: &FoundKeys, body: &[u8]) -> bool {
        let Ok(mut verification) = self.begin(head, keys, self.now()) else { return false };
        verification.update(body);
        verification.finish(body).is_ok()
    }

    /// Returns the time in Unix seconds.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now().as_unix_seconds()
    }
}

/// One request, the headers of which are in order.
pub(crate) enum Verification<'a> {
    /// Boxed: with curves it takes 8 KiB, and each future around this one would be as much larger.
    Streamed(Box<Pending<'a, 'a, MAX_KEYS>>),
    Whole(Whole<'a>, &'a FoundKeys),
}

impl<'a> Verification<'a> {
    /// Takes the next chunk of the body.
    pub(crate) fn update(&mut self, chunk: &[u8]) {
        match self {
            Self::Streamed(pending) => pending.update(chunk),
            Self::Whole(..) => {}
        }
    }

    /// Ends with the whole body, the chunks of which [`update`](Self::update) has taken before.
    pub(crate) fn finish<'v>(self, body: &'v [u8]) -> Result<Verified<'v, ()>, Error>
    where
        'a: 'v,
    {
        match self {
            Self::Streamed(pending) => pending.finish(),
            Self::Whole(whole, keys) => whole.verify(&keys.ring, body),
        }
    }
}
