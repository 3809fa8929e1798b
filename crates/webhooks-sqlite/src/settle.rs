//! Settling: what became of claimed deliveries, and the attempts that were made.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, params};
use webhooks_core::{DeliveryId, EndpointId, Timestamp};
use webhooks_dispatch::{Attempt, ErrorClass, Excerpt, Health, Outcome, Settled, Settlement};

use crate::row;
use crate::store::Shared;
use crate::tables::Tables;
use crate::writer::Write;

pub(crate) struct Settle {
    settlements: Vec<Settlement>,
    now: Timestamp,
    /// Of each settlement, whether its claim holds and for whom, once that was asked.
    held: Vec<Option<(EndpointId, u32)>>,
    settled: Vec<Settled>,
}

impl Settle {
    pub(crate) fn new(settlements: Vec<Settlement>, now: Timestamp) -> Self {
        Self { settlements, now, held: Vec::new(), settled: Vec::new() }
    }

    /// Holds the claims, so that no lease ends between the commit and what follows it.
    fn hold(&mut self, shared: &Shared) {
        let mut backlog = shared.backlog();
        for settlement in &self.settlements {
            let is_held = backlog.hold(settlement.claim);
            let claimed = backlog.claimed(settlement.claim).filter(|_| is_held);
            let attempt = claimed
                .map(|(endpoint, waiting)| (endpoint.clone(), waiting.progress.next_attempt()));
            self.held.push(attempt);
        }
    }
}

impl Write for Settle {
    type Answer = Vec<Settled>;

    // It changes leases and lanes in memory, and `failing_since`. Of the commands that may follow,
    // none but another `Settle` reads those. `write` holds the leases and notes `failing_since`, so
    // that a second settlement of the same claim finds it held and the second failure finds the
    // first. What `Cancel`, `Replaying` and the commands on endpoints read of deliveries, they
    // read from the rows.
    const ENDS_GROUP: bool = false;

    fn write(&mut self, tables: &mut Tables, shared: &Shared) -> rusqlite::Result<()> {
        self.hold(shared);
        self.settled.clear();
        let mut rows = Rows::prepare(tables)?;
        for (settlement, held) in self.settlements.iter().zip(&self.held) {
            let Some((endpoint, number)) = held else { continue };
            rows.keep(settlement, *number, endpoint, shared)?;
            if let Some(attempt) = &settlement.attempt {
                rows.keep_attempt(settlement.claim.delivery, *number, attempt)?;
            }
        }
        drop(rows);
        for settlement in (self.settlements.iter().zip(&self.held))
            .filter_map(|(settlement, held)| held.as_ref().map(|_| settlement))
        {
            if is_end(settlement.outcome) {
                tables.ended(settlement.claim.delivery)?;
            }
        }
        for (settlement, held) in self.settlements.iter().zip(&self.held) {
            self.settled.push(match held {
                Some((endpoint, _)) => {
                    let health = health(tables, endpoint, settlement.outcome, self.now)?;
                    Settled::Kept { health }
                }
                None => Settled::LeaseLost,
            });
        }
        Ok(())
    }

    fn finish(self, _: &mut Tables, shared: &Shared) -> Self::Answer {
        let mut backlog = shared.backlog();
        for (settlement, held) in self.settlements.iter().zip(&self.held) {
            if held.is_some() {
                backlog.settle(settlement);
            }
        }
        self.settled
    }

    fn undo(&mut self, shared: &Shared) {
        let mut backlog = shared.backlog();
        for (settlement, held) in self.settlements.iter().zip(self.held.drain(..)) {
            if held.is_some() {
                backlog.let_go(settlement.claim);
            }
        }
    }
}

fn is_end(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Delivered | Outcome::Failed | Outcome::Cancelled)
}

/// Changes deliveries and adds attempts, by statements that are looked up once.
struct Rows<'t> {
    tables: &'t Tables,
    delivery: CachedStatement<'t>,
    attempt: CachedStatement<'t>,
}

impl<'t> Rows<'t> {
    fn prepare(tables: &'t Tables) -> rusqlite::Result<Self> {
        const DELIVERY: &str =
            "UPDATE deliveries SET status = ?2, attempts = ?3, due_at = ?4 WHERE number = ?1";
        const ATTEMPT: &str = "INSERT INTO attempts (delivery, number, started_at, duration,
            status_code, error_class, error, response_headers, response)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let delivery = tables.connection().prepare_cached(DELIVERY)?;
        let attempt = tables.connection().prepare_cached(ATTEMPT)?;
        Ok(Self { tables, delivery, attempt })
    }

    fn keep(
        &mut self,
        settlement: &Settlement,
        number: u32,
        endpoint: &EndpointId,
        shared: &Shared,
    ) -> rusqlite::Result<()> {
        let attempts = if settlement.attempt.is_some() { number } else { number - 1 };
        let (status, due_at) = match settlement.outcome {
            Outcome::Delivered => ("delivered", None),
            Outcome::Failed => ("failed", None),
            Outcome::Cancelled => ("cancelled", None),
            Outcome::Retrying { due_at } => {
                ("retrying", Some(self.retry(endpoint, due_at, shared)?))
            }
            // It is as it was.
            Outcome::Released => return Ok(()),
        };
        let delivery = row::number(settlement.claim.delivery);
        self.delivery.execute(params![delivery, status, attempts, due_at]).map(drop)
    }

    /// Returns what is kept as the time of a retry; an ordered endpoint waits for it as a whole.
    fn retry(
        &self,
        endpoint: &EndpointId,
        due_at: Timestamp,
        shared: &Shared,
    ) -> rusqlite::Result<i64> {
        const BLOCK: &str = "UPDATE endpoints SET blocked_until = ? WHERE number = ?";
        let registration = shared.registry.get(endpoint.as_str());
        if !registration.is_some_and(|registration| registration.endpoint.ordered) {
            return Ok(row::micros(due_at));
        }
        let number = self.tables.number(endpoint);
        self.tables.execute(BLOCK, params![row::micros(due_at), number])?;
        Ok(0)
    }

    fn keep_attempt(
        &mut self,
        delivery: DeliveryId,
        number: u32,
        attempt: &Attempt,
    ) -> rusqlite::Result<()> {
        let headers = &attempt.response_headers;
        // A text is kept as one, so that people can read it.
        let response = match attempt.excerpt() {
            Excerpt::Text("") => ValueRef::Null,
            Excerpt::Text(text) => ValueRef::Text(text.as_bytes()),
            Excerpt::Base64(_) => ValueRef::Blob(&attempt.response),
        };
        let parameters = params![
            row::number(delivery),
            number,
            row::micros(attempt.started_at),
            i64::try_from(attempt.duration.as_micros()).unwrap_or(i64::MAX),
            attempt.status_code,
            attempt.error_class.map(ErrorClass::as_str),
            attempt.error,
            (!headers.is_empty()).then_some(headers),
            ToSqlOutput::Borrowed(response),
        ];
        self.attempt.execute(parameters).map(drop)
    }
}

/// Returns how an endpoint fares, and keeps it where it changed.
fn health(
    tables: &mut Tables,
    endpoint: &EndpointId,
    outcome: Outcome,
    now: Timestamp,
) -> rusqlite::Result<Health> {
    const UPDATE: &str = "UPDATE endpoints SET failing_since = ? WHERE number = ?";
    let since = tables.failing_since.get(endpoint).copied();
    match (outcome, since) {
        (Outcome::Delivered, Some(_)) => {
            tables.failing_since.remove(endpoint);
            tables.execute(UPDATE, params![None::<i64>, tables.number(endpoint)])?;
            Ok(Health::Recovered)
        }
        (Outcome::Failed | Outcome::Retrying { .. }, Some(since)) => Ok(Health::Failing { since }),
        (Outcome::Failed | Outcome::Retrying { .. }, None) => {
            tables.failing_since.insert(endpoint.clone(), now);
            tables.execute(UPDATE, params![row::micros(now), tables.number(endpoint)])?;
            Ok(Health::Failing { since: now })
        }
        _ => Ok(Health::Well),
    }
}
