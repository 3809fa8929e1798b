//! `sim`: the engine under a simulated clock, over a store and a transport that fail.

use crate::shell::{Failure, run};

/// How many seeds `test` runs: some seconds' worth.
pub(crate) const SEEDS_OF_A_TEST: &str = "3000";

/// Runs seeds of the simulation; what the flags mean is up to the program that runs them.
pub(crate) fn run_seeds(flags: &[&str]) -> Result<(), Failure> {
    let is_known = match flags {
        ["--seed" | "--seeds", seeds] => is_number(seeds),
        ["--seeds", seeds, "--first", first] => is_number(seeds) && is_number(first),
        _ => false,
    };
    if !is_known {
        return Err(Failure("sim needs --seeds N [--first S], or --seed N".to_owned()));
    }
    let flags = flags.join(" ");
    run(&format!("cargo run --quiet --release --locked -p webhooks-tests --bin sim -- {flags}"))
}

fn is_number(text: &str) -> bool {
    text.parse::<u64>().is_ok()
}
