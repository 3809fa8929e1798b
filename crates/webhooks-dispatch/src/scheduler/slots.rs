//! The slots of attempts, and the part of them that is reserved for endpoints that answer quickly.

/// The number of slow slots for each quick one. A slow attempt costs a socket and some memory.
pub(super) const SLOW_FACTOR: usize = 4;

/// The smallest `concurrency` at which slots are reserved. An eighth of fewer is less than one
/// slot, and a worker that has only slow endpoints should use all its slots.
pub(super) const KEPT_FROM: usize = 8;

/// The expectation of how quickly an endpoint answers. The order goes from slow to quick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// It failed slowly, or before it ever answered; or its store remembers a failure; or its
    /// breaker has opened.
    Failing,
    /// Nothing is known of it, and more than one delivery waits for it or one has waited.
    Stale,
    /// It answers, but not quickly.
    Slow,
    /// Nothing is known of it, and the only delivery for it was accepted just now.
    Fresh,
    /// Its last attempt was quick.
    Quick,
}

impl Trust {
    pub(super) const ALL: [Self; 5] =
        [Self::Failing, Self::Stale, Self::Slow, Self::Fresh, Self::Quick];

    /// Returns the eighths of the quick and of the slow slots that endpoints of this trust and of
    /// less may use together. The rest is reserved for endpoints of more trust.
    fn eighths(self) -> (usize, usize) {
        match self {
            Self::Failing => (1, 2),
            Self::Stale => (2, 4),
            Self::Slow => (4, 6),
            Self::Fresh => (6, 7),
            Self::Quick => (8, 8),
        }
    }
}

/// The slots that an attempt needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wants {
    pub(super) trust: Trust,
    /// Set if its body counts among the bytes in flight.
    pub(super) is_large: bool,
}

impl Wants {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let both = |trust| [false, true].map(|is_large| Self { trust, is_large });
        Trust::ALL.into_iter().flat_map(both)
    }
}

/// The attempts in flight by the trust with which they started: their number, or the bytes of their
/// bodies.
///
/// There are `quick` quick slots and [`SLOW_FACTOR`] times as many slow ones. An attempt
/// starts in quick slots, and moves to slow ones when it becomes slow. Endpoints of less trust
/// may use only a part of both kinds together. They have at most as much in flight as
/// their part has slow slots: so each attempt that becomes slow finds slow slots, and leaves its
/// quick ones to endpoints of more trust. If an attempt takes several slots, one free slot suffices.
#[derive(Debug)]
pub(super) struct Slots {
    quick: usize,
    in_flight: [usize; Trust::ALL.len()],
    /// Those of them that are slow.
    slow: [usize; Trust::ALL.len()],
}

impl Slots {
    pub(super) fn new(quick: usize) -> Self {
        Self { quick, in_flight: Default::default(), slow: Default::default() }
    }

    /// Returns how much is in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.iter().sum()
    }

    /// Returns how much of it is slow.
    pub(super) fn slow(&self) -> usize {
        self.slow.iter().sum()
    }

    /// Returns whether one more attempt may start, if its endpoint has enough trust.
    pub(super) fn has_any(&self) -> bool {
        self.has_room(Trust::Quick)
    }

    /// Returns whether one more attempt may start for an endpoint of this trust.
    pub(super) fn has_room(&self, trust: Trust) -> bool {
        let (mut in_flight, mut slow) = (0, 0);
        let keeps_some = self.quick >= KEPT_FROM;
        Trust::ALL.into_iter().all(|other| {
            in_flight += self.in_flight[other as usize];
            slow += self.slow[other as usize];
            let (quick_slots, slow_slots) = self.bounds(other);
            let fits = match other {
                // Slow attempts for which there is no slow slot stay in quick ones.
                Trust::Quick => in_flight - slow.min(slow_slots) < quick_slots,
                _ => in_flight < slow_slots && in_flight - slow < quick_slots,
            };
            // A start counts in the sums of its own trust and of all above it; all must have room.
            let is_bound = keeps_some || other == Trust::Quick;
            let counts = other >= trust && is_bound;
            !counts || fits
        })
    }

    /// Returns the quick and slow slots that endpoints of this trust and of less may use together.
    fn bounds(&self, trust: Trust) -> (usize, usize) {
        let (quick, slow) = trust.eighths();
        let part = |slots: usize, eighths: usize| slots * eighths / 8;
        (part(self.quick, quick), part(self.quick * SLOW_FACTOR, slow))
    }

    pub(super) fn start(&mut self, trust: Trust, size: usize) {
        self.in_flight[trust as usize] += size;
    }

    pub(super) fn slow_down(&mut self, trust: Trust, size: usize) {
        self.slow[trust as usize] += size;
    }

    pub(super) fn end(&mut self, trust: Trust, is_slow: bool, size: usize) {
        self.in_flight[trust as usize] -= size;
        if is_slow {
            self.slow[trust as usize] -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn trust() -> impl Strategy<Value = Trust> {
        prop::sample::select(&Trust::ALL[..])
    }

    proptest! {
        /// Goal: endpoints of more trust find a slot within `slow_after`, whatever those of less
        /// do. Method: attempts start wherever they may, and then become slow.
        #[test]
        fn attempts_that_last_leave_quick_slots_to_those_that_are_trusted_more(
            concurrency in 1_usize..300,
            starts in vec((trust(), any::<bool>()), 0..2_000),
        ) {
            let mut slots = Slots::new(concurrency);
            let mut quick_so_far = Vec::new();
            for (trust, lasts) in starts {
                if !slots.has_room(trust) {
                    continue;
                }
                slots.start(trust, 1);
                if lasts {
                    slots.slow_down(trust, 1);
                } else {
                    quick_so_far.push(trust);
                }
            }
            let quick_only = quick_so_far.iter().filter(|trust| **trust == Trust::Quick).count();
            let all_less = slots.in_flight[Trust::Quick as usize] == 0;
            let keeps_some = concurrency >= KEPT_FROM;
            if all_less && keeps_some {
                prop_assert!(slots.has_room(Trust::Quick), "a part is kept at once: {:?}", slots);
            }
            for trust in quick_so_far {
                slots.slow_down(trust, 1);
            }
            if quick_only == 0 && all_less && keeps_some {
                prop_assert!(slots.has_room(Trust::Quick), "after a patience: {:?}", slots);
            }
            prop_assert!(slots.in_flight() <= concurrency * (1 + SLOW_FACTOR));
        }

        /// A part is reserved for each trust. One attempt at least may start if none is in flight.
        #[test]
        fn every_trust_has_a_part(concurrency in 1_usize..300, trust in trust()) {
            let mut slots = Slots::new(concurrency);
            let mut in_flight = 0;
            while slots.has_room(trust) {
                slots.start(trust, 1);
                slots.slow_down(trust, 1);
                in_flight += 1;
            }
            prop_assert!(in_flight >= 1);
            let more_trusted = Trust::ALL.into_iter().filter(|other| *other > trust);
            for other in more_trusted.filter(|_| concurrency >= KEPT_FROM) {
                prop_assert!(slots.has_room(other), "{:?} beside {:?}", other, slots);
            }
        }
    }
}
