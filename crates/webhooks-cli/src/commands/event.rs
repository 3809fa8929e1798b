//! `event`: what was published.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use webhooks_core::Timestamp;

use crate::application_option::ApplicationOption;
use crate::body::{add, add_list};
use crate::context::Context;
use crate::failure::Failure;
use crate::list::ListOptions;
use crate::moment::past;
use crate::table::Column;

const COLUMNS: [Column; 5] = [
    Column("ID", "/id"),
    Column("TYPE", "/eventType"),
    Column("EVENT ID", "/eventId"),
    Column("CHANNELS", "/channels"),
    Column("ACCEPTED", "/timestamp"),
];

/// List, show and search events
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks event list --app acme --since 1h
  webhooks event show msg_2x --app acme
  webhooks event search '\"invoice\":17' --app acme")]
pub(crate) struct EventArgs {
    #[command(flatten)]
    app: ApplicationOption,
    #[command(subcommand)]
    action: EventAction,
}

#[derive(Debug, Subcommand)]
enum EventAction {
    /// List events, the newest first
    #[command(
        before_help = "Examples:\n  webhooks event list --type invoice.paid --since 1h --app acme"
    )]
    List {
        #[command(flatten)]
        options: ListOptions,
        #[command(flatten)]
        filter: EventFilter,
    },
    /// Show an event with its payload
    #[command(
        before_help = "Examples:\n  webhooks event show msg_2x --app acme\n  webhooks event show msg_2x --payload --app acme"
    )]
    Show {
        /// Id, or the event id of your own
        id: String,
        /// Print the payload alone, byte for byte as it was published
        #[arg(long)]
        payload: bool,
    },
    /// Search in the payloads of events, the newest first
    #[command(
        before_help = "Examples:\n  webhooks event search '\"invoice\":17' --since 24h --app acme"
    )]
    Search {
        /// Text, as it stands in the JSON
        text: String,
        #[command(flatten)]
        options: ListOptions,
        #[command(flatten)]
        filter: EventFilter,
    },
    /// Delete the payload of an event; the record of it stays
    #[command(before_help = "Examples:\n  webhooks event expunge msg_2x --app acme")]
    Expunge {
        /// Id, or the event id of your own
        id: String,
    },
}

#[derive(Debug, Args)]
struct EventFilter {
    /// Event type; may be given several times
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Channel
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// Tag
    #[arg(long, value_name = "NAME")]
    tag: Option<String>,
    /// Start: a time, or an age such as 2h
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Timestamp>,
    /// End: a time, or an age
    #[arg(long, value_name = "TIME", value_parser = past)]
    until: Option<Timestamp>,
}

pub(crate) async fn run(args: EventArgs, context: &Context) -> Result<(), Failure> {
    let (client, output) = (context.client()?, context.output);
    let app = args.app.find(&client).await?;
    match args.action {
        EventAction::List { options, filter } => {
            let query = [filter.query(), vec![("with_content", "false".to_owned())]].concat();
            options.run(&client, output, &["app", &app, "msg"], &query, &COLUMNS).await?;
        }
        EventAction::Show { id, payload: false } => {
            let found = client.get(&["app", &app, "msg", &id], &[]).await?;
            output.thing(&[&COLUMNS[..], &[Column("PAYLOAD", "/payload")]].concat(), &found)?;
            output.hint(format!("what became of it: webhooks delivery show {id} --app {app}"));
        }
        EventAction::Show { id, payload: true } => {
            let found = client.get(&["app", &app, "msg", &id, "raw"], &[]).await?;
            output.text(found["payload"].as_str().unwrap_or_default())?;
        }
        EventAction::Search { text, options, filter } => {
            let rows = client
                .search(&["app", &app, "msg", "search"], filter.body(text), options.limit)
                .await?;
            output.rows(&COLUMNS, &rows)?;
        }
        EventAction::Expunge { id } => {
            client.delete(&["app", &app, "msg", &id, "content"]).await?;
            output.note(format!("the payload of {id} is deleted"));
        }
    }
    Ok(())
}

impl EventFilter {
    fn query(&self) -> Vec<(&'static str, String)> {
        let types = self.types.iter().map(|name| ("event_types", name.clone()));
        let options = [
            ("channel", self.channel.clone()),
            ("tag", self.tag.clone()),
            ("after", self.since.map(|time| time.to_string())),
            ("before", self.until.map(|time| time.to_string())),
        ];
        types.chain(options.into_iter().filter_map(|(name, value)| Some((name, value?)))).collect()
    }

    fn body(self, text: String) -> Map<String, Value> {
        let mut body = Map::new();
        add(&mut body, "text", Some(text));
        add_list(&mut body, "event_types", &self.types);
        add(&mut body, "channel", self.channel);
        add(&mut body, "tag", self.tag);
        add(&mut body, "after", self.since.map(|time| time.to_string()));
        add(&mut body, "before", self.until.map(|time| time.to_string()));
        body
    }
}
