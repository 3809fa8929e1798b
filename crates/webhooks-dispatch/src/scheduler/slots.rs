//! The slots of flights, and which part of them is kept for endpoints that answer quickly.

/// How many slow flights there may be for each quick one. They cost a socket and some memory.
pub(super) const SLOW_FACTOR: usize = 4;

/// A worker with fewer quick slots keeps none: one that only slow endpoints use should use it.
pub(super) const KEPT_FROM: usize = 8;

/// How quickly an endpoint can be expected to answer, as far as is known; the later, the sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// It failed, and not quickly; or its store says so; or its breaker has opened.
    Failing,
    /// Nothing is known of it, and something has waited for it, or more than one delivery does.
    Stale,
    /// It answers, but not quickly.
    Slow,
    /// Nothing is known of it, and one delivery waits for it that was accepted just now.
    Fresh,
    /// Its last exchange was quick.
    Quick,
}

impl Trust {
    pub(super) const ALL: [Self; 5] =
        [Self::Failing, Self::Stale, Self::Slow, Self::Fresh, Self::Quick];

    /// Returns how many eighths of all slots endpoints of this trust and of less may hold together.
    /// The rest is kept for those of more.
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

/// Counts flights by the trust that they started with.
///
/// There are `concurrency` quick slots and [`SLOW_FACTOR`] times as many slow ones. A flight takes
/// a quick slot, and moves to a slow one when it lasts. Endpoints that are trusted less may hold only
/// a part of both kinds together, and have no more flights than slow slots in their part: so each of
/// their flights that lasts gives its quick slot back, and those that are trusted more find one.
#[derive(Debug)]
pub(super) struct Slots {
    concurrency: usize,
    flights: [usize; Trust::ALL.len()],
    /// How many of the flights last.
    slow: [usize; Trust::ALL.len()],
}

impl Slots {
    pub(super) fn new(concurrency: usize) -> Self {
        Self { concurrency, flights: Default::default(), slow: Default::default() }
    }

    /// Returns how many flights there are.
    pub(super) fn flights(&self) -> usize {
        self.flights.iter().sum()
    }

    /// Returns whether one more flight may start, if its endpoint is trusted enough.
    pub(super) fn has_any(&self) -> bool {
        self.has_room(Trust::Quick)
    }

    /// Returns whether one more flight may start to an endpoint of this trust.
    pub(super) fn has_room(&self, trust: Trust) -> bool {
        let (mut flights, mut slow) = (0, 0);
        let keeps_some = self.concurrency >= KEPT_FROM;
        Trust::ALL.into_iter().all(|other| {
            flights += self.flights[other as usize];
            slow += self.slow[other as usize];
            let (quick_slots, slow_slots) = self.part(other);
            let fits = match other {
                // Flights that last beyond all slow slots stay in quick ones.
                Trust::Quick => flights - slow.min(slow_slots) < quick_slots,
                _ => flights < slow_slots && flights - slow < quick_slots,
            };
            fits || other < trust || !(keeps_some || other == Trust::Quick)
        })
    }

    /// Returns how many quick and slow slots endpoints of this trust and of less may hold together.
    fn part(&self, trust: Trust) -> (usize, usize) {
        let (quick, slow) = trust.eighths();
        let part = |slots: usize, eighths: usize| slots * eighths / 8;
        (part(self.concurrency, quick), part(self.concurrency * SLOW_FACTOR, slow))
    }

    pub(super) fn start(&mut self, trust: Trust) {
        self.flights[trust as usize] += 1;
    }

    pub(super) fn slow_down(&mut self, trust: Trust) {
        self.slow[trust as usize] += 1;
    }

    pub(super) fn end(&mut self, trust: Trust, is_slow: bool) {
        self.flights[trust as usize] -= 1;
        self.slow[trust as usize] -= usize::from(is_slow);
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
        /// Goal: whatever endpoints of less trust do, those of more find a slot within a patience.
        /// Method: any flights start that may, and then last.
        #[test]
        fn flights_that_last_leave_quick_slots_to_those_that_are_trusted_more(
            concurrency in 1_usize..300,
            starts in vec((trust(), any::<bool>()), 0..2_000),
        ) {
            let mut slots = Slots::new(concurrency);
            let mut lasting = Vec::new();
            for (trust, lasts) in starts {
                if !slots.has_room(trust) {
                    continue;
                }
                slots.start(trust);
                if lasts {
                    slots.slow_down(trust);
                } else {
                    lasting.push(trust);
                }
            }
            let quick_only = lasting.iter().filter(|trust| **trust == Trust::Quick).count();
            let all_less = slots.flights[Trust::Quick as usize] == 0;
            let keeps_some = concurrency >= KEPT_FROM;
            if all_less && keeps_some {
                prop_assert!(slots.has_room(Trust::Quick), "a part is kept at once: {:?}", slots);
            }
            for trust in lasting {
                slots.slow_down(trust);
            }
            if quick_only == 0 && all_less && keeps_some {
                prop_assert!(slots.has_room(Trust::Quick), "after a patience: {:?}", slots);
            }
            prop_assert!(slots.flights() <= concurrency * (1 + SLOW_FACTOR));
        }

        /// A part is kept for each trust, and one flight at least may start if there is none.
        #[test]
        fn every_trust_has_a_part(concurrency in 1_usize..300, trust in trust()) {
            let mut slots = Slots::new(concurrency);
            let mut flights = 0;
            while slots.has_room(trust) {
                slots.start(trust);
                slots.slow_down(trust);
                flights += 1;
            }
            prop_assert!(flights >= 1);
            let more_trusted = Trust::ALL.into_iter().filter(|other| *other > trust);
            for other in more_trusted.filter(|_| concurrency >= KEPT_FROM) {
                prop_assert!(slots.has_room(other), "{:?} beside {:?}", other, slots);
            }
        }
    }
}
