//! Settling: recording the outcomes of claimed deliveries, and their attempts.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, ErrorCode, params};
use webhooks_core::{DeliveryId, Timestamp};
use webhooks_dispatch::{
    history::Excerpt,
    store::{Attempt, CancelReason, Health, Outcome, Settled, Settlement, StoreError},
    transport::ErrorClass,
};
use webhooks_registry::EndpointNumber;

use crate::command::WriteCommand;
use crate::error::{UnrecordedAttempts, UnrecordedOutcome, unavailable};
use crate::inner::SqliteInner;
use crate::limit;
use crate::row;
use crate::write_connection::WriteConnection;

/// A claim that holds, with its lease pinned in memory.
#[derive(Debug, Clone, Copy)]
struct Pinned {
    endpoint: EndpointNumber,
    is_ordered: bool,
    /// The number of the attempt.
    attempt: u32,
}

/// Records the outcomes and attempts of deliveries whose claims still hold.
pub(crate) struct Settle {
    settlements: Vec<Settlement>,
    now: Timestamp,
    /// For each settlement its claim if that holds; empty while no lease is pinned.
    pinned: Vec<Option<Pinned>>,
    settled: Vec<Settled>,
    mode: WriteMode,
    /// The attempts that were not recorded; the source is empty if there was no room for them.
    unrecorded_attempts: UnrecordedAttempts,
    /// The outcomes that could not be recorded.
    unrecorded: Vec<UnrecordedOutcome>,
}

/// The way in which settlements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteMode {
    /// Without savepoints: if one fails, all do.
    Together,
    /// Each in a savepoint, so that it can fail alone.
    OneByOne,
    /// Each in a savepoint, and without its attempt: outcomes need next to no room.
    OutcomesOneByOne,
}

impl Settle {
    pub(crate) fn new(settlements: Vec<Settlement>, now: Timestamp) -> Self {
        Self {
            settlements,
            now,
            pinned: Vec::new(),
            settled: Vec::new(),
            mode: WriteMode::Together,
            unrecorded_attempts: UnrecordedAttempts { count: 0, source: None },
            unrecorded: Vec::new(),
        }
    }

    /// Pins the leases, so that none ends before `after_commit` ends its claim: the delivery would be
    /// claimed again although its outcome is stored.
    ///
    /// A pinned lease refuses a second pin. So a second settlement of a claim in the same group is
    /// answered with [`Settled::LeaseLost`]. It also means that `write` may be called again only after
    /// `undo`, or each claim would seem lost.
    fn pin_leases(&mut self, inner: &SqliteInner) {
        let mut backlog = inner.backlog();
        for settlement in &self.settlements {
            let is_pinned = backlog.pin(settlement.claim);
            let claimed = backlog.claimed(settlement.claim).filter(|_| is_pinned);
            self.pinned.push(claimed.map(|(registration, waiting)| Pinned {
                endpoint: registration.number,
                is_ordered: registration.endpoint.ordered,
                attempt: waiting.progress.next_attempt(),
            }));
        }
    }

    /// Writes outcomes and attempts; fails if none can be recorded.
    fn write_rows(&mut self, connection: &WriteConnection) -> rusqlite::Result<()> {
        let mut room = connection.room()?.map_or(i64::MAX, |room| room.attempts);
        let mut rows = Rows::prepare(connection)?;
        let mut recorded = 0_usize;
        for (settlement, pinned) in self.settlements.iter().zip(&self.pinned) {
            let Some(pinned) = pinned else { continue };
            let mut attempt = settlement.attempt.as_ref();
            if let Some(made) = attempt {
                room = room.saturating_sub(size(made));
                if room < 0 || self.mode == WriteMode::OutcomesOneByOne {
                    self.unrecorded_attempts.count += 1;
                    attempt = None;
                }
            }
            let mut record = |attempt: Option<&Attempt>| {
                rows.record(settlement, *pinned, self.now)?;
                attempt.map_or(Ok(()), |attempt| {
                    rows.record_attempt(settlement.claim.delivery, *pinned, attempt)
                })
            };
            if self.mode == WriteMode::Together {
                record(attempt)?;
                continue;
            }
            let outcome = match connection.savepoint(|| record(attempt)) {
                Err(error) if attempt.is_some() && connection.is_writing() => {
                    self.unrecorded_attempts.count += 1;
                    self.unrecorded_attempts.source = Some(error);
                    connection.savepoint(|| record(None))
                }
                outcome => outcome,
            };
            match outcome {
                Ok(()) => recorded += 1,
                Err(source) if connection.is_writing() => {
                    let delivery = settlement.claim.delivery;
                    self.unrecorded.push(UnrecordedOutcome { delivery, source });
                }
                Err(error) => return Err(error),
            }
        }
        match self.unrecorded.pop() {
            // All failed: the caller gets the reason, and the claims go on.
            Some(last) if recorded == 0 => Err(last.source),
            last => {
                self.unrecorded.extend(last);
                Ok(())
            }
        }
    }

    /// Returns whether a delivery's outcome could not be recorded although its claim holds.
    fn is_unrecorded(&self, delivery: DeliveryId) -> bool {
        self.unrecorded.iter().any(|unrecorded| unrecorded.delivery == delivery)
    }
}

impl WriteCommand for Settle {
    type Answer = Vec<Settled>;

    // Others may follow it. It changes leases and queues in memory, and `failing`. Of the commands that
    // may follow, only another `Settle` reads those. `write` pins the leases and changes `failing`, so
    // a second settlement of the same claim finds it pinned, and a second failure finds the first.
    // `Cancel`, `Replaying` and the commands on endpoints read deliveries from the rows.
    const ENDS_GROUP: bool = false;

    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()> {
        self.pin_leases(inner);
        self.settled.clear();
        self.unrecorded.clear();
        self.unrecorded_attempts = UnrecordedAttempts { count: 0, source: None };
        self.write_rows(connection)?;
        for (settlement, pinned) in self.settlements.iter().zip(&self.pinned) {
            let delivery = settlement.claim.delivery;
            self.settled.push(match pinned {
                Some(pinned) if !self.is_unrecorded(delivery) => {
                    if is_end(settlement.outcome) {
                        connection.on_ended(delivery)?;
                    }
                    connection.figures.settled(pinned.endpoint, settlement, self.now);
                    let health = health(connection, pinned.endpoint, settlement.outcome, self.now)?;
                    Settled::Recorded { health }
                }
                _ => Settled::LeaseLost,
            });
        }
        Ok(())
    }

    fn after_commit(mut self, _: &mut WriteConnection, inner: &SqliteInner) -> Self::Answer {
        let mut backlog = inner.backlog();
        for (settlement, pinned) in self.settlements.iter().zip(&self.pinned) {
            match pinned {
                Some(_) if self.is_unrecorded(settlement.claim.delivery) => {
                    backlog.unpin(settlement.claim);
                }
                Some(_) => backlog.settle(settlement),
                None => {}
            }
        }
        for unrecorded in std::mem::take(&mut self.unrecorded) {
            inner.deferred_errors.add(unavailable(unrecorded));
        }
        if self.unrecorded_attempts.count > 0 {
            let is_full = self.unrecorded_attempts.source.is_none();
            let source = self.unrecorded_attempts.into();
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
        for (settlement, pinned) in self.settlements.iter().zip(self.pinned.drain(..)) {
            if pinned.is_some() {
                backlog.unpin(settlement.claim);
            }
        }
    }

    fn reduce(&mut self, error: &rusqlite::Error) -> bool {
        self.mode = match (self.mode, error.sqlite_error_code()) {
            // The settlements are not the cause; others would meet the lock too.
            (_, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) => return false,
            // SQLite ends the whole transaction when there is no room.
            (WriteMode::Together, Some(ErrorCode::DiskFull)) | (WriteMode::OneByOne, _) => {
                WriteMode::OutcomesOneByOne
            }
            (WriteMode::Together, _) => WriteMode::OneByOne,
            (WriteMode::OutcomesOneByOne, _) => return false,
        };
        true
    }
}

/// Estimates the size of the record of an attempt, in bytes.
fn size(attempt: &Attempt) -> i64 {
    let error = attempt.error.as_ref().map_or(0, String::len);
    limit::size(attempt.response.len() + attempt.response_headers.len() + error)
}

fn is_end(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Delivered | Outcome::Failed | Outcome::Expired)
}

/// The statements that change deliveries and add attempts, looked up once for many rows.
struct Rows<'t> {
    connection: &'t WriteConnection,
    delivery: CachedStatement<'t>,
    attempt: CachedStatement<'t>,
}

impl<'t> Rows<'t> {
    fn prepare(connection: &'t WriteConnection) -> rusqlite::Result<Self> {
        const DELIVERY: &str = "UPDATE deliveries
            SET status = ?2, attempts = ?3, due_at = ?4, is_scheduled = NULL, cancelled = ?5,
                ended_at = ?6
            WHERE number = ?1";
        const ATTEMPT: &str = "INSERT INTO attempts (delivery, number, endpoint, started_at,
            duration, status_code, error_class, error, response_headers, response)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let delivery = connection.sqlite().prepare_cached(DELIVERY)?;
        let attempt = connection.sqlite().prepare_cached(ATTEMPT)?;
        Ok(Self { connection, delivery, attempt })
    }

    fn record(
        &mut self,
        settlement: &Settlement,
        pinned: Pinned,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let attempts = pinned.attempt - u32::from(settlement.attempt.is_none());
        let (status, due_at) = match settlement.outcome {
            Outcome::Delivered => ("delivered", None),
            Outcome::Failed => ("failed", None),
            Outcome::Expired => ("cancelled", None),
            Outcome::Retrying { due_at } => ("retrying", Some(self.retry(pinned, due_at)?)),
            // The delivery is as it was before the claim, which is not stored.
            Outcome::Released => return Ok(()),
        };
        let cancelled = (settlement.outcome == Outcome::Expired).then_some(CancelReason::Expired);
        let cancelled = cancelled.map(CancelReason::as_str);
        let delivery = row::number(settlement.claim.delivery);
        let ended_at = is_end(settlement.outcome).then(|| row::micros(now));
        let parameters = params![delivery, status, attempts, due_at, cancelled, ended_at];
        self.delivery.execute(parameters).map(drop)
    }

    /// Returns the due time that is stored for a retry. An ordered endpoint waits as a whole: its row
    /// holds the time, and 0 leaves the delivery first in its order.
    fn retry(&self, pinned: Pinned, due_at: Timestamp) -> rusqlite::Result<i64> {
        const BLOCK: &str = "UPDATE endpoints SET blocked_until = ? WHERE number = ?";
        if !pinned.is_ordered {
            return Ok(row::micros(due_at));
        }
        let parameters = params![row::micros(due_at), row::endpoint(pinned.endpoint)];
        self.connection.execute(BLOCK, parameters)?;
        Ok(0)
    }

    fn record_attempt(
        &mut self,
        delivery: DeliveryId,
        pinned: Pinned,
        attempt: &Attempt,
    ) -> rusqlite::Result<()> {
        let headers = &attempt.response_headers;
        // A text is stored as one, so that people can read it.
        let response = match attempt.excerpt() {
            Excerpt::Text("") => ValueRef::Null,
            Excerpt::Text(text) => ValueRef::Text(text.as_bytes()),
            Excerpt::Base64(_) => ValueRef::Blob(&attempt.response),
        };
        let parameters = params![
            row::number(delivery),
            pinned.attempt,
            row::endpoint(pinned.endpoint),
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

/// Returns the health of an endpoint after an outcome, and stores it if it changed.
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
