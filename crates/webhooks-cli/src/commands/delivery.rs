//! `delivery`: what became of events at endpoints, and repair.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use webhooks_core::Timestamp;

use super::confirm::Confirm;
use super::delivery_list::{DeliveryFilter, Status};
use super::{job, poller_attempts};
use crate::application_option::ApplicationOption;
use crate::body::{add, name_statuses};
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::list::ListOptions;
use crate::moment::past;
use crate::table::Column;

const ENDPOINTS: [Column; 4] = [
    Column("ENDPOINT", "/id"),
    Column("URL", "/url"),
    Column("STATUS", "/statusText"),
    Column("NEXT ATTEMPT", "/nextAttempt"),
];

const ATTEMPTS: [Column; 7] = [
    Column("ATTEMPT", "/id"),
    Column("ENDPOINT", "/endpointId"),
    Column("STATUS", "/statusText"),
    Column("CODE", "/responseStatusCode"),
    Column("MS", "/responseDurationMs"),
    Column("AT", "/timestamp"),
    Column("RESPONSE", "/response"),
];

/// List deliveries, show their attempts, and repeat or cancel them
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks delivery list --endpoint crm --status fail --app acme
  webhooks delivery show msg_2x --app acme
  webhooks delivery retry msg_2x --endpoint crm --app acme
  webhooks delivery replay --endpoint crm --status fail --since 2h --app acme")]
pub(crate) struct DeliveryArgs {
    #[command(flatten)]
    app: ApplicationOption,
    #[command(subcommand)]
    action: DeliveryAction,
}

#[derive(Debug, Subcommand)]
enum DeliveryAction {
    /// List deliveries, those of the newest events first
    #[command(
        before_help = "Examples:\n  webhooks delivery list --status fail --app acme\n  webhooks delivery list --endpoint crm --since 2h --app acme"
    )]
    List(DeliveryFilter),
    /// Show the deliveries of an event, and their attempts
    #[command(
        before_help = "Examples:\n  webhooks delivery show msg_2x --app acme\n  webhooks delivery show msg_2x --endpoint crm --app acme"
    )]
    Show {
        /// Event, by id or by the event id of your own
        event: String,
        /// Only the attempts to this endpoint, by id or uid
        #[arg(long, value_name = "ID")]
        endpoint: Option<String>,
    },
    /// Deliver an event to an endpoint once more, now
    #[command(
        before_help = "Examples:\n  webhooks delivery retry msg_2x --endpoint crm --app acme"
    )]
    Retry {
        /// Events, by id or by the event id of your own
        #[arg(required = true)]
        events: Vec<String>,
        /// Endpoint, by id or uid
        #[arg(long, value_name = "ID")]
        endpoint: String,
    },
    /// Deliver many events to an endpoint once more
    #[command(
        before_help = "Examples:\n  webhooks delivery replay --endpoint crm --status fail --since 2h --app acme"
    )]
    Replay {
        /// Endpoint, by id or uid
        #[arg(long, value_name = "ID")]
        endpoint: String,
        /// Start: a time, or an age such as 2h
        #[arg(long, value_name = "TIME", value_parser = past)]
        since: Timestamp,
        /// End: now by default
        #[arg(long, value_name = "TIME", value_parser = past)]
        until: Option<Timestamp>,
        /// Only those of this status: fail, canceled or success; fail and canceled by default
        #[arg(long)]
        status: Option<Status>,
        /// Return at once; the job goes on
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Cancel the deliveries that wait for an endpoint
    #[command(
        before_help = "Examples:\n  webhooks delivery cancel --endpoint crm --before 1h --app acme --yes"
    )]
    Cancel {
        /// Endpoint, by id or uid
        #[arg(long, value_name = "ID")]
        endpoint: String,
        /// Only those of events accepted before: a time, or an age such as 1h
        #[arg(long, value_name = "TIME", value_parser = past, default_value = "0s")]
        before: Timestamp,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// List jobs, or show one
    #[command(
        before_help = "Examples:\n  webhooks delivery jobs\n  webhooks delivery jobs qtask_2x"
    )]
    Jobs {
        /// Id of a job
        id: Option<String>,
        #[command(flatten)]
        options: ListOptions,
    },
}

pub(crate) async fn run(args: DeliveryArgs, context: &Context) -> Result<(), Failure> {
    let (client, output) = (context.client()?, context.output);
    let app = match &args.action {
        // A job has no application.
        DeliveryAction::Jobs { .. } => String::new(),
        _ => args.app.find(&client).await?,
    };
    let app = app.as_str();
    match args.action {
        DeliveryAction::List(filter) => filter.list(&client, output, app).await,
        DeliveryAction::Show { event, endpoint } => {
            show(&client, context, (app, &event), endpoint).await
        }
        DeliveryAction::Retry { events, endpoint } => {
            retry(&client, context, (app, &endpoint), &events).await
        }
        DeliveryAction::Replay { endpoint, since, until, status, no_wait, confirm } => {
            if matches!(status, Some(Status::Pending | Status::Sending)) {
                return Err(Failure::usage(
                    "--status is fail, canceled or success: others are under way",
                )
                .hint("`webhooks delivery retry` makes an attempt now"));
            }
            confirm
                .ask(context, &format!("Deliver events since {since} to {endpoint} once more?"))?;
            let mut body = Map::new();
            add(&mut body, "since", Some(since.to_string()));
            add(&mut body, "until", until.map(|until| until.to_string()));
            add(&mut body, "status", status.map(Status::number));
            let made =
                client.post(&["app", app, "endpoint", &endpoint, "bulk-replay"], &body).await?;
            job::follow(&client, context, &made, no_wait).await
        }
        DeliveryAction::Cancel { endpoint, before, confirm } => {
            confirm.ask(
                context,
                &format!("Cancel what waits for {endpoint} and was accepted before {before}?"),
            )?;
            let body = json!({ "createdBefore": before.to_string() });
            client.post(&["app", app, "endpoint", &endpoint, "cancel-msgs"], &body).await?;
            output.note("cancelled: it may take a moment until the last one is");
            Ok(())
        }
        DeliveryAction::Jobs { id: Some(id), .. } => {
            output.thing(&job::COLUMNS, &client.get(&["background-task", &id], &[]).await?)
        }
        DeliveryAction::Jobs { id: None, options } => {
            options.run(&client, output, &["background-task"], &[], &job::COLUMNS).await
        }
    }
}

async fn show(
    client: &Client,
    context: &Context,
    (app, event): (&str, &str),
    endpoint: Option<String>,
) -> Result<(), Failure> {
    let poller = endpoint.as_deref().filter(|id| poller_attempts::is_poller(id));
    let (mut attempts, mut endpoints) = match poller {
        Some(_) => (Vec::new(), Vec::new()),
        None => at_endpoints(client, (app, event), endpoint.as_deref()).await?,
    };
    if poller.is_some() || endpoint.is_none() {
        let (more, pollers) = poller_attempts::of_event(client, (app, event), poller).await?;
        attempts.extend(more);
        endpoints.extend(pollers);
    }
    if context.output.is_json() {
        let found = json!({ "event": event, "deliveries": endpoints, "attempts": attempts });
        return Ok(context.output.json(&found)?);
    }
    context.output.rows(&ENDPOINTS, &endpoints)?;
    if !attempts.is_empty() {
        context.output.line("")?;
        context.output.rows(&ATTEMPTS, &attempts)?;
    }
    let failed = endpoints.iter().filter(|found| found["statusText"] == "fail");
    let mut failed = failed.filter_map(|found| found["id"].as_str());
    // Nothing is sent to a poller.
    if let Some(id) = failed.find(|id| !poller_attempts::is_poller(id)) {
        context.output.hint(format!(
            "once more: webhooks delivery retry {event} --endpoint {id} --app {app}"
        ));
    }
    Ok(())
}

/// Returns the attempts at an event, and the endpoints as they got it.
async fn at_endpoints(
    client: &Client,
    (app, event): (&str, &str),
    endpoint: Option<&str>,
) -> Result<(Vec<Value>, Vec<Value>), Failure> {
    let query: Vec<_> =
        endpoint.iter().map(|endpoint| ("endpoint_id", (*endpoint).to_owned())).collect();
    let attempts = client.list(&["app", app, "attempt", "msg", event], &query, 250).await?;
    let path = ["app", app, "msg", event, "endpoint"];
    let mut endpoints = client.list(&path, &[], 250).await?;
    name_statuses(&mut endpoints);
    if let Some(wanted) = endpoint {
        endpoints
            .retain(|found| [&found["id"], &found["uid"]].into_iter().any(|id| *id == *wanted));
    }
    Ok((attempts, endpoints))
}

/// Delivers events once more. One that cannot be does not stop the others.
async fn retry(
    client: &Client,
    context: &Context,
    (app, endpoint): (&str, &str),
    events: &[String],
) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for event in events {
        let path = ["app", app, "msg", event, "endpoint", endpoint, "resend"];
        match client.post(&path, &Value::Object(Map::new())).await {
            Ok(_accepted) => {
                context.output.note(format!("{event} is delivered to {endpoint} once more"));
            }
            Err(failure) => failures.push((event, failure)),
        }
    }
    match failures.len() {
        0 => Ok(()),
        1 if events.len() == 1 => Err(failures.swap_remove(0).1),
        failed => {
            for (event, failure) in failures {
                context.output.note(format!("{event}: {failure}"));
            }
            Err(Failure::new(Exit::Partly, format!("{failed} of {} were refused", events.len())))
        }
    }
}
