//! The addresses that send keys which are refused, so that nobody can try many.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use webhooks_admin::ApiKeyHash;
use webhooks_dispatch::clock::MonotonicTime;

/// The time after which one more key may be refused.
const INTERVAL: Duration = Duration::from_secs(5);

/// The number of networks, and of keys that were accepted, that are remembered.
const MAX_KEPT: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// The place of all networks for which there is no place of their own.
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// The networks whose keys were refused, and keys that were accepted.
///
/// A network that sends too many gets its answer before the store is asked, except for keys that this process
/// accepted before: people behind one address are not locked out by a neighbour. The number of refusals is
/// counted when they are known, so requests at the same moment may exceed it.
pub(crate) struct RefusedKeys {
    /// The number that one network may send at once.
    burst: u32,
    /// For each network, the time at which all its refusals would have come at the allowed rate: the "theoretical
    /// arrival time", as for those who publish.
    networks: Mutex<HashMap<IpAddr, MonotonicTime>>,
    accepted: Mutex<LruCache<[u8; 32], ()>>,
}

impl RefusedKeys {
    /// Allows this number of refusals at once, and then one every five seconds.
    pub(crate) fn new(burst: u32) -> Self {
        let accepted = Mutex::new(LruCache::new(MAX_KEPT));
        Self { burst: burst.max(1), networks: Mutex::default(), accepted }
    }

    /// Lets a key be looked for.
    ///
    /// # Errors
    /// The time until the next, when too many of the address were refused.
    pub(crate) fn check(
        &self,
        from: Option<IpAddr>,
        key: Option<&ApiKeyHash>,
        now: MonotonicTime,
    ) -> Result<(), Duration> {
        // Without an address, all callers would be one.
        let Some(from) = from else { return Ok(()) };
        let networks = self.networks();
        let Some(last) = networks.get(&place(&networks, from)) else { return Ok(()) };
        let wait = (*last + INTERVAL).saturating_since(now + INTERVAL * self.burst);
        drop(networks);
        let is_known = || key.is_some_and(|key| self.accepted().contains(key.as_bytes()));
        if wait.is_zero() || is_known() { Ok(()) } else { Err(wait) }
    }

    /// Notes that a key was accepted, or made.
    pub(crate) fn note_accepted(&self, key: &ApiKeyHash) {
        self.accepted().put(*key.as_bytes(), ());
    }

    /// Notes that a key, if it was one at all, was refused.
    pub(crate) fn note_refused(
        &self,
        from: Option<IpAddr>,
        key: Option<&ApiKeyHash>,
        now: MonotonicTime,
    ) {
        if let Some(key) = key {
            self.accepted().pop(key.as_bytes());
        }
        let Some(from) = from else { return };
        let mut networks = self.networks();
        if networks.len() >= MAX_KEPT.get() {
            networks.retain(|_, last| *last > now);
        }
        let place = place(&networks, from);
        let last = networks.get(&place).map_or(now, |last| (*last).max(now));
        networks.insert(place, last + INTERVAL);
    }

    fn networks(&self) -> MutexGuard<'_, HashMap<IpAddr, MonotonicTime>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accepted(&self) -> MutexGuard<'_, LruCache<[u8; 32], ()>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the network of an address, or [`OTHERS`] if there are too many.
fn place(networks: &HashMap<IpAddr, MonotonicTime>, from: IpAddr) -> IpAddr {
    let network = network(from);
    let has_place = networks.len() < MAX_KEPT.get() || networks.contains_key(&network);
    if has_place { network } else { OTHERS }
}

/// Returns an IPv4 address, or the network of an IPv6 address: a household or a machine has 2⁶⁴ of those.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

impl fmt::Debug for RefusedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefusedKeys").field("burst", &self.burst).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use webhooks_admin::ApiKeyText;

    use super::*;

    const BURST: u32 = 3;

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime::from_origin(Duration::from_secs(seconds))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the calls take it")]
    fn from(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    /// Sends keys that are all refused; returns how many were looked for.
    fn guess(
        refused: &RefusedKeys,
        from: Option<IpAddr>,
        times: usize,
        now: MonotonicTime,
    ) -> usize {
        let looked_for = |_: &usize| {
            let is_passed = refused.check(from, None, now).is_ok();
            if is_passed {
                refused.note_refused(from, None, now);
            }
            is_passed
        };
        (0..times).filter(looked_for).count()
    }

    #[test]
    fn an_address_may_guess_a_few_times_and_then_slowly() {
        let refused = RefusedKeys::new(BURST);
        let guesser = from("192.0.2.1");
        assert_eq!(guess(&refused, guesser, 100, at(100)), 3);
        let wait = refused.check(guesser, None, at(100)).unwrap_err();
        assert_eq!(wait, INTERVAL);
        assert_eq!(guess(&refused, guesser, 100, at(100) + wait), 1);
        assert_eq!(guess(&refused, guesser, 100, at(100 + 600)), 3);
        assert_eq!(guess(&refused, from("192.0.2.2"), 100, at(100)), 3, "another");
        assert_eq!(guess(&refused, None, 100, at(100)), 100, "no address");
    }

    #[test]
    fn the_addresses_of_one_network_count_together() {
        let refused = RefusedKeys::new(BURST);
        assert_eq!(guess(&refused, from("2001:db8::1"), 9, at(0)), 3);
        assert_eq!(guess(&refused, from("2001:db8::ffff:1:2:3"), 9, at(0)), 0);
        assert_eq!(guess(&refused, from("2001:db8:0:1::1"), 9, at(0)), 3);
        assert_eq!(guess(&refused, from("192.0.2.1"), 9, at(0)), 3);
        assert_eq!(guess(&refused, from("::ffff:192.0.2.1"), 9, at(0)), 0, "the same");
    }

    #[test]
    fn a_key_that_was_accepted_passes_until_it_is_refused() {
        let refused = RefusedKeys::new(BURST);
        let (guesser, key) = (from("192.0.2.1"), ApiKeyText::generate().hash());
        refused.note_accepted(&key);
        guess(&refused, guesser, 9, at(0));
        assert!(refused.check(guesser, Some(&key), at(0)).is_ok());
        assert!(refused.check(guesser, Some(&ApiKeyText::generate().hash()), at(0)).is_err());
        refused.note_refused(guesser, Some(&key), at(0));
        assert!(refused.check(guesser, Some(&key), at(0)).is_err());
    }

    #[test]
    fn more_networks_than_are_remembered_share_a_place() {
        let refused = RefusedKeys::new(1);
        let many = u32::try_from(MAX_KEPT.get()).unwrap();
        let address = |number: u32| Some(IpAddr::from(number.to_be_bytes()));
        for number in 0..many {
            assert_eq!(guess(&refused, address(number), 9, at(0)), 1);
        }
        assert_eq!(guess(&refused, address(many), 9, at(0)), 1);
        assert_eq!(guess(&refused, address(many + 1), 9, at(0)), 0);
        assert!(refused.networks().len() <= MAX_KEPT.get() + 1);
        assert_eq!(guess(&refused, address(many + 1), 9, at(60)), 1);
        assert_eq!(refused.networks().len(), 1, "the idle are forgotten");
    }
}
