//! Settling: what became of claimed deliveries, and the attempts that were made.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use webhooks_core::Timestamp;
use webhooks_dispatch::{
    store::{Attempt, Claim, Failing, Health, Outcome, Settled, Settlement, StoreError},
    transport::ErrorClass,
};

use crate::error::{attempt, store_error};
use crate::row::{self, At};
use crate::store::Shared;

/// A settlement that was kept.
struct Kept {
    endpoint: i64,
    /// How the endpoint had been failing before all of them.
    failing: Option<Failing>,
    is_ordered: bool,
}

impl Shared {
    pub(crate) async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        let kept = attempt(self.keep(&settlements, now)).await.map_err(store_error)?;
        // What was settled may let others go: one that was handed back, is due later, or follows in
        // an order.
        let frees = |(index, kept): (&usize, &Kept)| {
            let outcome = settlements.get(*index).map(|settlement| settlement.outcome);
            kept.is_ordered || matches!(outcome, Some(Outcome::Released | Outcome::Retrying { .. }))
        };
        if kept.iter().any(frees) {
            self.wake();
        }
        let claims: Vec<Claim> = settlements.iter().map(|settlement| settlement.claim).collect();
        self.workers.let_go(&claims);
        self.leave_at_last().await;
        Ok(answers(&settlements, &kept, now))
    }

    /// Keeps settlements; returns those that were kept, by their places.
    ///
    /// Each is an element of several arrays, one a column, so that one statement takes them all: in
    /// the order of their ids, in which rows are locked. Of two by one claim the first counts.
    async fn keep(
        &self,
        settlements: &[Settlement],
        now: Timestamp,
    ) -> Result<BTreeMap<usize, Kept>, sqlx::Error> {
        const SETTLE: &str =
            "SELECT endpoint, is_ordered, failing_since, failed_at, tried_for, places
            FROM webhooks.settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
        let mut sorted: Vec<(usize, &Settlement)> = settlements.iter().enumerate().collect();
        sorted.sort_by_key(|(_, one)| one.claim);
        sorted.dedup_by_key(|(_, one)| one.claim);
        let attempts = || sorted.iter().map(|(_, one)| one.attempt.as_ref());
        let mut call = self.call().await?;
        let rows = sqlx::query(SETTLE)
            .persistent(call.prepares())
            .bind(At(now))
            .bind(sorted.iter().map(|(place, _)| row::limit(*place)).collect::<Vec<_>>())
            .bind(column(&sorted, |one| row::number(one.claim.delivery)))
            .bind(column(&sorted, |one| row::integer(one.claim.token)))
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
            .bind(self.workers.id)
            .fetch_all(call.on())
            .await?;
        call.end().await?;
        let mut kept = BTreeMap::new();
        for row in rows {
            let (endpoint, is_ordered) = (row.try_get(0)?, row.try_get(1)?);
            let failing = failing(&row)?;
            let places: Vec<i32> = row.try_get(5)?;
            for place in places.into_iter().filter_map(|place| usize::try_from(place).ok()) {
                kept.insert(place, Kept { endpoint, failing, is_ordered });
            }
        }
        Ok(kept)
    }
}

/// Reads how an endpoint had been failing.
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

/// PostgreSQL's texts hold every character but this one.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn headers(attempt: &Attempt) -> Option<&str> {
    (!attempt.response_headers.is_empty()).then_some(&*attempt.response_headers)
}

fn response(attempt: &Attempt) -> Option<&[u8]> {
    (!attempt.response.is_empty()).then_some(&*attempt.response)
}

/// Returns the answer to each settlement: lost, or kept and how the endpoint fares, one after
/// another in their order.
fn answers(
    settlements: &[Settlement],
    kept: &BTreeMap<usize, Kept>,
    now: Timestamp,
) -> Vec<Settled> {
    let mut failing = BTreeMap::new();
    let mut answers = Vec::with_capacity(settlements.len());
    for (index, settlement) in settlements.iter().enumerate() {
        answers.push(match kept.get(&index) {
            None => Settled::LeaseLost,
            Some(kept) => {
                let so_far = failing.entry(kept.endpoint).or_insert(kept.failing);
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
        let kept = || Kept { endpoint: 1, failing, is_ordered: false };
        let kept = (0..outcomes.len()).map(|index| (index, kept())).collect();
        let expected: Vec<Settled> =
            expected.iter().map(|health| Settled::Recorded { health: *health }).collect();
        assert_eq!(answers(&settlements, &kept, at(9)), expected);
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
