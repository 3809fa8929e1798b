//! `backup`: a copy of the database file while the service runs.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use webhooks_sqlite::{BackupError, Existing};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::store::{Database, file_refused};

/// Copy the database file while the service runs
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks backup webhooks-monday.db
  webhooks backup --database /var/lib/webhooks/webhooks.db /backup/webhooks.db --force")]
pub(crate) struct BackupArgs {
    /// File for the copy
    to: PathBuf,
    /// Database file; that of `serve` by default
    #[arg(long, value_name = "FILE")]
    database: Option<String>,
    /// Replace the file that is there
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(args: BackupArgs, context: &Context) -> Result<(), Failure> {
    let (name, text) = match args.database {
        Some(text) => ("--database".to_owned(), text),
        None => {
            let settings = context.matches_of("serve")?;
            let text = settings.get_one::<String>("database").cloned().unwrap_or_default();
            (context.name_of("serve", "database"), text)
        }
    };
    let database = database_file(&name, &text)?;
    if !database.exists() {
        let text = format!("cannot read \"{}\": there is no such file", database.display());
        return Err(Failure::usage(text).hint("--database FILE names that of the service"));
    }
    let (to, existing) = (args.to.clone(), existing(args.force));
    let from = database.clone();
    advise(context, &to, args.force);
    let copy = move || webhooks_sqlite::backup(&from, &to, existing);
    let bytes = copied(tokio::task::spawn_blocking(copy).await)?;
    let (from, to) = (database.display().to_string(), args.to.display().to_string());
    if context.output.is_json() {
        return Ok(context.output.json(&json!({ "from": from, "to": to, "bytes": bytes }))?);
    }
    context.output.note(format!("{to} is a copy of {from}: {bytes} bytes, on disk"));
    context.output.hint(format!("next: webhooks restore {to} --database NEW.db"));
    Ok(())
}

/// Returns what happens to a file in the place of the copy.
pub(super) fn existing(force: bool) -> Existing {
    if force { Existing::Replace } else { Existing::Keep }
}

/// Says what a signal leaves of a copy.
pub(super) fn advise(context: &Context, to: &Path, force: bool) {
    let beside = |end: &str| {
        let mut name = to.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    if force {
        // At the end of a copy that replaces a database, it is the only whole one.
        context.interruption.advise(format!(
            "run it again; {} is the unfinished copy, which the next one overwrites",
            beside(".part").display()
        ));
    } else {
        // SQLite writes files of its own beside the copy until it is whole.
        let ends = [".part", ".part-journal", ".part-wal", ".part-shm"];
        context.interruption.remove(ends.map(beside).into());
        context.interruption.advise("run it again; an unfinished copy is removed");
    }
}

/// Returns the file of a database. `name` is that of the setting. Another program copies a database that is none.
pub(super) fn database_file(name: &str, text: &str) -> Result<PathBuf, Failure> {
    let database = Database::read_named((name, text), ("", &[]))?;
    database.file().map(Path::to_owned).ok_or_else(|| {
        Failure::usage(format!("{name} is not a file"))
            .hint("copy a database of PostgreSQL with pg_dump, and bring it back with pg_restore")
    })
}

/// Returns the bytes of a copy, or the failure with its exit code.
pub(super) fn copied(
    made: Result<Result<u64, BackupError>, tokio::task::JoinError>,
) -> Result<u64, Failure> {
    let made = made.map_err(|error| Failure::new(Exit::Failed, "the copy ended").because(error))?;
    made.map_err(|error| file_refused("nothing was copied", error))
}
