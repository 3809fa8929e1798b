//! The statement that publishes events for a store.

use std::collections::HashMap;

use sqlx::postgres::{PgHasArrayType, PgRow, Postgres};
use sqlx::{Decode, PgConnection, Row as _, Type};
use webhooks_core::{Channel, EndpointId, EventType, Tag, TenantId, Timestamp};
use webhooks_dispatch::{Conflict, PublishStatus, Published, store::SerializedEvent};

use crate::known_due::EndpointDue;
use crate::local_queue::PreclaimGrant;
use crate::row::{self, At, count, int4};

/// A call of `webhooks.publish_all`, the function that publishes for all callers.
pub(crate) struct PublishStatement<'e> {
    /// The events, each with the time of its acceptance.
    pub(crate) events: Vec<(&'e SerializedEvent, Timestamp)>,
    /// The worker of the process that publishes.
    pub(crate) worker: i64,
    pub(crate) grant: Option<PreclaimGrant>,
}

/// The answer of the statement.
#[derive(Default)]
pub(crate) struct PublishReply {
    pub(crate) outcomes: Vec<Result<Published, Conflict>>,
    /// The deliveries that were preclaimed: the place of the event from 0, the delivery, its
    /// endpoint.
    pub(crate) preclaimed: Vec<(usize, i64, i64)>,
    /// The endpoints that may have deliveries to claim in the database, with their tenants and the
    /// time from which.
    pub(crate) waiting: Vec<EndpointDue>,
    /// The numbers of events that had been published before.
    pub(crate) duplicates: Vec<i64>,
}

impl PublishStatement<'_> {
    /// Publishes the events. `prepares` is whether the statement stays prepared on the connection.
    pub(crate) async fn execute(
        &self,
        connection: &mut PgConnection,
        prepares: bool,
    ) -> Result<PublishReply, sqlx::Error> {
        const PUBLISH: &str = "SELECT numbers, wanted, preclaimed_kinds, preclaimed_endpoints,
                preclaimed_ordinals, old_places, old_deliveries, old_numbers, old_bodies,
                waiting_kinds, waiting_endpoints
            FROM webhooks.publish_all($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
                $14 * interval '1 microsecond', $15, $16)";
        let events = || self.events.iter().map(|(event, _)| *event);
        let bodies: Result<Vec<&str>, _> =
            events().map(|event| std::str::from_utf8(&event.body)).collect();
        let times: Vec<At> = self.events.iter().map(|(_, at)| At(*at)).collect();
        let (kinds, kind_of) = kinds(events());
        let grant = self.grant.as_ref();
        let tags = events().any(|event| !event.tags.is_empty());
        let tags: Option<Vec<_>> =
            tags.then(|| events().map(|event| joined(&event.tags, Tag::as_str)).collect());
        let deliver_ats = events().any(|event| event.deliver_at.is_some());
        let deliver_ats: Option<Vec<_>> =
            deliver_ats.then(|| events().map(|event| event.deliver_at.map(At)).collect());
        let row = sqlx::query(PUBLISH)
            .persistent(prepares)
            .bind(events().map(|event| event.id.to_string()).collect::<Vec<_>>())
            .bind(bodies.map_err(|error| sqlx::Error::Encode(error.into()))?)
            .bind(times)
            .bind(&kind_of)
            .bind(kinds.iter().map(|kind| kind.tenant.as_str()).collect::<Vec<_>>())
            .bind(kinds.iter().map(|kind| kind.event_type.as_str()).collect::<Vec<_>>())
            .bind(kinds.iter().map(|kind| patterns(kind.event_type)).collect::<Vec<_>>())
            .bind(
                kinds.iter().map(|kind| joined(kind.channels, Channel::as_str)).collect::<Vec<_>>(),
            )
            .bind(kinds.iter().map(Kind::only_ids).collect::<Vec<_>>())
            .bind(tags)
            .bind(deliver_ats)
            .bind(self.worker)
            .bind(grant.map_or_else(Vec::new, |grant| grant.endpoints.keys().copied().collect()))
            .bind(grant.map(|grant| row::micros(grant.lease)))
            .bind(grant.map(|grant| grant.token))
            .bind(self.traces())
            .fetch_one(connection)
            .await?;
        let mut reply = self.read(&row, &kind_of)?;
        reply.waiting = self.waiting(&row, &kinds, &kind_of)?;
        Ok(reply)
    }

    /// Returns the traces of the events; `None` if no event has any.
    fn traces(&self) -> Option<Vec<Option<String>>> {
        let traces = || self.events.iter().map(|(event, _)| event.trace.as_ref());
        let texts = || traces().map(|trace| trace.map(ToString::to_string)).collect();
        traces().any(|trace| trace.is_some()).then(texts)
    }

    /// Reads the endpoints that are not preclaimed for.
    fn waiting(
        &self,
        row: &PgRow,
        kinds: &[Kind<'_>],
        kind_of: &[i32],
    ) -> Result<Vec<EndpointDue>, sqlx::Error> {
        let (of_kinds, endpoints): (Vec<i32>, Vec<i64>) = (column(row, 9)?, column(row, 10)?);
        let mut first_due: HashMap<i32, Timestamp> = HashMap::new();
        if !of_kinds.is_empty() {
            for ((event, at), kind) in self.events.iter().zip(kind_of) {
                let due_at = event.scheduled_for(*at).unwrap_or(*at);
                let first = first_due.entry(*kind).or_insert(due_at);
                *first = due_at.min(*first);
            }
        }
        let due = |(kind, endpoint): (i32, i64)| {
            let place = usize::try_from(kind - 1).ok()?;
            Some(EndpointDue {
                endpoint: row::endpoint_number(endpoint),
                tenant: kinds.get(place)?.tenant.clone(),
                due_at: first_due.get(&kind).copied(),
            })
        };
        Ok(of_kinds.into_iter().zip(endpoints).filter_map(due).collect())
    }

    /// Reads the row that the function returned.
    fn read(&self, row: &PgRow, kind_of: &[i32]) -> Result<PublishReply, sqlx::Error> {
        let (numbers, wanted): (Vec<Option<i64>>, Vec<i32>) = (row.try_get(0)?, row.try_get(1)?);
        let (endpoints, ordinals): (Vec<i64>, Vec<i32>) = (column(row, 3)?, column(row, 4)?);
        let mut preclaimed: HashMap<i32, Vec<(i64, i32)>> = HashMap::new();
        for (kind, own) in column(row, 2)?.into_iter().zip(endpoints.into_iter().zip(ordinals)) {
            preclaimed.entry(kind).or_default().push(own);
        }
        let (deliveries, bodies): (Vec<i32>, Vec<String>) = (column(row, 6)?, column(row, 8)?);
        let duplicates: Vec<i64> = column(row, 7)?;
        let old = column(row, 5)?.into_iter().zip(deliveries.into_iter().zip(bodies));
        let old: HashMap<i32, (i32, String)> = old.collect();
        let mut reply = PublishReply { duplicates, ..PublishReply::default() };
        for (place, ((event, at), kind)) in self.events.iter().zip(kind_of).enumerate() {
            if let Some(number) = numbers.get(place).copied().flatten() {
                let wanted = usize::try_from(kind - 1).ok().and_then(|kind| wanted.get(kind));
                reply.outcomes.push(Ok(published(
                    event,
                    *wanted.unwrap_or(&0),
                    PublishStatus::Created,
                )));
                let preclaimed =
                    preclaimed.get(kind).filter(|_| event.scheduled_for(*at).is_none());
                for (endpoint, ordinal) in preclaimed.into_iter().flatten() {
                    let delivery = first_delivery(number) + i64::from(*ordinal);
                    reply.preclaimed.push((place, delivery, *endpoint));
                }
                continue;
            }
            let (deliveries, stored) = old.get(&int4(place + 1)).ok_or(sqlx::Error::RowNotFound)?;
            reply.outcomes.push(if event.is_same_content(stored.as_bytes()) {
                Ok(published(event, *deliveries, PublishStatus::Duplicate))
            } else {
                Err(Conflict { event: event.id.clone() })
            });
        }
        Ok(reply)
    }
}

fn published(event: &SerializedEvent, deliveries: i32, status: PublishStatus) -> Published {
    let deliveries = usize::try_from(count(deliveries)).unwrap_or(usize::MAX);
    Published { event: event.id.clone(), deliveries, status }
}

/// Reads an array; NULL is an empty one.
fn column<T>(row: &PgRow, index: usize) -> Result<Vec<T>, sqlx::Error>
where
    T: for<'r> Decode<'r, Postgres> + Type<Postgres> + PgHasArrayType,
{
    Ok(row.try_get::<Option<Vec<T>>, _>(index)?.unwrap_or_default())
}

/// Returns the id of an event's first delivery, as `webhooks.first_delivery` does.
fn first_delivery(event: i64) -> i64 {
    event << 20
}

/// Returns the number of a delivery's event, as `webhooks.event_of` does.
pub(crate) fn event_of(delivery: i64) -> i64 {
    delivery >> 20
}

/// The parts of an event that decide the endpoints that it goes to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind<'e> {
    tenant: &'e TenantId,
    event_type: &'e EventType,
    channels: &'e [Channel],
    only: Option<&'e [EndpointId]>,
}

impl Kind<'_> {
    /// Returns the ids of the endpoints that alone get it.
    fn only_ids(&self) -> Option<String> {
        let ids = self.only?.iter().map(EndpointId::as_str);
        Some(ids.collect::<Vec<_>>().join(" "))
    }
}

/// Returns the kinds of the events, and for each event the place of its kind, from 1. The function
/// then looks up endpoints once for each kind, and not once for each event.
fn kinds<'e>(events: impl Iterator<Item = &'e SerializedEvent>) -> (Vec<Kind<'e>>, Vec<i32>) {
    let (mut kinds, mut known) = (Vec::new(), HashMap::new());
    let place = |event: &'e SerializedEvent| {
        let SerializedEvent { tenant, event_type, channels, only, .. } = event;
        let kind = Kind { tenant, event_type, channels, only: only.as_deref() };
        *known.entry(kind).or_insert_with(|| {
            kinds.push(kind);
            int4(kinds.len())
        })
    };
    let places = events.map(place).collect();
    (kinds, places)
}

/// Returns labels joined by spaces, as the function takes them.
fn joined<T>(labels: &[T], text: impl Fn(&T) -> &str) -> Option<String> {
    let labels: Vec<&str> = labels.iter().map(text).collect();
    (!labels.is_empty()).then(|| labels.join(" "))
}

fn patterns(event_type: &EventType) -> String {
    event_type.patterns().collect::<Vec<_>>().join(" ")
}
