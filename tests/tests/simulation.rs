//! The simulation finds nothing wrong, repeats itself, and finds the bugs that are planted.

use webhooks_tests::simulation::{Counters, Options, Sabotage, Store, run};

/// The largest number of seeds until a planted bug must be found.
const FEW_HUNDRED: u64 = 300;

const STORES: [Store; 2] = [Store::Memory, Store::Sqlite];

fn over(store: Store) -> Options {
    Options { store, ..Options::default() }
}

/// The counters that a run over a store cannot reach.
const OF_A_STORE: [(Store, &[&str]); 2] =
    [(Store::Memory, &["commit groups failed", "stores crashed"]), (Store::Sqlite, &[])];

#[test]
fn no_promise_is_broken_and_everything_is_exercised() {
    for (store, exempt) in OF_A_STORE {
        let mut counters = Counters::default();
        for seed in 0..150 {
            let run = run(seed, over(store));
            assert_eq!(run.violation, None, "cargo xtask sim --seed {seed} --store {store}");
            counters += run.counters;
        }
        let text = counters.to_string();
        let unused = text.lines().filter_map(|line| line.trim().strip_prefix("0 "));
        let unused: Vec<&str> = unused.filter(|what| !exempt.contains(what)).collect();
        assert!(unused.is_empty(), "over {store}: {unused:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for store in STORES {
        for seed in 0..30 {
            let [once, again] = [(); 2].map(|()| run(seed, over(store)));
            let (one, other) = ((once.hash, once.counters), (again.hash, again.counters));
            assert_eq!(one, other, "seed {seed} over {store}");
            let verbose = run(seed, Options { verbose: true, ..over(store) });
            assert_eq!(verbose.hash, once.hash, "looking changes nothing");
            assert!(verbose.trace.len() > 20);
        }
        assert_ne!(run(1, over(store)).hash, run(2, over(store)).hash);
    }
}

#[test]
fn a_failing_seed_fails_again_in_the_same_way() {
    for store in STORES {
        let options = Options { sabotage: Some(Sabotage::SettleLost), ..over(store) };
        let mut failures =
            (0..FEW_HUNDRED).filter_map(|seed| Some((seed, run(seed, options).violation?)));
        let (seed, violation) = failures.next().expect("a failure");
        assert_eq!(run(seed, options).violation, Some(violation));
    }
}

/// Plants a bug, and checks that it is found as one of these broken promises. The seeds that find
/// it pass without it.
fn check(store: Store, sabotage: Sabotage, promises: &[&str]) {
    let mut found = Vec::new();
    for seed in 0..FEW_HUNDRED {
        let planted = Options { sabotage: Some(sabotage), ..over(store) };
        if let Some(violation) = run(seed, planted).violation {
            assert_eq!(run(seed, over(store)).violation, None, "seed {seed} over {store}");
            found.push(violation);
        }
        if found.len() == 5 {
            break;
        }
    }
    assert!(!found.is_empty(), "{sabotage:?} was not found over {store}");
    for violation in found {
        assert!(promises.iter().any(|promise| violation.starts_with(promise)), "{violation}");
    }
}

#[test]
fn a_lost_settlement_is_found() {
    for store in STORES {
        let promises = ["settled for good: ", "everything ends: ", "a store answers by what "];
        check(store, Sabotage::SettleLost, &promises);
    }
}

#[test]
fn an_ignored_lease_is_found() {
    for store in STORES {
        let promises = ["one attempt a claim: ", "a change holds at once: "];
        check(store, Sabotage::LeaseIgnored, &promises);
    }
}

#[test]
fn a_leaked_slot_is_found() {
    for store in STORES {
        let promises = ["everything ends: ", "slots come back: "];
        check(store, Sabotage::PermitLeaked, &promises);
    }
}

/// A bug of the past, planted again: groups of commands go on behind a command on whose result
/// others depend.
fn check_groups(behind: &'static str, promises: &[&str]) {
    check(Store::Sqlite, Sabotage::GroupsGoOn { behind }, promises);
}

#[test]
fn an_endpoint_that_is_lost_when_it_is_unregistered_and_registered_is_found() {
    check_groups("Unregister", &["a store answers by what came before: "]);
}

#[test]
fn an_endpoint_that_stays_off_when_it_is_switched_off_and_on_is_found() {
    check_groups("SetState", &["a store answers by what came before: "]);
}

#[test]
fn a_retry_of_what_was_cancelled_is_found() {
    check_groups("Cancel", &["a store answers by what came before: "]);
}
