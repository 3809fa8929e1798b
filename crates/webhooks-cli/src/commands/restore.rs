//! `restore`: a backup becomes the database file of a service.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::backup::{advise, copied, database_file, existing};
use crate::context::Context;
use crate::failure::Failure;

/// Check a backup, and copy it to the place of a database file; the service must not run
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks restore webhooks-monday.db --database webhooks.db
  webhooks restore /backup/webhooks.db --database /var/lib/webhooks/webhooks.db --force")]
pub(crate) struct RestoreArgs {
    /// Backup
    from: PathBuf,
    /// Database file that is made
    #[arg(long, value_name = "FILE")]
    database: String,
    /// Replace the database that is there: what it accepted since the backup is lost
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(args: RestoreArgs, context: &Context) -> Result<(), Failure> {
    let database = database_file("--database", &args.database)?;
    let (from, to) = (args.from.clone(), database.clone());
    let existing = existing(args.force);
    advise(context, &to, args.force);
    let copy = move || webhooks_sqlite::restore(&from, &to, existing);
    let bytes = copied(tokio::task::spawn_blocking(copy).await)?;
    let (from, to) = (args.from.display().to_string(), database.display().to_string());
    if context.output.is_json() {
        return Ok(context.output.json(&json!({ "from": from, "to": to, "bytes": bytes }))?);
    }
    context.output.note(format!("{from} is whole, and {to} is a copy of it: {bytes} bytes"));
    context.output.hint(format!("next: webhooks serve --database {to}"));
    Ok(())
}
