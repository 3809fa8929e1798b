//! What goes on in the background: hearing of others' commits, and heartbeats.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use sqlx::postgres::PgListener;
use sqlx::{Executor as _, PgPool};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use webhooks_core::Timestamp;

use crate::error::{attempt, rest};
use crate::store::Shared;

/// How long to wait between two looks while nobody notifies us.
const POLL: Duration = Duration::from_secs(1);

/// How long to wait at most between two looks while notifications come: they tell of everything but
/// of what was not notified because nobody was there yet.
const LONG_POLL: Duration = Duration::from_secs(5);

/// How many heartbeats' time a connection may be silent before it is tried, and how long it may take to
/// answer: as long as workers wait for each other.
const SILENCE: u32 = 5;

/// Runs a task again when it panics, which is a bug: it costs a moment, and not the worker's leases.
pub(crate) async fn lasting<F: Future<Output = ()>>(task: impl Fn() -> F) {
    while AssertUnwindSafe(task()).catch_unwind().await.is_err() {
        rest(POLL).await;
    }
}

/// Wakes this process's worker when another process has committed something. Without a connection
/// to listen on, or before the first notification has come, it looks every second: a pooler may
/// accept a LISTEN and deliver nothing.
pub(crate) async fn listen(shared: Arc<Shared>, connect: Arc<impl Fn() -> PgPool>) {
    loop {
        if shared.workers.is_active() {
            let mut listening = pin!(start(connect()));
            let started = loop {
                match timeout(POLL, &mut listening).await {
                    Ok(started) => break started,
                    Err(_elapsed) => shared.wake(),
                }
            };
            if let Ok(listener) = started {
                hear(&shared, listener).await;
            }
        }
        rest(POLL).await;
        shared.wake();
    }
}

async fn start(pool: PgPool) -> Result<PgListener, sqlx::Error> {
    attempt(async {
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen("webhooks").await?;
        Ok(listener)
    })
    .await
}

/// Wakes the worker as long as it is one and the connection lives.
async fn hear(shared: &Shared, mut listener: PgListener) {
    // Something may have come before it listened.
    shared.wake();
    let patience = shared.workers.heartbeat() * SILENCE;
    let (mut poll, mut looked, mut heard) = (POLL, Instant::now(), Instant::now());
    while shared.workers.is_active() {
        let next = (looked + poll).min(heard + patience);
        match timeout_at(next, listener.try_recv()).await {
            Ok(Ok(Some(_))) => {
                // What has come meanwhile is one wake-up.
                while listener.next_buffered().is_some() {}
                poll = LONG_POLL;
                heard = Instant::now();
            }
            Err(_elapsed) if Instant::now() < looked + poll => {
                // Silence may be that of a network that dropped the connection without a word.
                match timeout(patience, (&mut listener).execute("SELECT 1")).await {
                    Ok(Ok(_)) => heard = Instant::now(),
                    Ok(Err(_)) | Err(_) => return,
                }
                continue;
            }
            Err(_elapsed) => {}
            // The connection is gone.
            Ok(Ok(None) | Err(_)) => return,
        }
        looked = Instant::now();
        shared.wake();
    }
}

/// Says every other second that this worker lives, while it does.
pub(crate) async fn beat(shared: Arc<Shared>) {
    let mut ticks = interval(shared.workers.heartbeat());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let outcome = if shared.workers.is_active() && !shared.workers.has_ended() {
            attempt(shared.workers.beat(&shared)).await
        } else {
            attempt(shared.workers.leave(&shared)).await.map(|()| false)
        };
        // If it fails for long, claims fail too, and tell.
        if outcome.unwrap_or(true) {
            shared.wake();
        }
    }
}

/// Hands back what the worker does not take in time.
pub(crate) async fn tidy(shared: Arc<Shared>) {
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.tidy(Timestamp::now()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_goes_on() {
        let runs = AtomicU32::new(0);
        let run = || async {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            assert!(run == 2, "a bug");
        };
        lasting(run).await;
        assert_eq!(runs.into_inner(), 3);
    }
}
