//! `import`: makes a service have the event types, applications and endpoints of a file or of another server.

use std::path::PathBuf;

use clap::Args;

use super::confirm::Confirm;
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::reconcile::{Choices, Counts, Reconcile};
use crate::record_file::{RecordFile, Scope};
use crate::secret;
use crate::text_source::bytes;
use crate::walk::{Dialect, Walk};

/// Make the service have what a file of `export`, or another server, has; print what is done
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks import service.toml --dry-run
  webhooks import service.toml --prune --yes
  webhooks import - --json
  webhooks import --from svix https://api.eu.svix.com --from-key @svix.key --disabled --dry-run")]
pub(crate) struct ImportArgs {
    /// File of `webhooks export`; - for standard input
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    file: Option<PathBuf>,
    /// Read a server in place of a file: svix for one of Svix, webhooks for one like this
    #[arg(long, num_args = 2, value_names = ["KIND", "URL"], requires = "from_key")]
    from: Option<Vec<String>>,
    /// Key of that server: @FILE or - for standard input
    #[arg(long, env = "WEBHOOKS_FROM_KEY", value_name = "@FILE", hide_env_values = true)]
    from_key: Option<String>,
    /// Change nothing: only print what would be done
    #[arg(long)]
    dry_run: bool,
    /// Make endpoints disabled, so that nothing is delivered twice while both services get events
    #[arg(long)]
    disabled: bool,
    /// Remove what the file or the other server does not have; event types are archived
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    confirm: Confirm,
}

pub(crate) async fn run(args: ImportArgs, context: &Context) -> Result<(), Failure> {
    let source = Source::read(&args, context)?;
    source.check()?;
    let prune = if args.prune { Some(source.scope()?) } else { None };
    if args.prune && !args.dry_run {
        let question = format!("Remove from {} what is not in the import?", context.global.server);
        args.confirm.ask(context, &question)?;
    }
    let client = context.client()?;
    if !args.dry_run {
        context.interruption.advise("run it again to go on: nothing is made twice");
    }
    let choices = Choices { dry_run: args.dry_run, disabled: args.disabled, prune };
    let mut reconcile = Reconcile::new(&client, context.output, choices);
    let applied = source.apply(&mut reconcile, context.output).await;
    let applied = match applied {
        Ok(()) => reconcile.finish().await,
        failed => failed,
    };
    context.output.end_progress();
    end(applied, &reconcile.counts, args.dry_run, context.output)
}

/// The place from which records come.
enum Source {
    File(RecordFile),
    Server(Client, Dialect),
}

impl Source {
    fn read(args: &ImportArgs, context: &Context) -> Result<Self, Failure> {
        let Some(from) = &args.from else {
            let file = args.file.clone().unwrap_or_default();
            if file.as_os_str() == "-" && context.global.key.as_deref() == Some("-") {
                return Err(Failure::usage("both the key and the file are on standard input"));
            }
            let place = file.display().to_string();
            return Ok(Self::File(RecordFile::read(&bytes(&file)?, &place)?));
        };
        let dialect = match from.first().map(String::as_str) {
            Some("svix") => Dialect::Svix,
            Some("webhooks") => Dialect::Own,
            _ => return Err(Failure::usage("--from reads svix or webhooks")),
        };
        let key = args.from_key.as_deref().map(|text| secret::read_given("--from-key", text));
        let url = from.get(1).map(String::as_str).unwrap_or_default();
        let client = Client::new(url, key.transpose()?.as_deref(), &context.global);
        let client = client.map_err(|failure| match failure.exit {
            Exit::Usage => Failure::usage("--from has no http or https URL, or --from-key no key"),
            _ => failure,
        })?;
        Ok(Self::Server(client, dialect))
    }

    /// Checks that a file is whole, before anything is changed.
    fn check(&self) -> Result<(), Failure> {
        match self {
            Self::File(file) if file.scope.is_none() => Err(Failure::usage("the file has no [end]: it was cut off")
                .hint("export again; a file of your own ends with a table [end] and scope = \"all\" or \"application\"")),
            _ => Ok(()),
        }
    }

    /// Returns the scope in which things may be removed.
    fn scope(&self) -> Result<Scope, Failure> {
        match self {
            Self::Server(..) => Ok(Scope::All),
            Self::File(file) => file.scope.ok_or_else(|| {
                Failure::usage("--prune needs a whole file, and this one has no [end]")
                    .hint("was its export cut off? If not, end it with a table [end] and scope = \"all\" or \"application\"")
            }),
        }
    }

    async fn apply(self, to: &mut Reconcile<'_>, output: Output) -> Result<(), Failure> {
        match self {
            Self::Server(client, dialect) => {
                let mut walk = Walk::new(&client, output, dialect, true);
                walk.all(async |record| to.apply(record).await).await
            }
            Self::File(file) => {
                let count = file.records.len();
                for (number, record) in file.records.into_iter().enumerate() {
                    output.progress(format!("{number} of {count}"));
                    to.apply(record).await?;
                }
                Ok(())
            }
        }
    }
}

/// Tells how it ended.
fn end(
    applied: Result<(), Failure>,
    counts: &Counts,
    dry_run: bool,
    output: Output,
) -> Result<(), Failure> {
    let Counts { made, changed, left, removed, refused, unfinished, new_secrets } = counts;
    let dry = if dry_run { "dry run, nothing was changed: " } else { "" };
    output.note(format!("{dry}{made} made, {changed} changed, {left} left, {removed} removed"));
    if *new_secrets > 0 {
        Output::warn(format!(
            "{new_secrets} endpoints have new secrets, as the file has none: export it --with-secrets to keep them"
        ));
    }
    let has_changed = !dry_run && made + changed + removed > 0;
    match applied {
        Err(failure) if has_changed => {
            let text = format!("the import was broken off; run it again to go on: {failure}");
            Err(Failure::new(Exit::Partly, text))
        }
        Err(failure) => Err(failure),
        Ok(()) if refused + unfinished > 0 => {
            let text = format!("{refused} were refused, and {unfinished} lack what is named above");
            Err(Failure::new(Exit::Partly, text))
        }
        Ok(()) => Ok(()),
    }
}
