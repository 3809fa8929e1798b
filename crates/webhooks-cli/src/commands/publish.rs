//! `publish`: events from the command line.

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;
use webhooks_core::Timestamp;

use super::follow::Follow;
use crate::application_option::ApplicationOption;
use crate::context::Context;
use crate::failure::Failure;
use crate::moment::future;
use crate::table::Column;
use crate::text_source::payload;

pub(crate) const COLUMNS: [Column; 3] =
    [Column("ID", "/id"), Column("TYPE", "/eventType"), Column("ACCEPTED", "/timestamp")];

/// Publish an event; it is on disk when the command ends
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks publish invoice.paid '{\"invoice\": 17}' --app acme
  webhooks publish invoice.paid @invoice.json --app acme --wait
  webhooks publish invoice.paid - --id invoice-17 --app acme
  webhooks publish reminder.due '{}' --at 2h --app acme")]
pub(crate) struct PublishArgs {
    /// Event type, such as invoice.paid
    #[arg(value_name = "TYPE")]
    event_type: String,
    /// Payload: a JSON object, @FILE, or - for standard input
    #[arg(default_value = "{}")]
    data: String,
    #[command(flatten)]
    app: ApplicationOption,
    /// Event id of your own: the same id again publishes nothing new
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Deliver it later: a time, or a delay such as 2h
    #[arg(long, value_name = "TIME", value_parser = future)]
    at: Option<Timestamp>,
    /// Channel; may be given several times
    #[arg(long = "channel", value_name = "NAME")]
    channels: Vec<String>,
    /// Tag; may be given several times
    #[arg(long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    #[command(flatten)]
    follow: Follow,
}

/// An event, as the API takes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message {
    pub(crate) event_type: String,
    pub(crate) payload: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deliver_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) channels: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<String>,
}

pub(crate) async fn run(args: PublishArgs, context: &Context) -> Result<(), Failure> {
    let PublishArgs { event_type, data, app, id, at, channels, tags, follow } = args;
    let payload = payload(&data)?;
    let client = context.client()?;
    let app = app.find(&client).await?;
    let message = Message { event_type, payload, event_id: id, deliver_at: at, channels, tags };
    let accepted = client.post(&["app", &app, "msg"], &message).await?;
    context.output.thing(&COLUMNS, &accepted)?;
    follow.run(&client, context, &app, &accepted).await
}
