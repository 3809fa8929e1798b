//! `doctor`: finds what is wrong, and says what mends it.

mod bundle;
mod check;
mod database;
mod endpoint;
mod machine;
mod mode;
mod server;

use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use clap::{ArgMatches, Args, FromArgMatches as _};
use serde_json::json;
use url::Url;
use webhooks_core::Timestamp;

use crate::application_option::ApplicationOption;
use crate::client::Client;
use crate::commands::config::rows;
use crate::commands::serve::ServeArgs;
use crate::config::{Origin, sections, settings};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::store::Database;

use check::{Check, State};
use server::Findings;

/// Find what is wrong, and what mends it
///
/// It looks at the server, the key, the database and this machine, and changes nothing. If a check fails, the exit code is 8.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks doctor
  webhooks doctor --database /var/lib/webhooks/webhooks.db
  webhooks doctor --endpoint crm --app acme
  webhooks doctor --bundle doctor.json")]
pub(crate) struct DoctorArgs {
    /// File, or postgres:// URL, @FILE for a URL in a file; that of `serve` by default
    #[arg(long, value_name = "FILE|URL")]
    database: Option<String>,
    /// Endpoint to look at, by id or uid
    #[arg(long, value_name = "ID")]
    endpoint: Option<String>,
    #[command(flatten)]
    app: ApplicationOption,
    /// New file for the results, the figures of the service and the origin of each setting, without secrets
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

pub(crate) async fn run(args: DoctorArgs, context: &Context) -> Result<(), Failure> {
    let rows = rows(context)?;
    let serve = context.matches_of("serve")?;
    let (client, refused) = match context.client() {
        Ok(client) => (client, None),
        Err(failure) => (context.client_without_key()?, Some(failure)),
    };
    context.output.progress("looking");
    let Findings { mut checks, metrics, version, is_usable } =
        server::check(context, &client, refused.as_ref()).await;
    if let Some(id) = &args.endpoint {
        checks.extend(check_endpoint(&args, id, &client, &serve, is_usable).await);
    }
    checks.extend(check_database(&args, context, &serve).await);
    checks.extend(machine::check());
    let mut key_files = key_files(&values(context)?);
    if let Ok(serve) = ServeArgs::from_arg_matches(&serve) {
        checks.extend(machine::check_certificate(&serve));
        key_files.extend(serve.certificate_key());
    }
    checks.extend(machine::check_files(&rows, &key_files, &context.config.files));
    context.output.end_progress();
    print(context, &checks, version.as_deref())?;
    if let Some(path) = &args.bundle {
        let bundle = json!({
            "at": Timestamp::now().to_string(), "version": env!("CARGO_PKG_VERSION"), "serverVersion": version,
            "system": std::env::consts::OS, "processor": std::env::consts::ARCH,
            "checks": checks, "settings": rows, "metrics": metrics,
        });
        let mut values = values(context)?;
        values.extend(args.database.clone());
        bundle::write(path, bundle, &secrets(&values))?;
        context.output.note(format!("written: {}; it holds no secret", path.display()));
    }
    let failed = checks.iter().filter(|check| check.is_failed()).count();
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::new(Exit::CheckFailed, format!("{failed} of {} checks failed", checks.len())))
}

fn print(context: &Context, checks: &[Check], version: Option<&str>) -> Result<(), Failure> {
    let output = context.output;
    if output.is_json() {
        let is_well = !checks.iter().any(Check::is_failed);
        let own = env!("CARGO_PKG_VERSION");
        return Ok(output.json(
            &json!({ "ok": is_well, "version": own, "serverVersion": version, "checks": checks }),
        )?);
    }
    let longest = checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    for Check { name, state, found, mend } in checks {
        let (word, style) = match state {
            State::Ok => ("ok     ", Style::new()),
            State::Warning => ("warning", Style::new().fg_color(Some(AnsiColor::Yellow.into()))),
            State::Failed => ("FAILED ", Style::new().bold().fg_color(Some(AnsiColor::Red.into()))),
            State::Skipped => ("skipped", Style::new().dimmed()),
        };
        output.headed_line(style, word, format!("  {name:longest$}  {found}"))?;
        if let Some(mend) = mend {
            output.line(format!("         {:longest$}  -> {mend}", ""))?;
        }
    }
    Ok(())
}

async fn check_endpoint(
    args: &DoctorArgs,
    id: &str,
    client: &Client,
    serve: &ArgMatches,
    is_usable: bool,
) -> Vec<Check> {
    if !is_usable {
        return vec![Check::skipped("endpoint", "it needs the server and a valid key")];
    }
    let mend = "name one with --app; `webhooks app list` lists them";
    let app = match args.app.find(client).await {
        Ok(app) => app,
        Err(failure) => return vec![Check::failure("endpoint", &failure, mend)],
    };
    match ServeArgs::from_arg_matches(serve) {
        Ok(serve) => endpoint::check(client, &app, id, &serve.policy()).await,
        Err(error) => {
            let failure = Failure::usage("the settings of `serve` are not valid").because(error);
            vec![Check::failure("address policy", &failure, "`webhooks config show` lists them")]
        }
    }
}

async fn check_database(args: &DoctorArgs, context: &Context, serve: &ArgMatches) -> Vec<Check> {
    let of_serve = serve.get_one::<String>("database");
    let Some(text) = args.database.as_ref().or(of_serve) else { return Vec::new() };
    let arg = settings(context.command(), "serve").find(|arg| arg.get_id() == "database");
    let origin = arg.map(|arg| context.config.origin("serve", arg, serve));
    let is_named = args.database.is_some() || origin.is_some_and(|found| found != Origin::Default);
    match Database::read(text, &[]) {
        Ok(database) => database::check(&database, is_named).await,
        Err(failure) => {
            let mend = "--database is a file or a postgres:// URL";
            vec![Check::failure("database", &failure, mend)]
        }
    }
}

/// Returns the values of all settings that may be secrets, as they were given.
fn values(context: &Context) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for section in sections() {
        let matches = context.matches_of(section)?;
        let secret =
            settings(context.command(), section).filter(|arg| arg.is_hide_env_values_set());
        for arg in secret {
            let values = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
            found.extend(values.map(|value| value.to_string_lossy().into_owned()));
        }
    }
    Ok(found)
}

/// Returns the files that settings name as `@FILE`.
fn key_files(values: &[String]) -> Vec<PathBuf> {
    values.iter().filter_map(|value| value.strip_prefix('@')).map(PathBuf::from).collect()
}

/// Returns the secrets in values of settings, and in the files that they name.
fn secrets(values: &[String]) -> Vec<String> {
    let texts = values.iter().filter_map(|value| match value.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).ok(),
        None => Some(value.clone()),
    });
    let secret = |text: String| match Url::parse(&text) {
        Ok(url) if url.has_host() => url.password().map(str::to_owned),
        // The database, if it is a file.
        _ if Path::new(&text).exists() || is_database(Path::new(&text)) => None,
        _ => Some(text),
    };
    texts.map(|text| text.trim().to_owned()).filter_map(secret).collect()
}

fn is_database(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("db"))
}
