//! The limit of concurrent exchanges per host, over all endpoints.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::{Position, Url};

/// Limits the concurrent exchanges with each host, and so its connections.
#[derive(Debug)]
pub(crate) struct HostLimits {
    max: usize,
    slots: Mutex<Slots>,
}

#[derive(Debug)]
struct Slots {
    by_origin: HashMap<Box<str>, Arc<Semaphore>>,
    /// The number of hosts at which hosts without an exchange are removed.
    swept_at: usize,
}

/// The minimum of `swept_at`.
const FIRST_SWEEP: usize = 1024;

impl HostLimits {
    pub(crate) fn new(max: usize) -> Self {
        let slots = Slots { by_origin: HashMap::new(), swept_at: FIRST_SWEEP };
        Self { max, slots: Mutex::new(slots) }
    }

    /// Returns a slot of the URL's host if one is free and nothing waits for it.
    pub(crate) fn free_slot(&self, url: &Url) -> Option<OwnedSemaphorePermit> {
        self.semaphore(&url[..Position::BeforePath]).try_acquire_owned().ok()
    }

    /// Waits for a slot of the URL's host. The slot is free again when the permit is dropped.
    #[expect(clippy::expect_used, reason = "acquiring fails only once the semaphore is closed")]
    pub(crate) async fn slot(&self, url: &Url) -> OwnedSemaphorePermit {
        let semaphore = self.semaphore(&url[..Position::BeforePath]);
        semaphore.acquire_owned().await.expect("nobody closes it")
    }

    fn semaphore(&self, origin: &str) -> Arc<Semaphore> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(semaphore) = slots.by_origin.get(origin) {
            return Arc::clone(semaphore);
        }
        if slots.by_origin.len() >= slots.swept_at {
            // An exchange that has or awaits a slot has a clone of the semaphore. The number of hosts must
            // double before the next sweep, so that sweeps cost little per exchange.
            slots.by_origin.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
            slots.swept_at = FIRST_SWEEP.max(slots.by_origin.len().saturating_mul(2));
        }
        let semaphore = Arc::new(Semaphore::new(self.max));
        slots.by_origin.insert(origin.into(), Arc::clone(&semaphore));
        semaphore
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_host_has_so_many_slots_and_another_its_own() {
        let hosts = HostLimits::new(2);
        let url = |text: &str| Url::parse(text).unwrap();
        let slot = |text: &str| hosts.slot(&url(text)).now_or_never();
        let first = slot("https://a.example/1").unwrap();
        let _second = slot("https://a.example/2?x").unwrap();
        assert!(slot("https://a.example/").is_none(), "both are taken");
        let _others = [slot("http://a.example/").unwrap(), slot("https://a.example:8/").unwrap()];
        drop(first);
        assert!(slot("https://a.example/").is_some());
    }

    #[test]
    fn hosts_at_rest_are_forgotten_and_those_at_work_are_not() {
        let hosts = HostLimits::new(1);
        let url = |n: usize| Url::parse(&format!("https://{n}.example/")).unwrap();
        let _held = hosts.slot(&url(0)).now_or_never().unwrap();
        for n in 1..10 * FIRST_SWEEP {
            let _slot = hosts.slot(&url(n)).now_or_never().unwrap();
        }
        assert!(hosts.slots.lock().unwrap().by_origin.len() <= FIRST_SWEEP);
        assert!(hosts.slot(&url(0)).now_or_never().is_none(), "it is still held");
    }
}
