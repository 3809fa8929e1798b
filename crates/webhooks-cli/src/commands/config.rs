//! `config`: where the value of each setting comes from.

use clap::{Args, FromArgMatches as _, Subcommand};
use serde_json::{Value, json};

use crate::commands::serve::ServeArgs;
use crate::config::{sections, settings};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::Column;
use crate::visible::without_credentials;

const COLUMNS: [Column; 3] =
    [Column("SETTING", "/setting"), Column("VALUE", "/value"), Column("FROM", "/origin")];

/// The file that `config init` writes.
const SAMPLE: &str = "\
# Settings of `webhooks`. Options of the command line and environment variables count before them.
# `webhooks config show` tells where each value comes from.

# server = \"http://127.0.0.1:8071\"

[serve]
# listen = \"127.0.0.1:8071\"
# database = \"webhooks.db\"
# retention = \"30d\"
";

/// Show and check the configuration
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks config show
  webhooks config check
  webhooks config init > webhooks.toml")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    action: ConfigAction,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum ConfigAction {
    /// Print each setting, its value, and where the value comes from
    #[command(before_help = "Examples:\n  webhooks config show\n  webhooks config show --json")]
    Show,
    /// Check the files and the certificate that they name, and name those that were read
    #[command(before_help = "Examples:\n  webhooks config check --config other.toml")]
    Check,
    /// Print a file to start with
    #[command(before_help = "Examples:\n  webhooks config init > webhooks.toml")]
    Init,
}

pub(crate) fn run(args: &ConfigArgs, context: &Context) -> Result<(), Failure> {
    match args.action {
        ConfigAction::Show => context.output.rows(&COLUMNS, &rows(context)?)?,
        ConfigAction::Check => {
            // Each value was checked before, but not what files hold.
            let serve = context.matches_of("serve")?;
            let serve = ServeArgs::from_arg_matches(&serve)
                .map_err(|error| Failure::usage(error.to_string()))?;
            if let Some((certificate, warning)) = serve.check_certificate()? {
                let until = certificate.valid_until();
                context.output.note(format!("the certificate of `serve` is valid until {until}"));
                warning.iter().for_each(Output::warn);
            }
            for file in &context.config.files {
                let file = file.display().to_string();
                context.output.done(&file, "checked", format!("{file} is right"))?;
            }
            if context.config.files.is_empty() {
                let text = "no file was read: everything is at its default, or in the environment";
                context.output.done("", "checked", text)?;
            }
        }
        ConfigAction::Init => context.output.text(SAMPLE)?,
    }
    Ok(())
}

/// Returns each setting with its value, unless that may be a secret, and its origin.
pub(crate) fn rows(context: &Context) -> Result<Vec<Value>, Failure> {
    let mut rows = Vec::new();
    for section in sections() {
        let matches = context.matches_of(section)?;
        for arg in settings(context.command(), section) {
            let option = arg.get_long().unwrap_or_default();
            let setting =
                if section.is_empty() { option.to_owned() } else { format!("{section}.{option}") };
            let values = matches.get_raw(arg.get_id().as_str());
            let values = values
                .map(|values| values.map(|value| value.to_string_lossy()).collect::<Vec<_>>());
            let value = values.map(|values| values.join(","));
            let value = value.map(|value| shown(option, arg.is_hide_env_values_set(), &value));
            let origin = context.config.origin(section, arg, &matches).to_string();
            rows.push(json!({ "setting": setting, "value": value, "origin": origin }));
        }
    }
    Ok(rows)
}

/// Returns what may be shown of a value: the place of a secret, and a URL without its user and query.
fn shown(option: &str, can_be_secret: bool, value: &str) -> String {
    if can_be_secret && option != "database" && !value.starts_with('@') {
        return "(hidden)".to_owned();
    }
    without_credentials(value)
}
