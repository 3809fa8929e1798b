#![doc = include_str!("../README.md")]

// Each file uses only files above it, so read from top to bottom.

mod body;
mod failure;
mod loopback;
mod moment;
mod private_file;
mod scheme_option;

mod signals;
mod visible;

mod table;

mod global;

mod output;

mod secret;
mod text_source;

mod diagnosis;
mod saved_request;
mod signed_request;

mod client;
mod log_options;
mod migration;
mod store;

mod config;

mod application_option;
mod context;
mod list;

mod record;

mod difference;
mod record_file;
mod walk;

mod reconcile;

mod commands;

mod cli;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::cli::Cli;
use crate::config::{Config, Selection};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::Output;

fn main() -> ExitCode {
    // reqwest asks for the one that the process has.
    let _already = rustls::crypto::ring::default_provider().install_default();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // A reader such as `head` has what it wanted.
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_told() {
                Output::error(failure.to_string());
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run() -> Result<(), Failure> {
    let plain = Cli::command();
    // The first reading finds the files; the second has their values.
    let first = plain.clone().ignore_errors(true).try_get_matches();
    let first = first.map(|matches| Selection::new(&matches)).unwrap_or_default();
    let config = Config::read(&first, &plain)?;
    let command = config.apply(plain.clone());
    let matches = match command.clone().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            // Nobody reads it if this fails; the code is the same.
            let _unread = error.print();
            return if error.exit_code() == 0 { Ok(()) } else { Err(Failure::told(Exit::Usage)) };
        }
    };
    let cli = Cli::from_arg_matches(&matches).map_err(|error| Failure::usage(error.to_string()))?;
    let context = Context::new(cli.global, config, (plain, command), matches);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::new(Exit::Failed, "cannot start threads").because(error))?;
    runtime.block_on(cli.command.run(&context))
}
