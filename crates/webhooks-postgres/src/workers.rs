//! The workers that share the work: who lives, and who this one is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use webhooks_dispatch::store::Claim;

use crate::row;
use crate::store::Shared;

/// After how many heartbeats without one a worker is taken for dead.
const EXPIRY: u32 = 5;

/// How long a worker that shows no sign of work stays one, at least: longer than an engine that has
/// nothing to do takes between two claims. One whose claims last longer stays one as long as they do.
const IDLE: Duration = Duration::from_mins(1);

/// This process as a worker among others.
#[derive(Debug)]
pub(crate) struct Workers {
    pub(crate) id: i64,
    heartbeat: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: Arc<[i64]>,
    /// When the others last heard of this one.
    seen: Option<Instant>,
    /// When it last claimed, or showed otherwise that it works.
    worked: Option<Instant>,
    /// How long its claims last.
    lease: Duration,
    /// What it has claimed and not settled, and when that ends at the latest. Others may not have its
    /// share before.
    held: BTreeMap<Claim, Instant>,
    /// Whether it was told to end, and has claimed nothing since.
    ends: bool,
}

impl Workers {
    pub(crate) fn new(heartbeat: Duration) -> Self {
        let state = Mutex::new(State::default());
        Self { id: fastrand::i64(1 << 32..1 << 62), heartbeat, state }
    }

    /// Returns how long to wait between two heartbeats.
    pub(crate) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// Returns the workers that share the work if this one is among them, and nobody if it has no
    /// share yet; joins them with the first call, and again after it was cut off.
    pub(crate) async fn join(&self, shared: &Shared) -> Result<Arc<[i64]>, sqlx::Error> {
        let is_fresh = {
            let mut state = self.state();
            state.worked = Some(Instant::now());
            state.ends = false;
            self.is_fresh(&state)
        };
        if !is_fresh {
            self.beat(shared).await?;
        }
        let state = self.state();
        let is_member = state.members.contains(&self.id);
        Ok(if is_member { Arc::clone(&state.members) } else { Arc::default() })
    }

    /// Notes how long this worker's claims last.
    pub(crate) fn lease(&self, lease: Duration) {
        self.state().lease = lease;
    }

    /// Notes that this worker, if it is one, settles or extends what it has claimed: it stays one
    /// although it has no room for more.
    pub(crate) fn work(&self) {
        let mut state = self.state();
        state.worked = state.worked.map(|_| Instant::now());
    }

    /// Notes what was claimed for it, or that it has that for longer.
    pub(crate) fn hold(&self, claims: impl IntoIterator<Item = Claim>, lease: Duration) {
        let until = Instant::now() + lease;
        self.state().held.extend(claims.into_iter().map(|claim| (claim, until)));
    }

    /// Notes what was claimed for it just now.
    pub(crate) fn hold_claimed(&self, claims: impl IntoIterator<Item = Claim>) {
        let lease = self.state().lease;
        self.hold(claims, lease);
    }

    /// Notes what was settled, or is not its own any more.
    pub(crate) fn let_go(&self, claims: &[Claim]) {
        let mut state = self.state();
        for claim in claims {
            state.held.remove(claim);
        }
    }

    /// Notes that it claims nothing more.
    pub(crate) fn end(&self) {
        self.state().ends = true;
    }

    /// Returns whether it was told to end and has nothing left to settle.
    pub(crate) fn has_ended(&self) -> bool {
        let (state, now) = (self.state(), Instant::now());
        state.ends && state.held.values().all(|until| *until <= now)
    }

    /// Returns whether this worker shares the work with nobody; `None` if it has no share itself.
    pub(crate) fn is_alone(&self) -> Option<bool> {
        let state = self.state();
        let is_member = self.is_fresh(&state) && state.members.contains(&self.id);
        is_member.then_some(state.members.len() == 1)
    }

    /// Returns whether the others still count on this worker, as far as it can know.
    fn is_fresh(&self, state: &State) -> bool {
        state.seen.is_some_and(|seen| seen.elapsed() < self.heartbeat * (EXPIRY - 1))
    }

    /// Returns whether this process claims or has claims, and its heart should beat.
    pub(crate) fn is_active(&self) -> bool {
        let state = self.state();
        state.worked.is_some_and(|worked| worked.elapsed() < IDLE.max(state.lease))
    }

    /// Says that this worker lives; returns whether the others have changed.
    pub(crate) async fn beat(&self, shared: &Shared) -> Result<bool, sqlx::Error> {
        const BEAT: &str = "SELECT webhooks.heartbeat($1, $2 * interval '1 microsecond',
            $3 * interval '1 microsecond')";
        let now = Instant::now();
        let mut call = shared.call().await?;
        let members: Vec<i64> = sqlx::query_scalar(BEAT)
            .persistent(false)
            .bind(self.id)
            .bind(row::micros(self.heartbeat))
            .bind(row::micros(self.heartbeat * EXPIRY))
            .fetch_one(call.on())
            .await?;
        call.end().await?;
        let mut state = self.state();
        state.seen = Some(now);
        // What was given up without a word, as by a worker that was dropped.
        state.held.retain(|_, until| *until > now);
        let has_changed = *state.members != *members;
        if has_changed {
            state.members = members.into();
        }
        Ok(has_changed)
    }

    /// Leaves the others at once, if it had joined them.
    pub(crate) async fn leave(&self, shared: &Shared) -> Result<(), sqlx::Error> {
        const LEAVE: &str = "WITH gone AS (DELETE FROM webhooks.workers WHERE id = $1)
            SELECT webhooks.notify_others($1)";
        if std::mem::take(&mut *self.state()).seen.is_some() {
            let mut call = shared.call().await?;
            sqlx::query(LEAVE).persistent(false).bind(self.id).execute(call.on()).await?;
            call.end().await?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;
    use webhooks_core::{DeliveryId, Timestamp};
    use webhooks_dispatch::{
        clock::{Clock as _, Now, SystemClock},
        store::{DeliveryStore as _, Outcome, Settlement},
    };

    use super::*;
    use crate::{PostgresOptions, PostgresStore};

    fn now() -> Now {
        SystemClock.clocks()
    }

    /// Returns a store without a server.
    fn unreachable() -> PostgresStore {
        let options = PostgresOptions::new("postgres://nobody@127.0.0.1:1/none").unwrap();
        let pool = options.reading_pool();
        PostgresStore::start(options, pool, Vec::new())
    }

    /// Goal: a worker whose lanes are full stays one as long as it works. Method: it claims once, and
    /// then only settles and extends, each a little before it would count as idle.
    #[tokio::test(start_paused = true)]
    async fn a_worker_that_only_settles_or_extends_stays_one() {
        let store = unreachable();
        let workers = &store.shared.workers;
        store.extend(Vec::new(), IDLE, now()).await.unwrap_err();
        assert!(!workers.is_active(), "it never claimed");
        workers.join(&store.shared).await.unwrap_err();
        let claim = Claim { delivery: DeliveryId::from_u64(1), token: 1 };
        let settlement = Settlement { claim, outcome: Outcome::Delivered, attempt: None };
        // The calls, which fail, take their time too.
        let nearly = IDLE * 3 / 4;
        for _ in 0..3 {
            advance(nearly).await;
            assert!(workers.is_active());
            store.extend(vec![claim], IDLE, now()).await.unwrap_err();
            advance(nearly).await;
            assert!(workers.is_active());
            store.settle(vec![settlement.clone()], Timestamp::now()).await.unwrap_err();
        }
        advance(IDLE).await;
        assert!(!workers.is_active());
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_stays_one_as_long_as_its_claims_last() {
        let store = unreachable();
        let workers = &store.shared.workers;
        workers.lease(IDLE * 3);
        workers.join(&store.shared).await.unwrap_err();
        advance(IDLE * 2).await;
        assert!(workers.is_active());
        advance(IDLE).await;
        assert!(!workers.is_active());
    }

    /// Goal: a worker that was told to end does so when all is settled or lost, and at the latest when
    /// the leases end.
    #[tokio::test(start_paused = true)]
    async fn a_worker_ends_with_its_last_claim() {
        let workers = Workers::new(IDLE);
        let claim = |number| Claim { delivery: DeliveryId::from_u64(number), token: 1 };
        workers.hold([1, 2].map(claim), IDLE);
        assert!(!workers.has_ended());
        workers.end();
        workers.let_go(&[claim(1)]);
        assert!(!workers.has_ended());
        advance(IDLE / 2).await;
        workers.hold([claim(2)], IDLE);
        advance(IDLE * 3 / 4).await;
        assert!(!workers.has_ended(), "its claim was extended");
        advance(IDLE / 4).await;
        assert!(workers.has_ended());
    }
}
