//! Jobs: leased by one worker at a time, with progress that stays.

use std::num::NonZeroU32;
use std::time::Duration;

use webhooks_core::{DeliveryStatus, TenantId};
use webhooks_dispatch::{
    Replay, Undelivered,
    history::{Cursor, Query},
    jobs::{
        Job, JobAdvance, JobChange, JobError, JobId, JobProgress, JobQuery, JobState, JobWork,
        LeasedJob, NewJob,
    },
};

use super::{AnyStore, LEASE, at, clocks, event, key, tenant};

/// Creates an operator's job at a second.
async fn create(store: &impl AnyStore, second: u64) -> Job {
    let work = JobWork::Cancel(Query::default());
    let new = NewJob { tenant: None, work, rate: None, request: None };
    store.create_job(new, at(second)).await.expect("a store that works")
}

async fn lease(store: &impl AnyStore, second: u64) -> Option<LeasedJob> {
    store.lease_job(LEASE, clocks(at(second))).await.expect("a store that works")
}

fn progress(done: u64) -> JobProgress {
    JobProgress { done, cursor: Some(format!("place {done} / \"é\"")), error: None }
}

async fn advance(
    store: &impl AnyStore,
    leased: &LeasedJob,
    done: u64,
    state: JobState,
    second: u64,
) -> Option<JobState> {
    let (id, token) = (leased.job.id, leased.token);
    let advance = JobAdvance { id, token, progress: progress(done), state };
    let advanced = store.advance_job(advance, LEASE, clocks(at(second))).await;
    advanced.expect("a store that works")
}

async fn job(store: &impl AnyStore, id: JobId) -> Job {
    store.job(id).await.expect("a store that works").expect("it was created")
}

async fn change(store: &impl AnyStore, id: JobId, change: JobChange, second: u64) -> Job {
    let changed = store.change_job(id, change, at(second)).await.expect("it was created");
    assert_eq!(changed, job(store, id).await);
    changed
}

pub async fn a_job_is_stored_as_it_was_created(store: impl AnyStore) {
    let query = Query {
        tenant: Some(tenant("acme")),
        statuses: vec![DeliveryStatus::Pending, DeliveryStatus::Retrying],
        status_codes: Some(500..=599),
        since: Some(at(3)),
        before: Some(Cursor { key: 7, attempt: 0 }),
        ..Query::default()
    };
    let replay = Replay::of_endpoint(key("a"), Undelivered::ALL).since(at(1)).until(at(2));
    let of_event = Replay::of_event(TenantId::default(), event("a").id, Undelivered::FAILED);
    let works = [
        JobWork::Cancel(query.clone()),
        JobWork::Replay(replay),
        JobWork::Replay(of_event),
        JobWork::ReplayFound(query),
    ];
    let mut last = None;
    for (work, second) in works.into_iter().zip(10..) {
        let (tenant, rate) = (Some(tenant("acme")), NonZeroU32::new(50));
        let new = NewJob { tenant: tenant.clone(), work: work.clone(), rate, request: None };
        let created = store.create_job(new, at(second)).await.expect("a store that works");
        let expected = Job {
            id: created.id,
            tenant,
            work,
            rate,
            state: JobState::Running,
            progress: JobProgress::default(),
            created_at: at(second),
            updated_at: at(second),
        };
        assert_eq!(created, expected);
        assert_eq!(job(&store, created.id).await, expected);
        assert!(last < Some(created.id), "ids are counted up");
        last = Some(created.id);
    }
    let unknown = JobId::from_u64(424_242);
    assert_eq!(store.job(unknown).await.expect("a store that works"), None);
    for change in [JobChange::Stop, JobChange::Resume] {
        let error = store.change_job(unknown, change, at(20)).await.expect_err("there is none");
        assert!(matches!(error, JobError::Unknown { id } if id == unknown), "{error:?}");
    }
}

pub async fn a_job_is_created_once_for_a_request(store: impl AnyStore) {
    let create = async |request: u128, second: u64| {
        let work = JobWork::Cancel(Query::default());
        let new = NewJob { tenant: None, work, rate: None, request: Some(request) };
        store.create_job(new, at(second)).await.expect("a store that works")
    };
    let first = create(u128::MAX, 0).await;
    let second = create(1, 1).await;
    assert_ne!(first.id, second.id);
    assert_eq!(create(u128::MAX, 2).await, first);
    // It goes on as it was.
    let leased = lease(&store, 3).await.expect("two wait");
    assert_eq!(advance(&store, &leased, 5, JobState::Finished, 4).await, Some(JobState::Finished));
    let found = create(u128::MAX, 5).await;
    assert_eq!(
        (found.id, found.state, &found.progress),
        (first.id, JobState::Finished, &progress(5))
    );
    assert_eq!(lease(&store, 6).await.expect("one waits").job.id, second.id);
    assert_eq!(lease(&store, 6).await, None);
    // Many at once.
    let mut requests = tokio::task::JoinSet::new();
    for second in 10..20 {
        let store = store.clone();
        requests.spawn(async move {
            let work = JobWork::Cancel(Query::default());
            let new = NewJob { tenant: None, work, rate: None, request: Some(2) };
            store.create_job(new, at(second)).await.expect("a store that works").id
        });
    }
    let ids = requests.join_all().await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let jobs = store.jobs(JobQuery::default()).await.expect("a store that works");
    assert_eq!(jobs.len(), 3);
}

pub async fn jobs_are_listed_the_newest_first(store: impl AnyStore) {
    let mut ids = Vec::new();
    for n in 0..6 {
        let tenant = (n % 2 == 0).then(|| tenant("acme"));
        let work = JobWork::Cancel(Query::default());
        let created =
            store.create_job(NewJob { tenant, work, rate: None, request: None }, at(n)).await;
        ids.insert(0, created.expect("a store that works").id);
    }
    change(&store, ids[0], JobChange::Stop, 10).await;
    change(&store, ids[3], JobChange::Stop, 10).await;
    let list = async |query: JobQuery| {
        let jobs = store.jobs(query).await.expect("a store that works");
        jobs.iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!(list(JobQuery::default()).await, ids);
    let acmes = JobQuery { tenant: Some(tenant("acme")), ..JobQuery::default() };
    assert_eq!(list(acmes.clone()).await, [ids[1], ids[3], ids[5]]);
    let nobodys = JobQuery { tenant: Some(tenant("nobody")), ..JobQuery::default() };
    assert_eq!(list(nobodys).await, []);
    let stopped = JobQuery { state: Some(JobState::Stopped), ..JobQuery::default() };
    assert_eq!(list(stopped.clone()).await, [ids[0], ids[3]]);
    let both = JobQuery { tenant: Some(tenant("acme")), ..stopped };
    assert_eq!(list(both).await, [ids[3]]);
    let page = JobQuery { after: Some(ids[1]), limit: 2, ..JobQuery::default() };
    assert_eq!(list(page).await, [ids[2], ids[3]]);
    let page = JobQuery { after: Some(ids[1]), ..acmes };
    assert_eq!(list(page).await, [ids[3], ids[5]]);
    assert_eq!(list(JobQuery { limit: 0, ..JobQuery::default() }).await, [ids[0]]);
    assert_eq!(list(JobQuery { after: Some(ids[5]), ..JobQuery::default() }).await, []);
}

pub async fn a_job_is_leased_by_one_of_many(store: impl AnyStore) {
    assert_eq!(lease(&store, 0).await, None);
    let created = create(&store, 0).await;
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let store = store.clone();
        workers.spawn(async move { lease(&store, 1).await });
    }
    let leased: Vec<LeasedJob> = workers.join_all().await.into_iter().flatten().collect();
    assert_eq!(leased.len(), 1);
    assert_eq!(leased[0].job, created);
    assert_eq!(job(&store, created.id).await, created, "a lease is no change");
}

pub async fn the_job_that_waits_longest_is_leased_first(store: impl AnyStore) {
    let (first, second, third) =
        (create(&store, 0).await, create(&store, 1).await, create(&store, 2).await);
    let leased = lease(&store, 10).await.expect("three wait");
    assert_eq!(leased.job.id, first.id);
    let going = advance(&store, &leased, 1, JobState::Running, 11).await;
    assert_eq!(going, Some(JobState::Running));
    for expected in [second.id, third.id] {
        assert_eq!(lease(&store, 12).await.expect("it waits").job.id, expected);
    }
    assert_eq!(lease(&store, 13).await, None, "each is leased");
    // All leases have ended; the first one had progress last.
    for expected in [second.id, third.id, first.id] {
        assert_eq!(lease(&store, 1_000).await.expect("it waits").job.id, expected);
    }
}

pub async fn progress_goes_on_with_another_worker(store: impl AnyStore) {
    let created = create(&store, 0).await;
    let first = lease(&store, 0).await.expect("it waits");
    assert_eq!(advance(&store, &first, 10, JobState::Running, 50).await, Some(JobState::Running));
    let expected = Job { progress: progress(10), updated_at: at(50), ..created.clone() };
    assert_eq!(job(&store, created.id).await, expected);
    assert_eq!(lease(&store, 109).await, None, "its progress extended the lease");
    let second = lease(&store, 110).await.expect("the lease ended");
    assert_eq!(second.job, expected, "where the last record says");
    assert_ne!(second.token, first.token);
    // The first worker has lost the job, and records nothing.
    assert_eq!(advance(&store, &first, 99, JobState::Finished, 111).await, None);
    assert_eq!(job(&store, created.id).await, expected);
    let finished = advance(&store, &second, 20, JobState::Finished, 112).await;
    assert_eq!(finished, Some(JobState::Finished));
    let expected = Job {
        state: JobState::Finished,
        progress: progress(20),
        updated_at: at(112),
        ..created.clone()
    };
    assert_eq!(job(&store, created.id).await, expected);
    assert_eq!(advance(&store, &second, 21, JobState::Running, 113).await, None, "it ended");
    for (change_to, second) in [(JobChange::Stop, 120), (JobChange::Resume, 121)] {
        assert_eq!(change(&store, created.id, change_to, second).await, expected);
    }
    assert_eq!(lease(&store, 1_000).await, None);
}

pub async fn a_stopped_job_is_resumed_where_it_ended(store: impl AnyStore) {
    let created = create(&store, 0).await;
    let stopped = change(&store, created.id, JobChange::Stop, 1).await;
    assert_eq!((stopped.state, stopped.updated_at), (JobState::Stopped, at(1)));
    assert_eq!(change(&store, created.id, JobChange::Stop, 2).await, stopped, "as wanted already");
    assert_eq!(lease(&store, 3).await, None);
    let resumed = change(&store, created.id, JobChange::Resume, 4).await;
    assert_eq!((resumed.state, resumed.updated_at), (JobState::Running, at(4)));
    assert_eq!(change(&store, created.id, JobChange::Resume, 5).await, resumed);

    // Stopped in the middle of a portion: the portion counts, and the worker hears of it.
    let leased = lease(&store, 6).await.expect("it waits");
    change(&store, created.id, JobChange::Stop, 7).await;
    assert_eq!(advance(&store, &leased, 5, JobState::Running, 8).await, Some(JobState::Stopped));
    let found = job(&store, created.id).await;
    assert_eq!((found.state, found.progress), (JobState::Stopped, progress(5)));
    assert_eq!(advance(&store, &leased, 6, JobState::Running, 9).await, None, "its lease ended");
    assert_eq!(lease(&store, 10).await, None);
    change(&store, created.id, JobChange::Resume, 11).await;
    let leased = lease(&store, 12).await.expect("nobody works on it");
    assert_eq!(leased.job.progress, progress(5));
}

pub async fn a_failed_job_tells_why_until_it_is_resumed(store: impl AnyStore) {
    let created = create(&store, 0).await;
    let leased = lease(&store, 0).await.expect("it waits");
    let failed = JobProgress { error: Some("endpoint a is disabled".to_owned()), ..progress(3) };
    let (id, token) = (leased.job.id, leased.token);
    let fail = JobAdvance { id, token, progress: failed.clone(), state: JobState::Failed };
    let advanced = store.advance_job(fail, LEASE, clocks(at(1))).await;
    assert_eq!(advanced.expect("a store that works"), Some(JobState::Failed));
    let found = job(&store, created.id).await;
    assert_eq!((found.state, found.progress), (JobState::Failed, failed));
    assert_eq!(lease(&store, 1_000).await, None);
    let stopped = change(&store, created.id, JobChange::Stop, 1_001).await;
    assert_eq!(stopped.state, JobState::Failed, "it does not run");
    let resumed = change(&store, created.id, JobChange::Resume, 1_002).await;
    assert_eq!((resumed.state, &resumed.progress), (JobState::Running, &progress(3)));
    assert_eq!(lease(&store, 1_003).await.map(|leased| leased.job), Some(resumed));
}

pub async fn a_job_wakes_whoever_waits(store: impl AnyStore) {
    let mut changes = store.changes();
    let created = create(&store, 0).await;
    changes.changed().await;
    change(&store, created.id, JobChange::Stop, 1).await;
    let mut changes = store.changes();
    change(&store, created.id, JobChange::Resume, 2).await;
    changes.changed().await;
    assert!(lease(&store, 3).await.is_some());
}

pub async fn a_lease_that_was_extended_lasts(store: impl AnyStore) {
    create(&store, 0).await;
    let leased = lease(&store, 0).await.expect("it waits");
    for second in [59, 118, 177] {
        let going = advance(&store, &leased, second, JobState::Running, second).await;
        assert_eq!(going, Some(JobState::Running));
        let short = store.lease_job(Duration::from_secs(1), clocks(at(second + 59))).await;
        assert_eq!(short.expect("a store that works"), None);
    }
    assert!(lease(&store, 177 + 60).await.is_some());
}
