//! The store that workers share, as a model: every order of its steps keeps every promise, and a
//! store that differs from the model in one thing breaks one.
#![expect(clippy::print_stdout, reason = "how much was explored belongs to the result")]

use std::collections::BTreeSet;

use webhooks_tests::model::Command::{Cancel, Disable, Prune, Replay, TryNow};
use webhooks_tests::model::{Command, Deviation, Promise, Report, Scope, Shape, explore};

/// The largest number of states in a scope, so that all tests take seconds.
const MOST_STATES: usize = 300_000;

#[expect(clippy::disallowed_methods, reason = "the time is printed and judges nothing")]
fn report(scope: &Scope) -> Report {
    let start = std::time::Instant::now();
    let report = explore(scope);
    let (states, steps, time) = (report.states, report.steps, start.elapsed());
    println!("{states} states, {steps} steps in {time:.1?}: {scope:?}");
    assert!(states <= MOST_STATES, "{states} states are too many for CI: {scope:?}");
    report
}

fn check_kept(shape: Shape, faults: u8, commands: &'static [Command]) {
    let report = report(&Scope { shape, faults, commands, deviations: &[] });
    assert!(report.broken.is_empty(), "{:#?}", report.broken);
}

#[test]
fn one_delivery_keeps_all_promises() {
    check_kept(Shape::One, 3, &[]);
    check_kept(Shape::One, 1, &[Cancel, Disable, Prune, Replay]);
    check_kept(Shape::One, 2, &[Prune, Replay]);
    check_kept(Shape::One, 2, &[Cancel, Disable]);
    check_kept(Shape::One, 1, &[Cancel, Disable, Replay]);
    check_kept(Shape::One, 2, &[TryNow]);
    check_kept(Shape::One, 1, &[Cancel, Replay, TryNow]);
}

#[test]
fn two_deliveries_of_an_event_keep_all_promises() {
    check_kept(Shape::OneEvent, 1, &[]);
    check_kept(Shape::OneEvent, 1, &[Disable]);
    check_kept(Shape::OneEvent, 1, &[Prune, Replay]);
    check_kept(Shape::OneEvent, 0, &[Cancel, Disable, Prune, Replay]);
}

#[test]
fn deliveries_of_two_events_keep_all_promises() {
    check_kept(Shape::TwoEvents, 1, &[]);
    check_kept(Shape::TwoEvents, 0, &[Cancel, Replay]);
    check_kept(Shape::TwoEvents, 0, &[Disable, Replay]);
    check_kept(Shape::TwoEvents, 0, &[Cancel, Disable]);
    check_kept(Shape::TwoEvents, 0, &[TryNow]);
}

#[test]
fn deliveries_to_an_ordered_endpoint_keep_all_promises() {
    check_kept(Shape::Ordered, 1, &[]);
    check_kept(Shape::Ordered, 0, &[Cancel]);
    check_kept(Shape::Ordered, 0, &[Cancel, Replay]);
    check_kept(Shape::Ordered, 0, &[Disable, Replay]);
    check_kept(Shape::Ordered, 0, &[Cancel, TryNow]);
}

/// Checks that a store with one difference breaks exactly these promises.
fn check_broken(
    deviations: &'static [Deviation],
    (shape, faults, commands): (Shape, u8, &'static [Command]),
    expected: &[Promise],
) {
    let report = report(&Scope { shape, faults, commands, deviations });
    for (promise, trace) in &report.broken {
        println!("  {promise:?} is broken by");
        for step in trace {
            println!("    {step:?}");
        }
    }
    let broken: BTreeSet<Promise> = report.broken.keys().copied().collect();
    assert_eq!(broken, expected.iter().copied().collect(), "{deviations:?}");
}

#[test]
fn planted_faults_are_found() {
    use Promise::{
        EndedIsNotHandedOut, EventIsKept, EverythingEnds, LeasesAreHeld, NotBeforeDue, OneAtATime,
        OneHolder, SentOnce,
    };
    let (one, ordered) = (Shape::One, Shape::Ordered);
    check_broken(&[Deviation::ClaimsIgnoreLeases], (one, 0, &[]), &[OneHolder]);
    check_broken(&[Deviation::SettlesUnfenced], (one, 1, &[]), &[OneHolder]);
    check_broken(&[Deviation::ForgetsLostPublications], (one, 1, &[]), &[LeasesAreHeld]);
    check_broken(&[Deviation::ForgetsHeldPublications], (one, 1, &[]), &[LeasesAreHeld]);
    check_broken(&[Deviation::ForgetsLostClaims], (one, 1, &[]), &[LeasesAreHeld]);
    let replays = (one, 0, &[Replay][..]);
    check_broken(
        &[Deviation::ReplaysWhatIsOpen],
        replays,
        &[EndedIsNotHandedOut, OneHolder, SentOnce],
    );
    let tries = (one, 0, &[TryNow][..]);
    check_broken(
        &[Deviation::TriesWhatIsClaimed],
        tries,
        &[EndedIsNotHandedOut, OneHolder, SentOnce],
    );
    let prunes = (Shape::OneEvent, 0, &[Prune, Replay][..]);
    check_broken(&[Deviation::PrunesWithoutSecondLook], prunes, &[EventIsKept]);
    check_broken(&[Deviation::LeavesWhatIsGone], (one, 0, &[Disable]), &[EverythingEnds]);
    let cancels = (one, 1, &[Cancel, Disable, Replay][..]);
    check_broken(&[Deviation::TakesWhatHasEnded], cancels, &[EndedIsNotHandedOut]);
    let counts = (Shape::TwoEvents, 0, &[Cancel][..]);
    check_broken(&[Deviation::CountsWhenAnswered], counts, &[EndedIsNotHandedOut]);
    check_broken(&[Deviation::LeasesByOwnClock], (one, 2, &[]), &[OneHolder]);
    let in_two = &[Deviation::ClaimsInTwoStatements];
    check_broken(in_two, (ordered, 0, &[]), &[NotBeforeDue, OneAtATime]);
}
