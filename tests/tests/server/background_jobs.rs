//! Jobs of the service: each is done once, by whichever process has it.

use std::time::Duration;

use serde_json::{Value, json};
use webhooks_admin::{
    Actor, Admin, AdminError, IdKind, JobClaim, ListQuery, MemoryRecordStore, PostgresRecordStore,
    ServiceJob, ServiceJobState, ServiceWork, SqliteRecordStore,
};
use webhooks_core::Timestamp;
use webhooks_dispatch::{BoxedStore, Engine};
use webhooks_http::HttpTransport;
use webhooks_postgres::PostgresStore;
use webhooks_server::{Metrics, Service, ServiceSettings};
use webhooks_sqlite::SqliteStore;
use webhooks_tests::postgres::Cluster;

use crate::life::wait;

/// The jobs that a process has left.
const JOBS: usize = 20;

async fn start(admin: &Admin, now: Timestamp) -> JobClaim {
    let job = ServiceJob {
        application: None,
        work: ServiceWork::ListSubscriptions,
        state: ServiceJobState::Running,
        result: Value::Null,
        until: now + Duration::from_secs(1_000_000),
    };
    admin.start_job(IdKind::Task.generate(), job, &Actor::service(), now).await.unwrap()
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_unix_seconds(1_000_000 + second)
}

/// Goal: a job is one process's until its lease ends, then that of one of many, and a claim that was lost
/// changes nothing.
async fn check_leases(admin: &Admin) {
    let first = start(admin, at(0)).await;
    assert_eq!(admin.claim_job(at(59)).await.unwrap(), None, "its lease lasts");
    admin.extend_job(&first, at(50)).await.unwrap();
    assert_eq!(admin.claim_job(at(109)).await.unwrap(), None, "it was extended");
    let claims = (0..8).map(|_| admin.claim_job(at(110)));
    let claims = futures_util::future::join_all(claims).await;
    let mut claims: Vec<JobClaim> = claims.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(claims.len(), 1, "{claims:?}");
    let second = claims.remove(0);
    assert_eq!(second.job, first.job);
    let outcome = |word: &str| (ServiceJobState::Finished, json!(word));
    let extended = admin.extend_job(&first, at(111)).await;
    assert!(matches!(extended, Err(AdminError::Changed)), "{extended:?}");
    let finished = admin.finish_job(&first, outcome("lost"), at(111)).await;
    assert!(matches!(finished, Err(AdminError::Changed)), "{finished:?}");
    admin.finish_job(&second, outcome("won"), at(111)).await.unwrap();
    let finished = admin.finish_job(&second, outcome("again"), at(112)).await;
    assert!(matches!(finished, Err(AdminError::Changed)), "{finished:?}");
    let found = admin.jobs().get(&first.job.id, at(112)).await.unwrap().value;
    assert_eq!((found.state, found.result), outcome("won"));
    assert_eq!(admin.claim_job(at(10_000)).await.unwrap(), None, "it is done");
    assert_eq!(ends(admin, &first.job.id).await, 1);
}

/// Returns how often the end of a job was recorded.
async fn ends(admin: &Admin, id: &str) -> usize {
    let query = ListQuery { limit: 1_000, ..ListQuery::default() };
    let rows = admin.audit().list(query, Timestamp::now()).await.unwrap().items;
    rows.iter().filter(|row| row.value.id == id && row.value.before.is_some()).count()
}

/// Goal: of several processes that start at once, one does each job that is left. Method: two services over
/// one store, and jobs of a process that died ten minutes ago.
async fn check_services(stores: [(BoxedStore, Admin); 2]) {
    let (admin, now) = (stores[0].1.clone(), Timestamp::now());
    let ago = now.saturating_sub(Duration::from_secs(600));
    let mut left = Vec::new();
    for _ in 0..JOBS {
        left.push(start(&admin, ago).await.job.id);
    }
    let recent = start(&admin, now).await.job.id;
    let services = stores.map(|(store, admin)| {
        let metrics = Metrics::default();
        let engine = Engine::builder(store, HttpTransport::development().unwrap()).build();
        Service::new(engine, admin, ServiceSettings::default(), metrics)
    });
    let _routers = services.each_ref().map(Service::router);
    let state = async |id: &str| admin.jobs().get(id, Timestamp::now()).await.unwrap().value.state;
    for id in &left {
        wait(async || state(id).await == ServiceJobState::Finished).await;
        assert_eq!(ends(&admin, id).await, 1, "{id}");
    }
    assert_eq!(state(&recent).await, ServiceJobState::Running, "its process may live");
}

#[tokio::test]
async fn a_job_in_memory_is_leased() {
    check_leases(&Admin::new(MemoryRecordStore::default())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_a_file_is_leased_and_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("service.db")).await.unwrap();
    let admin = Admin::new(SqliteRecordStore::new(store.clone()).await.unwrap());
    check_leases(&admin).await;
    check_services([(); 2].map(|()| (BoxedStore::new(store.clone()), admin.clone()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_a_database_is_leased_and_done_once() {
    let database = Cluster::shared().database().await;
    let open = async || {
        let store = PostgresStore::open(&database).await.unwrap();
        let admin = Admin::new(PostgresRecordStore::new(&store).await.unwrap());
        (BoxedStore::new(store), admin)
    };
    let stores = [open().await, open().await];
    check_leases(&stores[0].1).await;
    check_services(stores).await;
}
