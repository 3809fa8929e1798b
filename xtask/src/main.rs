//! The project's own commands: `cargo xtask` lists them.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod bench;
mod check;
mod layers;
mod no_std;
mod prose;
mod readme;
mod shell;
mod sim;
mod test;

use std::process::ExitCode;

use shell::Failure;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  test      runs every test, with whatever the tests need installed by itself
  check     runs every check but the tests: format, clippy, docs, layers, prose, no-std, cargo-deny
  ci        runs check, then test
  layers    prints which crate uses which, and the files of each in order; fails if a
            crate or a file uses what it must not
  no-std    proves that webhooks-sign needs neither std nor an allocator
  prose [PART]
            finds habits of English that are hard to read, in files whose path contains PART
  readme    copies the root README's programs, and runs them against each other
  bench sign [--quick] [--json]
            measures signing beside the bare HMAC and the standardwebhooks crate
  bench deliver [--quick] [--json]
            measures delivery beside a bare loop of HTTP requests
  bench postgres [--quick] [--json]
            the same with a private PostgreSQL, whose processor time counts too
  bench scale [--quick] [--json] [--only=PART]
            measures large numbers beside small ones: endpoints, bodies, events of others
  bench server [--quick] [--json] [--only=PART]
            measures the service beside a bare loop of HTTP requests, its memory and its start
  sim --seeds N [--first S] | --seed N, and [--store memory|sqlite]
            runs the engine under simulated time and faults, each seed another run;
            one seed alone shows all that happens";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test"] => test::run_all(),
        ["check"] => check::run_all(),
        ["ci"] => check::run_all().and_then(|()| test::run_all()),
        ["layers"] => layers::run(),
        ["prose"] => prose::run(""),
        ["prose", part] => prose::run(part),
        ["no-std"] => no_std::run_all(),
        ["readme"] => readme::run(),
        ["bench", name, ref flags @ ..] => bench::run_one(name, flags),
        ["bench"] => return misuse("bench needs a name, such as `bench sign`"),
        ["sim", ref flags @ ..] => sim::run_seeds(flags),
        ["help" | "--help" | "-h"] | [_, "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        [] => return misuse("a command is missing"),
        [unknown, ..] => return misuse(&format!("no command is called like {unknown:?}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(reason)) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn misuse(reason: &str) -> ExitCode {
    eprintln!("error: {reason}\n\n{USAGE}");
    ExitCode::from(2)
}
