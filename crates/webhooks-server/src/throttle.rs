//! The rate at which an application may publish.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use webhooks_core::TenantId;
use webhooks_dispatch::clock::MonotonicTime;

/// The time whose events may come at once.
const BURST: Duration = Duration::from_secs(1);

/// The number of applications beyond which those that publish nothing are forgotten.
const MAX_KEPT: usize = 10_000;

/// For each application that publishes, the time at which all that it has published would have come at its
/// rate (the "theoretical arrival time" of the generic cell rate algorithm, ITU-T I.371). Each process
/// counts for itself.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<TenantId, MonotonicTime>>);

impl Throttle {
    /// Lets events through together, at a `rate` per second. More than fit at once are let through if one
    /// would be; the next ones wait until all of them would have come at the rate.
    ///
    /// # Errors
    /// The time until the next one, when there were too many.
    pub(crate) fn pass(
        &self,
        tenant: &TenantId,
        (rate, events): (u16, u32),
        now: MonotonicTime,
    ) -> Result<(), Duration> {
        let interval = BURST / u32::from(rate.max(1));
        let mut arrivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = arrivals.get(tenant).map_or(now, |last| (*last).max(now));
        let wait = (last + interval).saturating_since(now + BURST);
        if !wait.is_zero() {
            return Err(wait);
        }
        if arrivals.len() >= MAX_KEPT {
            arrivals.retain(|_, last| *last > now);
        }
        arrivals.insert(tenant.clone(), last + interval.saturating_mul(events));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(elapsed: Duration) -> MonotonicTime {
        MonotonicTime::from_origin(elapsed)
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[test]
    fn a_rate_is_kept_and_reached() {
        for rate in [1, 3, 7, 1_000, u16::MAX] {
            let throttle = Throttle::default();
            let passed = |seconds: u64| {
                let mut passed = 0_u64;
                for step in 0..seconds * 100_000 {
                    let now = at(Duration::from_micros(step * 10));
                    passed += u64::from(throttle.pass(&tenant("shop"), (rate, 1), now).is_ok());
                }
                passed
            };
            // A second's events at once, and then those of three seconds.
            let (found, most) = (passed(3), u64::from(rate) * 4);
            assert!(found <= most && found + 1 + most / 100 >= most, "{rate}: {found}");
        }
    }

    #[test]
    fn the_wait_that_is_told_is_enough_and_others_do_not_wait() {
        let (throttle, now) = (Throttle::default(), at(Duration::ZERO));
        assert_eq!(throttle.pass(&tenant("shop"), (1, 1), now), Ok(()));
        let wait = throttle.pass(&tenant("shop"), (1, 1), now).unwrap_err();
        assert!(
            throttle
                .pass(&tenant("shop"), (1, 1), at(wait.saturating_sub(Duration::from_nanos(1))))
                .is_err()
        );
        assert_eq!(throttle.pass(&tenant("other"), (1, 1), now), Ok(()));
        assert_eq!(throttle.pass(&tenant("shop"), (1, 1), now + wait), Ok(()));
    }

    #[test]
    fn a_batch_above_the_rate_passes_and_is_paid_for() {
        let (throttle, now) = (Throttle::default(), at(Duration::ZERO));
        assert_eq!(throttle.pass(&tenant("shop"), (5, 20), now), Ok(()));
        let wait = throttle.pass(&tenant("shop"), (5, 1), now).unwrap_err();
        // 21 events at 5 a second, of which those of the first second may come at once.
        assert_eq!(wait, Duration::from_millis(3_200));
        assert_eq!(throttle.pass(&tenant("shop"), (5, 20), now + wait), Ok(()));
    }
}
