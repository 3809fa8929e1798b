//! The wait for the deliveries of an event.

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use crate::body::name_statuses;
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::table::Column;

/// The pause between two looks at the deliveries.
const PAUSE: Duration = Duration::from_millis(200);

const COLUMNS: [Column; 4] = [
    Column("ENDPOINT", "/id"),
    Column("URL", "/url"),
    Column("STATUS", "/statusText"),
    Column("NEXT ATTEMPT", "/nextAttempt"),
];

/// The options for what follows the publishing.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Follow {
    /// Wait until no delivery of it is pending, and fail if one failed
    #[arg(long)]
    wait: bool,
    /// Longest time to wait
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "wait", value_parser = humantime::parse_duration)]
    within: Duration,
}

impl Follow {
    /// Waits, if it is asked to, until all deliveries of the event that was accepted have ended.
    pub(crate) async fn run(
        self,
        client: &Client,
        context: &Context,
        app: &str,
        accepted: &Value,
    ) -> Result<(), Failure> {
        let event = accepted["id"].as_str().unwrap_or_default();
        if !self.wait {
            context
                .output
                .hint(format!("what became of it: webhooks delivery show {event} --app {app}"));
            return Ok(());
        }
        context.interruption.advise(format!(
            "the event is accepted; what becomes of it: webhooks delivery show {event} --app {app}"
        ));
        let start = SystemClock.monotonic();
        let path = ["app", app, "msg", event, "endpoint"];
        loop {
            let mut found = client.list(&path, &[], usize::MAX).await?;
            name_statuses(&mut found);
            let (waiting, all) = (found.iter().filter(|found| waits(found)).count(), found.len());
            let is_over = SystemClock.monotonic().saturating_since(start) >= self.within;
            if waiting == 0 || is_over {
                context.output.end_progress();
                context.output.rows(&COLUMNS, &found)?;
                return end(context, waiting, &found);
            }
            context.output.progress(format!("{} of {all} have ended", all - waiting));
            SystemClock.sleep(PAUSE).await;
        }
    }
}

fn waits(found: &Value) -> bool {
    matches!(found["statusText"].as_str(), Some("pending" | "sending"))
}

fn end(context: &Context, waiting: usize, found: &[Value]) -> Result<(), Failure> {
    let (all, failed) =
        (found.len(), found.iter().filter(|found| found["statusText"] != "success").count());
    if waiting > 0 {
        return Err(Failure::new(Exit::TimedOut, format!("{waiting} of {all} still wait")));
    }
    if failed > 0 {
        return Err(Failure::new(Exit::Failed, format!("{failed} of {all} were not delivered")));
    }
    if all == 0 {
        context.output.note("no endpoint wants this event");
    }
    Ok(())
}
