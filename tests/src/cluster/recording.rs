//! The store and the transport of a process. They record each action before it is done, and its
//! result once it is known.

use std::time::Duration;

use webhooks_core::{EventId, Timestamp};
use webhooks_dispatch::{
    Conflict, Published,
    clock::Now,
    forward_store,
    store::{
        ChangeListener, Claim, ClaimRequest, Claimed, DeliveryStore, PruneRequest, Room,
        SerializedEvent, Settled, Settlement, StoreError,
    },
    transport::{Request, Transport, TransportError},
};
use webhooks_http::HttpTransport;
use webhooks_postgres::PostgresStore;
use webhooks_registry::Endpoint;

use super::journal::{self, Answer, Happening, Journal, Question, Response};

/// A store that records its calls and its answers.
#[derive(Debug, Clone)]
pub struct RecordingStore {
    inner: PostgresStore,
    journal: Journal,
}

impl RecordingStore {
    /// Wraps a store.
    pub fn new(inner: PostgresStore, journal: Journal) -> Self {
        Self { inner, journal }
    }

    async fn record<T>(
        &self,
        question: Question,
        call: impl Future<Output = Result<T, StoreError>>,
        answer: impl FnOnce(&T) -> Answer,
    ) -> Result<T, StoreError> {
        let number = self.journal.number();
        self.journal.write(Happening::Asked { call: number, question });
        let result = call.await;
        let answer = result.as_ref().ok().map(answer);
        self.journal.write(Happening::Answered { call: number, answer });
        result
    }
}

impl DeliveryStore for RecordingStore {
    async fn publish(
        &self,
        events: Vec<SerializedEvent>,
        now: Timestamp,
    ) -> Result<Vec<Result<Published, Conflict>>, StoreError> {
        let ids = events.iter().map(|event| event.id.clone()).collect();
        let deliveries = |published: &Result<Published, Conflict>| {
            published.as_ref().ok().map(|published| published.deliveries)
        };
        self.record(
            Question::Publish { events: ids },
            self.inner.publish(events, now),
            |published| Answer::Published {
                deliveries: published.iter().map(deliveries).collect(),
            },
        )
        .await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, StoreError> {
        let question =
            Question::Claim { now: request.now.wall, until: request.now.wall + request.lease };
        self.record(question, Box::pin(self.inner.claim(request)), |claimed| Answer::Claimed {
            claimed: claimed.iter().map(told).collect(),
        })
        .await
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        let told = |settlement: &Settlement| journal::Settlement {
            claim: journal::Claim(settlement.claim),
            outcome: settlement.outcome,
            is_tried: settlement.attempt.is_some(),
        };
        let question = Question::Settle { settlements: settlements.iter().map(told).collect() };
        let is_kept = |settled: &Settled| matches!(settled, Settled::Recorded { .. });
        self.record(question, Box::pin(self.inner.settle(settlements, now)), |settled| {
            Answer::Settled { kept: settled.iter().map(is_kept).collect() }
        })
        .await
    }

    async fn extend(
        &self,
        claims: Vec<Claim>,
        lease: Duration,
        now: Now,
    ) -> Result<Vec<Claim>, StoreError> {
        let until = now.wall + lease;
        let told = |claims: &[Claim]| claims.iter().copied().map(journal::Claim).collect();
        let question = Question::Extend { claims: told(&claims), until };
        self.record(question, Box::pin(self.inner.extend(claims, lease, now)), |lost| {
            Answer::Extended { lost: told(lost) }
        })
        .await
    }

    async fn next_due(&self, room: Room, now: Now) -> Result<Option<Duration>, StoreError> {
        let due = Box::pin(self.inner.next_due(room, now));
        self.record(Question::NextDue, due, |_| Answer::Due).await
    }

    async fn hasten(&self, now: Timestamp) -> Result<(), StoreError> {
        self.inner.hasten(now).await
    }

    async fn prune(&self, request: PruneRequest) -> Result<usize, StoreError> {
        self.inner.prune(request).await
    }

    async fn release_preclaimed(&self) -> usize {
        self.inner.release_preclaimed().await
    }

    fn changes(&self) -> ChangeListener {
        self.inner.changes()
    }
}

fn told(claimed: &Claimed) -> journal::Claimed {
    journal::Claimed {
        claim: journal::Claim(claimed.claim),
        event: claimed.event.id.clone(),
        endpoint: claimed.registration.id.clone(),
        attempt: claimed.progress.next_attempt_in_policy(),
        since: claimed.progress.queued_at,
    }
}

forward_store!(
    RecordingStore => inner:
    EndpointStore, OperationStore, HistoryStore, MonitorStore, JobStore
);

/// A transport that records each request and its result. The query of an endpoint's URL is the
/// endpoint's id.
#[derive(Debug, Clone)]
pub struct RecordingTransport {
    inner: HttpTransport,
    journal: Journal,
}

impl RecordingTransport {
    /// Wraps a transport.
    pub fn new(inner: HttpTransport, journal: Journal) -> Self {
        Self { inner, journal }
    }
}

/// Notes the result of an attempt, even if its future is dropped.
struct Exchange<'j> {
    journal: &'j Journal,
    number: u64,
    response: Response,
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let (exchange, response) = (self.number, self.response);
        self.journal.write(Happening::Ended { exchange, response });
    }
}

impl Transport for RecordingTransport {
    async fn send(
        &self,
        request: Request,
    ) -> Result<webhooks_dispatch::transport::Response, TransportError> {
        let id = request.headers.get("x-webhook-event-id").and_then(|id| id.to_str().ok());
        let event: EventId = id.and_then(|id| id.parse().ok()).expect("the event's id is sent");
        let (_, query) = request.url.as_str().rsplit_once('?').expect("a URL with a query");
        let endpoint = query.parse().expect("the endpoint's id");
        let (journal, number) = (&self.journal, self.journal.number());
        journal.write(Happening::Sent { exchange: number, event, endpoint });
        let mut exchange = Exchange { journal, number, response: Response::Dropped };
        let result = self.inner.send(request).await;
        exchange.response = match &result {
            Ok(response) => Response::Status(response.status),
            Err(_) => Response::Broken,
        };
        result
    }

    fn check(&self, endpoint: &Endpoint) -> Result<(), TransportError> {
        self.inner.check(endpoint)
    }
}
