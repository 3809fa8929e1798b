//! `delivery`: what became of events at endpoints, and repair.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use webhooks_core::Timestamp;

use super::delivery_list::DeliveryFilter;
use super::delivery_repair::{MAX_NAMED, Repair, RepairArgs};
use super::delivery_tail::TailArgs;
use super::endpoint_health::Health;
use super::{job, poller_attempts};
use crate::application_option::ApplicationOption;
use crate::body::{name_of, name_statuses, waits};
use crate::client::Client;
use crate::context::Context;
use crate::failure::Failure;
use crate::list::ListOptions;
use crate::table::Column;
use crate::visible::visible;

/// The columns of the endpoints of an event.
pub(super) const ENDPOINTS: [Column; 5] = [
    Column("ENDPOINT", "/id"),
    Column("UID", "/uid"),
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

/// List and follow deliveries, show their attempts, and repeat or cancel them
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks delivery list status:failed endpoint:crm --app acme
  webhooks delivery tail --failed --app acme
  webhooks delivery show msg_2x --app acme
  webhooks delivery retry msg_2x --endpoint crm --app acme
  webhooks delivery replay --where 'status:failed endpoint:crm since:2h' --app acme")]
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
        before_help = "Examples:\n  webhooks delivery list status:failed --app acme\n  webhooks delivery list endpoint:crm code:5xx 'type:invoice.*' since:2h --app acme"
    )]
    List(DeliveryFilter),
    /// Print attempts as they end, until Ctrl-C
    #[command(
        before_help = "Examples:\n  webhooks delivery tail --app acme\n  webhooks delivery tail endpoint:crm --failed --app acme\n  webhooks delivery tail 'type:invoice.*' code:5xx since:10m --app acme --json"
    )]
    Tail(TailArgs),
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
    /// Make an attempt now at what failed, waits for its retry, or waits because its endpoint is held
    #[command(
        before_help = "Examples:\n  webhooks delivery retry msg_2x --endpoint crm --app acme\n  webhooks delivery retry --endpoint crm --app acme\n  webhooks delivery retry --where 'status:sending endpoint:crm' --rate 50/s --app acme"
    )]
    Retry(RepairArgs),
    /// Deliver once more what failed or was cancelled; --where works for many
    #[command(
        before_help = "Examples:\n  webhooks delivery replay msg_2x --app acme\n  webhooks delivery replay --where 'status:failed endpoint:crm since:2h' --dry-run --app acme\n  webhooks delivery replay --where 'code:503 since:2h' --rate 50/s --yes --app acme"
    )]
    Replay {
        #[command(flatten)]
        repair: RepairArgs,
        /// Return at once if the server does it by itself; the jobs go on
        #[arg(long)]
        no_wait: bool,
    },
    /// Cancel what waits
    #[command(
        before_help = "Examples:\n  webhooks delivery cancel msg_2x --endpoint crm --app acme\n  webhooks delivery cancel --where 'endpoint:crm until:1h' --app acme --yes"
    )]
    Cancel(RepairArgs),
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
    args.action.check()?;
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
        DeliveryAction::Tail(tail) => tail.run(&client, context, app).await,
        DeliveryAction::Retry(repair) => {
            repair.run(&client, context, (app, Repair::Retry, false)).await
        }
        DeliveryAction::Replay { repair, no_wait } => {
            repair.run(&client, context, (app, Repair::Replay, no_wait)).await
        }
        DeliveryAction::Cancel(repair) => {
            repair.run(&client, context, (app, Repair::Cancel, false)).await
        }
        DeliveryAction::Jobs { id: Some(id), .. } => {
            output.thing(&job::COLUMNS, &client.get(&["background-task", &id], &[]).await?)
        }
        DeliveryAction::Jobs { id: None, options } => {
            options.run(&client, output, &["background-task"], &[], &job::COLUMNS).await
        }
    }
}

impl DeliveryAction {
    /// Checks the query, before anything is asked of the server.
    fn check(&self) -> Result<(), Failure> {
        match self {
            Self::List(filter) => filter.query().map(drop),
            Self::Tail(tail) => tail.query().map(drop),
            Self::Retry(repair) => repair.query(Repair::Retry).map(drop),
            Self::Replay { repair, .. } => repair.query(Repair::Replay).map(drop),
            Self::Cancel(repair) => repair.query(Repair::Cancel).map(drop),
            Self::Show { .. } | Self::Jobs { .. } => Ok(()),
        }
    }
}

pub(crate) async fn show(
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
    let holds = find_holds(client, app, &mut endpoints).await;
    context.output.rows(&ENDPOINTS, &endpoints)?;
    if !attempts.is_empty() {
        context.output.line("")?;
        context.output.rows(&ATTEMPTS, &attempts)?;
    }
    for hold in holds {
        context.output.note(visible(&hold));
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

/// Returns the words about what holds back the deliveries that wait. Their next attempts are put off as long.
async fn find_holds(client: &Client, app: &str, endpoints: &mut [Value]) -> Vec<String> {
    let mut told = Vec::new();
    let waits_there = |found: &&mut Value| {
        waits(found) && !found["id"].as_str().is_some_and(poller_attempts::is_poller)
    };
    for found in endpoints.iter_mut().filter(waits_there).take(MAX_NAMED) {
        let id = found["id"].as_str().unwrap_or_default();
        let health = Health::find(client, app, id).await.filter(Health::holds);
        let Some(health) = health else { continue };
        told.push(format!("{} is {}", name_of(found), health.text(Timestamp::now())));
        let next = found["nextAttempt"].as_str().and_then(|next| next.parse::<Timestamp>().ok());
        let until = health.until().filter(|until| next.is_some_and(|next| next < *until));
        if let Some(until) = until {
            found["nextAttempt"] = json!(until.to_string());
        }
    }
    told
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
