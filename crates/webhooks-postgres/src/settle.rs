//! Settling: the outcomes of claimed deliveries, and the attempts that were made. Extending leases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use webhooks_core::Timestamp;
use webhooks_dispatch::{
    clock::Now,
    figures::FigureKind,
    store::{Attempt, Claim, Failing, Health, Outcome, Settled, Settlement, StoreError},
    transport::ErrorClass,
};

use crate::call::{with_retries, with_timeout};
use crate::error::store_error;
use crate::row::{self, At, without_nul};
use crate::state::PostgresInner;

/// A settlement that was recorded, since its claim held.
struct Recorded {
    endpoint: i64,
    /// The failures of the endpoint before the whole batch.
    failing: Option<Failing>,
    is_ordered: bool,
}

impl PostgresInner {
    pub(crate) async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        // Tried once: the engine tries again by itself, with fewer settlements at a time.
        let record = with_timeout(self.record_settlements(&settlements, now));
        // A failed call may be committed all the same: its answer was lost.
        let recorded = record.await.inspect_err(|_| self.known_due().forget());
        let recorded = recorded.map_err(store_error)?;
        // Something may be due now or later: a released delivery, one that is tried again, or the
        // next one of an ordered endpoint.
        let may_be_due = |(index, recorded): (&usize, &Recorded)| {
            let endpoint = row::endpoint_number(recorded.endpoint);
            match settlements.get(*index)?.outcome {
                Outcome::Retrying { due_at } => Some((endpoint, Some(due_at))),
                Outcome::Released => Some((endpoint, None)),
                _ => recorded.is_ordered.then_some((endpoint, None)),
            }
        };
        let due: Vec<_> = recorded.iter().filter_map(may_be_due).collect();
        if !due.is_empty() {
            let mut known = self.known_due();
            for (endpoint, retry_at) in due {
                match retry_at {
                    Some(due_at) => known.note_retry(endpoint, due_at),
                    None => known.note(endpoint, now),
                }
            }
            drop(known);
            self.notifier.notify();
        }
        let claims: Vec<Claim> = settlements.iter().map(|settlement| settlement.claim).collect();
        self.membership.remove_claims(&claims);
        self.leave_if_ended().await;
        Ok(answers(&settlements, &recorded, now))
    }

    /// Releases claims, so that any worker can claim their deliveries again. If that fails, they
    /// are due again when their leases end.
    pub(crate) async fn release(&self, claims: impl IntoIterator<Item = Claim>, now: Timestamp) {
        let release = |claim| Settlement { claim, outcome: Outcome::Released, attempt: None };
        let settlements: Vec<Settlement> = claims.into_iter().map(release).collect();
        if !settlements.is_empty() {
            let _due_later = self.settle(settlements, now).await;
        }
    }

    /// Extends the leases of claims; returns the claims that were lost.
    pub(crate) async fn extend(
        &self,
        claims: Vec<Claim>,
        lease: Duration,
        now: Now,
    ) -> Result<Vec<Claim>, StoreError> {
        // A claim whose lease has ended is extended too, as long as no other worker has claimed the
        // delivery.
        const EXTEND: &str = "
            UPDATE webhooks.pending_deliveries SET leased_until = greatest(
                leased_until, webhooks.lease_clock($4) + $3 * interval '1 microsecond')
            FROM unnest($1::bigint[], $2::bigint[]) AS claim(id, token)
            WHERE pending_deliveries.id = claim.id AND pending_deliveries.token = claim.token
            RETURNING pending_deliveries.id, pending_deliveries.token";
        let ids: Vec<i64> = claims.iter().map(|claim| row::delivery_int8(claim.delivery)).collect();
        let tokens: Vec<i64> = claims.iter().map(|claim| row::int8(claim.token)).collect();
        let extend = async || {
            let mut call = self.database.call().await?;
            let extended: Vec<(i64, i64)> = sqlx::query_as(EXTEND)
                .persistent(call.prepares())
                .bind(&ids)
                .bind(&tokens)
                .bind(row::micros(lease))
                .bind(At(now.wall))
                .fetch_all(call.connection())
                .await?;
            call.commit().await?;
            Ok(extended)
        };
        let extended: BTreeSet<(i64, i64)> =
            with_retries(extend).await.map_err(store_error)?.into_iter().collect();
        let is_lost = |claim: &Claim| {
            !extended.contains(&(row::delivery_int8(claim.delivery), row::int8(claim.token)))
        };
        let (lost, held): (Vec<Claim>, Vec<Claim>) = claims.into_iter().partition(is_lost);
        self.membership.record_leases(held, lease);
        self.membership.remove_claims(&lost);
        Ok(lost)
    }

    /// Records settlements; returns those whose claims held, by their places in the batch.
    ///
    /// Each settlement is an element of several arrays, one array per column, so that one statement
    /// takes them all, in the order of their ids, in which rows are locked. Of two settlements of
    /// one claim, only the first counts.
    async fn record_settlements(
        &self,
        settlements: &[Settlement],
        now: Timestamp,
    ) -> Result<BTreeMap<usize, Recorded>, sqlx::Error> {
        const SETTLE: &str =
            "SELECT endpoint, is_ordered, failing_since, failed_at, tried_for, places
            FROM webhooks.settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
                $15)";
        let mut sorted: Vec<(usize, &Settlement)> = settlements.iter().enumerate().collect();
        sorted.sort_by_key(|(_, one)| one.claim);
        sorted.dedup_by_key(|(_, one)| one.claim);
        let attempts = || sorted.iter().map(|(_, one)| one.attempt.as_ref());
        let mut call = self.database.call().await?;
        let rows = sqlx::query(SETTLE)
            .persistent(call.prepares())
            .bind(At(now))
            .bind(sorted.iter().map(|(place, _)| row::int4(*place)).collect::<Vec<_>>())
            .bind(column(&sorted, |one| row::delivery_int8(one.claim.delivery)))
            .bind(column(&sorted, |one| row::int8(one.claim.token)))
            .bind(column(&sorted, |one| word(one.outcome)))
            .bind(column(&sorted, |one| due_at(one.outcome)))
            .bind(attempts().map(|one| Some(At(one?.started_at))).collect::<Vec<_>>())
            .bind(attempts().map(|one| Some(row::micros(one?.duration))).collect::<Vec<_>>())
            .bind(attempts().map(|one| one?.status_code.map(i32::from)).collect::<Vec<_>>())
            .bind(
                attempts().map(|one| one?.error_class.map(ErrorClass::as_str)).collect::<Vec<_>>(),
            )
            .bind(attempts().map(|one| Some(without_nul(one?.error.as_ref()?))).collect::<Vec<_>>())
            .bind(attempts().map(|one| headers(one?)).collect::<Vec<_>>())
            .bind(attempts().map(|one| response(one?)).collect::<Vec<_>>())
            .bind(self.membership.id)
            .bind(column(&sorted, figures))
            .fetch_all(call.connection())
            .await?;
        call.commit().await?;
        let mut recorded = BTreeMap::new();
        for row in rows {
            let (endpoint, is_ordered) = (row.try_get(0)?, row.try_get(1)?);
            let failing = failing(&row)?;
            let places: Vec<i32> = row.try_get(5)?;
            for place in places.into_iter().filter_map(|place| usize::try_from(place).ok()) {
                recorded.insert(place, Recorded { endpoint, failing, is_ordered });
            }
        }
        Ok(recorded)
    }
}

/// Reads the failures of an endpoint before the batch.
fn failing(row: &PgRow) -> Result<Option<Failing>, sqlx::Error> {
    let (since, last): (Option<At>, Option<At>) = (row.try_get(2)?, row.try_get(3)?);
    let tried_for: Option<i64> = row.try_get(4)?;
    let tried_for = Duration::from_micros(row::unsigned(tried_for.unwrap_or_default()));
    Ok(since.zip(last).map(|(At(since), At(last))| Failing { since, last, tried_for }))
}

fn column<T>(sorted: &[(usize, &Settlement)], value: impl Fn(&Settlement) -> T) -> Vec<T> {
    sorted.iter().map(|(_, one)| value(one)).collect()
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered => "delivered",
        Outcome::Retrying { .. } => "retrying",
        Outcome::Failed => "failed",
        Outcome::Expired => "expired",
        Outcome::Released => "released",
    }
}

fn due_at(outcome: Outcome) -> Option<At> {
    match outcome {
        Outcome::Retrying { due_at } => Some(At(due_at)),
        _ => None,
    }
}

/// Returns the kinds of figures for which a settlement counts, joined by spaces.
fn figures(settlement: &Settlement) -> Option<String> {
    let kinds: Vec<String> = FigureKind::of(settlement).map(|kind| kind.to_string()).collect();
    (!kinds.is_empty()).then(|| kinds.join(" "))
}

fn headers(attempt: &Attempt) -> Option<&str> {
    (!attempt.response_headers.is_empty()).then_some(&*attempt.response_headers)
}

fn response(attempt: &Attempt) -> Option<&[u8]> {
    (!attempt.response.is_empty()).then_some(&*attempt.response)
}

/// Returns the answer to each settlement: lost, or recorded with the health of the endpoint after
/// this settlement and those before it.
fn answers(
    settlements: &[Settlement],
    recorded: &BTreeMap<usize, Recorded>,
    now: Timestamp,
) -> Vec<Settled> {
    let mut failing = BTreeMap::new();
    let mut answers = Vec::with_capacity(settlements.len());
    for (index, settlement) in settlements.iter().enumerate() {
        answers.push(match recorded.get(&index) {
            None => Settled::LeaseLost,
            Some(recorded) => {
                let so_far = failing.entry(recorded.endpoint).or_insert(recorded.failing);
                Settled::Recorded { health: Health::after(so_far, settlement.outcome, now) }
            }
        });
    }
    answers
}

#[cfg(test)]
mod tests {
    use webhooks_core::DeliveryId;
    use webhooks_dispatch::store::Claim;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn check(failing: Option<Failing>, outcomes: &[Outcome], expected: &[Health]) {
        let claim = Claim { delivery: DeliveryId::from_u64(1), token: 1 };
        let settlement = |outcome: &Outcome| Settlement { claim, outcome: *outcome, attempt: None };
        let settlements: Vec<Settlement> = outcomes.iter().map(settlement).collect();
        let recorded = || Recorded { endpoint: 1, failing, is_ordered: false };
        let recorded = (0..outcomes.len()).map(|index| (index, recorded())).collect();
        let expected: Vec<Settled> =
            expected.iter().map(|health| Settled::Recorded { health: *health }).collect();
        assert_eq!(answers(&settlements, &recorded, at(9)), expected);
    }

    #[test]
    fn health_follows_the_outcomes_of_a_batch_one_after_another() {
        let seconds = Duration::from_secs;
        let failing = |failing: Failing, before| Health::Failing { failing, before };
        let first = failing(Failing::first(at(9)), Duration::ZERO);
        let before = Failing { since: at(3), last: at(5), tried_for: seconds(2) };
        let after = Failing { since: at(3), last: at(9), tried_for: seconds(6) };
        check(None, &[Outcome::Delivered, Outcome::Failed], &[Health::Healthy, first]);
        check(
            Some(before),
            &[Outcome::Failed, Outcome::Failed, Outcome::Released],
            &[failing(after, seconds(2)), failing(after, seconds(6)), Health::Healthy],
        );
        check(
            Some(before),
            &[Outcome::Failed, Outcome::Delivered, Outcome::Delivered, Outcome::Failed],
            &[failing(after, seconds(2)), Health::Recovered, Health::Healthy, first],
        );
    }
}
