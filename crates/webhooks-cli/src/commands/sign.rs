//! `sign`: the headers that a sender would send.

use std::path::{Path, PathBuf};

use clap::Args;
use http::HeaderMap;
use serde_json::{Map, Value, json};
use webhooks_core::{EventId, Timestamp};
use webhooks_sign::Envelope;
use webhooks_sign::scheme::Scheme;

use crate::context::Context;
use crate::diagnosis::key_of;
use crate::failure::{Exit, Failure};
use crate::moment::past;
use crate::saved_request::head;
use crate::shell::quoted;
use crate::signed_request::{sign, time_for};
use crate::{scheme_option, secret, text_source};

/// Sign a body, and print the headers that a sender would send
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks sign --secret @secret.txt body.json
  webhooks sign --secret @secret.txt --scheme github body.json
  webhooks sign --secret @secret.txt --curl http://localhost:3000/hook body.json
  webhooks sign --secret @secret.txt --http body.json | webhooks verify --secret @secret.txt --request -
  webhooks sign --secret @secret.txt --id msg_1 --timestamp 2026-11-30T09:00:00Z - --json")]
pub(crate) struct SignArgs {
    /// Body: a file, or - for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    body: PathBuf,
    /// Secret: @FILE, - for standard input, or the secret itself, which other users of this machine can then see
    #[arg(long, value_name = "@FILE", env = "WEBHOOKS_SECRET", hide_env_values = true)]
    secret: String,
    /// Scheme, such as standard, x-webhook, github or stripe
    #[arg(long, value_name = "NAME", default_value = "standard", value_parser = scheme_option::named(), hide_possible_values = true)]
    scheme: &'static Scheme,
    /// Id of the message; a new one without it
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Time of the signature: a time, an age such as 2h, or digits as they are; now without it
    #[arg(long, value_name = "TIME")]
    timestamp: Option<String>,
    /// Method, for schemes that sign it
    #[arg(long, value_name = "METHOD", default_value = "POST")]
    method: String,
    /// URL, for schemes that sign it
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Print the headers alone, which is the default
    #[arg(long, conflicts_with = "curl")]
    headers: bool,
    /// Print a command that sends the request to this URL
    #[arg(long, value_name = "URL")]
    curl: Option<String>,
    /// Print the whole request as it is sent, which `webhooks verify --request -` reads
    #[arg(long, conflicts_with_all = ["curl", "headers"])]
    http: bool,
}

pub(crate) fn run(args: &SignArgs, context: &Context) -> Result<(), Failure> {
    if args.secret == "-" && args.body.as_os_str() == "-" {
        return Err(Failure::usage("standard input cannot be the secret and the body")
            .hint("give the secret with --secret @FILE"));
    }
    let secret = secret::read_given("--secret", &args.secret)?;
    let key = key_of(args.scheme, &secret).map_err(|error| {
        Failure::new(Exit::Refused, format!("the secret is no key of {}", args.scheme.name()))
            .because(error)
            .hint("--scheme names another scheme")
    })?;
    let body = text_source::bytes(&args.body)?;
    let id = match &args.id {
        Some(id) => id.clone(),
        None => EventId::random().to_string(),
    };
    let timestamp = args.time()?;
    let url = args.url.as_deref().or(args.curl.as_deref()).unwrap_or_default();
    let envelope = Envelope { id: &id, timestamp: &timestamp, method: &args.method, url };
    let headers = sign(args.scheme, &secret, &key, &envelope, &body)?;
    if let Some(url) = &args.curl {
        let command = curl(&args.method, url, &headers, (&args.body, &body))?;
        if context.output.is_json() {
            context.output.json(&json!({ "command": command }))?;
        } else {
            context.output.line(command)?;
        }
        return Ok(());
    }
    if args.http {
        if context.output.is_json() {
            return Err(Failure::usage("--http and --json are two forms: choose one"));
        }
        return Ok(context.output.bytes(&http(&args.method, url, &headers, &body)?)?);
    }
    if context.output.is_json() {
        let headers: Map<String, Value> =
            headers.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        return Ok(context.output.json(&json!({ "headers": headers }))?);
    }
    for (name, value) in headers {
        context.output.line(format!("{name}: {value}"))?;
    }
    Ok(())
}

impl SignArgs {
    /// Returns the time as the scheme writes it.
    fn time(&self) -> Result<String, Failure> {
        let Some(text) = &self.timestamp else {
            return Ok(time_for(self.scheme, Timestamp::now()));
        };
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(text.clone());
        }
        let time = past(text).map_err(|error| Failure::usage(format!("--timestamp: {error}")))?;
        Ok(time_for(self.scheme, time))
    }
}

/// Returns a request as it is sent, with the whole URL in its first line if one is known.
fn http(
    method: &str,
    url: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> Result<Vec<u8>, Failure> {
    let target = if url.is_empty() { "/" } else { url };
    head(method, target, HeaderMap::new())
        .map_err(|error| Failure::usage(format!("--method or --url: {error}")))?;
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    for (name, value) in std::iter::once(&content_type(body)).chain(headers) {
        text.extend([*name, ": ", value, "\r\n"]);
    }
    text.extend(["content-length: ", &body.len().to_string(), "\r\n\r\n"]);
    Ok([text.as_bytes(), body].concat())
}

fn content_type(body: &[u8]) -> (&'static str, String) {
    let is_json = serde_json::from_slice::<Value>(body).is_ok();
    let kind = if is_json { "application/json" } else { "application/octet-stream" };
    ("content-type", kind.to_owned())
}

/// Returns the command that sends a request.
fn curl(
    method: &str,
    url: &str,
    headers: &[(&str, String)],
    (path, body): (&Path, &[u8]),
) -> Result<String, Failure> {
    let mut words = vec!["curl".to_owned(), "-X".to_owned(), quoted(method)];
    for (name, value) in std::iter::once(&content_type(body)).chain(headers) {
        words.extend(["-H".to_owned(), quoted(&format!("{name}: {value}"))]);
    }
    if path.as_os_str() != "-" {
        words.extend(["--data-binary".to_owned(), quoted(&format!("@{}", path.display()))]);
    } else {
        let text = str::from_utf8(body).ok().filter(|text| !text.contains('\0'));
        let text = text.ok_or_else(|| {
            Failure::usage("the body is no text, so that a command cannot hold it")
                .hint("put it into a file, and name the file")
        })?;
        // Unlike --data-binary, it takes a text that begins with @ as it is.
        words.extend(["--data-raw".to_owned(), quoted(text)]);
    }
    words.push(quoted(url));
    Ok(words.join(" "))
}
