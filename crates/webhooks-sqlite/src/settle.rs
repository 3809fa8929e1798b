//! Settling: what became of claimed deliveries, and the attempts that were made.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, ErrorCode, params};
use webhooks_core::{DeliveryId, Timestamp};
use webhooks_dispatch::{
    Attempt, CancelReason, ErrorClass, Excerpt, Health, Outcome, Settled, Settlement, StoreError,
};
use webhooks_registry::EndpointNumber;

use crate::command::WriteCommand;
use crate::error::{LostAttempts, LostOutcome};
use crate::inner::SqliteInner;
use crate::limit;
use crate::row;
use crate::write_connection::WriteConnection;

/// Whom a claim that holds is for, and with what.
#[derive(Debug, Clone, Copy)]
struct Held {
    endpoint: EndpointNumber,
    is_ordered: bool,
    /// The number of the attempt.
    attempt: u32,
}

pub(crate) struct Settle {
    settlements: Vec<Settlement>,
    now: Timestamp,
    /// Of each settlement, whether its claim holds and for whom, once that was asked.
    held: Vec<Option<Held>>,
    settled: Vec<Settled>,
    care: Care,
    /// How many attempts were not recorded, and why if that was no lack of room.
    lost_attempts: LostAttempts,
    /// The outcomes that could not be kept.
    lost: Vec<LostOutcome>,
}

/// How settlements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// Without looking back: if one fails, all do.
    Together,
    /// Each so that it can fail alone.
    OneByOne,
    /// The same, and outcomes alone, which need next to no room.
    OutcomesOneByOne,
}

impl Settle {
    pub(crate) fn new(settlements: Vec<Settlement>, now: Timestamp) -> Self {
        Self {
            settlements,
            now,
            held: Vec::new(),
            settled: Vec::new(),
            care: Care::Together,
            lost_attempts: LostAttempts { count: 0, source: None },
            lost: Vec::new(),
        }
    }

    /// Holds the claims, so that no lease ends between the commit and what follows it.
    fn hold(&mut self, inner: &SqliteInner) {
        let mut backlog = inner.backlog();
        for settlement in &self.settlements {
            let is_held = backlog.hold(settlement.claim);
            let claimed = backlog.claimed(settlement.claim).filter(|_| is_held);
            self.held.push(claimed.map(|(registration, waiting)| Held {
                endpoint: registration.number,
                is_ordered: registration.endpoint.ordered,
                attempt: waiting.progress.next_attempt(),
            }));
        }
    }

    /// Writes outcomes and attempts; fails if none can be kept.
    fn write_rows(&mut self, connection: &WriteConnection) -> rusqlite::Result<()> {
        let mut room = connection.room()?.map_or(i64::MAX, |room| room.attempts);
        let mut rows = Rows::prepare(connection)?;
        let mut kept = 0_usize;
        for (settlement, held) in self.settlements.iter().zip(&self.held) {
            let Some(held) = held else { continue };
            let mut attempt = settlement.attempt.as_ref();
            if let Some(made) = attempt {
                room = room.saturating_sub(size(made));
                if room < 0 || self.care == Care::OutcomesOneByOne {
                    self.lost_attempts.count += 1;
                    attempt = None;
                }
            }
            let mut keep = |attempt: Option<&Attempt>| {
                rows.keep(settlement, *held)?;
                attempt.map_or(Ok(()), |attempt| {
                    rows.keep_attempt(settlement.claim.delivery, held.attempt, attempt)
                })
            };
            if self.care == Care::Together {
                keep(attempt)?;
                continue;
            }
            let outcome = match connection.savepoint(|| keep(attempt)) {
                Err(error) if attempt.is_some() && connection.is_writing() => {
                    self.lost_attempts.count += 1;
                    self.lost_attempts.source = Some(error);
                    connection.savepoint(|| keep(None))
                }
                outcome => outcome,
            };
            match outcome {
                Ok(()) => kept += 1,
                Err(source) if connection.is_writing() => {
                    let delivery = settlement.claim.delivery;
                    self.lost.push(LostOutcome { delivery, source });
                }
                Err(error) => return Err(error),
            }
        }
        match self.lost.pop() {
            Some(lost) if kept == 0 => Err(lost.source),
            lost => {
                self.lost.extend(lost);
                Ok(())
            }
        }
    }

    /// Returns whether a delivery's outcome was not kept although its claim holds.
    fn is_lost(&self, delivery: DeliveryId) -> bool {
        self.lost.iter().any(|lost| lost.delivery == delivery)
    }
}

impl WriteCommand for Settle {
    type Answer = Vec<Settled>;

    // It changes leases and lanes in memory, and `failing`. Of the commands that may follow, none but
    // another `Settle` reads those. `write` holds the leases and notes in `failing` what it saw, so
    // that a second settlement of the same claim finds it held and the second failure finds the
    // first. What `Cancel`, `Replaying` and the commands on endpoints read of deliveries, they
    // read from the rows.
    const ENDS_GROUP: bool = false;

    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()> {
        self.hold(inner);
        self.settled.clear();
        self.lost.clear();
        self.lost_attempts = LostAttempts { count: 0, source: None };
        self.write_rows(connection)?;
        for (settlement, held) in self.settlements.iter().zip(&self.held) {
            let delivery = settlement.claim.delivery;
            self.settled.push(match held {
                Some(held) if !self.is_lost(delivery) => {
                    if is_end(settlement.outcome) {
                        connection.on_ended(delivery)?;
                    }
                    let health = health(connection, held.endpoint, settlement.outcome, self.now)?;
                    Settled::Recorded { health }
                }
                _ => Settled::LeaseLost,
            });
        }
        Ok(())
    }

    fn after_commit(mut self, _: &mut WriteConnection, inner: &SqliteInner) -> Self::Answer {
        let mut backlog = inner.backlog();
        for (settlement, held) in self.settlements.iter().zip(&self.held) {
            match held {
                Some(_) if self.is_lost(settlement.claim.delivery) => {
                    backlog.let_go(settlement.claim);
                }
                Some(_) => backlog.settle(settlement),
                None => {}
            }
        }
        for lost in std::mem::take(&mut self.lost) {
            inner.deferred_errors.add(StoreError::Unavailable { source: lost.into() });
        }
        if self.lost_attempts.count > 0 {
            let is_full = self.lost_attempts.source.is_none();
            let source = self.lost_attempts.into();
            inner.deferred_errors.add(if is_full {
                StoreError::Full { source }
            } else {
                StoreError::Unavailable { source }
            });
        }
        self.settled
    }

    fn undo(&mut self, inner: &SqliteInner) {
        let mut backlog = inner.backlog();
        for (settlement, held) in self.settlements.iter().zip(self.held.drain(..)) {
            if held.is_some() {
                backlog.let_go(settlement.claim);
            }
        }
    }

    fn reduce(&mut self, error: &rusqlite::Error) -> bool {
        self.care = match (self.care, error.sqlite_error_code()) {
            // It is not about what is written.
            (_, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) => return false,
            // SQLite ends the whole transaction when there is no room.
            (Care::Together, Some(ErrorCode::DiskFull)) | (Care::OneByOne, _) => {
                Care::OutcomesOneByOne
            }
            (Care::Together, _) => Care::OneByOne,
            (Care::OutcomesOneByOne, _) => return false,
        };
        true
    }
}

/// Returns about how many bytes the record of an attempt takes.
fn size(attempt: &Attempt) -> i64 {
    let error = attempt.error.as_ref().map_or(0, String::len);
    limit::size(attempt.response.len() + attempt.response_headers.len() + error)
}

fn is_end(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Delivered | Outcome::Failed | Outcome::Expired)
}

/// Changes deliveries and adds attempts, by statements that are looked up once.
struct Rows<'t> {
    connection: &'t WriteConnection,
    delivery: CachedStatement<'t>,
    attempt: CachedStatement<'t>,
}

impl<'t> Rows<'t> {
    fn prepare(connection: &'t WriteConnection) -> rusqlite::Result<Self> {
        const DELIVERY: &str = "UPDATE deliveries
            SET status = ?2, attempts = ?3, due_at = ?4, cancelled = ?5 WHERE number = ?1";
        const ATTEMPT: &str = "INSERT INTO attempts (delivery, number, started_at, duration,
            status_code, error_class, error, response_headers, response)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let delivery = connection.sqlite().prepare_cached(DELIVERY)?;
        let attempt = connection.sqlite().prepare_cached(ATTEMPT)?;
        Ok(Self { connection, delivery, attempt })
    }

    fn keep(&mut self, settlement: &Settlement, held: Held) -> rusqlite::Result<()> {
        let attempts = held.attempt - u32::from(settlement.attempt.is_none());
        let (status, due_at) = match settlement.outcome {
            Outcome::Delivered => ("delivered", None),
            Outcome::Failed => ("failed", None),
            Outcome::Expired => ("cancelled", None),
            Outcome::Retrying { due_at } => ("retrying", Some(self.retry(held, due_at)?)),
            // It is as it was.
            Outcome::Released => return Ok(()),
        };
        let cancelled = (settlement.outcome == Outcome::Expired).then_some(CancelReason::Expired);
        let cancelled = cancelled.map(CancelReason::as_str);
        let delivery = row::number(settlement.claim.delivery);
        self.delivery.execute(params![delivery, status, attempts, due_at, cancelled]).map(drop)
    }

    /// Returns what is stored as the time of a retry; an ordered endpoint waits for it as a whole.
    fn retry(&self, held: Held, due_at: Timestamp) -> rusqlite::Result<i64> {
        const BLOCK: &str = "UPDATE endpoints SET blocked_until = ? WHERE number = ?";
        if !held.is_ordered {
            return Ok(row::micros(due_at));
        }
        let parameters = params![row::micros(due_at), row::endpoint(held.endpoint)];
        self.connection.execute(BLOCK, parameters)?;
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
            row::span(attempt.duration),
            attempt.status_code,
            attempt.error_class.map(ErrorClass::as_str),
            attempt.error,
            (!headers.is_empty()).then_some(headers),
            ToSqlOutput::Borrowed(response),
        ];
        self.attempt.execute(parameters).map(drop)
    }
}

/// Returns how an endpoint fares, and stores it where that changed.
fn health(
    connection: &mut WriteConnection,
    endpoint: EndpointNumber,
    outcome: Outcome,
    now: Timestamp,
) -> rusqlite::Result<Health> {
    const UPDATE: &str = "UPDATE endpoints
        SET failing_since = ?2, failed_at = ?3, tried_for = ?4 WHERE number = ?1";
    let before = connection.failing.get(&endpoint).copied();
    let mut after = before;
    let health = Health::after(&mut after, outcome, now);
    if after != before {
        let since = after.map(|failing| row::micros(failing.since));
        let last = after.map(|failing| row::micros(failing.last));
        let tried_for = after.map(|failing| row::span(failing.tried_for));
        connection.execute(UPDATE, params![row::endpoint(endpoint), since, last, tried_for])?;
        match after {
            Some(failing) => connection.failing.insert(endpoint, failing),
            None => connection.failing.remove(&endpoint),
        };
    }
    Ok(health)
}
