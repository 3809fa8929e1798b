//! `export`: event types, applications and endpoints as a file.

use clap::Args;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::record::Kind;
use crate::record_file::{Form, Scope};
use crate::secret::is_open;
use crate::walk::{Dialect, Walk};

/// Print event types, applications and endpoints as TOML, or as JSON with --json
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks export > service.toml
  webhooks export --with-secrets > service.toml
  webhooks export --app acme --json > acme.jsonl")]
pub(crate) struct ExportArgs {
    /// Only this application with its endpoints, by id or uid
    #[arg(long, value_name = "ID")]
    app: Option<String>,
    /// With the secrets that sign: keep the file as you keep a password
    #[arg(long)]
    with_secrets: bool,
}

pub(crate) async fn run(args: ExportArgs, context: &Context) -> Result<(), Failure> {
    let (client, output) = (context.client()?, context.output);
    if args.with_secrets {
        warn_of_readers();
    }
    context.interruption.advise(
        "what is printed so far is no whole export, and `webhooks import` refuses it: export again",
    );
    let form = if output.is_json() { Form::Json } else { Form::Toml };
    let mut walk = Walk::new(&client, output, Dialect::Own, args.with_secrets);
    let (mut app, mut is_started) = (String::new(), false);
    let visit = async |record: crate::record::Record| {
        // Not before the server has answered: a file of a failed export stays empty.
        if !is_started {
            output.line(form.head())?;
            is_started = true;
        }
        if record.kind == Kind::Application {
            record.name().clone_into(&mut app);
        }
        Ok(output.line(form.record(record, &app)?)?)
    };
    let scope = match &args.app {
        Some(app) => {
            walk.application(app, visit).await?;
            Scope::Application
        }
        None => {
            walk.all(visit).await?;
            Scope::All
        }
    };
    if !is_started {
        output.line(form.head())?;
    }
    output.line(form.end(scope))?;
    output.hint("next: webhooks import FILE --dry-run --server URL");
    Ok(())
}

/// Warns if the output is a file that other users of this machine can read.
fn warn_of_readers() {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd as _;

        let out = std::io::stdout().as_fd().try_clone_to_owned().map(std::fs::File::from);
        let found = out.and_then(|out| out.metadata());
        if found.is_ok_and(|found| found.is_file() && is_open(&found)) {
            Output::warn("others can read the file that gets the secrets: run `chmod 600` on it");
        }
    }
}
