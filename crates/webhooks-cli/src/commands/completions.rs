//! `completions` and `man`: what shells and readers of manuals need.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use crate::context::Context;
use crate::failure::Failure;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks completions bash > /etc/bash_completion.d/webhooks
  webhooks completions fish > ~/.config/fish/completions/webhooks.fish")]
pub(crate) struct CompletionsArgs {
    /// Shell
    shell: Shell,
}

/// Write manual pages, one for each command
#[derive(Debug, Args)]
#[command(before_help = "Examples:\n  webhooks man /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Folder, which is made if it does not exist
    folder: PathBuf,
}

pub(crate) fn run(args: &CompletionsArgs, context: &Context) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut context.plain_command(), "webhooks", &mut text);
    Ok(context.output.text(&String::from_utf8_lossy(&text))?)
}

pub(crate) fn run_man(args: &ManArgs, context: &Context) -> Result<(), Failure> {
    let failed = |error| Failure::file("write to", args.folder.display(), error);
    fs::create_dir_all(&args.folder).map_err(failed)?;
    clap_mangen::generate_to(context.plain_command(), &args.folder).map_err(failed)?;
    let folder = args.folder.display().to_string();
    Ok(context.output.done(&folder, "written", format!("the manual pages are in {folder}"))?)
}
