//! The membership of this process among the workers that share the work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use webhooks_dispatch::store::Claim;

use crate::call::Database;
use crate::row;

/// The number of heartbeats without one after which the others count a worker as dead.
pub(crate) const EXPIRY: u32 = 5;

/// The least time that a worker without any sign of work stays a member: longer than the time
/// between two claims of an engine that has nothing to do. A worker with longer leases stays as
/// long as they last.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// This process as a worker among others.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) id: i64,
    heartbeat: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The workers that share the work, as the last heartbeat returned them.
    members: Arc<[i64]>,
    /// The start of the last heartbeat that succeeded.
    seen: Option<Instant>,
    /// The time of the last claim, or of another sign of work.
    worked: Option<Instant>,
    /// The length of the leases that the worker asks for.
    lease: Duration,
    /// The unsettled claims, each with the latest end of its lease. While one lasts, an ending
    /// worker stays a member, so that no other worker takes its share.
    claims: BTreeMap<Claim, Instant>,
    /// Whether the worker is to end, and has claimed nothing since.
    is_ending: bool,
}

impl Membership {
    pub(crate) fn new(heartbeat: Duration) -> Self {
        // `share::rank` and `webhooks.may_serve` take the factor of a worker from the bits above
        // the 31st. Smaller ids would all have the same factor, and so every endpoint nearly the
        // same order of workers.
        let id = fastrand::i64(1 << 32..1 << 62);
        Self { id, heartbeat, state: Mutex::new(State::default()) }
    }

    /// Returns the interval between two heartbeats.
    pub(crate) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// Returns the members, or none while this worker is not one of them. If its last heartbeat is
    /// old or missing, it sends one first, which also joins. The call is a sign of work, and a
    /// worker that was to end goes on.
    pub(crate) async fn members(&self, database: &Database) -> Result<Arc<[i64]>, sqlx::Error> {
        let is_fresh = {
            let mut state = self.state();
            state.worked = Some(Instant::now());
            state.is_ending = false;
            self.is_fresh(&state)
        };
        if !is_fresh {
            self.beat(database).await?;
        }
        let state = self.state();
        let is_member = state.members.contains(&self.id);
        Ok(if is_member { Arc::clone(&state.members) } else { Arc::default() })
    }

    /// Notes the length of the leases that the worker asks for.
    pub(crate) fn record_lease(&self, lease: Duration) {
        self.state().lease = lease;
    }

    /// Notes that the worker settles or extends its claims: it stays a member although it has no
    /// room for more. A process that never claimed does not become one.
    pub(crate) fn record_work(&self) {
        let mut state = self.state();
        state.worked = state.worked.map(|_| Instant::now());
    }

    /// Notes claims whose leases begin now, with the length that the worker asks for.
    pub(crate) fn record_claims(&self, claims: impl IntoIterator<Item = Claim>) {
        let lease = self.state().lease;
        self.record_leases(claims, lease);
    }

    /// Notes claims whose leases last for `lease` from now on.
    pub(crate) fn record_leases(&self, claims: impl IntoIterator<Item = Claim>, lease: Duration) {
        let until = Instant::now() + lease;
        self.state().claims.extend(claims.into_iter().map(|claim| (claim, until)));
    }

    /// Removes claims that were settled or lost.
    pub(crate) fn remove_claims(&self, claims: &[Claim]) {
        let mut state = self.state();
        for claim in claims {
            state.claims.remove(claim);
        }
    }

    /// Notes that the worker claims nothing more.
    pub(crate) fn end(&self) {
        self.state().is_ending = true;
    }

    /// Returns whether the worker is to end and has nothing left to settle.
    pub(crate) fn has_ended(&self) -> bool {
        let (state, now) = (self.state(), Instant::now());
        state.is_ending && state.claims.values().all(|until| *until <= now)
    }

    /// Returns whether this worker is the only member; `None` if it is no member.
    pub(crate) fn is_alone(&self) -> Option<bool> {
        let state = self.state();
        let is_member = self.is_fresh(&state) && state.members.contains(&self.id);
        is_member.then_some(state.members.len() == 1)
    }

    /// Returns whether the others still count this worker as alive, as far as it can know.
    ///
    /// One heartbeat of margin: this worker stops claiming before the others take its share. `seen`
    /// is the start of the heartbeat's call, which is earlier than the time that the server noted.
    fn is_fresh(&self, state: &State) -> bool {
        state.seen.is_some_and(|seen| seen.elapsed() < self.heartbeat * (EXPIRY - 1))
    }

    /// Returns whether this process claims or has claims, and needs heartbeats.
    pub(crate) fn is_active(&self) -> bool {
        let state = self.state();
        state.worked.is_some_and(|worked| worked.elapsed() < IDLE_TIMEOUT.max(state.lease))
    }

    /// Sends a heartbeat; returns whether the members have changed.
    pub(crate) async fn beat(&self, database: &Database) -> Result<bool, sqlx::Error> {
        const BEAT: &str = "SELECT webhooks.heartbeat($1, $2 * interval '1 microsecond',
            $3 * interval '1 microsecond')";
        let now = Instant::now();
        let mut call = database.call().await?;
        let members: Vec<i64> = sqlx::query_scalar(BEAT)
            .persistent(false)
            .bind(self.id)
            .bind(row::micros(self.heartbeat))
            .bind(row::micros(self.heartbeat * EXPIRY))
            .fetch_one(call.connection())
            .await?;
        call.commit().await?;
        let mut state = self.state();
        state.seen = Some(now);
        // Claims that nobody settled, such as those of a worker that was dropped.
        state.claims.retain(|_, until| *until > now);
        let has_changed = *state.members != *members;
        if has_changed {
            state.members = members.into();
        }
        Ok(has_changed)
    }

    /// Leaves the members at once, if this worker had joined them.
    pub(crate) async fn leave(&self, database: &Database) -> Result<(), sqlx::Error> {
        const LEAVE: &str = "WITH gone AS (DELETE FROM webhooks.workers WHERE id = $1)
            SELECT webhooks.notify_others($1)";
        if std::mem::take(&mut *self.state()).seen.is_some() {
            let mut call = database.call().await?;
            sqlx::query(LEAVE).persistent(false).bind(self.id).execute(call.connection()).await?;
            call.commit().await?;
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
    use webhooks_core::DeliveryId;

    use super::*;
    use crate::PostgresOptions;

    #[tokio::test(start_paused = true)]
    async fn a_worker_stays_one_as_long_as_its_claims_last() {
        let database =
            PostgresOptions::new("postgres://nobody@127.0.0.1:1/none").unwrap().database();
        let membership = Membership::new(Duration::from_secs(2));
        membership.record_lease(IDLE_TIMEOUT * 3);
        membership.members(&database).await.unwrap_err();
        advance(IDLE_TIMEOUT * 2).await;
        assert!(membership.is_active());
        advance(IDLE_TIMEOUT).await;
        assert!(!membership.is_active());
    }

    /// Goal: a worker that is to end does so when all its claims are settled or lost, and at the
    /// latest when the leases end.
    #[tokio::test(start_paused = true)]
    async fn a_worker_ends_with_its_last_claim() {
        let membership = Membership::new(IDLE_TIMEOUT);
        let claim = |number| Claim { delivery: DeliveryId::from_u64(number), token: 1 };
        membership.record_leases([1, 2].map(claim), IDLE_TIMEOUT);
        assert!(!membership.has_ended());
        membership.end();
        membership.remove_claims(&[claim(1)]);
        assert!(!membership.has_ended());
        advance(IDLE_TIMEOUT / 2).await;
        membership.record_leases([claim(2)], IDLE_TIMEOUT);
        advance(IDLE_TIMEOUT * 3 / 4).await;
        assert!(!membership.has_ended(), "its claim was extended");
        advance(IDLE_TIMEOUT / 4).await;
        assert!(membership.has_ended());
    }
}
