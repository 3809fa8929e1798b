//! `event-type`: the event types that endpoints can subscribe to.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::event_type_check::{self, CheckArgs};
use crate::body::add;
use crate::context::Context;
use crate::failure::Failure;
use crate::list::ListOptions;
use crate::table::Column;
use crate::text_source::json_file;

const COLUMNS: [Column; 5] = [
    Column("NAME", "/name"),
    Column("DESCRIPTION", "/description"),
    Column("ARCHIVED", "/archived"),
    Column("CHECKED", "/schemaEnforcement"),
    Column("UPDATED", "/updatedAt"),
];

/// List and change event types: names, descriptions and JSON Schemas
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks event-type create invoice.paid --description 'An invoice was paid.'
  webhooks event-type check payload.json --type invoice.paid
  webhooks event-type list")]
pub(crate) struct EventTypeArgs {
    #[command(subcommand)]
    action: EventTypeAction,
}

#[derive(Debug, Subcommand)]
enum EventTypeAction {
    /// List event types
    #[command(before_help = "Examples:\n  webhooks event-type list --archived")]
    List {
        #[command(flatten)]
        options: ListOptions,
        /// With those that are archived
        #[arg(long)]
        archived: bool,
    },
    /// Make an event type
    #[command(
        before_help = "Examples:\n  webhooks event-type create invoice.paid --schema schema.json --check refuse"
    )]
    Create {
        /// Name, such as invoice.paid
        name: String,
        #[command(flatten)]
        settings: EventTypeSettings,
    },
    /// Show an event type with its schema
    #[command(before_help = "Examples:\n  webhooks event-type show invoice.paid")]
    Show {
        /// Name
        name: String,
    },
    /// Change what is given, and leave the rest
    #[command(before_help = "Examples:\n  webhooks event-type edit invoice.paid --check warn")]
    Edit {
        /// Name
        name: String,
        #[command(flatten)]
        settings: EventTypeSettings,
    },
    /// Check payloads against the schema of an event type, or of a file without a server
    #[command(
        before_help = "Examples:\n  webhooks event-type check payload.json --type invoice.paid\n  webhooks event-type check payloads.ndjson --schema schema.json\n  webhooks event-type check - --type invoice.paid --json"
    )]
    Check(CheckArgs),
    /// Archive an event type: it can be used no longer by new endpoints, and events of it still arrive
    #[command(before_help = "Examples:\n  webhooks event-type archive invoice.paid")]
    Archive {
        /// Name
        name: String,
    },
}

#[derive(Debug, Args)]
struct EventTypeSettings {
    /// Description for the owners of endpoints
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// JSON Schema of the payload, as version 1; - for standard input
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Treatment of payloads that the schema does not allow: off, warn or refuse
    #[arg(long, value_name = "WHEN")]
    check: Option<String>,
}

pub(crate) async fn run(args: EventTypeArgs, context: &Context) -> Result<(), Failure> {
    let (client, output) = (context.client()?, context.output);
    let path = |name| ["event-type", name];
    match args.action {
        EventTypeAction::Check(check) => event_type_check::run(check, context).await?,
        EventTypeAction::List { options, archived } => {
            let query = [("include_archived", archived.to_string())];
            return options.run(&client, output, &["event-type"], &query, &COLUMNS).await;
        }
        EventTypeAction::Create { name, settings } => {
            let mut body = settings.body()?;
            body.entry("description").or_insert_with(|| json!(""));
            add(&mut body, "name", Some(name));
            output.thing(&COLUMNS, &client.post(&["event-type"], &body).await?)?;
        }
        EventTypeAction::Show { name } => {
            let found = client.get(&path(&name), &[("with_content", "true".to_owned())]).await?;
            output.thing(&[&COLUMNS[..], &[Column("SCHEMAS", "/schemas")]].concat(), &found)?;
        }
        EventTypeAction::Edit { name, settings } => {
            output.thing(&COLUMNS, &client.patch(&path(&name), &settings.body()?).await?)?;
        }
        EventTypeAction::Archive { name } => {
            client.patch(&path(&name), &json!({ "archived": true })).await?;
            output.done(&name, "archived", format!("event type {name} is archived"))?;
        }
    }
    Ok(())
}

impl EventTypeSettings {
    fn body(self) -> Result<Map<String, Value>, Failure> {
        let mut body = Map::new();
        add(&mut body, "description", self.description);
        let schema = self.schema.as_deref().map(json_file).transpose()?;
        add(&mut body, "schemas", schema.map(|schema| json!({ "1": schema })));
        add(&mut body, "schemaEnforcement", self.check);
        Ok(body)
    }
}
