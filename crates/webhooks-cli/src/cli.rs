//! The command line.

use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};

use crate::commands::{
    application, backup, bench, completions, config, delivery, demo, doctor, endpoint, event,
    event_type, export, import, key, listen, migrate_store, publish, restore, serve, sign, trigger,
    verify,
};
use crate::context::Context;
use crate::failure::{EXIT_CODES, Failure};
use crate::global::Global;

/// A webhook service in one binary, and the tool that finds out why a webhook did not arrive
#[derive(Debug, Parser)]
#[command(
    name = "webhooks",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    before_help = "Examples:
  webhooks demo
  webhooks serve --dev
  webhooks publish invoice.paid '{\"invoice\": 17}' --app shop
  webhooks delivery list --app shop --status fail",
    after_help = EXIT_CODES,
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands, in the order of their use.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::DemoArgs),
    Serve(Box<serve::ServeArgs>),
    Publish(publish::PublishArgs),
    Trigger(trigger::TriggerArgs),
    App(application::AppArgs),
    EventType(event_type::EventTypeArgs),
    Endpoint(endpoint::EndpointArgs),
    Event(event::EventArgs),
    Delivery(delivery::DeliveryArgs),
    Key(key::KeyArgs),
    Export(export::ExportArgs),
    Import(import::ImportArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    MigrateStore(migrate_store::MigrateStoreArgs),
    Listen(Box<listen::ListenArgs>),
    Sign(sign::SignArgs),
    Verify(verify::VerifyArgs),
    Config(config::ConfigArgs),
    Doctor(doctor::DoctorArgs),
    Bench(bench::BenchArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
}

impl Command {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Demo(args) => demo::run(args, context).await,
            Self::Serve(args) => serve::run(*args, context).await,
            Self::Publish(args) => publish::run(args, context).await,
            Self::Trigger(args) => trigger::run(args, context).await,
            Self::App(args) => application::run(args, context).await,
            Self::EventType(args) => event_type::run(args, context).await,
            Self::Endpoint(args) => endpoint::run(args, context).await,
            Self::Event(args) => event::run(args, context).await,
            Self::Delivery(args) => delivery::run(args, context).await,
            Self::Key(args) => key::run(args, context).await,
            Self::Export(args) => export::run(args, context).await,
            Self::Import(args) => import::run(args, context).await,
            Self::Backup(args) => backup::run(args, context).await,
            Self::Restore(args) => restore::run(args, context).await,
            Self::MigrateStore(args) => Box::pin(migrate_store::run(args, context)).await,
            Self::Listen(args) => listen::run(*args, context).await,
            Self::Sign(args) => sign::run(&args, context),
            Self::Verify(args) => verify::run(&args, context),
            Self::Config(args) => config::run(&args, context),
            Self::Doctor(args) => doctor::run(args, context).await,
            Self::Bench(args) => bench::run(args, context).await,
            Self::Completions(args) => completions::run(&args, context),
            Self::Man(args) => completions::run_man(&args, context),
        }
    }
}

/// Gives an error the usage line of the help. That of clap would name options as needed that the environment has set.
pub(crate) fn with_usage(mut error: clap::Error, command: &clap::Command) -> clap::Error {
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else { return error };
    let usage = usage.to_string();
    let mut command = command.clone();
    command.build();
    let mut found = &command;
    // It is "Usage:", the program, and the names of the command.
    for name in usage.split_whitespace().skip(2) {
        let Some(next) = found.find_subcommand(name) else { break };
        found = next;
    }
    let usage = found.clone().render_usage();
    error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    error
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use clap::CommandFactory as _;

    use super::*;
    use crate::config::{sections, settings};

    /// The table of all settings, as `docs/cli.md` has it.
    fn settings_table() -> String {
        let command = Cli::command();
        let mut table =
            "| setting | environment | default | meaning |\n| --- | --- | --- | --- |\n".to_owned();
        for section in sections() {
            for arg in settings(&command, section) {
                let dot = if section.is_empty() { "" } else { "." };
                let option = arg.get_long().unwrap_or_default();
                let environment = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy()));
                let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy());
                let default = defaults.collect::<Vec<_>>().join(",");
                let default =
                    if default.is_empty() { String::new() } else { format!("`{default}`") };
                let meaning = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let environment = environment.unwrap_or_default();
                writeln!(
                    table,
                    "| `{section}{dot}{option}` | {environment} | {default} | {meaning} |"
                )
                .unwrap();
            }
        }
        table
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_guide_has_the_table_of_settings() {
        let guide =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md"))
                .unwrap();
        let table = settings_table();
        assert!(guide.contains(&table), "put this table into docs/cli.md:\n{table}");
    }
}
