//! `verify`: whether a signature is right, and if not, why. All of it happens on this machine.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue};
use webhooks_core::Timestamp;
use webhooks_sign::Tolerance;

use crate::context::Context;
use crate::diagnosis::Case;
use crate::failure::{Exit, Failure};
use crate::moment::past;
use crate::saved_request::{SavedRequest, head, header};
use crate::scheme_option::{self, SchemeChoice};
use crate::{secret, text_source};

/// The most secrets: each of them is tried in several forms.
const MAX_SECRETS: usize = 16;

/// Verify a webhook, and explain why it does not verify; nothing leaves this machine
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks verify --secret @secret.txt --request saved.http
  webhooks verify --secret @secret.txt --header 'x-hub-signature-256: sha256=757107' body.json
  webhooks verify --secret @new.txt --secret @old.txt --request traffic.har --entry 3
  webhooks verify --secret @secret.txt --request saved.http --at 2026-11-30T09:00:00Z")]
pub(crate) struct VerifyArgs {
    /// Body: a file, or - for standard input; without it, that of --request
    #[arg(value_name = "FILE")]
    body: Option<PathBuf>,
    /// Secret: @FILE, - for standard input, or the secret itself, which other users of this machine can then see; may be given several times
    #[arg(
        long = "secret",
        value_name = "@FILE",
        env = "WEBHOOKS_SECRET",
        hide_env_values = true,
        required = true
    )]
    secrets: Vec<String>,
    /// Scheme, such as standard, github or stripe; auto takes the one whose headers are there
    #[arg(long, value_name = "NAME", default_value = scheme_option::AUTO, value_parser = scheme_option::named_or_auto(), hide_possible_values = true)]
    scheme: SchemeChoice,
    /// Header of the request; may be given several times
    #[arg(long = "header", short = 'H', value_name = "'NAME: VALUE'", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Stored request: as it was sent, or an HTTP archive (HAR)
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// Number of the request in an archive, from 1
    #[arg(long, value_name = "NUMBER", requires = "request")]
    entry: Option<usize>,
    /// Time at which it arrived: a time, or an age such as 2h; now without it, or the time in the archive
    #[arg(long, value_name = "TIME", value_parser = past)]
    at: Option<Timestamp>,
    /// Longest difference between the timestamp and that time; the scheme's own without it
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    tolerance: Option<Duration>,
    /// Method, for schemes that sign it
    #[arg(long, value_name = "METHOD", default_value = "POST", conflicts_with = "request")]
    method: String,
    /// URL that is set at the sender, for schemes that sign it
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

pub(crate) fn run(args: &VerifyArgs, context: &Context) -> Result<(), Failure> {
    if args.secrets.len() > MAX_SECRETS {
        return Err(Failure::usage(format!("there are more than {MAX_SECRETS} secrets")));
    }
    let places = [args.body.as_ref(), args.request.as_ref()];
    let of_files = places.iter().flatten().filter(|path| path.as_os_str() == "-").count();
    let of_secrets = args.secrets.iter().filter(|secret| *secret == "-").count();
    let is_default = args.body.is_none() && args.request.is_none();
    if of_files + of_secrets + usize::from(is_default) > 1 {
        return Err(Failure::usage("standard input can be one thing alone")
            .hint("give secrets with --secret @FILE, and the body as a file"));
    }
    let secrets = args.secrets.iter().map(|text| secret::read_given("--secret", text));
    let secrets = secrets.collect::<Result<Vec<_>, _>>()?;
    let request = args.request()?;
    let url = args.url.as_deref().or(request.url.as_deref()).unwrap_or_default();
    let tolerance = args.tolerance.map(|tolerance| {
        let seconds = tolerance.as_secs();
        Tolerance { past: seconds, future: seconds }
    });
    let now = args.at.or(request.at).unwrap_or_else(Timestamp::now).as_unix_seconds();
    let case = Case {
        head: &request.head,
        body: &request.body,
        secrets: &secrets,
        scheme: args.scheme.0,
        url,
        tolerance,
        now,
    };
    let diagnosis = case.diagnose();
    if context.output.is_json() {
        context.output.json(&diagnosis.json())?;
    } else {
        for line in diagnosis.lines() {
            context.output.line(line)?;
        }
    }
    if diagnosis.is_verified() { Ok(()) } else { Err(Failure::told(Exit::CheckFailed)) }
}

impl VerifyArgs {
    /// Returns the request, with the headers of the command line.
    fn request(&self) -> Result<SavedRequest, Failure> {
        let mut request = match &self.request {
            Some(path) => SavedRequest::read(path, self.entry)?,
            None => {
                let head = head(&self.method, "/", HeaderMap::new())
                    .map_err(|error| Failure::usage(format!("--method: {error}")))?;
                SavedRequest { head, body: Vec::new(), url: None, at: None }
            }
        };
        for (name, value) in &self.headers {
            request.head.headers.append(name, value.clone());
        }
        match (&self.body, &self.request) {
            (Some(path), _) => request.body = text_source::bytes(path)?,
            (None, None) => request.body = text_source::bytes("-".as_ref())?,
            (None, Some(_)) => {}
        }
        Ok(request)
    }
}
