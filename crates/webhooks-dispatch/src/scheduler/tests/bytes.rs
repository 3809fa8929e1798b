//! The bounds on the bytes of bodies in memory.

use std::sync::LazyLock;

use super::super::bytes::{MAX_OTHER_BYTES, MAX_UNSETTLED_BYTES, MIN_CLAIM_BYTES};
use super::super::slots::SLOW_FACTOR;
use super::*;

const MIB: usize = 1 << 20;

fn large(number: u64, to: &Arc<Registration>) -> Claimed {
    static EVENT: LazyLock<Arc<SerializedEvent>> = LazyLock::new(|| {
        Arc::new(SerializedEvent::new(&Event::new("a", "x".repeat(MIB)).unwrap()))
    });
    Claimed { event: Arc::clone(&EVENT), ..claimed(number, to) }
}

fn endpoints(count: usize) -> Vec<Arc<Registration>> {
    (0..count).map(|n| registration(&n.to_string(), endpoint())).collect()
}

fn bytes(scheduler: &mut Scheduler) -> Option<usize> {
    scheduler.allow_claim();
    scheduler.request(clocks(at(0)), LEASE).map(|request| request.bytes)
}

/// Claims for the endpoints that have room, one after another, each as much as the claim may bring.
fn claim(scheduler: &mut Scheduler, endpoints: &[Arc<Registration>], numbers: &mut u64) {
    let Some(bytes) = bytes(scheduler) else { return };
    let room = scheduler.room();
    // In turn, as a store does.
    let first = usize::try_from(*numbers).unwrap() % endpoints.len();
    let mut in_turn = endpoints[first..].iter().chain(&endpoints[..first]);
    let Some(to) = in_turn.find(|to| !room.is_busy(to.number)) else { return };
    let count = bytes.div_ceil(MIB).min(room.of(to.number));
    let claimed = (0..count).map(|_| {
        *numbers += 1;
        large(*numbers, to)
    });
    scheduler.add_claimed(claimed.collect(), at(0) + LEASE);
}

/// Goal: large bodies fill no lane. Method: bodies of 1 MiB, until no claim is wanted.
#[test]
fn claims_are_bounded_in_bytes() {
    let mut scheduler = scheduler(1_000);
    let lanes = endpoints(50);
    assert_eq!(bytes(&mut scheduler), Some(MAX_READY_BYTES));
    for (lane, number) in lanes.iter().zip(0..15) {
        scheduler.add_claimed(vec![large(number, lane)], at(0) + LEASE);
    }
    assert_eq!(bytes(&mut scheduler), Some(MIN_CLAIM_BYTES), "one delivery at least");
    scheduler.add_claimed(vec![large(15, &lanes[15])], at(0) + LEASE);
    assert_eq!(bytes(&mut scheduler), None, "as much as it wants is ready");
    // A quarter of the quick bytes: nothing is known of their endpoints.
    assert_eq!(take_all(&mut scheduler, at(0)).len(), 4);
    assert_eq!(bytes(&mut scheduler), Some(MAX_READY_BYTES), "what is in flight waits no longer");
}

/// Goal: endpoints that hang keep a bounded part of the memory, and leave slots to others. Method: 200
/// endpoints with large bodies, all of whose attempts become slow and never end.
#[test]
fn endpoints_that_hang_with_large_bodies_hold_little_and_delay_nobody() {
    let mut scheduler = scheduler(256);
    let (lanes, mut numbers, mut in_flight) = (endpoints(200), 0, Vec::new());
    let healthy = registration("healthy", endpoint());
    add_claimed(&mut scheduler, &healthy, 10_000, 1);
    let quick = scheduler.take(at(0)).unwrap();
    scheduler.finish(&quick, EndpointSignal::Success, at(0));
    let most = (1 + SLOW_FACTOR) * QUICK_BYTES + MAX_READY_BYTES + MAX_OTHER_BYTES;
    for _ in 0..2_000 {
        claim(&mut scheduler, &lanes, &mut numbers);
        for mut flight in take_all(&mut scheduler, at(0)) {
            scheduler.slow_down(&mut flight);
            in_flight.push(flight);
        }
        assert!(scheduler.held.bytes() <= most + 4 * MIB, "{} MiB", scheduler.held.bytes() / MIB);
    }
    assert!(in_flight.len() > 10, "{} in flight", in_flight.len());
    let released = scheduler.take_to_release().len();
    // Once or twice for each endpoint: nothing more is claimed for it until there is a slot.
    assert!(released <= 2 * lanes.len(), "{released} of {numbers} were claimed for nothing");
    add_claimed(&mut scheduler, &healthy, 20_000, 1);
    assert_eq!(ids(&take_all(&mut scheduler, at(0))), [20_000]);
}

/// Goal: endpoints that answer quickly, and get large bodies, delay nobody either. Method: ten of them use
/// all the bytes that they may.
#[test]
fn large_bodies_hold_up_no_small_ones() {
    let mut scheduler = scheduler(256);
    let (lanes, mut numbers) = (endpoints(10), 0);
    let mut in_flight = Vec::new();
    for (lane, number) in lanes.iter().zip(200_000..) {
        add_claimed(&mut scheduler, lane, number, 1);
        let quick = scheduler.take(at(0)).unwrap();
        scheduler.finish(&quick, EndpointSignal::Success, at(0));
        scheduler.forget_claim(&quick.claimed.claim);
    }
    for _ in 0..50 {
        claim(&mut scheduler, &lanes, &mut numbers);
        in_flight.extend(take_all(&mut scheduler, at(0)));
    }
    assert!(!scheduler.body_slots.has_any(), "{} in flight", in_flight.len());
    assert!(scheduler.lanes.iter().all(|lane| lane.bytes_in_flight <= LANE_BYTES + MIB));
    let small = registration("small", endpoint());
    for number in 100_000..100_100 {
        scheduler.add_claimed(vec![claimed(number, &small)], at(0) + LEASE);
        let flight = take_all(&mut scheduler, at(0)).pop().unwrap();
        assert_eq!(flight.claimed.claim.token, number);
        scheduler.finish(&flight, EndpointSignal::Success, at(0));
    }
}

/// Goal: bodies larger than the usual limit hold up others no more than bodies of that limit. Method: five
/// of 8 MiB hang, of two endpoints.
#[test]
fn very_large_bodies_in_flight_do_not_count_as_unsettled() {
    let mut scheduler = scheduler(256);
    let lanes = endpoints(3);
    let event =
        |len: usize| Arc::new(SerializedEvent::new(&Event::new("a", "x".repeat(len)).unwrap()));
    let huge = event(8 * MIB);
    let mut in_flight = Vec::new();
    for number in 0..10 {
        let claimed = claimed(number, &lanes[usize::try_from(number % 2).unwrap()]);
        let claimed = Claimed { event: Arc::clone(&huge), ..claimed };
        scheduler.add_claimed(vec![claimed], at(0) + LEASE);
        for mut flight in take_all(&mut scheduler, at(0)) {
            scheduler.slow_down(&mut flight);
            in_flight.push(flight);
        }
    }
    assert!(in_flight.len() >= 4, "{} in flight", in_flight.len());
    let claimed = Claimed { event: event(100 << 10), ..claimed(100, &lanes[2]) };
    scheduler.add_claimed(vec![claimed], at(0) + LEASE);
    assert_eq!(ids(&take_all(&mut scheduler, at(0))), [100]);
}

/// Goal: a provider with many endpoints that were quick, and begin to hang, leaves bytes to others.
/// Method: twenty such endpoints with large bodies; all attempts become slow.
#[test]
fn quick_endpoints_that_begin_to_hang_leave_bytes_to_others() {
    let mut scheduler = scheduler(256);
    let (lanes, mut numbers, mut in_flight) = (endpoints(21), 0, Vec::new());
    for (lane, number) in lanes.iter().zip(200_000..) {
        add_claimed(&mut scheduler, lane, number, 1);
        let quick = scheduler.take(at(0)).unwrap();
        scheduler.finish(&quick, EndpointSignal::Success, at(0));
        scheduler.forget_claim(&quick.claimed.claim);
    }
    let (healthy, hanging) = lanes.split_last().unwrap();
    for _ in 0..200 {
        claim(&mut scheduler, hanging, &mut numbers);
        for mut flight in take_all(&mut scheduler, at(0)) {
            scheduler.slow_down(&mut flight);
            in_flight.push(flight);
        }
    }
    assert!(in_flight.len() >= 20, "{} in flight", in_flight.len());
    for number in 300_000..300_010 {
        scheduler.add_claimed(vec![large(number, healthy)], at(0) + LEASE);
        let flight = take_all(&mut scheduler, at(0)).pop().unwrap();
        assert_eq!(flight.claimed.claim.token, number);
        scheduler.finish(&flight, EndpointSignal::Success, at(0));
        scheduler.forget_claim(&flight.claimed.claim);
    }
}

/// Goal: an endpoint whose next token is far away is not claimed for, however much others hold.
#[test]
fn full_lanes_do_not_make_room_for_one_that_waits_for_a_token() {
    let mut scheduler = scheduler(256);
    // From here on, all deliveries have waited.
    bytes(&mut scheduler);
    let seldom = RateLimit { calls: count(1), per: Duration::from_hours(1), burst: count(1) };
    let seldom = registration("seldom", endpoint().rate_limited(seldom));
    scheduler.add_claimed(vec![large(100_000, &seldom)], at(0) + LEASE);
    let _spent = scheduler.take(at(0)).unwrap();
    // Those that find no slot are parked with their deliveries.
    let lanes = endpoints(60);
    for (lane, number) in lanes.iter().zip(0..) {
        scheduler.add_claimed(vec![large(number, lane)], at(0) + LEASE);
        let _hang = take_all(&mut scheduler, at(0));
    }
    let parked = scheduler.lanes[*scheduler.parked.values().next().unwrap()].endpoint;
    let parked = lanes.iter().find(|lane| lane.number == parked).unwrap();
    for number in 60..70 {
        scheduler.add_claimed(vec![large(number, parked)], at(0) + LEASE);
    }
    assert!(scheduler.others_are_full());
    scheduler.limit_until(scheduler.by_endpoint[&seldom.number], at(3_600_000));
    assert!(scheduler.room().is_busy(seldom.number));
}

/// Goal: a store that settles slowly keeps no more bodies in memory than others may. Method: attempts
/// succeed at once, and nothing is settled until no attempt starts.
#[test]
fn what_is_not_settled_stops_further_attempts() {
    let mut scheduler = scheduler(256);
    let (lanes, mut numbers) = (endpoints(20), 0);
    let mut unsettled = Vec::new();
    for _ in 0..200 {
        claim(&mut scheduler, &lanes, &mut numbers);
        while let Some(flight) = scheduler.take(at(0)) {
            scheduler.finish(&flight, EndpointSignal::Success, at(0));
            unsettled.push(flight.claimed.claim);
        }
    }
    assert_eq!(unsettled.len(), MAX_UNSETTLED_BYTES / MIB);
    assert!(!scheduler.has_more_to_do() || bytes(&mut scheduler).is_some());
    for claim in unsettled.drain(..) {
        scheduler.forget_claim(&claim);
    }
    assert!(scheduler.take(at(0)).is_some());
}
