//! The tasks in the background: listening for commits of other processes, heartbeats, and releasing
//! preclaimed deliveries in time.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use sqlx::postgres::{PgListener, PgNotification};
use sqlx::{Executor as _, PgPool};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use webhooks_core::Timestamp;

use crate::call::{pause, with_timeout};
use crate::membership::EXPIRY;
use crate::row;
use crate::state::PostgresInner;

/// The interval in which the worker asks the database while no notifications come.
const POLL: Duration = Duration::from_secs(1);

/// The interval in which the worker asks the database while notifications come. None comes for
/// retries, for changes of endpoints, for leases that end, for deliveries that are released because
/// an answer was lost, and for commits before this worker joined.
const LONG_POLL: Duration = Duration::from_secs(5);

/// The least share of its time that the worker does not read all endpoints, in multiples of a read:
/// the more endpoints wait, the more seldom it asks without a notification.
const READ_SHARE: u32 = 20;
const LONGEST_POLL: Duration = Duration::from_secs(30);

/// The time, in heartbeats, that the connection may be silent before it is tested, and that the
/// test may take: the same after which workers count each other as dead.
const SILENCE: u32 = EXPIRY;

/// Runs a task again when it panics, which is a bug. So a panic costs a moment, and not the leases
/// of the worker.
pub(crate) async fn lasting<F: Future<Output = ()>>(task: impl Fn() -> F) {
    while AssertUnwindSafe(task()).catch_unwind().await.is_err() {
        pause(POLL).await;
    }
}

/// Wakes this process's worker when another process has committed something. Without a connection
/// to listen on, or before the first notification has come, it wakes the worker every second: a
/// pooler may accept a LISTEN and deliver nothing.
pub(crate) async fn listen(inner: Arc<PostgresInner>, connect: Arc<impl Fn() -> PgPool>) {
    loop {
        if inner.membership.is_active() {
            let mut listening = pin!(start(connect()));
            let started = loop {
                match timeout(POLL, &mut listening).await {
                    Ok(started) => break started,
                    Err(_elapsed) => inner.wake(),
                }
            };
            if let Ok(listener) = started {
                hear(&inner, listener).await;
            }
        }
        pause(POLL).await;
        inner.wake();
    }
}

async fn start(pool: PgPool) -> Result<PgListener, sqlx::Error> {
    with_timeout(async {
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen("webhooks").await?;
        Ok(listener)
    })
    .await
}

/// Wakes the worker as long as it is active and the connection works.
async fn hear(inner: &PostgresInner, mut listener: PgListener) {
    // Something may have been committed before the LISTEN.
    inner.wake();
    let silence = inner.membership.heartbeat() * SILENCE;
    let (mut poll, mut woken, mut heard) = (POLL, Instant::now(), Instant::now());
    while inner.membership.is_active() {
        let until_poll = poll.max((inner.read_time() * READ_SHARE).min(LONGEST_POLL));
        let next = (woken + until_poll).min(heard + silence);
        match timeout_at(next, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => {
                // All notifications that have come meanwhile are one wake-up.
                note(inner, &notification);
                while let Some(notification) = listener.next_buffered() {
                    note(inner, &notification);
                }
                poll = LONG_POLL;
                heard = Instant::now();
                if heard < woken + until_poll {
                    inner.notifier.notify();
                    continue;
                }
            }
            Err(_elapsed) if Instant::now() < woken + until_poll => {
                // The network may have dropped the connection without closing it.
                match timeout(silence, (&mut listener).execute("SELECT 1")).await {
                    Ok(Ok(_)) => heard = Instant::now(),
                    Ok(Err(_)) | Err(_) => return,
                }
                continue;
            }
            Err(_elapsed) => {}
            // The connection is gone.
            Ok(Ok(None) | Err(_)) => return,
        }
        woken = Instant::now();
        inner.wake();
    }
}

/// Notes the endpoints that another process has something for. Without any, all may have something.
fn note(inner: &PostgresInner, notification: &PgNotification) {
    if notification.payload() == "probe" {
        inner.probes_asked.notify_one();
        return;
    }
    let mut known = inner.known_due();
    let mut endpoints = notification.payload().split_ascii_whitespace().peekable();
    if endpoints.peek().is_none() {
        known.forget();
    }
    for endpoint in endpoints {
        match endpoint.parse() {
            // Its due time is not known, and the claim finds it.
            Ok(endpoint) => known.note(row::endpoint_number(endpoint), Timestamp::UNIX_EPOCH),
            Err(_) => known.forget(),
        }
    }
}

/// Sends heartbeats while the worker is active, and leaves the members when it is not. After each heartbeat, and
/// when a notification tells of one, it reads which probes other processes ask for.
pub(crate) async fn beat(inner: Arc<PostgresInner>) {
    let mut ticks = interval(inner.membership.heartbeat());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut probed = BTreeSet::new();
    loop {
        tokio::select! {
            _tick = ticks.tick() => send_heartbeat(&inner).await,
            () = inner.probes_asked.notified() => {}
        }
        // If that fails, the next heartbeat finds them.
        if inner.membership.is_active()
            && let Ok(asked) = with_timeout(inner.probes_of_others()).await
        {
            probe(&inner, asked, &mut probed);
        }
    }
}

async fn send_heartbeat(inner: &PostgresInner) {
    let outcome = if inner.membership.is_active() && !inner.membership.has_ended() {
        with_timeout(inner.membership.beat(&inner.database)).await
    } else {
        with_timeout(inner.membership.leave(&inner.database)).await.map(|()| false)
    };
    // A heartbeat that fails is not reported: if that lasts, claims fail too, and report it.
    if outcome.unwrap_or(true) {
        inner.wake();
    }
}

/// Has this process's worker probe what others ask for and it has not probed yet.
fn probe(inner: &PostgresInner, asked: Vec<(i64, Vec<i64>)>, probed: &mut BTreeSet<i64>) {
    let ids = asked.iter().map(|(id, _)| *id).collect();
    let before = std::mem::replace(probed, ids);
    let new = asked.into_iter().filter(|(id, _)| !before.contains(id));
    let endpoints: Vec<i64> = new.flat_map(|(_, endpoints)| endpoints).collect();
    if !endpoints.is_empty() {
        inner.probe(&endpoints);
    }
}

/// Releases the preclaimed deliveries that the worker does not take in time.
pub(crate) async fn release_stale(inner: Arc<PostgresInner>) {
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        inner.release_stale(Timestamp::now()).await;
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
