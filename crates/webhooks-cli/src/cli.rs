//! The command line.

use clap::{Parser, Subcommand};

use crate::commands::{
    application, completions, config, delivery, endpoint, event, event_type, key, listen, publish,
    serve, sign, verify,
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
    Serve(Box<serve::ServeArgs>),
    Publish(publish::PublishArgs),
    App(application::AppArgs),
    EventType(event_type::EventTypeArgs),
    Endpoint(endpoint::EndpointArgs),
    Event(event::EventArgs),
    Delivery(delivery::DeliveryArgs),
    Key(key::KeyArgs),
    Listen(Box<listen::ListenArgs>),
    Sign(sign::SignArgs),
    Verify(verify::VerifyArgs),
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
}

impl Command {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Serve(args) => serve::run(*args, context).await,
            Self::Publish(args) => publish::run(args, context).await,
            Self::App(args) => application::run(args, context).await,
            Self::EventType(args) => event_type::run(args, context).await,
            Self::Endpoint(args) => endpoint::run(args, context).await,
            Self::Event(args) => event::run(args, context).await,
            Self::Delivery(args) => delivery::run(args, context).await,
            Self::Key(args) => key::run(args, context).await,
            Self::Listen(args) => listen::run(*args, context).await,
            Self::Sign(args) => sign::run(&args, context),
            Self::Verify(args) => verify::run(&args, context),
            Self::Config(args) => config::run(&args, context),
            Self::Completions(args) => completions::run(&args, context),
            Self::Man(args) => completions::run_man(&args, context),
        }
    }
}
