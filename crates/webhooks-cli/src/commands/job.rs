//! Jobs of the service: shown, and followed to their end.

use std::time::Duration;

use serde_json::Value;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::outage::outlast;
use crate::table::Column;

/// The pause between two looks at a job.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

pub(crate) const COLUMNS: [Column; 6] = [
    Column("ID", "/id"),
    Column("WORK", "/task"),
    Column("STATUS", "/status"),
    Column("DELIVERIES", "/data/deliveries"),
    Column("ERROR", "/data/error"),
    Column("UPDATED", "/updatedAt"),
];

/// Waits until the job ends, and shows its progress meanwhile.
pub(crate) async fn follow(
    client: &Client,
    context: &Context,
    job: &Value,
    no_wait: bool,
) -> Result<(), Failure> {
    let id = job["id"].as_str().unwrap_or_default();
    if no_wait {
        context.output.thing(&COLUMNS, job)?;
        context.output.hint(format!("its progress: webhooks delivery jobs {id}"));
        return Ok(());
    }
    context
        .interruption
        .advise(format!("the job goes on; its progress: webhooks delivery jobs {id}"));
    if !context.output.is_watched {
        context.output.note(format!("job {id} runs, also if this command is interrupted"));
    }
    loop {
        let get = async || client.get(&["background-task", id], &[]).await;
        let found = outlast(context.output, get).await?;
        let done = found["data"]["deliveries"].as_u64().unwrap_or_default();
        if found["status"] == "running" {
            context
                .output
                .progress(format!("{id}: {done} deliveries so far (Ctrl-C leaves it running)"));
            SystemClock.sleep(PAUSE).await;
            continue;
        }
        context.output.end_progress();
        context.output.thing(&COLUMNS, &found)?;
        return if found["status"] == "finished" {
            Ok(())
        } else {
            Err(Failure::new(Exit::Failed, format!("job {id} failed")))
        };
    }
}
