//! Requests with an idempotency key are carried out once, also if the process is killed before it answers.

use serde_json::{Value, json};
use webhooks_admin::{
    Admin, Answer, Begin, End, IdempotentRequest, ListQuery, MemoryRecordStore,
    PostgresRecordStore, Run, SqliteRecordStore,
};
use webhooks_core::{TenantId, Timestamp};
use webhooks_postgres::PostgresStore;
use webhooks_sqlite::SqliteStore;
use webhooks_tests::postgres::Cluster;

use crate::running::Running;

on_each_store! {
    what_a_killed_request_made_is_found_again;
    a_killed_request_for_a_key_makes_one;
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
    let Run { number, is_again } = run(&begin(0).await).unwrap();
    assert!(!is_again);
    assert_eq!(begin(59).await, Begin::InProgress);
    let other = IdempotentRequest { body: b"{ }", ..request };
    assert_eq!(admin.begin(other, at(60)).await.unwrap(), Begin::OtherBody);
    let again = Begin::Run(Run { number, is_again: true });
    let told = futures_util::future::join_all((0..8).map(|_| begin(60))).await;
    let is = |expected: &Begin| told.iter().filter(|told| *told == expected).count();
    assert_eq!((is(&again), is(&Begin::InProgress)), (1, 7), "{told:?}");
    // It failed, and nobody knows how far it went.
    admin.finish(request, End::Open, at(61)).await.unwrap();
    assert_eq!(begin(61).await, again);
    admin.finish(request, End::Refused, at(62)).await.unwrap();
    let Run { number: new, is_again } = run(&begin(62).await).unwrap();
    assert!(!is_again);
    assert!(new > number, "numbers grow with time");
    let answer = Answer { status: 201, body: "made".to_owned() };
    admin.finish(request, End::Answered(answer.clone()), at(63)).await.unwrap();
    assert_eq!(begin(10_000).await, Begin::Answered(answer));
    assert!(matches!(begin(100_000).await, Begin::Run(Run { is_again: false, .. })), "a day later");
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

    /// Leaves the request as it is a minute after its process was killed before the answer was recorded.
    async fn kill(running: &Running, path: &str, body: &str) {
        let (admin, query) =
            (running.service.admin(), ListQuery { limit: 1, ..Default::default() });
        let keys = admin.keys().list(query, Timestamp::now()).await.unwrap().items;
        let scope = format!("{} {path}", keys[0].id);
        let request = IdempotentRequest { scope: &scope, key: KEY, body: body.as_bytes() };
        admin.finish(request, End::Open, Timestamp::now()).await.unwrap();
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
            let (status, first) = post(&running, &path, &body).await;
            assert!((200..300).contains(&status), "{path}: {first}");
            let after = len(&running, &list).await;
            assert!(after > before, "{path}");
            for _ in 0..2 {
                kill(&running, &path, &body).await;
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
        let (status, first) = post(&running, &path, &body).await;
        assert_eq!(status, 201, "{first}");
        let endpoints = running.service.engine().endpoints().tenant(TenantId::new(&app).unwrap());
        endpoints.unregister(first["id"].as_str().unwrap()).await.unwrap();
        kill(&running, &path, &body).await;
        let (status, again) = post(&running, &path, &body).await;
        assert_eq!((status, &again["id"]), (201, &first["id"]), "{again}");
        assert_eq!(running.get(&of_app("endpoint/late")).await.0, 200);
        // Another body is another request.
        kill(&running, &path, &body).await;
        assert_eq!(post(&running, &path, &body.replace("late", "lost")).await.0, 409);
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
