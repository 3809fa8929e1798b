//! The tolerance for the difference between a timestamp and the receiver's clock.

use crate::Error;

/// The limits within which a signed timestamp is accepted, in whole seconds, both included.
///
/// The default is 5 minutes either way, as in the libraries of Standard Webhooks; the
/// specification gives no figure ("some allowable tolerance").
///
/// A receiver that stores ids against replays must store them for `past + future`.
///
/// # Example
/// ```
/// use webhooks_sign::Tolerance;
///
/// assert_eq!(Tolerance::default(), Tolerance { past: 300, future: 300 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tolerance {
    /// The greatest age in seconds.
    pub past: u64,
    /// The furthest lead in seconds.
    pub future: u64,
}

impl Tolerance {
    pub(crate) const DEFAULT: Self = Self { past: 300, future: 300 };

    /// Accepts any timestamp. Old messages can then be replayed for ever, unless their ids are stored.
    pub const DANGEROUS_UNLIMITED: Self = Self { past: u64::MAX, future: u64::MAX };

    #[inline]
    pub(crate) fn check(self, timestamp: u64, now: u64) -> Result<(), Error> {
        let (age, lead) = (now.saturating_sub(timestamp), timestamp.saturating_sub(now));
        if age > self.past {
            Err(Error::TimestampTooOld { age, tolerance: self.past })
        } else if lead > self.future {
            Err(Error::TimestampTooNew { lead, tolerance: self.future })
        } else {
            Ok(())
        }
    }
}

impl Default for Tolerance {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_edges_are_inside() {
        let tolerance = Tolerance { past: 10, future: 3 };
        let check = |timestamp| tolerance.check(timestamp, 100);
        assert_eq!(check(89), Err(Error::TimestampTooOld { age: 11, tolerance: 10 }));
        assert_eq!(check(90), Ok(()));
        assert_eq!(check(103), Ok(()));
        assert_eq!(check(104), Err(Error::TimestampTooNew { lead: 4, tolerance: 3 }));
        assert_eq!(check(0), Err(Error::TimestampTooOld { age: 100, tolerance: 10 }));
        let lead = u64::MAX - 100;
        assert_eq!(check(u64::MAX), Err(Error::TimestampTooNew { lead, tolerance: 3 }));
    }
}
