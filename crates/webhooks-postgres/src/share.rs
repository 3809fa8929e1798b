//! The shares of workers in an endpoint's limits: the shares add up to exactly the limit.
//!
//! Each endpoint has its own order of workers (rendezvous hashing), so that all workers have about
//! the same load, and few shares move when a worker comes or goes. The first workers of that order
//! serve the endpoint: as many as its smallest limit has units. An ordered endpoint has one unit,
//! and so it has one worker.

use std::num::NonZeroU32;
use std::sync::Arc;

use webhooks_registry::{Endpoint, RateLimit, Registration};

/// A prime below 2^31, so that products fit into a signed 64-bit integer, here and in SQL.
const PRIME: i64 = 2_147_483_647;

/// Returns how many workers may serve an endpoint, if each is to have a share of every limit.
pub(crate) fn max_workers(endpoint: &Endpoint) -> NonZeroU32 {
    let in_flight = if endpoint.ordered { NonZeroU32::MIN } else { endpoint.max_in_flight };
    endpoint.rate_limit.map_or(in_flight, |rate| in_flight.min(rate.calls).min(rate.burst))
}

/// Returns how many workers come before this one in the endpoint's order.
///
/// The function `webhooks.may_serve` (`0004_claim.sql`) computes the same, and decides what a
/// worker claims: change both together. Both need ids of workers from 2^31 on, see
/// `Membership::new`.
pub(crate) fn rank(endpoint: i64, worker: i64, workers: &[i64]) -> usize {
    let score = |worker: i64| {
        let factor = 1 + (worker >> 31) % (PRIME - 1);
        (((endpoint % PRIME) * factor + worker % PRIME) % PRIME, worker)
    };
    workers.iter().filter(|other| score(**other) < score(worker)).count()
}

/// Returns the share in a limit of the worker with this rank among `workers`; `None` if it has
/// none.
pub(crate) fn share(limit: NonZeroU32, rank: usize, workers: usize) -> Option<NonZeroU32> {
    let (rank, workers) = (u32::try_from(rank).ok()?, u32::try_from(workers).ok()?);
    let whole = limit.get().checked_div(workers)?;
    NonZeroU32::new(whole + u32::from(rank < limit.get() % workers)).filter(|_| rank < workers)
}

/// Returns the registration with a worker's share of its limits; `None` if the worker does not
/// serve the endpoint.
pub(crate) fn with_share(
    registration: &Arc<Registration>,
    number: i64,
    worker: i64,
    workers: &[i64],
) -> Option<Arc<Registration>> {
    let endpoint = &registration.endpoint;
    let most = usize::try_from(max_workers(endpoint).get()).unwrap_or(usize::MAX);
    let (rank, workers) = (rank(number, worker, workers), workers.len().min(most));
    let in_flight = if endpoint.ordered { NonZeroU32::MIN } else { endpoint.max_in_flight };
    let max_in_flight = share(in_flight, rank, workers)?;
    let rate_limit = match endpoint.rate_limit {
        Some(RateLimit { calls, per, burst }) => Some(RateLimit {
            calls: share(calls, rank, workers)?,
            per,
            burst: share(burst, rank, workers)?,
        }),
        None => None,
    };
    if (max_in_flight, rate_limit) == (endpoint.max_in_flight, endpoint.rate_limit) {
        return Some(Arc::clone(registration));
    }
    let mut endpoint = endpoint.clone().max_in_flight(max_in_flight);
    endpoint.rate_limit = rate_limit;
    let mut registration = (**registration).clone();
    registration.endpoint = endpoint;
    Some(Arc::new(registration))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use webhooks_registry::EndpointNumber;

    use super::*;

    fn workers() -> impl Strategy<Value = Vec<i64>> {
        btree_set(0..i64::MAX, 1..20).prop_map(|workers| workers.into_iter().collect())
    }

    /// Returns each worker's share of an endpoint's limit.
    fn shares(limit: u32, endpoint: i64, workers: &[i64]) -> Vec<u32> {
        let limit = NonZeroU32::new(limit).unwrap();
        let serving = workers.len().min(usize::try_from(limit.get()).unwrap());
        let share = |worker: &i64| share(limit, rank(endpoint, *worker, workers), serving);
        workers.iter().map(|worker| share(worker).map_or(0, NonZeroU32::get)).collect()
    }

    proptest! {
        #[test]
        fn shares_are_the_whole_limit_and_differ_by_one_at_most(
            limit in 1_u32..200, endpoint in 1_i64.., workers in workers()
        ) {
            let shares = shares(limit, endpoint, &workers);
            prop_assert_eq!(shares.iter().sum::<u32>(), limit);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", shares);
        }

        #[test]
        fn an_ordered_endpoint_keeps_its_worker_while_others_come_and_go(
            endpoint in 1_i64.., workers in workers(), gone in any::<prop::sample::Index>()
        ) {
            let before = shares(1, endpoint, &workers);
            let gone = gone.index(workers.len());
            let mut left = workers.clone();
            left.remove(gone);
            if before[gone] == 0 {
                let mut expected = before;
                expected.remove(gone);
                prop_assert_eq!(shares(1, endpoint, &left), expected);
            }
        }
    }

    #[test]
    fn endpoints_are_spread_over_the_workers() {
        let mut random = fastrand::Rng::with_seed(7);
        let workers: Vec<i64> = (0..4).map(|_| random.i64(0..)).collect();
        let mut owned = [0; 4];
        for endpoint in 1..=1_000 {
            for (owned, share) in owned.iter_mut().zip(shares(1, endpoint, &workers)) {
                *owned += share;
            }
        }
        assert!(owned.iter().all(|owned| (150..350).contains(owned)), "{owned:?}");
    }

    #[test]
    fn every_limit_has_a_share_for_each_that_serves() {
        let three = NonZeroU32::new(3).unwrap();
        let endpoint = Endpoint::new("https://example.com/", "my-secret-key").unwrap();
        let endpoint = endpoint.rate_limit(NonZeroU32::new(100).unwrap(), three);
        let id = webhooks_core::EndpointId::new("crm").unwrap();
        let number = EndpointNumber::from_u64(7);
        let registration = Arc::new(Registration::new(number, id, endpoint));
        let workers: Vec<i64> = (1..=5).collect();
        let shares =
            workers.iter().filter_map(|worker| with_share(&registration, 7, *worker, &workers));
        let shares: Vec<_> = shares
            .map(|share| (share.endpoint.max_in_flight, share.endpoint.rate_limit.unwrap()))
            .collect();
        assert_eq!(shares.len(), 3);
        assert_eq!(shares.iter().map(|(in_flight, _)| in_flight.get()).sum::<u32>(), 32);
        assert_eq!(shares.iter().map(|(_, rate)| rate.calls.get()).sum::<u32>(), 100);
        assert!(shares.iter().all(|(_, rate)| rate.burst.get() == 1));
        // Two calls an hour are for two workers, and each has one.
        let seldom = RateLimit {
            calls: NonZeroU32::new(2).unwrap(),
            per: Duration::from_hours(1),
            burst: three,
        };
        let seldom = Registration::new(
            number,
            registration.id.clone(),
            registration.endpoint.clone().rate_limited(seldom),
        );
        let seldom = Arc::new(seldom);
        let shares = workers.iter().filter_map(|worker| with_share(&seldom, 7, *worker, &workers));
        let shares: Vec<_> = shares.map(|share| share.endpoint.rate_limit.unwrap()).collect();
        assert_eq!(shares.len(), 2);
        let one_an_hour = |share: &RateLimit| share.interval() == Duration::from_hours(1);
        assert!(shares.iter().all(one_an_hour), "{shares:?}");
        let ordered = Registration::new(
            number,
            registration.id.clone(),
            registration.endpoint.clone().ordered(),
        );
        let ordered = Arc::new(ordered);
        let owners =
            workers.iter().filter(|worker| with_share(&ordered, 7, **worker, &workers).is_some());
        assert_eq!(owners.count(), 1);
    }
}
