//! The options that every command has.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// The options that every command has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// URL of the service
    #[arg(
        long,
        global = true,
        env = "WEBHOOKS_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8071"
    )]
    pub(crate) server: String,
    /// API key: @FILE, - for standard input, or the key itself, which other users of this machine can then see
    #[arg(long, global = true, env = "WEBHOOKS_KEY", value_name = "@FILE", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// File of certificates in PEM to trust beside those of the system, for a service with a private authority
    #[arg(long, global = true, env = "WEBHOOKS_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Profile of the configuration: a server and its key
    #[arg(long, global = true, env = "WEBHOOKS_PROFILE", value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Configuration file in place of ./webhooks.toml
    #[arg(long, global = true, env = "WEBHOOKS_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON: one object, or one on each line of a list
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print data and errors alone
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// When to use colour
    #[arg(
        long,
        global = true,
        env = "WEBHOOKS_COLOR",
        value_name = "WHEN",
        default_value = "auto"
    )]
    pub(crate) color: Color,
    /// Never ask: fail, and name the option that is missing
    #[arg(long, global = true, env = "WEBHOOKS_NO_INPUT")]
    pub(crate) no_input: bool,
    /// Longest time for an answer of the server, such as 30s or 2m
    #[arg(long, global = true, env = "WEBHOOKS_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
}

/// When output has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}
