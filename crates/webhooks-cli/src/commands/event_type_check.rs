//! `event-type check`: whether payloads match a JSON Schema, and where not.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use webhooks_admin::{Mismatch, PayloadSchema};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::table::Column;
use crate::text_source::{bytes, json_file};

const COLUMNS: [Column; 4] = [
    Column("PAYLOAD", "/payload"),
    Column("LINE", "/line"),
    Column("PLACE", "/place"),
    Column("REASON", "/reason"),
];

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Payload, or several of them such as one on each line; - for standard input
    #[arg(value_name = "FILE")]
    payloads: PathBuf,
    /// Event type at the server whose schema counts
    #[arg(long = "type", value_name = "NAME", required_unless_present = "schema")]
    event_type: Option<String>,
    /// Version of its schema; the newest by default, which the server checks too
    #[arg(long, value_name = "NUMBER", requires = "event_type")]
    version: Option<String>,
    /// File with the schema, in place of the server
    #[arg(long, value_name = "FILE", conflicts_with = "event_type")]
    schema: Option<PathBuf>,
}

pub(crate) async fn run(args: CheckArgs, context: &Context) -> Result<(), Failure> {
    if args.schema.as_deref().is_some_and(|path| path.as_os_str() == "-" && args.payloads == path) {
        return Err(Failure::usage("standard input cannot be the schema and the payload"));
    }
    let (schema, name) = args.schema(context).await?;
    let is_of_server = args.event_type.is_some();
    let schema = PayloadSchema::new(&schema).map_err(|error| {
        Failure::usage(format!("payloads cannot be checked against {name}")).because(error)
    })?;
    let path = args.payloads.to_str().and_then(|text| text.strip_prefix('@'));
    let text = bytes(path.map_or(&*args.payloads, std::path::Path::new))?;
    let (mut count, mut wrong) = (0, Vec::new());
    let mut payloads = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
    loop {
        let start = payloads.byte_offset();
        let Some(payload) = payloads.next() else { break };
        count += 1;
        let reason = match payload {
            Ok(payload) if is_of_server && !payload.is_object() => {
                // The server refuses it before it looks at the schema.
                Some((String::new(), "a payload must be an object".to_owned()))
            }
            Ok(payload) => {
                schema.check(&payload).err().map(|found| (pointer(&found), found.to_string()))
            }
            Err(error) => Some((String::new(), format!("it is not JSON: {error}"))),
        };
        if let Some((place, reason)) = reason {
            let line = line_of(&text, start);
            wrong.push(json!({ "payload": count, "line": line, "place": place, "reason": reason }));
        }
    }
    if count == 0 {
        return Err(Failure::usage(format!("{} holds no payload", args.payloads.display())));
    }
    context.output.rows(&COLUMNS, &wrong)?;
    if !wrong.is_empty() {
        let text = format!("{} of {count} payloads do not match {name}", wrong.len());
        return Err(Failure::new(Exit::CheckFailed, text));
    }
    let text = format!("{count} of {count} payloads match {name}");
    Ok(context.output.done(&name, "checked", text)?)
}

impl CheckArgs {
    /// Returns the schema, and a name for it.
    async fn schema(&self, context: &Context) -> Result<(Value, String), Failure> {
        let Some(name) = &self.event_type else {
            let path = self.schema.clone().unwrap_or_default();
            return Ok((json_file(&path)?, path.display().to_string()));
        };
        let query = [("with_content", "true".to_owned())];
        let found = context.client()?.get(&["event-type", name], &query).await?;
        let schemas = found["schemas"].as_object().into_iter().flatten();
        let chosen = match &self.version {
            Some(version) => schemas.into_iter().find(|(known, _)| *known == version),
            None => schemas.max_by_key(|(version, _)| version.parse::<u64>().unwrap_or(0)),
        };
        let (version, schema) = chosen.ok_or_else(|| {
            let version = self.version.as_ref().map(|version| format!(" of version {version}"));
            let text = format!("event type {name} has no schema{}", version.unwrap_or_default());
            Failure::new(Exit::NotFound, text)
                .hint(format!("add one: webhooks event-type edit {name} --schema FILE"))
        })?;
        Ok((schema.clone(), format!("{name} version {version}")))
    }
}

/// Returns the place of a mismatch as a JSON pointer (RFC 6901).
fn pointer(found: &Mismatch) -> String {
    let parts = found.place.iter().map(|part| part.replace('~', "~0").replace('/', "~1"));
    parts.flat_map(|part| ["/".to_owned(), part]).collect()
}

/// Returns the number of the line on which the next value begins after a place in bytes.
fn line_of(text: &[u8], at: usize) -> usize {
    let (before, behind) = text.split_at_checked(at).unwrap_or((text, b""));
    let space = behind.iter().take_while(|byte| byte.is_ascii_whitespace());
    before.iter().chain(space).filter(|byte| **byte == b'\n').count() + 1
}
