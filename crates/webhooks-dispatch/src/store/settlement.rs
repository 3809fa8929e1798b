//! Settlements: the end of a claim, and the answer of the store.

use super::{Attempt, Claim, Health, Outcome};

/// The outcome of a claimed delivery, with its attempt.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "the engine and tests build it")]
pub struct Settlement {
    /// The claim.
    pub claim: Claim,
    /// The outcome.
    pub outcome: Outcome,
    /// The attempt. `None` if the outcome is [`Expired`](Outcome::Expired) or
    /// [`Released`](Outcome::Released).
    pub attempt: Option<Attempt>,
}

/// The answer of a store to a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the engine must know each")]
#[must_use]
pub enum Settled {
    /// The outcome was recorded.
    Recorded {
        /// The health of the endpoint, from [`Health::after`].
        health: Health,
    },
    /// The claim holds no longer: its lease ended, it was settled before, its delivery was
    /// cancelled, or its endpoint was unregistered or disabled.
    LeaseLost,
}
