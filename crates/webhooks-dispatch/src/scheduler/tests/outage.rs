//! The scheduler when many endpoints fail, and the health that it remembers.

use super::*;

const TROUBLE: EndpointSignal = EndpointSignal::Unhealthy { pause: None };

fn known_to_fail(number: u64, to: &Arc<Registration>) -> Claimed {
    Claimed { is_failing: true, ..claimed(number, to) }
}

fn end(scheduler: &mut Scheduler, flight: &InFlight, signal: EndpointSignal, now: MonotonicTime) {
    scheduler.finish(flight, signal, now);
    scheduler.forget_claim(&flight.claimed.claim);
}

/// Takes a delivery that was claimed for an endpoint, and ends it at once.
fn exchange(
    scheduler: &mut Scheduler,
    claimed: Claimed,
    signal: EndpointSignal,
    now: MonotonicTime,
) {
    scheduler.add_claimed(vec![claimed], now + LEASE);
    let flight = scheduler.take(now).unwrap();
    end(scheduler, &flight, signal, now);
}

#[test]
fn an_endpoint_that_is_known_to_fail_has_one_attempt_and_is_left_alone_after_its_first_failure() {
    let mut scheduler = scheduler(100);
    let to = registration("a", endpoint());
    scheduler.add_claimed((0..5).map(|number| known_to_fail(number, &to)).collect(), at(0) + LEASE);
    let in_flight = take_all(&mut scheduler, at(0));
    assert_eq!(in_flight.len(), 1);
    end(&mut scheduler, &in_flight[0], TROUBLE, at(0));
    assert!(take_all(&mut scheduler, at(9_999)).is_empty());
    assert_eq!((scheduler.take_to_release().len(), scheduler.wakes_at()), (4, Some(at(10_000))));
    scheduler
        .add_claimed((5..10).map(|number| known_to_fail(number, &to)).collect(), at(0) + LEASE);
    let _in_the_pause = scheduler.take_to_release();
    scheduler.add_claimed(Vec::new(), at(0) + LEASE);
    assert!(take_all(&mut scheduler, at(10_000)).is_empty());
    scheduler
        .add_claimed((10..15).map(|number| known_to_fail(number, &to)).collect(), at(0) + LEASE);
    let in_flight = take_all(&mut scheduler, at(10_000));
    assert_eq!(in_flight.len(), 1, "a probe");
    end(&mut scheduler, &in_flight[0], EndpointSignal::Success, at(10_000));
    assert!(take_all(&mut scheduler, at(10_000)).len() > 1);
}

/// Goal: endpoints that were quick do not take the slots of quick ones over and over while the
/// transport has no room for them. Method: 200 of them on one host, which begins to hang, and 32
/// slots; what may start does, lasts, and finds no room.
#[test]
fn endpoints_that_wait_in_vain_for_room_leave_quick_slots_to_others() {
    let mut scheduler = scheduler(32);
    let well = registration("well", endpoint());
    show_quick(&mut scheduler, &well, 1_000_000);
    let lanes: Vec<_> = (0..200).map(|n| registration(&n.to_string(), endpoint())).collect();
    for (lane, number) in lanes.iter().zip(100_000..) {
        show_quick(&mut scheduler, lane, number);
    }
    for round in 0..3 {
        for (lane, number) in lanes.iter().zip(round * 1_000..) {
            add_claimed(&mut scheduler, lane, number, 1);
        }
        let (now, mut in_flight) = (at(round * 60_000), Vec::new());
        loop {
            let mut started = take_all(&mut scheduler, now);
            for flight in &mut started {
                scheduler.slow_down(flight);
            }
            if started.is_empty() {
                break;
            }
            in_flight.extend(started);
        }
        if round == 2 {
            add_claimed(&mut scheduler, &well, 2_000_000, 1);
            assert_eq!(ids(&take_all(&mut scheduler, now)), [2_000_000], "{}", in_flight.len());
        }
        for flight in &in_flight {
            end(&mut scheduler, flight, EndpointSignal::NoRoom, at(round * 60_000 + 30_000));
        }
    }
}

#[test]
fn an_endpoint_without_room_waits_for_a_second_and_holds_no_slot_meanwhile() {
    let mut scheduler = scheduler(1);
    let [full, other] = ["full", "other"].map(|id| registration(id, endpoint()));
    exchange(&mut scheduler, claimed(1, &full), EndpointSignal::NoRoom, at(0));
    exchange(&mut scheduler, claimed(2, &other), EndpointSignal::Success, at(0));
    assert_eq!(scheduler.wakes_at(), Some(at(1_000)));
    add_claimed(&mut scheduler, &full, 3, 1);
    assert!(scheduler.take(at(999)).is_none() && scheduler.take_to_release().len() == 1);
    add_claimed(&mut scheduler, &full, 4, 1);
    assert!(scheduler.take(at(1_000)).is_none(), "what was claimed before is claimed again");
    add_claimed(&mut scheduler, &full, 5, 1);
    assert_eq!(ids(&take_all(&mut scheduler, at(1_000))), [5]);
}

#[test]
fn an_answer_that_refuses_a_probe_is_a_sign_of_life() {
    let mut scheduler = scheduler(100);
    let to = registration("a", endpoint());
    scheduler.add_claimed((0..5).map(|number| known_to_fail(number, &to)).collect(), at(0) + LEASE);
    let probe = scheduler.take(at(0)).unwrap();
    end(&mut scheduler, &probe, EndpointSignal::Nothing, at(0));
    let probe = scheduler.take(at(0)).unwrap();
    assert!(scheduler.take(at(0)).is_none(), "a delivery that was not sent tells nothing");
    end(&mut scheduler, &probe, EndpointSignal::Refused, at(0));
    assert_eq!(take_all(&mut scheduler, at(0)).len(), 2);
}

/// Goal: whatever waits for endpoints that hang, an endpoint that was quick starts at once, and one
/// of which nothing is known, too. Method: 5,000 that are known to fail and 5,000 that may have
/// waited long; all that may start does, and lasts.
#[test]
fn endpoints_that_hang_leave_slots_and_claims_to_others() {
    let mut scheduler = scheduler(256);
    let well = registration("well", endpoint());
    show_quick(&mut scheduler, &well, 1_000_000);
    let long_ago = clocks(at(0)).wall.saturating_sub(Duration::from_secs(60));
    let mut in_flight = Vec::new();
    let mut number = 0;
    for _ in 0..10_000 {
        scheduler.allow_claim();
        let request = scheduler.request(clocks(at(0)), LEASE).unwrap();
        if number == 10_000 {
            assert!(request.room.busy() > 8_000, "nothing is claimed for what has no slot");
            break;
        }
        let most = u64::try_from(request.limit / request.per_endpoint).unwrap();
        let batch = number..(number + most).min(10_000);
        number = batch.end;
        let claimed = batch.flat_map(|number| {
            let to = registration(&format!("sick-{number}"), endpoint());
            (0..u64::try_from(request.per_endpoint).unwrap()).map(move |nth| {
                let mut claimed = claimed(number * 100 + nth, &to);
                claimed.is_failing = number % 2 == 0;
                claimed.progress = Progress::start(long_ago);
                claimed
            })
        });
        scheduler.add_claimed(claimed.collect(), at(0) + LEASE);
        let mut started = take_all(&mut scheduler, at(0));
        for flight in &mut started {
            scheduler.slow_down(flight);
        }
        in_flight.extend(started);
    }
    assert_eq!(number, 10_000);
    assert!(scheduler.held().len() < 30 * 256, "{} claims held", scheduler.held().len());
    for to in [well, registration("new", endpoint())] {
        let mut claimed = claimed(2_000_000, &to);
        claimed.progress = Progress::start(clocks(at(0)).wall);
        scheduler.add_claimed(vec![claimed], at(0) + LEASE);
        let flight = scheduler.take(at(0)).unwrap();
        assert_eq!(flight.claimed.registration.id, to.id);
    }
    for flight in in_flight.drain(..) {
        end(&mut scheduler, &flight, TROUBLE, at(30_000));
    }
    assert_eq!(take_all(&mut scheduler, at(30_000)).len(), 64, "others have their turn");
}

/// Goal: an endpoint that turns out to be quick no longer waits for a slot among those of which
/// nothing is known. Method: eight slots, two of them for such; three endpoints want two each.
#[test]
fn a_parked_endpoint_that_turns_out_well_goes_on_at_once() {
    let mut scheduler = scheduler(8);
    scheduler.request(clocks(at(0)), LEASE);
    let lanes = ["well", "b", "c"].map(|id| registration(id, endpoint()));
    for (lane, first) in lanes.iter().zip((0..).step_by(10)) {
        add_claimed(&mut scheduler, lane, first, 2);
    }
    let in_flight = take_all(&mut scheduler, at(0));
    assert_eq!((ids(&in_flight), scheduler.parked.len()), (vec![0, 10], 3));
    end(&mut scheduler, &in_flight[0], EndpointSignal::Success, at(0));
    assert_eq!(ids(&take_all(&mut scheduler, at(0))), [1, 20]);
}

#[test]
fn of_endpoints_that_are_gone_nothing_is_left_after_a_sweep() {
    let mut scheduler = scheduler(10);
    let limited = endpoint().rate_limit(count(1), count(1));
    let gone = [registration("failing", endpoint()), registration("limited", limited.clone())];
    for to in &gone {
        exchange(&mut scheduler, known_to_fail(1, to), TROUBLE, at(0));
    }
    // Attempts in flight end first; their slots and the rate count until they do.
    let last = registration("last", limited);
    scheduler.add_claimed(vec![claimed(2, &last)], at(0) + LEASE);
    let flight = scheduler.take(at(0)).unwrap();
    for to in gone.iter().chain([&last]) {
        scheduler.forget_endpoint(to.number);
    }
    scheduler.sweep(at(1_000));
    assert_eq!((scheduler.lanes.len(), scheduler.by_endpoint.len()), (3, 1));
    end(&mut scheduler, &flight, TROUBLE, at(1_000));
    scheduler.sweep(at(1_000));
    assert!(scheduler.lanes.is_empty() && scheduler.free.is_empty());
    assert!(scheduler.by_endpoint.is_empty() && scheduler.by_key.is_empty());
    assert!(scheduler.room.busy() == 0 && scheduler.resting.is_empty());
    assert!(scheduler.turns.is_empty() && scheduler.held().is_empty());
}

#[test]
fn endpoints_that_failed_or_were_limited_are_forgotten_when_that_tells_nothing_more() {
    let mut scheduler = scheduler(10);
    let limited = endpoint().rate_limit(count(1), count(1));
    exchange(
        &mut scheduler,
        claimed(1, &registration("limited", limited)),
        EndpointSignal::Success,
        at(0),
    );
    exchange(&mut scheduler, known_to_fail(2, &registration("sick", endpoint())), TROUBLE, at(0));
    scheduler.sweep(at(599_000));
    assert_eq!(scheduler.by_endpoint.len(), 2);
    scheduler.sweep(at(600_000));
    assert_eq!(scheduler.by_endpoint.len(), 1, "the breaker may still open for longer");
    scheduler.sweep(at(610_000));
    assert!(scheduler.lanes.is_empty() && scheduler.by_key.is_empty());
}

/// Returns an endpoint as it is when it was unregistered and is registered again.
fn begun_anew(before: &Registration) -> Arc<Registration> {
    let number = EndpointNumber::from_u64(before.number.as_u64() + 1);
    Arc::new(Registration::new(number, before.id.clone(), before.endpoint.clone()))
}

#[test]
fn an_endpoint_that_comes_back_has_the_attempts_and_the_rate_that_it_had() {
    let mut scheduler = scheduler(10);
    let limits = || endpoint().rate_limit(count(1), count(1)).max_in_flight(count(1));
    let before = registration("a", limits());
    scheduler.add_claimed(vec![claimed(1, &before)], at(0) + LEASE);
    let flight = scheduler.take(at(0)).unwrap();
    scheduler.forget_endpoint(before.number);
    scheduler.sweep(at(0));
    let after = begun_anew(&before);
    scheduler.add_claimed(vec![claimed(2, &after)], at(0) + LEASE);
    assert!(scheduler.take(at(5_000)).is_none(), "one in flight");
    end(&mut scheduler, &flight, EndpointSignal::Success, at(5_000));
    assert!(scheduler.take(at(5_000)).is_some());
    scheduler.sweep(at(5_000));
    scheduler.add_claimed(vec![claimed(3, &after)], at(0) + LEASE);
    assert!(scheduler.take(at(5_500)).is_none(), "one a second");
}

#[test]
fn an_endpoint_that_comes_back_is_not_blamed_for_what_was_in_flight_before() {
    let mut scheduler = Scheduler::new(10, BreakerSettings { failures: 1, ..Default::default() });
    let before = registration("a", endpoint());
    scheduler.add_claimed(vec![claimed(1, &before)], at(0) + LEASE);
    let flight = scheduler.take(at(0)).unwrap();
    scheduler.forget_endpoint(before.number);
    let after = begun_anew(&before);
    scheduler.add_claimed(vec![claimed(2, &after), claimed(3, &after)], at(0) + LEASE);
    let own = scheduler.take(at(0)).unwrap();
    end(&mut scheduler, &flight, TROUBLE, at(1_000));
    assert_eq!(ids(&take_all(&mut scheduler, at(1_000))), [3], "its breaker is closed");
    end(&mut scheduler, &own, TROUBLE, at(1_000));
    scheduler.add_claimed(vec![claimed(4, &after)], at(0) + LEASE);
    assert!(scheduler.take(at(1_000)).is_none(), "its own failure opens it");
}
