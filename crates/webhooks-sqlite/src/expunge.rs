//! Expunging: deleting the content of events, and cancelling what waits of them.

use rusqlite::{OptionalExtension as _, params};
use webhooks_core::{DeliveryId, Timestamp};
use webhooks_dispatch::{
    OperationError,
    store::{CancelReason, ExpungeRequest, Expunged},
};

use crate::command::WriteCommand;
use crate::delivery_row::DeliveryRow;
use crate::inner::SqliteInner;
use crate::operations::TakenBack;
use crate::row;
use crate::write_connection::WriteConnection;

/// Deletes the content of an event, or of a portion of a tenant's events.
pub(crate) struct Expunge {
    request: ExpungeRequest,
    outcome: Result<Expunged, OperationError>,
    taken_back: TakenBack,
}

impl Expunge {
    pub(crate) fn new(request: ExpungeRequest) -> Self {
        let outcome = Ok(Expunged { events: 0, next: None });
        Self { request, outcome, taken_back: TakenBack::default() }
    }

    /// Returns the events whose content is to be deleted, and the place of the next portion. `None` if
    /// there is no such event.
    fn find(
        &self,
        connection: &WriteConnection,
    ) -> rusqlite::Result<Option<(Vec<i64>, Option<u64>)>> {
        const EVENT: &str = "SELECT number, expunged_at IS NOT NULL FROM events
            WHERE id = ? AND tenant = ?";
        const EVENTS: &str = "SELECT number, expunged_at IS NOT NULL
            FROM events INDEXED BY events_tenant
            WHERE tenant = ? AND number > ? AND accepted_at <= ? ORDER BY number LIMIT ?";
        let request = &self.request;
        let tenant = request.tenant.as_str();
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let (looked, next): (Vec<(i64, bool)>, _) = match &request.event {
            Some(event) => {
                let mut statement = connection.sqlite().prepare_cached(EVENT)?;
                let parameters = params![row::EventKey(event), tenant];
                let found = statement.query_row(parameters, read).optional()?;
                let Some(found) = found else { return Ok(None) };
                (vec![found], None)
            }
            None => {
                let mut statement = connection.sqlite().prepare_cached(EVENTS)?;
                let (after, now) = (row::integer(request.after.unwrap_or_default()), request.now);
                let parameters =
                    params![tenant, after, row::micros(now), row::count(request.limit)];
                let found = statement.query_map(parameters, read)?;
                let found: Vec<(i64, bool)> = found.collect::<Result<_, _>>()?;
                let last = found.last().filter(|_| found.len() >= request.limit);
                let next = last.map(|(number, _)| row::unsigned(*number));
                (found, next)
            }
        };
        let events = looked.into_iter().filter(|(_, is_expunged)| !is_expunged);
        Ok(Some((events.map(|(number, _)| number).collect(), next)))
    }

    fn expunge(&mut self, connection: &mut WriteConnection, event: i64) -> rusqlite::Result<()> {
        const EVENT: &str = "UPDATE events SET body = '', expunged_at = ? WHERE number = ?";
        const ATTEMPTS: &str = "UPDATE attempts SET response = NULL, response_headers = NULL
            WHERE delivery IN (SELECT number FROM deliveries WHERE event = ?)";
        const WAITING: &str =
            "SELECT number FROM deliveries WHERE event = ? AND due_at IS NOT NULL";
        let now: Timestamp = self.request.now;
        connection.execute(EVENT, params![row::micros(now), event])?;
        connection.execute(ATTEMPTS, [event])?;
        let waiting: Vec<i64> = {
            let mut statement = connection.sqlite().prepare_cached(WAITING)?;
            statement.query_map([event], |row| row.get(0))?.collect::<Result<_, _>>()?
        };
        for number in waiting {
            let delivery = row::delivery_id(number);
            if let Some(found) = DeliveryRow::find(connection.sqlite(), delivery)? {
                let reason = CancelReason::Expunged;
                self.taken_back.cancel(connection, delivery, &found, reason, now)?;
            }
        }
        Ok(())
    }
}

// It ends its group, as `Cancel` does.
impl WriteCommand for Expunge {
    type Answer = Result<Expunged, OperationError>;

    fn write(&mut self, connection: &mut WriteConnection, _: &SqliteInner) -> rusqlite::Result<()> {
        self.taken_back = TakenBack::default();
        let Some((events, next)) = self.find(connection)? else {
            // Only a request that names an event finds none.
            if let Some(event) = self.request.event.clone() {
                self.outcome = Err(OperationError::UnknownEvent { event });
            }
            return Ok(());
        };
        overwriting(connection, |connection| {
            events.iter().try_for_each(|event| self.expunge(connection, *event))
        })?;
        self.outcome = Ok(Expunged { events: events.len(), next });
        Ok(())
    }

    fn after_commit(self, _: &mut WriteConnection, inner: &SqliteInner) -> Self::Answer {
        self.taken_back.after_commit(inner);
        self.outcome
    }
}

/// Deletes something. SQLite overwrites it meanwhile; otherwise it would stay in free pages of the file.
fn overwriting<T>(
    connection: &mut WriteConnection,
    delete: impl FnOnce(&mut WriteConnection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let overwrite = |connection: &WriteConnection, is_on: bool| {
        connection.sqlite().pragma_update(None, "secure_delete", is_on)
    };
    overwrite(connection, true)?;
    let deleted = delete(connection);
    overwrite(connection, false)?;
    deleted
}

/// Deletes the response to one attempt.
pub(crate) struct ExpungeResponse {
    delivery: DeliveryId,
    number: u32,
    had_any: bool,
}

impl ExpungeResponse {
    pub(crate) fn new(delivery: DeliveryId, number: u32) -> Self {
        Self { delivery, number, had_any: false }
    }
}

impl WriteCommand for ExpungeResponse {
    type Answer = bool;

    // Others may follow it: no command reads responses, and memory has none.
    const ENDS_GROUP: bool = false;

    fn write(&mut self, connection: &mut WriteConnection, _: &SqliteInner) -> rusqlite::Result<()> {
        const RESPONSE: &str = "UPDATE attempts SET response = NULL, response_headers = NULL
            WHERE delivery = ? AND number = ?
              AND (response IS NOT NULL OR response_headers IS NOT NULL)";
        let parameters = params![row::number(self.delivery), self.number];
        let deleted =
            overwriting(connection, |connection| connection.execute(RESPONSE, parameters))?;
        self.had_any = deleted > 0;
        Ok(())
    }

    fn after_commit(self, _: &mut WriteConnection, _: &SqliteInner) -> bool {
        self.had_any
    }
}

#[cfg(test)]
mod tests {

    use std::time::Duration;

    use bytes::Bytes;
    use webhooks_core::{EndpointId, Event, TenantId};
    use webhooks_dispatch::clock::{MonotonicTime, Now};
    use webhooks_dispatch::store::{
        Attempt, ClaimRequest, DeliveryStore as _, OperationStore as _, Outcome, Room,
        SerializedEvent, Settlement,
    };
    use webhooks_registry::{Endpoint, store::EndpointStore as _, store::RegisterRequest};

    use super::*;
    use crate::SqliteStore;

    const MARK: &str = "a-text-that-is-nowhere-else";

    async fn deliver(store: &SqliteStore, now: Timestamp) {
        let monotonic = MonotonicTime::from_origin(Duration::ZERO);
        let request = ClaimRequest {
            now: Now { wall: now, monotonic },
            lease: Duration::from_secs(60),
            limit: 1,
            per_endpoint: 1,
            bytes: usize::MAX,
            room: Room::new(),
        };
        let claim = store.claim(request).await.unwrap()[0].claim;
        let attempt = Attempt {
            started_at: now,
            duration: Duration::ZERO,
            status_code: Some(200),
            error_class: None,
            error: None,
            response_headers: format!("x-mark: {MARK}"),
            response: Bytes::from(MARK.repeat(300)),
        };
        let settlement = Settlement { claim, outcome: Outcome::Delivered, attempt: Some(attempt) };
        store.settle(vec![settlement], now).await.unwrap();
    }

    /// Goal: nothing of the content is left in the file. Method: bodies and responses that lie in the
    /// row and ones that have pages of their own; then the bytes of the file are searched.
    #[tokio::test]
    async fn the_content_is_nowhere_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let now = Timestamp::from_unix_seconds(1_000_000);
        let endpoint = Endpoint::new("https://example.com/", "my-secret-key").unwrap();
        let request = RegisterRequest::new(EndpointId::new("crm").unwrap(), endpoint, now);
        store.register(request).await.unwrap();
        for body in [MARK.to_owned(), MARK.repeat(1_000)] {
            let event = SerializedEvent::new(&Event::new("created", body).unwrap());
            store.publish(vec![event], now).await.unwrap();
            deliver(&store, now).await;
        }
        let is_there = || {
            let file = std::fs::read(&path).unwrap();
            file.windows(MARK.len()).any(|bytes| bytes == MARK.as_bytes())
        };
        store.close().await;
        assert!(is_there(), "the search works");
        let store = SqliteStore::open(&path).await.unwrap();
        let tenant = TenantId::default();
        let request = ExpungeRequest { tenant, event: None, after: None, limit: 10, now };
        assert_eq!(store.expunge(request).await.unwrap(), Expunged { events: 2, next: None });
        store.close().await;
        assert!(!is_there());
    }
}
