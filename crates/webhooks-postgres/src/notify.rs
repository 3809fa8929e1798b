//! What goes on in the background: hearing of others' commits, and heartbeats.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::time::{MissedTickBehavior, interval, timeout};
use webhooks_core::Timestamp;

use crate::error::{attempt, rest};
use crate::store::Shared;

/// How long to wait between two looks while nobody notifies us.
const POLL: Duration = Duration::from_secs(1);

/// How long to wait at most between two looks while notifications come: they tell of everything but
/// of what was not notified because nobody was there yet.
const LONG_POLL: Duration = Duration::from_secs(5);

/// Wakes this process's worker when another process has committed something. Without a connection
/// to listen on, or before the first notification has come, it looks every second: a pooler may
/// accept a LISTEN and deliver nothing.
pub(crate) async fn listen(shared: Arc<Shared>, pool: PgPool) {
    loop {
        if shared.workers.is_active()
            && let Ok(mut listener) = PgListener::connect_with(&pool).await
            && attempt(listener.listen("webhooks")).await.is_ok()
        {
            // Something may have come before it listened.
            shared.wake();
            let mut poll = POLL;
            while shared.workers.is_active() {
                match timeout(poll, listener.try_recv()).await {
                    Ok(Ok(Some(_))) => {
                        // What has come meanwhile is one wake-up.
                        while listener.next_buffered().is_some() {}
                        poll = LONG_POLL;
                    }
                    Err(_elapsed) => {}
                    // The connection is gone.
                    Ok(Ok(None) | Err(_)) => break,
                }
                shared.wake();
            }
        }
        rest(POLL).await;
        shared.wake();
    }
}

/// Says every other second that this worker lives, while it does.
pub(crate) async fn beat(shared: Arc<Shared>) {
    let mut ticks = interval(shared.workers.heartbeat());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let outcome = if shared.workers.is_active() {
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
