//! Jobs from their creation to their end, over the store in memory.

use std::num::NonZeroU32;
use std::sync::Mutex;

use tokio::sync::Notify;
use tokio::time::advance;
use webhooks_core::{EndpointId, Event};
use webhooks_registry::{Endpoint, EndpointKey};

use super::*;
use crate::history::HistoryStore as _;
use crate::jobs::{JobId, JobStore as _, NewJob};
use crate::monitor::MonitorStore as _;
use crate::observer::Observer;
use crate::store::Undelivered;
use crate::{Engine, FnTransport, MemoryStore};

/// An observer that notes the jobs that ended.
#[derive(Debug, Default)]
struct Ended(Mutex<Vec<(JobId, JobState, u64)>>, Notify);

impl Observer for Ended {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        if let Occurrence::JobEnded { id, state, done } = occurrence {
            self.0.lock().unwrap().push((*id, *state, *done));
            self.1.notify_one();
        }
    }
}

fn query(statuses: &[DeliveryStatus]) -> Query {
    Query { statuses: statuses.to_vec(), ..Query::default() }
}

/// Returns an engine with one endpoint that has `events` deliveries waiting.
async fn engine(
    store: &MemoryStore,
    events: usize,
) -> (Engine<MemoryStore, impl crate::transport::Transport>, Arc<Ended>) {
    let ended = Arc::new(Ended::default());
    let transport = FnTransport::new(|_, _, _, _| async { (200, "") });
    let engine = Engine::builder(store.clone(), transport).observer(Arc::clone(&ended)).build();
    let endpoint = Endpoint::new("https://example.com/", "plain").unwrap();
    engine.endpoints().register("crm", endpoint).await.unwrap();
    let events: Vec<Event> = (0..events).map(|n| Event::new("created", n).unwrap()).collect();
    engine.publish_all(&events).await.unwrap();
    (engine, ended)
}

async fn until_ended(ended: &Ended, id: JobId) -> (JobState, u64) {
    loop {
        let found = ended.0.lock().unwrap().iter().find(|(job, ..)| *job == id).copied();
        if let Some((_, state, done)) = found {
            return (state, done);
        }
        ended.1.notified().await;
    }
}

/// Goal: more deliveries than one portion are cancelled, and nothing else, at the rate that was asked
/// for. Method: the endpoint is paused, so that nothing is delivered meanwhile; the clock is paused.
#[tokio::test(start_paused = true)]
async fn a_bulk_cancel_ends_all_that_wait_at_its_rate() {
    let store = MemoryStore::new();
    let (engine, ended) = engine(&store, 1_234).await;
    engine.endpoints().pause("crm").await.unwrap();
    let work = JobWork::Cancel(query(&[]));
    let rate = NonZeroU32::new(100);
    let job =
        engine.jobs().create(NewJob { tenant: None, work, rate, request: None }).await.unwrap();
    let started = tokio::time::Instant::now();
    let worker = engine.start();
    assert_eq!(until_ended(&ended, job.id).await, (JobState::Finished, 1_234));
    assert_eq!(started.elapsed().as_secs(), 12, "twelve pauses of a second each");
    assert_eq!(store.waiting(10_000).await.unwrap(), 0);
    worker.shutdown(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_bulk_replay_sends_what_was_not_delivered_and_nothing_twice() {
    let store = MemoryStore::new();
    let (engine, ended) = engine(&store, 700).await;
    engine.endpoints().disable("crm").await.unwrap();
    engine.endpoints().enable("crm").await.unwrap();
    let worker = engine.start();
    let work = JobWork::ReplayFound(query(&[]));
    let job = engine
        .jobs()
        .create(NewJob { tenant: None, work, rate: None, request: None })
        .await
        .unwrap();
    assert_eq!(until_ended(&ended, job.id).await, (JobState::Finished, 700));
    let work = JobWork::ReplayFound(query(&[]));
    let again = engine
        .jobs()
        .create(NewJob { tenant: None, work, rate: None, request: None })
        .await
        .unwrap();
    assert_eq!(until_ended(&ended, again.id).await, (JobState::Finished, 0));
    worker.drain(Duration::from_secs(60)).await;
    let delivered = store.deliveries(Query { limit: 1_000, ..query(&[DeliveryStatus::Delivered]) });
    assert_eq!(delivered.await.unwrap().items.len(), 700);
}

/// Goal: a job goes on with another worker where the first one was stopped, and an operator can stop
/// and resume it.
#[tokio::test(start_paused = true)]
async fn a_job_goes_on_after_its_worker_and_after_an_operator_stopped_it() {
    let store = MemoryStore::new();
    let (engine, ended) = engine(&store, 300).await;
    engine.endpoints().pause("crm").await.unwrap();
    let work = JobWork::Cancel(query(&[]));
    let rate = NonZeroU32::new(10);
    let job =
        engine.jobs().create(NewJob { tenant: None, work, rate, request: None }).await.unwrap();
    let done = async || store.job(job.id).await.unwrap().unwrap().progress.done;
    let until = async |count: u64| {
        while done().await < count {
            advance(Duration::from_millis(100)).await;
        }
    };
    let worker = engine.start();
    until(50).await;
    worker.shutdown(Duration::from_secs(5)).await;
    let at_shutdown = done().await;
    assert!((50..300).contains(&at_shutdown), "{at_shutdown}");
    let worker = engine.start();
    until(at_shutdown + 50).await;
    assert_eq!(engine.jobs().stop(job.id).await.unwrap().state, JobState::Stopped);
    let at_stop = done().await;
    for _ in 0..60 {
        advance(Duration::from_secs(1)).await;
    }
    assert!(done().await <= at_stop + 10, "one portion was under way at most");
    assert_eq!(engine.jobs().resume(job.id).await.unwrap().state, JobState::Running);
    assert_eq!(until_ended(&ended, job.id).await, (JobState::Finished, 300));
    worker.shutdown(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_cannot_go_on_says_why() {
    let store = MemoryStore::new();
    let (engine, ended) = engine(&store, 1).await;
    let nobody = EndpointKey::of_default_tenant(EndpointId::new("nobody").unwrap());
    let work = JobWork::Replay(Replay::of_endpoint(nobody, Undelivered::ALL));
    let job = engine
        .jobs()
        .create(NewJob { tenant: None, work, rate: None, request: None })
        .await
        .unwrap();
    let worker = engine.start();
    assert_eq!(until_ended(&ended, job.id).await, (JobState::Failed, 0));
    let failed = engine.jobs().get(job.id).await.unwrap().unwrap();
    assert!(failed.progress.error.unwrap().contains("is not registered"));
    worker.shutdown(Duration::ZERO).await;
}

/// Goal: a slow job does not hold up the others for hours. Method: a job that takes an hour at its
/// rate, and a later one that has no limit.
#[tokio::test(start_paused = true)]
async fn a_slow_job_lets_others_have_their_turns() {
    let store = MemoryStore::new();
    let (engine, ended) = engine(&store, 3_700).await;
    engine.endpoints().pause("crm").await.unwrap();
    let (work, rate) = (JobWork::Cancel(query(&[])), NonZeroU32::new(1));
    let slow =
        engine.jobs().create(NewJob { tenant: None, work, rate, request: None }).await.unwrap();
    let worker = engine.start();
    while store.job(slow.id).await.unwrap().unwrap().progress.done == 0 {
        advance(Duration::from_millis(100)).await;
    }
    let work = JobWork::Cancel(query(&[DeliveryStatus::Retrying]));
    let quick = engine
        .jobs()
        .create(NewJob { tenant: None, work, rate: None, request: None })
        .await
        .unwrap();
    let started = tokio::time::Instant::now();
    assert_eq!(until_ended(&ended, quick.id).await, (JobState::Finished, 0));
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    assert_eq!(until_ended(&ended, slow.id).await, (JobState::Finished, 3_700));
    let hour = Duration::from_secs(3_600);
    assert!(started.elapsed() > hour, "its rate is kept");
    worker.shutdown(Duration::ZERO).await;
}

/// Goal: a job touches nothing that its query does not find. Method: a query with the places of a
/// page in the middle.
#[tokio::test(start_paused = true)]
async fn a_job_keeps_to_the_places_of_its_query() {
    let store = MemoryStore::new();
    let (engine, ended) = engine(&store, 10).await;
    engine.endpoints().pause("crm").await.unwrap();
    let all = store.deliveries(query(&[])).await.unwrap().items;
    let place = |index: usize| Some(Cursor { key: all[index].id.as_u64(), attempt: 0 });
    let middle = Query { after: place(2), before: place(7), ..query(&[]) };
    let work = JobWork::Cancel(middle.clone());
    let job = engine
        .jobs()
        .create(NewJob { tenant: None, work, rate: None, request: None })
        .await
        .unwrap();
    let worker = engine.start();
    assert_eq!(until_ended(&ended, job.id).await, (JobState::Finished, 4));
    let cancelled = store.deliveries(query(&[DeliveryStatus::Cancelled])).await.unwrap().items;
    let expected = store.deliveries(middle).await.unwrap().items;
    assert_eq!(cancelled, expected);
    worker.shutdown(Duration::ZERO).await;
}
