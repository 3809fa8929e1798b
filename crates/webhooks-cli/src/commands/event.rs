//! `event`: what was published.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use webhooks_core::{EventType, Timestamp};
use webhooks_registry::Subscription;

use super::delivery;
use super::delivery_repair::{Repair, RepairArgs};
use super::follow::Follow;
use super::publish::Message;
use crate::application_option::ApplicationOption;
use crate::body::{add, add_list};
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Failure, not_a_service};
use crate::list::ListOptions;
use crate::moment::past;
use crate::pretty::pretty;
use crate::query::{OF_EVENTS, Query};
use crate::table::Column;
use crate::visible::visible;

const COLUMNS: [Column; 5] = [
    Column("ID", "/id"),
    Column("TYPE", "/eventType"),
    Column("EVENT ID", "/eventId"),
    Column("CHANNELS", "/channels"),
    Column("ACCEPTED", "/timestamp"),
];

/// List, show and search events, and deliver them once more
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks event list 'type:invoice.*' since:1h --app acme
  webhooks event show msg_2x --app acme
  webhooks event replay msg_2x --app acme
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
        before_help = "Examples:\n  webhooks event list 'type:invoice.*' since:1h --app acme\n  webhooks event list --type invoice.paid --since 1h --app acme"
    )]
    List {
        /// Words such as type:invoice.* since:2h channel:eu tag:import
        #[arg(value_name = "QUERY")]
        query: Vec<String>,
        #[command(flatten)]
        options: ListOptions,
        #[command(flatten)]
        filter: EventFilter,
    },
    /// Show an event with its payload
    #[command(
        before_help = "Examples:\n  webhooks event show msg_2x --app acme\n  webhooks event show msg_2x --payload --app acme\n  webhooks event show msg_2x --payload pretty --deliveries --app acme"
    )]
    Show {
        /// Id, or the event id of your own
        id: String,
        /// Print the payload in place of the fields
        #[arg(long, value_name = "FORM", num_args = 0..=1, default_missing_value = "raw")]
        payload: Option<PayloadForm>,
        /// Show its deliveries and their attempts too
        #[arg(long)]
        deliveries: bool,
    },
    /// Deliver an event once more to endpoints where it failed or was cancelled: the same event, with the same id
    #[command(
        before_help = "Examples:\n  webhooks event replay msg_2x --app acme\n  webhooks event replay msg_2x --endpoint crm --app acme"
    )]
    Replay {
        /// Id, or the event id of your own
        id: String,
        /// Only to this endpoint, by id or uid, also if it succeeded there
        #[arg(long, value_name = "ID")]
        endpoint: Option<String>,
    },
    /// Publish the type and the payload of an event as a new event
    ///
    /// It gets an id of its own, so receivers that handle each id once handle it too, and it goes to all
    /// endpoints that want its type now. `webhooks event replay` delivers the same event under its old id,
    /// which such receivers take for a repetition.
    #[command(
        before_help = "Examples:\n  webhooks event again msg_2x --app acme\n  webhooks event again msg_2x --id invoice-17-corrected --wait --app acme"
    )]
    Again {
        /// Id, or the event id of your own
        #[arg(value_name = "ID")]
        event: String,
        /// Event id of your own for the new event: the same id again publishes nothing new
        #[arg(long = "id", value_name = "NEW-ID")]
        new_id: Option<String>,
        #[command(flatten)]
        follow: Follow,
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

/// The forms of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PayloadForm {
    /// Byte for byte as it was published
    Raw,
    /// A line for each value
    Pretty,
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
    let query = match &args.action {
        EventAction::List { query, filter, .. } => filter.add_to(&query.join(" "))?,
        _ => Query::default(),
    };
    let (client, output) = (context.client()?, context.output);
    let app = args.app.find(&client).await?;
    match args.action {
        EventAction::List { options, .. } => list(&client, context, &app, (query, options)).await,
        EventAction::Show { id, payload, deliveries } => {
            match payload {
                None => {
                    let found = client.get(&["app", &app, "msg", &id], &[]).await?;
                    let columns = [&COLUMNS[..], &[Column("PAYLOAD", "/payload")]].concat();
                    output.thing(&columns, &found)?;
                }
                Some(form) => show_payload(context, &raw(&client, &app, &id).await?, form)?,
            }
            if deliveries {
                return delivery::show(&client, context, (&app, &id), None).await;
            }
            output.hint(format!("what became of it: webhooks delivery show {id} --app {app}"));
            Ok(())
        }
        EventAction::Replay { id, endpoint } => {
            let repair = RepairArgs::of_event(id, endpoint);
            repair.run(&client, context, (&app, Repair::Replay, false)).await
        }
        EventAction::Again { event, new_id, follow } => {
            let accepted = again(&client, &app, &event, new_id).await?;
            output.thing(&COLUMNS, &accepted)?;
            follow.run(&client, context, &app, &accepted).await
        }
        EventAction::Search { text, options, filter } => {
            let rows = client
                .search(&["app", &app, "msg", "search"], filter.body(text), options.limit)
                .await?;
            Ok(output.rows(&COLUMNS, &rows)?)
        }
        EventAction::Expunge { id } => {
            client.delete(&["app", &app, "msg", &id, "content"]).await?;
            Ok(output.done(&id, "expunged", format!("the payload of {id} is deleted"))?)
        }
    }
}

/// Lists events. The server chooses by all words except patterns of types.
async fn list(
    client: &Client,
    context: &Context,
    app: &str,
    (query, options): (Query, ListOptions),
) -> Result<(), Failure> {
    let mut parameters = vec![("with_content", "false".to_owned())];
    if query.types.iter().all(|one| EventType::new(one.as_str()).is_ok()) {
        let types = query.types.iter().map(|one| ("event_types", one.as_str().to_owned()));
        parameters.extend(types);
    }
    let more = [
        ("channel", query.channel.clone()),
        ("tag", query.tag.clone()),
        ("after", query.since.map(|time| time.to_string())),
        ("before", query.until.map(|time| time.to_string())),
    ];
    parameters.extend(more.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let (mut rows, mut iterator) = (Vec::new(), None);
    loop {
        let (page, next) = client.page(&["app", app, "msg"], &parameters, iterator).await?;
        let is_wanted = |row: &Value| query.has_type(row["eventType"].as_str().unwrap_or_default());
        rows.extend(page.into_iter().filter(is_wanted));
        iterator = next;
        if iterator.is_none() || rows.len() >= options.wanted() {
            return options.print(context.output, &COLUMNS, rows);
        }
    }
}

/// Returns the payload of an event, as it was published.
async fn raw(client: &Client, app: &str, id: &str) -> Result<String, Failure> {
    let found = client.get(&["app", app, "msg", id, "raw"], &[]).await?;
    let payload = found["payload"].as_str().map(str::to_owned);
    payload.ok_or_else(|| not_a_service("the server answered without a payload"))
}

fn show_payload(context: &Context, payload: &str, form: PayloadForm) -> Result<(), Failure> {
    match form {
        PayloadForm::Raw => context.output.text(payload)?,
        PayloadForm::Pretty => {
            for line in pretty(payload).lines() {
                context.output.line(visible(line))?;
            }
        }
    }
    Ok(())
}

/// Publishes the type, the payload and the labels of an event anew.
async fn again(
    client: &Client,
    app: &str,
    event: &str,
    new_id: Option<String>,
) -> Result<Value, Failure> {
    let hidden = [("with_content", "false".to_owned())];
    let old = client.get(&["app", app, "msg", event], &hidden).await?;
    let payload = RawValue::from_string(raw(client, app, event).await?).map_err(|error| {
        not_a_service("the server answered with another payload").because(error)
    })?;
    let labels = |name: &str| {
        let labels = old[name].as_array().into_iter().flatten();
        labels.filter_map(|label| label.as_str().map(str::to_owned)).collect()
    };
    let message = Message {
        event_type: old["eventType"].as_str().unwrap_or_default().to_owned(),
        payload,
        event_id: new_id,
        deliver_at: None,
        channels: labels("channels"),
        tags: labels("tags"),
    };
    client.post(&["app", app, "msg"], &message).await
}

impl EventFilter {
    /// Returns a query with the options added to it.
    fn add_to(&self, text: &str) -> Result<Query, Failure> {
        let mut query = Query::read(text, &OF_EVENTS)?;
        let Self { types, channel, tag, since, until } = self;
        for name in types {
            let one = Subscription::new(name);
            let one = one.map_err(|error| Failure::usage(format!("--type {name}: {error}")))?;
            query.types.push(one);
        }
        let pairs = [
            (query.channel.is_some() && channel.is_some(), "--channel"),
            (query.tag.is_some() && tag.is_some(), "--tag"),
            (query.since.is_some() && since.is_some(), "--since"),
            (query.until.is_some() && until.is_some(), "--until"),
        ];
        if let Some((_, option)) = pairs.into_iter().find(|(is_twice, _)| *is_twice) {
            return Err(Failure::usage(format!("{option} is in the query too")));
        }
        query.channel = query.channel.or_else(|| channel.clone());
        query.tag = query.tag.or_else(|| tag.clone());
        query.since = query.since.or(*since);
        query.until = query.until.or(*until);
        Ok(query)
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
