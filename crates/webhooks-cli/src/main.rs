#![doc = include_str!("../README.md")]

// Each file uses only files above it, so read from top to bottom.

mod body;
mod failure;
mod moment;
mod pretty;
mod private_file;
mod scheme_option;
mod shell;

mod visible;

mod table;

mod global;

mod output;

mod loopback;
mod query;
mod signals;

mod secret;
mod text_source;

mod diagnosis;
mod saved_request;
mod signed_request;

mod client;
mod log_options;
mod migration;
mod outage;
mod store;
mod tls_options;

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

use crate::cli::{Cli, with_usage};
use crate::config::{Config, Selection, with_variable};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::signals::Received;

fn main() -> ExitCode {
    // reqwest asks for the one that the process has.
    let _already = rustls::crypto::ring::default_provider().install_default();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // A reader such as `head` has what it wanted.
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            Output::failure(&failure, is_json());
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Returns whether errors are objects, too: of a command line that is wrong, nothing else is known.
fn is_json() -> bool {
    std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json")
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
            let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
            let error = with_usage(with_variable(error, &command, words), &command);
            if error.exit_code() != 0 && is_json() {
                let text = error.render().to_string();
                let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
                return Err(Failure::usage(text));
            }
            let printed = error.print();
            return if error.exit_code() == 0 {
                printed.map_err(Failure::from)
            } else {
                Err(Failure::told(Exit::Usage))
            };
        }
    };
    let cli = Cli::from_arg_matches(&matches).map_err(|error| Failure::usage(error.to_string()))?;
    let context = Context::new(cli.global, config, (plain, command), matches);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::new(Exit::Failed, "cannot start threads").because(error))?;
    runtime.block_on(async {
        let (received, output) = (Received::new()?, context.output);
        tokio::spawn(context.interruption.clone().end(received, output));
        cli.command.run(&context).await
    })
}
