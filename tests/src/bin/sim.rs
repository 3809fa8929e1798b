//! `cargo xtask sim`: runs seeds of the simulation, many at once or one with its trace.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use webhooks_tests::simulation::{self, Counters, Options, Run, Store};

const USAGE: &str = "Usage: cargo xtask sim --seeds N [--first S] [--store memory|sqlite]
       cargo xtask sim --seed N [--store memory|sqlite]";

/// The number of seeds between two lines of progress.
const PROGRESS: u64 = 5_000;

/// The largest number of failures that are printed.
const MAX_TOLD: usize = 10;

/// The arguments.
#[derive(Debug, Default)]
struct Wanted {
    seed: Option<u64>,
    seeds: Option<u64>,
    first: Option<u64>,
    store: Store,
}

fn main() -> ExitCode {
    match Wanted::read(std::env::args().skip(1)) {
        Some(Wanted { seed: Some(seed), seeds: None, first: None, store }) => one(seed, store),
        Some(Wanted { seed: None, seeds: Some(seeds), first, store }) => {
            many(first.unwrap_or_default(), seeds, store)
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

impl Wanted {
    fn read(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut wanted = Self::default();
        while let Some(name) = arguments.next() {
            let value = arguments.next()?;
            match name.as_str() {
                "--seed" => wanted.seed = Some(value.parse().ok()?),
                "--seeds" => wanted.seeds = Some(value.parse().ok()?),
                "--first" => wanted.first = Some(value.parse().ok()?),
                "--store" => wanted.store = value.parse().ok()?,
                _ => return None,
            }
        }
        Some(wanted)
    }
}

/// Runs one seed and prints its trace.
fn one(seed: u64, store: Store) -> ExitCode {
    let run = simulation::run(seed, Options { verbose: true, store, ..Options::default() });
    for line in &run.trace {
        println!("{line}");
    }
    println!("\n{}trace {:016x}", run.counters, run.hash);
    match run.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            eprintln!("seed {seed} over {store}: {violation}");
            ExitCode::FAILURE
        }
    }
}

/// Runs many seeds on all processors.
fn many(first: u64, seeds: u64, store: Store) -> ExitCode {
    let next = AtomicU64::new(0);
    let total = Mutex::new((Counters::default(), Vec::new()));
    let work = || {
        let mut counters = Counters::default();
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
            let run: Run = simulation::run(seed, Options { store, ..Options::default() });
            counters += run.counters;
            failures.extend(run.violation.map(|violation| (seed, violation)));
        }
        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
        total.0 += counters;
        total.1.extend(failures);
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (counters, mut failures) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort();
    for (seed, violation) in failures.iter().take(MAX_TOLD) {
        let again = format!("cargo xtask sim --seed {seed} --store {store}");
        eprintln!("seed {seed} over {store}: {violation}; replay it: {again}");
    }
    println!("{counters}{seeds} seeds over {store}, {} failures", failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
