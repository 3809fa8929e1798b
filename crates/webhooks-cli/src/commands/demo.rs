//! `demo`: the promises of the service, shown and checked in a few seconds.

mod child;
mod promises;
mod receivers;
mod stage;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tempfile::TempDir;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use crate::context::Context;
use crate::failure::{Exit, Failure};

use child::Service;
use promises::{Promise, Story};
use stage::Stage;

/// Show on this machine that failures and a crash lose nothing
///
/// It starts a service on a temporary file and three receivers, publishes events, kills the service in the middle of
/// a delivery, starts it again, and checks what came to the receivers.
/// It ends by itself, and leaves nothing behind.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks demo
  webhooks demo --events 200 --fast
  webhooks demo --keep --seed 7")]
pub(crate) struct DemoArgs {
    /// Leave the folder with the database, the key and the log of the service
    #[arg(long)]
    keep: bool,
    /// Events to publish, 1 to 1000
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    events: u32,
    /// Seed of the payloads and of the moment of the kill; a random one by default
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Publish and try again without pauses
    #[arg(long)]
    fast: bool,
}

pub(crate) async fn run(args: DemoArgs, context: &Context) -> Result<(), Failure> {
    let mut signals = context.interruption.take();
    let folder = Folder::new(args.keep)?;
    let mut service = Service::new(&folder.path);
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..10_000));
    let start = SystemClock.monotonic();
    let stage = Stage { output: context.output, events: args.events, seed, is_fast: args.fast };
    let outcome = tokio::select! {
        outcome = stage.play(&mut service) => outcome,
        () = signals.next() => Err(Failure::new(Exit::Interrupted, "interrupted")),
    };
    context.output.end_progress();
    // Before the folder is removed, in which it writes.
    service.kill().await?;
    let told = outcome.and_then(|story| {
        let took = SystemClock.monotonic().saturating_since(start);
        tell(context, &story, &folder, (seed, took))
    });
    folder.close(context)?;
    told
}

/// Prints what happened, and fails if a promise did not hold.
fn tell(
    context: &Context,
    story: &Story,
    folder: &Folder,
    (seed, took): (u64, Duration),
) -> Result<(), Failure> {
    let (output, promises) = (context.output, story.promises());
    let total = story.accepted.len();
    let (steady, flaky) = (story.taken(&story.steady), story.taken(&story.flaky));
    let refused = story.flaky.iter().filter(|arrival| !arrival.is_taken).count();
    let repeated = Story::repeated(&story.steady) + Story::repeated(&story.flaky);
    if output.is_json() {
        output.json(&json!({
            "events": total, "steady": steady, "flaky": flaky, "refused": refused, "repeated": repeated,
            "waitingForDead": story.dead.waiting, "attemptsAtDead": story.dead.attempts, "p99Ms": millis(story.p99()), "promises": promises,
            "seed": seed, "tookMs": millis(took), "folder": folder.is_kept.then_some(&folder.path),
        }))?;
    } else {
        output.line(format!(
            "[5] {total} events: steady {steady}/{total}, flaky {flaky}/{total} after {refused} refusals, dead 0/{total}; {repeated} came twice"
        ))?;
        for Promise { name, holds, found } in &promises {
            let mark = if *holds { "ok    " } else { "BROKEN" };
            output.line(format!("{mark} {name}: {found}"))?;
        }
    }
    let broken: Vec<_> = promises.iter().filter(|promise| !promise.holds).collect();
    if !broken.is_empty() {
        let broken: Vec<_> = broken.into_iter().map(|broken| broken.name).collect();
        return Err(Failure::new(
            Exit::CheckFailed,
            format!("a promise did not hold: {}", broken.join("; ")),
        )
        .hint(format!(
            "`webhooks demo --keep --seed {seed}` leaves the database and the log of the service"
        )));
    }
    if !output.is_json() {
        output.line(format!("every promise held, after {:.1} s", took.as_secs_f64()))?;
    }
    output.note(format!(
        "a service of your own: webhooks serve --dev\nthis demo again, with its files left: webhooks demo --keep --seed {seed}"
    ));
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The folder of the demo. It is removed when it is dropped, unless it is to be kept.
struct Folder {
    path: PathBuf,
    is_kept: bool,
    temporary: Option<TempDir>,
}

impl Folder {
    fn new(is_kept: bool) -> Result<Self, Failure> {
        let made = tempfile::Builder::new().prefix("webhooks-demo-").tempdir();
        let made = made.map_err(|error| {
            Failure::file("make a folder in", std::env::temp_dir().display(), error)
                .hint("TMPDIR names another folder")
        })?;
        let path = made.path().to_owned();
        let temporary = if is_kept {
            let _kept = made.keep();
            None
        } else {
            Some(made)
        };
        Ok(Self { path, is_kept, temporary })
    }

    /// Removes the folder, or says where it is.
    fn close(self, context: &Context) -> Result<(), Failure> {
        let path = self.path.display();
        match self.temporary {
            Some(folder) => folder.close().map_err(|error| Failure::file("remove", path, error)),
            None => {
                context.output.note(format!(
                    "kept: {path}\nits service again: webhooks serve --dev --database {path}/webhooks.db, with the key in {path}/key"
                ));
                Ok(())
            }
        }
    }
}
