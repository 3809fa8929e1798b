//! `sim`: the engine under a simulated clock, over a store and a transport that fail.

use crate::shell::{Failure, run};

/// The number of seeds that `test` runs over each store: about a minute in all.
const SEEDS_OF_A_TEST: [(&str, &str); 2] = [("memory", "3000"), ("sqlite", "1200")];

/// Runs the seeds of `test`.
pub(crate) fn run_test() -> Result<(), Failure> {
    for (store, seeds) in SEEDS_OF_A_TEST {
        run_seeds(&["--seeds", seeds, "--store", store])?;
    }
    Ok(())
}

/// Runs seeds of the simulation; the program that runs them reads the flags.
pub(crate) fn run_seeds(flags: &[&str]) -> Result<(), Failure> {
    let is_known = |pair: &[&str]| match pair {
        ["--seed" | "--seeds" | "--first", number] => number.parse::<u64>().is_ok(),
        ["--store", store] => matches!(*store, "memory" | "sqlite"),
        _ => false,
    };
    if flags.is_empty() || !flags.chunks(2).all(is_known) {
        let usage = "sim needs --seeds N [--first S], or --seed N; and --store memory or sqlite";
        return Err(Failure(usage.to_owned()));
    }
    let flags = flags.join(" ");
    run(&format!("cargo run --quiet --release --locked -p webhooks-tests --bin sim -- {flags}"))
}
