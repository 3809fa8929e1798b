//! The simulation finds nothing wrong, repeats itself, and finds the bugs that are planted.

use webhooks_tests::simulation::{Options, Sabotage, Tally, run};

/// How many seeds a planted bug may take to be found.
const FEW_HUNDRED: u64 = 300;

fn with(sabotage: Option<Sabotage>) -> Options {
    Options { sabotage, ..Options::default() }
}

#[test]
fn no_promise_is_broken_and_everything_is_exercised() {
    let mut tally = Tally::default();
    for seed in 0..200 {
        let run = run(seed, Options::default());
        assert_eq!(run.violation, None, "cargo xtask sim --seed {seed}");
        tally += run.tally;
    }
    let text = tally.to_string();
    assert!(text.lines().all(|line| !line.trim().starts_with("0 ")), "{text}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..50 {
        let [once, again] = [(); 2].map(|()| run(seed, Options::default()));
        assert_eq!((once.hash, once.tally), (again.hash, again.tally), "seed {seed}");
        let verbose = run(seed, Options { verbose: true, ..Options::default() });
        assert_eq!(verbose.hash, once.hash, "looking changes nothing");
        assert!(verbose.trace.len() > 20);
    }
    assert_ne!(run(1, Options::default()).hash, run(2, Options::default()).hash);
}

#[test]
fn a_failing_seed_fails_again_in_the_same_way() {
    let options = with(Some(Sabotage::SettleLost));
    let mut failures =
        (0..FEW_HUNDRED).filter_map(|seed| Some((seed, run(seed, options).violation?)));
    let (seed, violation) = failures.next().expect("a failure");
    assert_eq!(run(seed, options).violation, Some(violation));
}

/// Plants a bug, and checks that it is found as broken promises like these. The seeds that find it
/// pass without it.
fn check(sabotage: Sabotage, promises: &[&str]) {
    let mut found = Vec::new();
    for seed in 0..FEW_HUNDRED {
        if let Some(violation) = run(seed, with(Some(sabotage))).violation {
            assert_eq!(run(seed, with(None)).violation, None, "seed {seed}");
            found.push(violation);
        }
        if found.len() == 5 {
            break;
        }
    }
    assert!(!found.is_empty(), "{sabotage:?} was not found");
    for violation in found {
        assert!(promises.iter().any(|promise| violation.starts_with(promise)), "{violation}");
    }
}

#[test]
fn a_lost_settlement_is_found() {
    check(Sabotage::SettleLost, &["settled for good: ", "everything ends: "]);
}

#[test]
fn an_ignored_lease_is_found() {
    check(Sabotage::LeaseIgnored, &["one attempt a claim: "]);
}

#[test]
fn a_leaked_slot_is_found() {
    check(Sabotage::PermitLeaked, &["everything ends: ", "slots come back: "]);
}
