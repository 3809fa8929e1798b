//! `cargo xtask sim`: runs seeds of the simulation, many at once or one with its trace.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use webhooks_tests::simulation::{self, Options, Run, Tally};

const USAGE: &str = "Usage: cargo xtask sim --seeds N [--first S]\n       cargo xtask sim --seed N";

/// How many seeds pass between two signs of life.
const PROGRESS: u64 = 5_000;

/// How many failures are told.
const MAX_TOLD: usize = 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--seed", seed] => number(seed).map(one),
        ["--seeds", seeds] => number(seeds).map(|seeds| many(0, seeds)),
        ["--seeds", seeds, "--first", first] | ["--first", first, "--seeds", seeds] => {
            number(seeds).zip(number(first)).map(|(seeds, first)| many(first, seeds))
        }
        _ => None,
    }
    .unwrap_or_else(|| {
        eprintln!("{USAGE}");
        ExitCode::from(2)
    })
}

/// Runs one seed and shows all that happens.
fn one(seed: u64) -> ExitCode {
    let run = simulation::run(seed, Options { verbose: true, ..Options::default() });
    for line in &run.trace {
        println!("{line}");
    }
    println!("\n{}trace {:016x}", run.tally, run.hash);
    match run.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            eprintln!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
    }
}

/// Runs many seeds on all processors.
fn many(first: u64, seeds: u64) -> ExitCode {
    let next = AtomicU64::new(0);
    let total = Mutex::new((Tally::default(), Vec::new()));
    let work = || {
        let mut tally = Tally::default();
        let mut failures = Vec::new();
        loop {
            let done = next.fetch_add(1, Ordering::Relaxed);
            if done >= seeds {
                break;
            }
            if done > 0 && done.is_multiple_of(PROGRESS) {
                eprintln!("{done} of {seeds} seeds");
            }
            let seed = first + done;
            let run: Run = simulation::run(seed, Options::default());
            tally += run.tally;
            failures.extend(run.violation.map(|violation| (seed, violation)));
        }
        let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        total.0 += tally;
        total.1.extend(failures);
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (tally, mut failures) =
        total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    failures.sort();
    for (seed, violation) in failures.iter().take(MAX_TOLD) {
        eprintln!("seed {seed}: {violation}; replay it: cargo xtask sim --seed {seed}");
    }
    println!("{tally}{seeds} seeds, {} failures", failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
