//! The bounds of the scheduler, its turns, and that no claimed delivery is stuck in it.

use std::num::NonZeroU32;
use std::sync::Arc;

use webhooks_core::{DeliveryId, EndpointId, Event, TenantId, Timestamp};
use webhooks_registry::{Endpoint, RateLimit, Registration};

use super::*;
use crate::breaker::BreakerChange;
use crate::decide::EndpointSignal;
use crate::report::RestReason;
use crate::serialized_event::SerializedEvent;
use crate::store::Progress;

const LEASE: Duration = Duration::from_secs(1_000_000);

fn at(milliseconds: u64) -> MonotonicTime {
    MonotonicTime::from_origin(Duration::from_millis(milliseconds))
}

/// Returns a time by both clocks.
fn clocks(monotonic: MonotonicTime) -> Now {
    Now { wall: Timestamp::from_unix_seconds(1_000), monotonic }
}

fn count(number: usize) -> NonZeroU32 {
    NonZeroU32::new(u32::try_from(number).unwrap()).unwrap()
}

fn endpoint() -> Endpoint {
    Endpoint::new("https://example.com/", "my-secret-key").unwrap()
}

fn registration(id: &str, endpoint: Endpoint) -> Arc<Registration> {
    // Equal ids are equal endpoints here.
    let number = id.bytes().fold(7, |number, byte| number * 31 + u64::from(byte));
    let number = EndpointNumber::from_u64(number);
    Arc::new(Registration::new(number, EndpointId::new(id).unwrap(), endpoint))
}

fn claimed(number: u64, registration: &Arc<Registration>) -> Claimed {
    let event = Arc::new(SerializedEvent::new(&Event::new("a", ()).unwrap()));
    Claimed {
        claim: Claim { delivery: DeliveryId::from_u64(number), token: number },
        registration: Arc::clone(registration),
        event,
        progress: Progress::start(Timestamp::UNIX_EPOCH),
        is_failing: false,
    }
}

fn scheduler(concurrency: usize) -> Scheduler {
    Scheduler::new(concurrency, BreakerSettings::default())
}

/// Adds claimed deliveries of an endpoint, numbered from `first`.
fn add_claimed(scheduler: &mut Scheduler, to: &Arc<Registration>, first: u64, deliveries: u64) {
    let claimed = (first..first + deliveries).map(|number| claimed(number, to)).collect();
    scheduler.add_claimed(claimed, at(0) + LEASE);
}

/// Takes all deliveries whose attempts may start now.
fn take_all(scheduler: &mut Scheduler, now: MonotonicTime) -> Vec<InFlight> {
    std::iter::from_fn(|| scheduler.take(now)).collect()
}

fn ids(in_flight: &[InFlight]) -> Vec<u64> {
    in_flight.iter().map(|flight| flight.claimed.claim.token).collect()
}

/// Makes an endpoint answer quickly, one time.
fn show_quick(scheduler: &mut Scheduler, to: &Arc<Registration>, number: u64) {
    add_claimed(scheduler, to, number, 1);
    let flight = scheduler.take(at(0)).unwrap();
    scheduler.finish(&flight, EndpointSignal::Success, at(0));
    scheduler.forget_claim(&flight.claimed.claim);
}

#[test]
fn tenants_take_turns_and_so_do_the_endpoints_of_one() {
    let mut scheduler = scheduler(100);
    let tenant = |name: &str| endpoint().tenant(TenantId::new(name).unwrap());
    let large: Vec<_> =
        (0..5).map(|n| registration(&format!("large-{n}"), tenant("large"))).collect();
    for (lane, first) in large.iter().zip((0..).step_by(10)) {
        add_claimed(&mut scheduler, lane, first, 2);
    }
    add_claimed(&mut scheduler, &registration("small", tenant("small")), 100, 2);
    let taken = ids(&take_all(&mut scheduler, at(0)));
    assert_eq!(taken, [0, 100, 10, 101, 20, 30, 40, 1, 11, 21, 31, 41]);
}

#[test]
fn an_endpoint_shows_first_that_it_takes_more() {
    let mut scheduler = scheduler(100);
    add_claimed(&mut scheduler, &registration("a", endpoint().max_in_flight(count(4))), 0, 50);
    let mut in_flight = take_all(&mut scheduler, at(0));
    assert_eq!(in_flight.len(), 2, "at first");
    for expected in [3, 4, 4] {
        scheduler.finish(&in_flight.remove(0), EndpointSignal::Success, at(0));
        in_flight.extend(take_all(&mut scheduler, at(0)));
        assert_eq!(in_flight.len(), expected);
    }
    let failed = EndpointSignal::Unhealthy { pause: None };
    for expected in [3, 2, 1, 1] {
        scheduler.finish(&in_flight.remove(0), failed, at(0));
        in_flight.extend(take_all(&mut scheduler, at(0)));
        assert_eq!(in_flight.len(), expected, "half with each failure, one at least");
    }
}

#[test]
fn there_is_more_to_do_when_an_endpoint_may_have_more_attempts_than_it_has() {
    let mut scheduler = scheduler(10);
    add_claimed(&mut scheduler, &registration("a", endpoint()), 0, 60);
    let mut in_flight = take_all(&mut scheduler, at(0));
    assert_eq!(in_flight.len(), 2);
    scheduler.finish(&in_flight.remove(0), EndpointSignal::Success, at(0));
    assert!(!scheduler.wants_more(), "more than enough waits here");
    in_flight.extend(scheduler.take(at(0)));
    assert!(scheduler.has_more_to_do(), "three may start, two did");
    in_flight.extend(take_all(&mut scheduler, at(0)));
    assert_eq!(in_flight.len(), 3);
}

/// Goal: slow attempts use slots of their own, and one that became slow while those were in use
/// moves over as soon as there is room. Method: one quick slot, four for the slow,
/// and endpoints that were quick before.
#[test]
fn attempts_that_last_make_way_whenever_there_is_room() {
    let mut scheduler = scheduler(1);
    let lanes: Vec<_> = (0..7).map(|n| registration(&n.to_string(), endpoint())).collect();
    for (lane, number) in lanes.iter().zip(100..) {
        show_quick(&mut scheduler, lane, number);
    }
    for (lane, number) in lanes.iter().zip(0..) {
        add_claimed(&mut scheduler, lane, number, 1);
    }
    let mut in_flight = Vec::new();
    for expected in 1..=5 {
        in_flight.extend(take_all(&mut scheduler, at(0)));
        assert_eq!(in_flight.len(), expected);
        scheduler.slow_down(in_flight.last_mut().unwrap());
    }
    assert!(scheduler.take(at(0)).is_none(), "all five are taken");
    scheduler.finish(&in_flight.remove(0), EndpointSignal::Success, at(0));
    assert_eq!(take_all(&mut scheduler, at(0)).len(), 1, "the last to be slow has moved over");
}

/// Goal: however many endpoints begin to hang that have shown that they take much, others get their
/// slots. Method: 100 such endpoints and 32 slots; all attempts become slow, and more start as
/// slots are free, until no more do.
#[test]
fn endpoints_that_begin_to_hang_leave_slots_to_others() {
    let mut scheduler = scheduler(32);
    let lanes: Vec<_> = (0..100).map(|n| registration(&n.to_string(), endpoint())).collect();
    for (lane, first) in lanes.iter().zip((0..).step_by(1_000)) {
        add_claimed(&mut scheduler, lane, first, 100);
        for _ in 0..30 {
            for flight in take_all(&mut scheduler, at(0)) {
                scheduler.finish(&flight, EndpointSignal::Success, at(0));
            }
        }
    }
    for (lane, first) in lanes.iter().zip((500..).step_by(1_000)) {
        add_claimed(&mut scheduler, lane, first, 100);
    }
    let mut in_flight = Vec::new();
    loop {
        let mut started = take_all(&mut scheduler, at(0));
        if started.is_empty() {
            break;
        }
        for flight in &mut started {
            scheduler.slow_down(flight);
        }
        in_flight.extend(started);
    }
    let of = |lane: &Arc<Registration>| {
        in_flight.iter().filter(|flight| flight.claimed.registration.id == lane.id).count()
    };
    assert!(in_flight.len() < 5 * 32, "{} in flight", in_flight.len());
    assert!(lanes.iter().all(|lane| of(lane) <= 32));
    add_claimed(&mut scheduler, &registration("well", endpoint()), 200_000, 1);
    assert_eq!(ids(&take_all(&mut scheduler, at(0))), [200_000]);
}

#[test]
fn a_burst_is_no_larger_for_having_waited_for_a_slot() {
    let mut scheduler = scheduler(1);
    let limited = registration("a", endpoint().rate_limit(count(1), count(2)));
    add_claimed(&mut scheduler, &limited, 0, 10);
    let mut in_flight = take_all(&mut scheduler, at(0));
    assert_eq!(in_flight.len(), 1, "one slot");
    // Meanwhile the bucket is full again.
    for expected in [1, 1, 0] {
        for flight in in_flight {
            scheduler.finish(&flight, EndpointSignal::Success, at(10_000));
        }
        in_flight = take_all(&mut scheduler, at(10_000));
        assert_eq!(in_flight.len(), expected);
    }
    assert_eq!(scheduler.take_to_release().len(), 6, "one may start within a second");
    assert_eq!(scheduler.wakes_at(), Some(at(11_000)));
}

/// Goal: what a rate limit allows is claimed one time, and starts when it may. Method: 50 a second,
/// and as many deliveries as a store gives for a second.
#[test]
fn a_limited_endpoint_keeps_what_may_start_soon() {
    let mut scheduler = scheduler(100);
    let limited = registration("a", endpoint().rate_limit(count(50), count(1)));
    add_claimed(&mut scheduler, &limited, 0, 51);
    for nth in 0..51 {
        let now = at(nth * 20);
        let in_flight = take_all(&mut scheduler, now);
        assert_eq!(ids(&in_flight), [nth]);
        scheduler.finish(&in_flight[0], EndpointSignal::Success, now);
        assert_eq!(scheduler.wakes_at(), Some(now + Duration::from_millis(20)));
        assert!(scheduler.take_to_release().is_empty());
        let expected = usize::try_from(nth).unwrap();
        assert_eq!(scheduler.room().of(limited.number), expected, "for a second, less what waits");
    }
    // One an hour: no claim waits here for an hour.
    let seldom = RateLimit { calls: count(1), per: Duration::from_hours(1), burst: count(1) };
    let seldom = registration("b", endpoint().rate_limited(seldom));
    add_claimed(&mut scheduler, &seldom, 100, 3);
    assert_eq!(ids(&take_all(&mut scheduler, at(2_000))), [100]);
    assert_eq!(scheduler.take_to_release().len(), 2);
    assert!(scheduler.room().is_busy(seldom.number));
}

/// Goal: an endpoint whose limit or health an operator changes is claimed for at once. Method: one a
/// day, used up, with an open breaker and without; then another limit.
#[test]
fn a_changed_limit_counts_from_the_next_claim() {
    for signal in [EndpointSignal::Success, EndpointSignal::Unhealthy { pause: Some(LEASE) }] {
        let mut scheduler = scheduler(100);
        let limit = RateLimit { calls: count(1), per: Duration::from_hours(24), burst: count(1) };
        let seldom = registration("a", endpoint().rate_limited(limit));
        add_claimed(&mut scheduler, &seldom, 0, 1);
        let flight = scheduler.take(at(0)).unwrap();
        scheduler.finish(&flight, signal, at(0));
        assert!(scheduler.room().is_busy(seldom.number));
        scheduler.release_endpoint(seldom.number);
        scheduler.reset_health(seldom.number);
        assert!(!scheduler.room().is_busy(seldom.number));
        add_claimed(&mut scheduler, &registration("a", endpoint()), 1, 1);
        assert_eq!(ids(&take_all(&mut scheduler, at(1))), [1]);
    }
}

/// Goal: a wish ends the rest of an endpoint with one attempt, and no wish makes more than one a second.
/// Method: five failures open its breaker, and wishes come early and late.
#[test]
fn a_probe_that_somebody_wants_does_not_wait_for_the_breaker() {
    let mut scheduler = scheduler(10);
    let to = registration("a", endpoint());
    let failed = EndpointSignal::Unhealthy { pause: None };
    for number in 0..5 {
        add_claimed(&mut scheduler, &to, number, 1);
        let flight = scheduler.take(at(0)).unwrap();
        scheduler.finish(&flight, failed, at(0));
    }
    let report = |scheduler: &mut Scheduler, now| {
        let report = scheduler.endpoint_report(to.number, now).unwrap();
        (report.failures, report.rests_by, report.rests_for)
    };
    let rest = |seconds| Some(Duration::from_secs(seconds));
    let by_failures = Some(RestReason::Failures);
    assert_eq!(report(&mut scheduler, at(0)), (5, by_failures, rest(10)));
    scheduler.probe(to.number, at(0));
    assert_eq!(scheduler.wakes_at(), Some(at(1_000)), "a second after the failure");
    scheduler.probe(to.number, at(2_000));
    assert!(!scheduler.room().is_busy(to.number));
    assert_eq!(report(&mut scheduler, at(2_000)), (5, None, None));
    add_claimed(&mut scheduler, &to, 10, 3);
    let mut probes = take_all(&mut scheduler, at(2_000));
    assert_eq!(ids(&probes), [10]);
    scheduler.probe(to.number, at(2_000));
    assert!(scheduler.take(at(2_000)).is_none(), "one is under way");
    scheduler.finish(&probes.remove(0), failed, at(3_000));
    assert_eq!(report(&mut scheduler, at(3_000)), (6, by_failures, rest(10)), "as long as before");
    scheduler.probe(to.number, at(9_000));
    add_claimed(&mut scheduler, &to, 20, 2);
    let probe = scheduler.take(at(9_000)).unwrap();
    let closed = scheduler.finish(&probe, EndpointSignal::Success, at(9_000));
    assert_eq!(closed, Some(BreakerChange::Closed));
    assert_eq!(ids(&take_all(&mut scheduler, at(9_000))), [21]);
}

#[test]
fn a_wish_ends_a_pause_that_was_asked_for_and_no_rate_limit() {
    let mut scheduler = scheduler(10);
    let limit = RateLimit { calls: count(1), per: Duration::from_secs(60), burst: count(1) };
    for (to, signal, by) in [
        (
            registration("asks", endpoint()),
            EndpointSignal::Unhealthy { pause: Some(Duration::from_secs(60)) },
            RestReason::Pause,
        ),
        (
            registration("limited", endpoint().rate_limited(limit)),
            EndpointSignal::Success,
            RestReason::RateLimit,
        ),
    ] {
        add_claimed(&mut scheduler, &to, 0, 1);
        let flight = scheduler.take(at(0)).unwrap();
        scheduler.finish(&flight, signal, at(0));
        let report = scheduler.endpoint_report(to.number, at(5_000)).unwrap();
        assert_eq!(report.rests_by, Some(by));
        scheduler.probe(to.number, at(5_000));
        let is_busy = by == RestReason::RateLimit;
        assert_eq!(scheduler.room().is_busy(to.number), is_busy, "{by:?}");
        add_claimed(&mut scheduler, &to, 10, 3);
        assert_eq!(take_all(&mut scheduler, at(5_000)).len(), usize::from(!is_busy), "{by:?}");
    }
    scheduler.probe(EndpointNumber::from_u64(1), at(5_000));
}

#[test]
fn nothing_starts_under_a_lease_that_has_ended() {
    let mut scheduler = scheduler(1);
    let to = registration("a", endpoint());
    scheduler.add_claimed(vec![claimed(1, &to), claimed(2, &to)], at(100));
    scheduler.add_claimed(vec![claimed(3, &to)], at(200));
    let first = scheduler.take(at(99)).unwrap();
    scheduler.extended(&[first.claimed.claim], at(500));
    scheduler.finish(&first, EndpointSignal::Success, at(100));
    assert_eq!(ids(&take_all(&mut scheduler, at(100))), [3]);
    assert_eq!(scheduler.held().len(), 2, "the one in flight, and the one not settled");
}

#[test]
fn claims_whose_leases_end_soon_are_named_until_they_are_extended() {
    let mut scheduler = scheduler(10);
    let to = registration("a", endpoint());
    scheduler.add_claimed(vec![claimed(1, &to)], at(100));
    scheduler.add_claimed(vec![claimed(2, &to)], at(300));
    let ending = scheduler.ending(at(200));
    assert_eq!(ending, [claimed(1, &to).claim]);
    assert_eq!(scheduler.ending(at(200)), ending, "asking is not extending");
    scheduler.extended(&ending, at(400));
    assert!(scheduler.ending(at(200)).is_empty());
    scheduler.drop_lost(&ending);
    assert_eq!(ids(&take_all(&mut scheduler, at(0))), [2]);
}

#[test]
fn what_has_stopped_hands_everything_back_and_takes_nothing() {
    let mut scheduler = scheduler(1);
    let to = registration("a", endpoint());
    add_claimed(&mut scheduler, &to, 0, 5);
    let flight = scheduler.take(at(0)).unwrap();
    scheduler.stop();
    assert_eq!(scheduler.take_to_release().len(), 4);
    add_claimed(&mut scheduler, &to, 10, 5);
    assert_eq!(scheduler.take_to_release().len(), 5);
    assert!(scheduler.take(at(0)).is_none() && scheduler.request(clocks(at(0)), LEASE).is_none());
    assert_eq!(scheduler.held(), [flight.claimed.claim]);
    scheduler.finish(&flight, EndpointSignal::Success, at(0));
    scheduler.forget_claim(&flight.claimed.claim);
    assert!(scheduler.held().is_empty() && scheduler.in_flight() == 0);
}

#[test]
fn lanes_that_are_long_idle_are_forgotten_and_used_again() {
    let mut scheduler = scheduler(10);
    for round in 0..100_u64 {
        let now = at(round * 700_000);
        let to = registration(&format!("endpoint-{round}"), endpoint());
        scheduler.add_claimed(vec![claimed(round, &to)], now + LEASE);
        let flight = scheduler.take(now).unwrap();
        scheduler.finish(&flight, EndpointSignal::Success, now);
        scheduler.forget_claim(&flight.claimed.claim);
        scheduler.sweep(now);
    }
    assert!(scheduler.lanes.len() <= 2, "{} lanes", scheduler.lanes.len());
}

mod bytes;
mod figures;
mod outage;
mod properties;
