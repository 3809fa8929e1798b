//! Requests with an idempotency key are carried out once, also if the process is killed before it answers.

use std::time::Duration;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use webhooks_admin::{
    Actor, Admin, AdminError, Answer, Begin, End, IdKind, IdempotentRequest, ListQuery,
    MemoryRecordStore, PostgresRecordStore, Run, ServiceJob, ServiceJobState, ServiceWork,
    SqliteRecordStore,
};
use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::jobs::JobQuery;
use webhooks_postgres::PostgresStore;
use webhooks_sqlite::SqliteStore;
use webhooks_tests::postgres::Cluster;

use crate::running::Running;

on_each_store! {
    what_a_killed_request_made_is_found_again;
    a_killed_request_for_a_job_begins_one;
    a_killed_request_for_a_key_makes_one;
    an_entry_that_was_deleted_meanwhile_is_added_again;
    two_runs_at_once_make_one_endpoint;
}

/// Returns how a request is carried out, if it is.
fn run(begun: &Begin) -> Option<Run> {
    match begun {
        Begin::Run(run) => Some(*run),
        Begin::Answered(_) | Begin::InProgress | Begin::OtherBody => None,
    }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_unix_seconds(1_000_000 + second)
}

/// Goal: of the requests with one key, one runs at a time, all with one number until one is answered or
/// refused.
async fn check_numbers(admin: &Admin) {
    let request = IdempotentRequest { scope: "key_1 /api/v1/app", key: "a", body: b"{}" };
    let begin = async |second: u64| admin.begin(request, at(second)).await.unwrap();
    let first = run(&begin(0).await).unwrap();
    assert!(!first.is_again);
    assert_eq!(begin(59).await, Begin::InProgress);
    let other = IdempotentRequest { body: b"{ }", ..request };
    assert_eq!(admin.begin(other, at(60)).await.unwrap(), Begin::OtherBody);
    let told = join_all((0..8).map(|_| begin(60))).await;
    let runs: Vec<Run> = told.iter().filter_map(run).collect();
    let refused = told.iter().filter(|told| **told == Begin::InProgress).count();
    assert_eq!((runs.len(), refused), (1, 7), "{told:?}");
    assert_eq!((runs[0].number, runs[0].is_again), (first.number, true));
    // It failed, and nobody knows how far it went.
    admin.finish(request, runs[0], End::Open, at(61)).await.unwrap();
    let again = run(&begin(61).await).unwrap();
    assert_eq!((again.number, again.is_again), (first.number, true));
    admin.finish(request, again, End::Refused, at(62)).await.unwrap();
    let new = run(&begin(62).await).unwrap();
    assert!(!new.is_again);
    assert!(new.number > first.number, "numbers grow with time");
    admin.finish(request, new, answered("made"), at(63)).await.unwrap();
    let answer = Answer { status: 201, body: "made".to_owned() };
    assert_eq!(begin(10_000).await, Begin::Answered(answer));
    assert!(matches!(begin(100_000).await, Begin::Run(Run { is_again: false, .. })), "a day later");
    check_slow_runs(admin).await;
    check_jobs(admin).await;
}

fn answered(body: &str) -> End {
    End::Answered(Answer { status: 201, body: body.to_owned() })
}

/// Goal: a run that lost its place to another one ends nothing but by the first answer, which stays.
async fn check_slow_runs(admin: &Admin) {
    let request = IdempotentRequest { scope: "key_1 /api/v1/app", key: "slow", body: b"{}" };
    let begin = async |second: u64| admin.begin(request, at(second)).await.unwrap();
    let finish = async |run: Run, end: End, second: u64| {
        let finished = admin.finish(request, run, end, at(second)).await;
        assert!(matches!(finished, Ok(()) | Err(AdminError::Changed)), "{finished:?}");
        finished.is_ok()
    };
    let slow = run(&begin(0).await).unwrap();
    let quick = run(&begin(60).await).unwrap();
    assert!(!finish(slow, End::Refused, 61).await);
    assert!(!finish(slow, End::Open, 61).await);
    assert_eq!(begin(61).await, Begin::InProgress);
    assert!(finish(quick, End::Refused, 62).await);
    let slow_again = run(&begin(63).await).unwrap();
    assert!(!finish(slow, End::Refused, 64).await, "it has another number");
    assert!(!finish(slow, answered("lost"), 64).await, "it has another number");
    let quick_again = run(&begin(130).await).unwrap();
    assert!(finish(slow_again, answered("first"), 131).await, "both make the same");
    assert!(!finish(quick_again, answered("second"), 132).await);
    assert!(!finish(quick_again, End::Refused, 132).await);
    assert!(!finish(quick_again, End::Open, 132).await);
    let first = Answer { status: 201, body: "first".to_owned() };
    assert_eq!(begin(133).await, Begin::Answered(first));
}

/// Goal: a job starts once. The second start is told that it is there, not that it was changed.
async fn check_jobs(admin: &Admin) {
    let (state, work) = (ServiceJobState::Running, ServiceWork::ListSubscriptions);
    let job = ServiceJob { application: None, work, state, result: Value::Null, until: at(1_000) };
    let (id, actor) = (IdKind::Task.generate(), Actor::service());
    admin.start_job(id.clone(), job.clone(), &actor, at(0)).await.unwrap();
    let second = admin.start_job(id, job, &actor, at(1)).await;
    assert!(matches!(second, Err(AdminError::Exists { .. })), "{second:?}");
}

#[tokio::test]
async fn numbers_in_memory_stay() {
    check_numbers(&Admin::new(MemoryRecordStore::default())).await;
}

#[tokio::test]
async fn numbers_in_a_file_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("service.db")).await.unwrap();
    check_numbers(&Admin::new(SqliteRecordStore::new(store).await.unwrap())).await;
}

#[tokio::test]
async fn numbers_in_a_database_stay() {
    let store = PostgresStore::open(&Cluster::shared().database().await).await.unwrap();
    check_numbers(&Admin::new(PostgresRecordStore::new(&store).await.unwrap())).await;
}

mod behaviour {
    use super::*;

    const KEY: &str = "0b7f3c1a";

    async fn post(running: &Running, path: &str, body: &str) -> (u16, Value) {
        let headers = [("idempotency-key", KEY), ("content-type", "application/json")];
        running.post(path, &headers, body).await
    }

    /// Returns the scope of the administrator's requests at a path.
    async fn scope(running: &Running, path: &str) -> String {
        let query = ListQuery { limit: 1, ..Default::default() };
        let keys = running.service.admin().keys().list(query, Timestamp::now()).await.unwrap();
        format!("{} {path}", keys.items[0].id)
    }

    /// Begins a request two minutes ago, in a process that was killed at once.
    async fn begin(running: &Running, path: &str, body: &str) -> Run {
        let scope = scope(running, path).await;
        let request = IdempotentRequest { scope: &scope, key: KEY, body: body.as_bytes() };
        let ago = Timestamp::now().saturating_sub(Duration::from_secs(120));
        run(&running.service.admin().begin(request, ago).await.unwrap()).unwrap()
    }

    async fn open(running: &Running, path: &str, body: &str, run: Run) -> bool {
        let scope = scope(running, path).await;
        let request = IdempotentRequest { scope: &scope, key: KEY, body: body.as_bytes() };
        let now = Timestamp::now();
        running.service.admin().finish(request, run, End::Open, now).await.is_ok()
    }

    /// Leaves the request as it is a minute after its process was killed before the answer was recorded. `run`
    /// is the one before.
    async fn kill(running: &Running, path: &str, body: &str, run: &mut Run) {
        // One version by the begin of the run, and one by its answer.
        run.version += 2;
        assert!(open(running, path, body, *run).await, "{path}");
        run.version += 1;
    }

    async fn len(running: &Running, path: &str) -> usize {
        let (status, list) = running.get(path).await;
        assert_eq!(status, 200, "{list}");
        list["data"].as_array().unwrap().len()
    }

    /// Goal: a request that is made again after its process was killed answers as the first would have, and
    /// makes nothing more.
    pub(super) async fn what_a_killed_request_made_is_found_again(running: Running) {
        let app = running.add_app("shop").await;
        let endpoint = json!({ "url": "http://127.0.0.1:9999/", "uid": "crm" });
        let nameless = json!({ "url": "http://127.0.0.1:9999/b" });
        let of_app = |rest: &str| format!("/api/v1/app/{app}/{rest}");
        let message = json!({ "eventType": "paid", "payload": {} });
        for (path, body, list) in [
            ("/api/v1/app".to_owned(), json!({ "name": "other" }), "/api/v1/app".to_owned()),
            (
                "/api/v1/app".to_owned(),
                json!({ "name": "x", "uid": "x" }),
                "/api/v1/app".to_owned(),
            ),
            (of_app("endpoint"), endpoint, of_app("endpoint")),
            (of_app("endpoint"), nameless, of_app("endpoint")),
            (
                "/api/v1/event-type".to_owned(),
                json!({ "name": "paid", "description": "d" }),
                "/api/v1/event-type".to_owned(),
            ),
            (of_app("polling-endpoint"), json!({ "uid": "p" }), of_app("polling-endpoint")),
            (of_app("msg/batch"), json!([message, message]), of_app("msg")),
            (
                "/api/v1/msg/broadcast".to_owned(),
                message.clone(),
                "/api/v1/background-task".to_owned(),
            ),
        ] {
            let (body, before) = (body.to_string(), len(&running, &list).await);
            // A key of its own for each request: the query is a part of its scope.
            let path = format!("{path}?n={before}{}", body.len());
            let mut run = begin(&running, &path, &body).await;
            let (status, first) = post(&running, &path, &body).await;
            assert!((200..300).contains(&status), "{path}: {first}");
            let after = len(&running, &list).await;
            assert!(after > before, "{path}");
            for _ in 0..2 {
                kill(&running, &path, &body, &mut run).await;
                let (status_again, again) = post(&running, &path, &body).await;
                assert_eq!(status_again, status, "{path}: {again}");
                let ids = |answer: &Value| match answer["data"].as_array() {
                    Some(all) => all.iter().map(|one| one["id"].clone()).collect(),
                    None => vec![answer["id"].clone(), answer["name"].clone()],
                };
                assert_eq!(ids(&again), ids(&first), "{path}");
            }
            let is_broadcast = path.contains("broadcast");
            let more = len(&running, &list).await;
            assert!(more == after || is_broadcast, "{path}: {more} after {after}");
        }
        assert_eq!(len(&running, "/api/v1/background-task").await, 1);
        // Killed after the entry of an endpoint, before its registration.
        let body = json!({ "url": "http://127.0.0.1:9999/c", "uid": "late" }).to_string();
        let path = of_app("endpoint");
        let mut run = begin(&running, &path, &body).await;
        let (status, first) = post(&running, &path, &body).await;
        assert_eq!(status, 201, "{first}");
        let endpoints = running.service.engine().endpoints().tenant(TenantId::new(&app).unwrap());
        endpoints.unregister(first["id"].as_str().unwrap()).await.unwrap();
        kill(&running, &path, &body, &mut run).await;
        let (status, again) = post(&running, &path, &body).await;
        assert_eq!((status, &again["id"]), (201, &first["id"]), "{again}");
        assert_eq!(running.get(&of_app("endpoint/late")).await.0, 200);
        // Another body is another request.
        kill(&running, &path, &body, &mut run).await;
        assert_eq!(post(&running, &path, &body.replace("late", "lost")).await.0, 409);
    }

    /// Goal: a request that begins a job of the engine begins one, also if it is made again after a failure.
    pub(super) async fn a_killed_request_for_a_job_begins_one(running: Running) {
        let app = running.add_app("shop").await;
        let endpoint = json!({ "url": "http://127.0.0.1:9999/", "uid": "crm" });
        let path = format!("/api/v1/app/{app}/endpoint");
        assert_eq!(running.ask("POST", &path, endpoint).await.0, 201);
        let jobs = async || {
            let list = running.service.engine().jobs().list(JobQuery::default()).await.unwrap();
            list.into_iter().map(|job| job.id).collect::<Vec<_>>()
        };
        let since = json!({ "since": "2026-01-01T00:00:00Z" }).to_string();
        let before = json!({ "createdBefore": "2026-01-01T00:00:00Z" }).to_string();
        for (number, (work, body)) in [
            ("recover", &since),
            ("replay-missing", &since),
            ("bulk-replay", &since),
            ("cancel-msgs", &before),
        ]
        .into_iter()
        .enumerate()
        {
            let path = format!("{path}/crm/{work}");
            let mut run = begin(&running, &path, body).await;
            let (status, first) = post(&running, &path, body).await;
            assert!((200..300).contains(&status), "{path}: {first}");
            let begun = jobs().await;
            assert_eq!(begun.len(), number + 1, "{path}");
            for _ in 0..2 {
                kill(&running, &path, body, &mut run).await;
                let (status_again, again) = post(&running, &path, body).await;
                assert_eq!((status_again, &again["id"]), (status, &first["id"]), "{path}: {again}");
                assert_eq!(jobs().await, begun, "{path}");
            }
        }
    }

    /// Goal: an endpoint has its entry, also if another process took the request for dead and deleted it.
    pub(super) async fn an_entry_that_was_deleted_meanwhile_is_added_again(running: Running) {
        let app = running.add_app("shop").await;
        let path = format!("/api/v1/app/{app}/endpoint");
        let body = json!({ "url": "http://127.0.0.1:9999/", "uid": "crm" }).to_string();
        let mut run = begin(&running, &path, &body).await;
        let (status, first) = post(&running, &path, &body).await;
        assert_eq!(status, 201, "{first}");
        let id = first["id"].as_str().unwrap();
        let tenant = TenantId::new(&app).unwrap();
        let entries = running.service.admin().endpoints(&tenant);
        entries.delete(id, &Actor::service(), Timestamp::now()).await.unwrap();
        assert_eq!(running.get(&format!("{path}/{id}")).await.0, 404);
        kill(&running, &path, &body, &mut run).await;
        let (status, again) = post(&running, &path, &body).await;
        assert_eq!((status, &again["id"]), (201, &first["id"]), "{again}");
        for name in [id, "crm"] {
            assert_eq!(running.get(&format!("{path}/{name}")).await.0, 200, "{name}");
        }
        let now = Timestamp::now();
        let left = running.service.admin().left_endpoint_changes(now, now).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }

    /// Goal: an endpoint that one run of a request has made stays, also if a second one runs beside it. Method:
    /// the place of the first run ends while it is in work, at a time that differs.
    pub(super) async fn two_runs_at_once_make_one_endpoint(running: Running) {
        let app = running.add_app("shop").await;
        let path = format!("/api/v1/app/{app}/endpoint");
        for round in 0..8 {
            let asked = format!("{path}?round={round}");
            let uid = format!("crm-{round}");
            let body = json!({ "url": "http://127.0.0.1:9999/", "uid": uid }).to_string();
            let before = begin(&running, &asked, &body).await;
            let first = Run { version: before.version + 1, ..before };
            let second = async {
                for _ in 0..100 {
                    if open(&running, &asked, &body, first).await {
                        break;
                    }
                }
                post(&running, &asked, &body).await
            };
            let (one, other) = join(post(&running, &asked, &body), second).await;
            let told = [one, other];
            let made: Vec<_> = told.iter().filter(|(status, _)| *status == 201).collect();
            assert!(told.iter().all(|(status, _)| [201, 409].contains(status)), "{told:?}");
            assert!(!made.is_empty(), "{told:?}");
            for (_, answer) in made {
                let (status, found) = running.get(&format!("{path}/{uid}")).await;
                assert_eq!((status, &found["id"]), (200, &answer["id"]), "{told:?}");
            }
            assert_eq!(len(&running, &path).await, round + 1);
        }
    }

    /// Goal: the text of a key is told once, so a request that is made again gets a new text of the same key,
    /// unless somebody uses it.
    pub(super) async fn a_killed_request_for_a_key_makes_one(running: Running) {
        let path = "/api/v1/management/authentication/env/api-token";
        let body = json!({ "name": "shop", "role": "viewer" }).to_string();
        let before = len(&running, path).await;
        let (status, first) = post(&running, path, &body).await;
        assert_eq!(status, 200, "{first}");
        let (status, again) = post(&running, path, &body).await;
        assert_eq!((status, &again["id"]), (200, &first["id"]), "{again}");
        assert_eq!(len(&running, path).await, before + 1);
        let ask = async |answer: &Value| {
            running.ask_as(answer["token"].as_str(), "GET", "/api/v1/app", None).await.0
        };
        assert_eq!((ask(&first).await, ask(&again).await), (401, 200));
        assert_eq!(post(&running, path, &body).await.0, 409, "it is in use");
        assert_eq!(ask(&again).await, 200);
    }
}
