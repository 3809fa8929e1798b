//! Reports of endpoints: which are listed, in which order, and with which numbers.

use super::*;
use crate::report::{BreakerState, EndpointReport, WorkerReport};

const FAILED: EndpointSignal = EndpointSignal::Unhealthy { pause: None };

fn opened(pause: u64) -> BreakerChange {
    BreakerChange::Opened { pause: Duration::from_millis(pause) }
}

/// Makes an attempt with this result, and returns the change of the breaker.
fn attempt(
    scheduler: &mut Scheduler,
    to: &Arc<Registration>,
    signal: EndpointSignal,
    now: MonotonicTime,
) -> Option<BreakerChange> {
    // It moves the time forward: a lane may rest until now.
    assert!(scheduler.take(now).is_none());
    add_claimed(scheduler, to, 1, 1);
    let flight = scheduler.take(now).unwrap();
    let change = scheduler.finish(&flight, signal, now);
    scheduler.forget_claim(&flight.claimed.claim);
    change
}

#[test]
fn each_opening_of_a_breaker_is_told_and_its_closing_by_an_answer() {
    let mut scheduler = scheduler(10);
    let to = registration("a", endpoint());
    for _ in 0..4 {
        assert_eq!(attempt(&mut scheduler, &to, FAILED, at(0)), None);
    }
    assert_eq!(attempt(&mut scheduler, &to, FAILED, at(0)), Some(opened(10_000)));
    // The endpoint asks for a longer pause than its breaker would make.
    let asked = EndpointSignal::Unhealthy { pause: Some(Duration::from_secs(60)) };
    assert_eq!(attempt(&mut scheduler, &to, asked, at(10_000)), Some(opened(60_000)));
    assert_eq!(scheduler.gauges().open_breakers, 1);
    let answered = EndpointSignal::Refused;
    assert_eq!(attempt(&mut scheduler, &to, answered, at(70_000)), Some(BreakerChange::Closed));
    assert_eq!(scheduler.gauges().open_breakers, 0);
    assert_eq!(attempt(&mut scheduler, &to, EndpointSignal::Success, at(70_000)), None);
}

#[test]
fn endpoints_in_trouble_are_reported_first_and_idle_ones_not_at_all() {
    let mut scheduler = scheduler(10);
    let [open, probing, limited, busy, idle] =
        ["open", "probing", "limited", "busy", "idle"].map(|id| {
            let limited = |endpoint: Endpoint| endpoint.rate_limit(count(1), count(2));
            registration(id, if id == "limited" { limited(endpoint()) } else { endpoint() })
        });
    for (to, number) in [(&limited, 10), (&busy, 20)] {
        show_quick(&mut scheduler, to, number);
    }
    for _ in 0..5 {
        attempt(&mut scheduler, &probing, FAILED, at(0));
    }
    for _ in 0..5 {
        attempt(&mut scheduler, &open, FAILED, at(9_000));
    }
    attempt(&mut scheduler, &idle, EndpointSignal::Success, at(9_000));
    add_claimed(&mut scheduler, &limited, 100, 4);
    add_claimed(&mut scheduler, &busy, 200, 5);
    let flights = take_all(&mut scheduler, at(9_000));
    assert_eq!(flights.len(), 5, "two tokens, and three at once");
    for flight in flights.iter().filter(|flight| flight.claimed.registration.id == limited.id) {
        scheduler.finish(flight, EndpointSignal::Success, at(9_000));
    }
    assert!(take_all(&mut scheduler, at(9_000)).is_empty());
    let report = |to: &Arc<Registration>| EndpointReport {
        number: to.number,
        in_flight: 0,
        waiting: 0,
        breaker: BreakerState::Closed,
        failures: 0,
        rests_for: None,
        rests_by: None,
        tokens: None,
    };
    let remaining = Duration::from_millis(8_500);
    let rests_for = Some(remaining);
    let expected = [
        EndpointReport {
            breaker: BreakerState::Open { remaining },
            failures: 5,
            rests_for,
            rests_by: Some(RestReason::Failures),
            ..report(&open)
        },
        EndpointReport { breaker: BreakerState::Probing, failures: 5, ..report(&probing) },
        EndpointReport { in_flight: 3, waiting: 2, ..report(&busy) },
    ];
    let rest = EndpointReport {
        waiting: 1,
        rests_for: Some(Duration::from_secs(1)),
        rests_by: Some(RestReason::RateLimit),
        tokens: Some(0),
        ..report(&limited)
    };
    assert_eq!(scheduler.endpoint_reports(at(9_000))[2], rest);
    assert_eq!(scheduler.endpoint_reports(at(10_500)), expected);
}

#[test]
fn a_report_is_bounded_and_leaves_out_the_least_interesting() {
    let settings = BreakerSettings { failures: 1, ..BreakerSettings::default() };
    let mut scheduler = Scheduler::new(2_000, settings);
    let busy: Vec<_> =
        (0..600).map(|number| registration(&format!("busy-{number}"), endpoint())).collect();
    for (to, number) in busy.iter().zip(10_000..) {
        show_quick(&mut scheduler, to, number);
    }
    for (to, number) in busy.iter().zip(10_000..) {
        add_claimed(&mut scheduler, to, number, 1);
    }
    assert_eq!(take_all(&mut scheduler, at(0)).len(), 600);
    for number in 0..600 {
        let to = registration(&format!("failing-{number}"), endpoint());
        attempt(&mut scheduler, &to, FAILED, at(0));
    }
    let reports = scheduler.endpoint_reports(at(0));
    assert_eq!(reports.len(), WorkerReport::MAX_ENDPOINTS);
    let is_open = |report: &EndpointReport| matches!(report.breaker, BreakerState::Open { .. });
    assert!(reports[..600].iter().all(is_open) && !reports[600..].iter().any(is_open));
}
