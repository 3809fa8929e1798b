//! Replay: making deliveries due that have ended, and adding those that an endpoint missed.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{OptionalExtension as _, params};
use webhooks_core::{
    Channel, DeliveryId, DeliveryStatus, EndpointId, EventId, TenantId, Timestamp,
};
use webhooks_dispatch::backlog::{QueuedDelivery, due_in_order};
use webhooks_dispatch::figures::FigureKind;
use webhooks_dispatch::{
    OperationError, Replay, Undelivered,
    store::{ReplayCursor, ReplayMode, ReplayRequest, Replayed, SerializedEvent},
};
use webhooks_registry::{EndpointKey, EndpointNumber, Registration};

use crate::command::WriteCommand;
use crate::delivery_row::DeliveryRow;
use crate::inner::SqliteInner;
use crate::row;
use crate::write_connection::WriteConnection;

/// Carries out one portion of a replay.
pub(crate) struct Replaying {
    request: ReplayRequest,
    outcome: Result<Replayed, OperationError>,
    /// The deliveries that join the backlog after the commit.
    due: Vec<(EndpointNumber, Timestamp, DeliveryId)>,
}

/// The deliveries that one portion of a replay found.
#[derive(Default)]
struct Portion {
    /// Deliveries that have ended, and the endpoints that get them now.
    ended: Vec<(i64, Arc<Registration>)>,
    /// Events that were missed, and the endpoints that missed them.
    missed: Vec<(i64, Arc<Registration>)>,
    next: Option<ReplayCursor>,
}

/// The reason why a replay fails: it is refused, or SQLite fails.
enum Failure {
    Refused(OperationError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        Self::Refused(error)
    }
}

/// Selects the rows of an endpoint, the earlier ones included.
const ROWS: &str = "SELECT number FROM endpoints WHERE tenant = ? AND id = ? ORDER BY number";

impl Replaying {
    pub(crate) fn new(request: ReplayRequest) -> Self {
        Self { request, outcome: Ok(Replayed { deliveries: 0, next: None }), due: Vec::new() }
    }

    fn replay(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> Result<Replayed, Failure> {
        let portion = self.portion(connection, inner)?;
        let deliveries = portion.ended.len() + portion.missed.len();
        if self.request.mode == ReplayMode::Replay {
            for (delivery, registration) in &portion.ended {
                self.reopen(connection, registration, *delivery)?;
            }
            for (event, registration) in &portion.missed {
                self.deliver(connection, registration, *event)?;
            }
        }
        Ok(Replayed { deliveries, next: portion.next })
    }

    fn portion(
        &self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> Result<Portion, Failure> {
        let request = &self.request;
        match &request.replay {
            Replay::Delivery(delivery) => {
                let target = target(connection, inner, *delivery, request)?;
                let ended = target.into_iter().map(|to| (row::number(*delivery), to)).collect();
                Ok(Portion { ended, ..Portion::default() })
            }
            Replay::Deliveries(ids) => Ok(several(connection, inner, ids, request)?),
            Replay::Endpoint { endpoint, which, since, until } => {
                of_endpoint(connection, inner, endpoint, *which, (*since, *until), request)
            }
            Replay::Event { tenant, event, which } => {
                of_event(connection, inner, (tenant, event), *which, request)
            }
        }
    }

    /// Makes a delivery that has ended due once more, for the endpoint's current row.
    fn reopen(
        &mut self,
        connection: &WriteConnection,
        registration: &Registration,
        delivery: i64,
    ) -> rusqlite::Result<()> {
        const REOPEN: &str = "UPDATE deliveries SET status = 'pending', cancelled = NULL,
            queued_at = ?2, attempts_before_replay = attempts, due_at = ?3, endpoint = ?4,
            is_scheduled = NULL, ended_at = NULL
            WHERE number = ?1";
        let now = self.request.now;
        let due_at = due_in_order(&registration.endpoint, now);
        let endpoint = row::endpoint(registration.number);
        let parameters = params![delivery, row::micros(now), row::micros(due_at), endpoint];
        connection.execute(REOPEN, parameters)?;
        self.due.push((registration.number, due_at, row::delivery_id(delivery)));
        Ok(())
    }

    /// Adds a delivery of an event that was missed.
    fn deliver(
        &mut self,
        connection: &mut WriteConnection,
        registration: &Registration,
        event: i64,
    ) -> rusqlite::Result<()> {
        // Without the body: only the time counts here.
        const READ: &str =
            "SELECT id, tenant, type, '', trace, deliver_at FROM events WHERE number = ?";
        let now = self.request.now;
        let read = {
            let mut statement = connection.sqlite().prepare_cached(READ)?;
            let read = |row: &rusqlite::Row<'_>| {
                let deliver_at = row::time_or_null(row, 5)?;
                Ok(SerializedEvent { deliver_at, ..row::event(row, 0)? })
            };
            statement.query_row([event], read)?
        };
        let waiting = QueuedDelivery::new(Arc::new(read), now);
        let mut inserter = connection.inserter()?;
        let (id, due_at) = inserter.delivery(event, registration, &waiting, now, Some(now))?;
        drop(inserter);
        connection.figures.count(registration.number, FigureKind::Accepted, 1, now);
        self.due.push((registration.number, due_at, id));
        Ok(())
    }
}

// It ends its group, as every command does that is not frequent. It may follow `Publish`, `Settle` and
// `Prune`: it reads registrations, which these do not change, and deliveries from their rows.
impl WriteCommand for Replaying {
    type Answer = Result<Replayed, OperationError>;

    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()> {
        self.due.clear();
        self.outcome = match self.replay(connection, inner) {
            Ok(replayed) => Ok(replayed),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Sqlite(error)) => return Err(error),
        };
        Ok(())
    }

    fn after_commit(self, _: &mut WriteConnection, inner: &SqliteInner) -> Self::Answer {
        let mut backlog = inner.backlog();
        // Their bodies are read when there is room for them: a portion has many.
        for (endpoint, due_at, id) in &self.due {
            backlog.push_unread(*endpoint, *due_at, *id);
        }
        drop(backlog);
        if self.request.probes() {
            inner.notifier.probe(self.due.iter().map(|(endpoint, ..)| *endpoint));
        }
        self.outcome
    }
}

/// Returns the endpoint that gets a delivery again; `None` if this replay has made it due before.
fn target(
    connection: &WriteConnection,
    inner: &SqliteInner,
    delivery: DeliveryId,
    request: &ReplayRequest,
) -> Result<Option<Arc<Registration>>, Failure> {
    let found = DeliveryRow::find(connection.sqlite(), delivery)?;
    let DeliveryRow { endpoint, status, due_at, queued_at, expunged, .. } =
        found.ok_or(OperationError::UnknownDelivery { delivery })?;
    if request.has_replayed(queued_at) {
        return Ok(None);
    }
    if due_at.is_some() {
        return Err(OperationError::WrongStatus { delivery, status }.into());
    }
    if let Some(event) = expunged {
        return Err(OperationError::Expunged { event }.into());
    }
    Ok(Some(open(inner, &endpoint)?))
}

fn several(
    connection: &WriteConnection,
    inner: &SqliteInner,
    ids: &[DeliveryId],
    request: &ReplayRequest,
) -> rusqlite::Result<Portion> {
    let (ids, next) = request.portion(ids);
    let mut portion = Portion { next, ..Portion::default() };
    for delivery in ids {
        portion.ended.extend(again(connection, inner, *delivery, request, |_| true)?);
    }
    Ok(portion)
}

fn of_endpoint(
    connection: &mut WriteConnection,
    inner: &SqliteInner,
    endpoint: &EndpointKey,
    which: Undelivered,
    (since, until): (Timestamp, Option<Timestamp>),
    request: &ReplayRequest,
) -> Result<Portion, Failure> {
    let registration = open(inner, endpoint)?;
    let mut portion = Portion::default();
    let Some(begin) = request.begin(which) else { return Ok(portion) };
    let with = |number| (number, Arc::clone(&registration));
    let last = match begin {
        ReplayCursor::Ended(after) => {
            let rows = rows_of(connection, endpoint)?;
            // Deliveries that wait for an earlier row are cancelled first, a batch per portion: the replay
            // must find them among those that have ended.
            let old = rows.iter().filter(|row| row::endpoint_number(**row) != registration.number);
            for row in old {
                if connection.cancel_some(*row)? > 0 {
                    portion.next = Some(begin);
                    return Ok(portion);
                }
            }
            let ended = ended(connection, &rows, after, which, (since, until), request)?;
            let last = ended.last().filter(|_| ended.len() >= request.limit).copied();
            portion.ended = ended.into_iter().map(with).collect();
            last
        }
        ReplayCursor::Missed(after) => {
            let (missed, last) =
                missed(connection, &registration, after, (since, until), request.limit)?;
            portion.missed = missed.into_iter().map(with).collect();
            last
        }
    };
    portion.next = ReplayRequest::next(begin, which, last.map(row::unsigned));
    Ok(portion)
}

fn rows_of(connection: &WriteConnection, endpoint: &EndpointKey) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.sqlite().prepare_cached(ROWS)?;
    let parameters = [endpoint.tenant.as_str(), endpoint.id.as_str()];
    statement.query_map(parameters, |row| row.get(0))?.collect()
}

/// Returns the next deliveries after `after`, in order, that have ended for any of these rows.
fn ended(
    connection: &WriteConnection,
    rows: &[i64],
    after: u64,
    which: Undelivered,
    (since, until): (Timestamp, Option<Timestamp>),
    request: &ReplayRequest,
) -> rusqlite::Result<Vec<i64>> {
    const ENDED: &str = "SELECT number FROM deliveries INDEXED BY deliveries_undelivered
        WHERE endpoint = ?1 AND status IN ('failed', 'cancelled') AND number > ?2
          AND (?3 AND status = 'failed' OR ?4 AND status = 'cancelled')
          AND queued_at >= ?5 AND queued_at < ?6 AND queued_at NOT BETWEEN ?7 AND ?8
          AND (SELECT expunged_at FROM events WHERE number = deliveries.event) IS NULL
        ORDER BY number LIMIT ?9";
    let mut statement = connection.sqlite().prepare_cached(ENDED)?;
    let mut found = Vec::new();
    for endpoint in rows {
        let parameters = params![
            endpoint,
            row::integer(after),
            which.failed,
            which.cancelled,
            row::micros(since),
            until.map_or(i64::MAX, row::micros),
            row::micros(request.started_at),
            row::micros(request.now),
            row::count(request.limit),
        ];
        for number in statement.query_map(parameters, |row| row.get(0))? {
            found.push(number?);
        }
    }
    found.sort_unstable();
    found.truncate(request.limit);
    Ok(found)
}

/// Looks at `limit` events of an endpoint's tenant after `after`. Returns those that the endpoint
/// missed, and the last event if there may be more.
fn missed(
    connection: &WriteConnection,
    registration: &Registration,
    after: u64,
    (since, until): (Timestamp, Option<Timestamp>),
    limit: usize,
) -> rusqlite::Result<(Vec<i64>, Option<i64>)> {
    const EVENTS: &str = "
        SELECT number, accepted_at, expunged_at IS NOT NULL, type, channels, recipients, EXISTS (
            SELECT 1 FROM deliveries WHERE event = events.number AND endpoint IN (
                SELECT endpoints.number FROM endpoints WHERE tenant = ?2 AND id = ?3))
        FROM events INDEXED BY events_tenant
        WHERE tenant = ?2 AND number > ?1 ORDER BY number LIMIT ?4";
    let endpoint = &registration.endpoint;
    let mut statement = connection.sqlite().prepare_cached(EVENTS)?;
    let parameters = params![
        row::integer(after),
        endpoint.tenant.as_str(),
        registration.id.as_str(),
        row::count(limit),
    ];
    let mut rows = statement.query(parameters)?;
    let (mut missed, mut looked, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        let (number, accepted_at): (i64, i64) = (row.get(0)?, row.get(1)?);
        (looked, last) = (looked + 1, Some(number));
        let accepted_at = row::time(accepted_at);
        let is_in_time = accepted_at >= since && until.is_none_or(|until| accepted_at < until);
        let (is_expunged, is_there): (bool, bool) = (row.get(2)?, row.get(6)?);
        if is_in_time && !is_expunged && !is_there && wants(registration, row)? {
            missed.push(number);
        }
    }
    Ok((missed, last.filter(|_| looked >= limit)))
}

/// Returns whether an event was for an endpoint. The columns from the fourth on are its type, channels and
/// recipients.
fn wants(registration: &Registration, row: &rusqlite::Row<'_>) -> rusqlite::Result<bool> {
    let channels: Vec<Channel> = row::read_list(row, 4)?.unwrap_or_default();
    let only: Option<Vec<EndpointId>> = row::read_list(row, 5)?;
    Ok(registration.is_recipient(&row::event_type(row, 3)?, &channels, only.as_deref()))
}

fn of_event(
    connection: &WriteConnection,
    inner: &SqliteInner,
    (tenant, event): (&TenantId, &EventId),
    which: Undelivered,
    request: &ReplayRequest,
) -> Result<Portion, Failure> {
    const EVENT: &str = "SELECT number, type, channels, recipients, expunged_at IS NOT NULL
        FROM events WHERE id = ? AND tenant = ?";
    const LOOK: &str = "SELECT number FROM deliveries
        WHERE event = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
    const HAVE: &str = "SELECT endpoints.id FROM deliveries
        JOIN endpoints ON endpoints.number = deliveries.endpoint WHERE deliveries.event = ?";
    let found = {
        let mut statement = connection.sqlite().prepare_cached(EVENT)?;
        let parameters = params![row::EventKey(event), tenant.as_str()];
        let read = |row: &rusqlite::Row<'_>| {
            let claimed = SerializedEvent::claimed(
                event.clone(),
                row::event_type(row, 1)?,
                tenant.clone(),
                Bytes::new(),
            );
            let channels = row::read_list(row, 2)?.unwrap_or_default();
            let only = row::read_list(row, 3)?;
            Ok((row.get(0)?, SerializedEvent { channels, only, ..claimed }, row.get(4)?))
        };
        statement.query_row(parameters, read).optional()?
    };
    let (number, read, is_expunged): (i64, SerializedEvent, bool) =
        found.ok_or_else(|| OperationError::UnknownEvent { event: event.clone() })?;
    let mut portion = Portion::default();
    let Some(begin) = request.begin(which) else { return Ok(portion) };
    let last = match begin {
        ReplayCursor::Ended(after) => {
            let mut statement = connection.sqlite().prepare_cached(LOOK)?;
            let parameters = params![number, row::integer(after), row::count(request.limit)];
            let looked: Vec<i64> =
                statement.query_map(parameters, |row| row.get(0))?.collect::<Result<_, _>>()?;
            for delivery in &looked {
                let delivery = row::delivery_id(*delivery);
                let includes = |status| which.includes(status);
                portion.ended.extend(again(connection, inner, delivery, request, includes)?);
            }
            looked.last().filter(|_| looked.len() >= request.limit).copied()
        }
        ReplayCursor::Missed(_) if is_expunged => None,
        ReplayCursor::Missed(_) => {
            let mut statement = connection.sqlite().prepare_cached(HAVE)?;
            let have: HashSet<String> =
                statement.query_map([number], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let matching = read.recipients(&inner.registry).into_iter();
            let missed = matching.filter(|found| !have.contains(found.id.as_str()));
            portion.missed = missed.map(|registration| (number, registration)).collect();
            None
        }
    };
    portion.next = ReplayRequest::next(begin, which, last.map(row::unsigned));
    Ok(portion)
}

/// Returns a delivery and the endpoint that gets it, if its status is wanted, the endpoint is open, and
/// this replay has not made it due before.
fn again(
    connection: &WriteConnection,
    inner: &SqliteInner,
    delivery: DeliveryId,
    request: &ReplayRequest,
    is_wanted: impl Fn(DeliveryStatus) -> bool,
) -> rusqlite::Result<Option<(i64, Arc<Registration>)>> {
    let found = DeliveryRow::find(connection.sqlite(), delivery)?;
    let found = found.filter(|found| {
        found.due_at.is_none()
            && found.expunged.is_none()
            && is_wanted(found.status)
            && !request.has_replayed(found.queued_at)
    });
    let target = found.and_then(|found| open(inner, &found.endpoint).ok());
    Ok(target.map(|registration| (row::number(delivery), registration)))
}

/// Returns an endpoint if it is open: deliveries are stored only for open ones.
fn open(inner: &SqliteInner, key: &EndpointKey) -> Result<Arc<Registration>, OperationError> {
    let found = inner.registry.get_of(key);
    Replay::target(key, found.map(|found| (found.state, found)))
}
