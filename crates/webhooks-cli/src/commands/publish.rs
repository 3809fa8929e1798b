//! `publish`: events from the command line.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use webhooks_core::Timestamp;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use crate::application_option::ApplicationOption;
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::moment::future;
use crate::table::Column;
use crate::text_source::payload;

/// The pause between two looks at the deliveries.
const PAUSE: Duration = Duration::from_millis(200);

const COLUMNS: [Column; 3] =
    [Column("ID", "/id"), Column("TYPE", "/eventType"), Column("ACCEPTED", "/timestamp")];

const DELIVERIES: [Column; 4] = [
    Column("ENDPOINT", "/id"),
    Column("URL", "/url"),
    Column("STATUS", "/statusText"),
    Column("NEXT ATTEMPT", "/nextAttempt"),
];

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
    /// Payload: JSON, @FILE, or - for standard input
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
    /// Wait until no delivery of it is pending, and fail if one failed
    #[arg(long)]
    wait: bool,
    /// Longest time to wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration, requires = "wait")]
    within: Duration,
}

/// An event, as the API takes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    event_type: String,
    payload: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    channels: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
}

pub(crate) async fn run(args: PublishArgs, context: &Context) -> Result<(), Failure> {
    let PublishArgs { event_type, data, app, id, at, channels, tags, wait, within } = args;
    let payload = payload(&data)?;
    let client = context.client()?;
    let app = app.find(&client).await?;
    let message = Message { event_type, payload, event_id: id, deliver_at: at, channels, tags };
    let accepted = client.post(&["app", &app, "msg"], &message).await?;
    context.output.thing(&COLUMNS, &accepted)?;
    let event = accepted["id"].as_str().unwrap_or_default();
    if wait {
        return follow(&client, context, (&app, event), within).await;
    }
    context.output.hint(format!("what became of it: webhooks delivery show {event} --app {app}"));
    Ok(())
}

/// Waits until all deliveries of an event have ended.
async fn follow(
    client: &Client,
    context: &Context,
    (app, event): (&str, &str),
    within: Duration,
) -> Result<(), Failure> {
    let start = SystemClock.monotonic();
    loop {
        let found = client.list(&["app", app, "msg", event, "endpoint"], &[], usize::MAX).await?;
        // A delivery that failed and has a next attempt is shown as failed by the API.
        let waits = |found: &Value| {
            matches!(found["statusText"].as_str(), Some("pending" | "sending"))
                || !found["nextAttempt"].is_null()
        };
        let waiting = found.iter().filter(|found| waits(found)).count();
        let is_over = SystemClock.monotonic().saturating_since(start) >= within;
        if waiting > 0 && !is_over {
            context.output.progress(format!(
                "{} of {} delivered",
                found.len() - waiting,
                found.len()
            ));
            SystemClock.sleep(PAUSE).await;
            continue;
        }
        context.output.end_progress();
        context.output.rows(&DELIVERIES, &found)?;
        let failed = found.iter().filter(|found| found["statusText"] != "success").count();
        return match (waiting, failed) {
            (0, 0) if found.is_empty() => {
                context.output.note("no endpoint wants this event");
                Ok(())
            }
            (0, 0) => Ok(()),
            (0, failed) => Err(Failure::new(
                Exit::Failed,
                format!("{failed} of {} were not delivered", found.len()),
            )),
            (waiting, _) => Err(Failure::new(
                Exit::TimedOut,
                format!("{waiting} of {} still wait", found.len()),
            )),
        };
    }
}
