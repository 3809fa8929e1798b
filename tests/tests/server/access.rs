//! Every operation, asked by those who may not.

use serde_json::{Value, json};
use webhooks_admin::{Actor, ApiKey, ApiKeyText, Grant, IdKind, Role};
use webhooks_core::{TenantId, Timestamp};

use crate::running::{Kind, Running, add_key};

/// The operations: method, path, a body that each accepts. `{app}`, `{ep}` and `{msg}` stand for ids.
const OPERATIONS: [(&str, &str, &str); 67] = [
    ("GET", "/api/v1/app", ""),
    ("POST", "/api/v1/app", r#"{"name":"new"}"#),
    ("GET", "/api/v1/app/{app}", ""),
    ("PUT", "/api/v1/app/{app}", r#"{"name":"new"}"#),
    ("PATCH", "/api/v1/app/{app}", r#"{"name":"new"}"#),
    ("GET", "/api/v1/app/{app}/endpoint", ""),
    ("POST", "/api/v1/app/{app}/endpoint", r#"{"url":"http://127.0.0.1:49151/"}"#),
    ("GET", "/api/v1/app/{app}/endpoint/{ep}", ""),
    ("PUT", "/api/v1/app/{app}/endpoint/{ep}", r#"{"url":"http://127.0.0.1:49151/new"}"#),
    ("PATCH", "/api/v1/app/{app}/endpoint/{ep}", r#"{"description":"new"}"#),
    ("GET", "/api/v1/app/{app}/endpoint/{ep}/headers", ""),
    ("PUT", "/api/v1/app/{app}/endpoint/{ep}/headers", r#"{"headers":{"x-a":"b"}}"#),
    ("PATCH", "/api/v1/app/{app}/endpoint/{ep}/headers", r#"{"headers":{"x-a":"b"}}"#),
    ("GET", "/api/v1/app/{app}/endpoint/{ep}/secret", ""),
    ("POST", "/api/v1/app/{app}/endpoint/{ep}/secret/rotate", "{}"),
    ("GET", "/api/v1/app/{app}/endpoint/{ep}/stats", ""),
    ("GET", "/api/v1/app/{app}/endpoint/{ep}/msg", ""),
    ("POST", "/api/v1/app/{app}/endpoint/{ep}/recover", r#"{"since":"2026-01-01T00:00:00Z"}"#),
    ("POST", "/api/v1/app/{app}/endpoint/{ep}/send-example", r#"{"eventType":"svix.ping"}"#),
    ("GET", "/api/v1/app/{app}/msg", ""),
    ("POST", "/api/v1/app/{app}/msg", r#"{"eventType":"new","payload":{}}"#),
    ("GET", "/api/v1/app/{app}/msg/{msg}", ""),
    ("GET", "/api/v1/app/{app}/msg/{msg}/endpoint", ""),
    ("POST", "/api/v1/app/{app}/msg/{msg}/endpoint/{ep}/resend", ""),
    ("GET", "/api/v1/app/{app}/msg/{msg}/attempt/atmpt_0000000000000000000000", ""),
    ("DELETE", "/api/v1/app/{app}/msg/{msg}/attempt/atmpt_0000000000000000000000/content", ""),
    ("POST", "/api/v1/app/{app}/msg/{msg}/endpoint/{ep}/cancel", ""),
    ("GET", "/api/v1/app/{app}/attempt", ""),
    ("GET", "/api/v1/app/{app}/attempt/endpoint/{ep}", ""),
    ("GET", "/api/v1/app/{app}/attempt/msg/{msg}", ""),
    ("DELETE", "/api/v1/app/{app}/msg/{msg}/content", ""),
    ("DELETE", "/api/v1/app/{app}/endpoint/{ep}", ""),
    ("DELETE", "/api/v1/app/{app}", ""),
    ("POST", "/api/v1/auth/app-portal-access/{app}", "{}"),
    ("POST", "/api/v1/auth/app/{app}/create-message-token", r#"{"name":"new"}"#),
    ("POST", "/api/v1/auth/app/{app}/expire-all", "{}"),
    ("GET", "/api/v1/management/authentication/env/api-token", ""),
    (
        "POST",
        "/api/v1/management/authentication/env/api-token",
        r#"{"name":"new","role":"viewer"}"#,
    ),
    ("GET", "/api/v1/management/authentication/env/api-token/{key}", ""),
    ("PUT", "/api/v1/management/authentication/env/api-token/{key}", r#"{"name":"new"}"#),
    ("POST", "/api/v1/management/authentication/env/api-token/{key}/expire", "{}"),
    ("GET", "/api/v1/background-task", ""),
    ("GET", "/api/v1/background-task/{task}", ""),
    (
        "POST",
        "/api/v1/app/{app}/endpoint/{ep}/replay-missing",
        r#"{"since":"2026-01-01T00:00:00Z"}"#,
    ),
    ("POST", "/api/v1/app/{app}/endpoint/{ep}/bulk-replay", r#"{"since":"2026-01-01T00:00:00Z"}"#),
    (
        "POST",
        "/api/v1/app/{app}/endpoint/{ep}/cancel-msgs",
        r#"{"createdBefore":"2026-01-01T00:00:00Z"}"#,
    ),
    ("POST", "/api/v1/app/{app}/msg/batch", r#"[{"eventType":"new","payload":{}}]"#),
    ("POST", "/api/v1/app/{app}/msg/bulk-expunge", r#"{"ids":["{msg}"]}"#),
    ("GET", "/api/v1/app/{app}/msg/{msg}/raw", ""),
    ("GET", "/api/v1/app/{app}/msg/{msg}/attempt/atmpt_0000000000000000000000/headers", ""),
    ("GET", "/metrics", ""),
    ("GET", "/api/v1/audit-log", ""),
    ("GET", "/api/v1/operational-webhook/endpoint", ""),
    ("POST", "/api/v1/operational-webhook/endpoint", r#"{"url":"http://127.0.0.1:49151/"}"#),
    ("GET", "/api/v1/operational-webhook/endpoint/{ep}", ""),
    ("PUT", "/api/v1/operational-webhook/endpoint/{ep}", r#"{"url":"http://127.0.0.1:49151/"}"#),
    ("DELETE", "/api/v1/operational-webhook/endpoint/{ep}", ""),
    ("GET", "/api/v1/operational-webhook/endpoint/{ep}/headers", ""),
    ("PUT", "/api/v1/operational-webhook/endpoint/{ep}/headers", r#"{"headers":{"x-a":"b"}}"#),
    ("GET", "/api/v1/operational-webhook/endpoint/{ep}/secret", ""),
    ("POST", "/api/v1/operational-webhook/endpoint/{ep}/secret/rotate", "{}"),
    ("GET", "/api/v1/event-type", ""),
    ("POST", "/api/v1/event-type", r#"{"name":"new","description":""}"#),
    ("GET", "/api/v1/event-type/paid", ""),
    ("PUT", "/api/v1/event-type/paid", r#"{"description":"new"}"#),
    ("PATCH", "/api/v1/event-type/paid", r#"{"description":"new"}"#),
    ("DELETE", "/api/v1/event-type/paid", ""),
];

/// An application with an endpoint and a message, and their ids.
struct Things {
    running: Running,
    app: String,
    endpoint: String,
    message: String,
    /// A key of an administrator, and a task.
    key: String,
    task: String,
}

impl Things {
    async fn new() -> Self {
        let running = Running::start(Kind::Sqlite).await;
        let app = running.add_app("shop").await;
        let made = async |path: &str, body: Value| {
            let (status, made) = running.ask("POST", path, body).await;
            assert!((200..300).contains(&status), "{path}: {made}");
            made["id"].as_str().unwrap_or_default().to_owned()
        };
        let new = json!({ "url": "http://127.0.0.1:49151/" });
        let endpoint = made(&format!("/api/v1/app/{app}/endpoint"), new).await;
        made("/api/v1/event-type", json!({ "name": "paid", "description": "old" })).await;
        let new = json!({ "eventType": "paid", "payload": { "private": 1 } });
        let message = made(&format!("/api/v1/app/{app}/msg"), new).await;
        let keys = "/api/v1/management/authentication/env/api-token";
        let key = made(keys, json!({ "name": "old", "role": "viewer" })).await;
        let since = json!({ "since": "2026-01-01T00:00:00Z" });
        let task = made(&format!("/api/v1/app/{app}/endpoint/{endpoint}/recover"), since).await;
        Self { running, app, endpoint, message, key, task }
    }

    fn path(&self, path: &str) -> String {
        let path = path.replace("{app}", &self.app).replace("{ep}", &self.endpoint);
        let path = path.replace("{msg}", &self.message).replace("{key}", &self.key);
        path.replace("{task}", &self.task)
    }

    /// Returns all that a change could have changed.
    async fn state(&self) -> Vec<Value> {
        let mut state = Vec::new();
        for path in [
            "/api/v1/app",
            "/api/v1/event-type?include_archived=true",
            "/api/v1/app/{app}/endpoint",
            "/api/v1/app/{app}/endpoint/{ep}/headers",
            "/api/v1/app/{app}/endpoint/{ep}/secret",
            "/api/v1/app/{app}/msg",
            "/api/v1/app/{app}/msg/{msg}/raw",
            "/api/v1/management/authentication/env/api-token/{key}",
        ] {
            let (status, found) = self.running.get(&self.path(path)).await;
            assert_eq!(status, 200, "{path}");
            state.push(found);
        }
        state
    }
}

/// Asks each operation with a key; `allowed` tells the status that each must answer.
async fn walk(things: &Things, key: Option<&str>, expected: impl Fn(&str, &str) -> &'static [u16]) {
    let before = things.state().await;
    for (method, path, body) in OPERATIONS {
        let body = (!body.is_empty()).then(|| things.path(body));
        let (status, answer) =
            things.running.ask_as(key, method, &things.path(path), body.as_deref()).await;
        let expected = expected(method, path);
        assert!(expected.contains(&status), "{method} {path}: {status} {answer}");
        let text = answer.to_string();
        if status >= 400 {
            assert!(!text.contains("private") && !text.contains("whsec_"), "{path}: {text}");
        }
    }
    assert_eq!(things.state().await, before, "nothing was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_accepted_key_nothing_is_read_or_touched() {
    let things = Things::new().await;
    let now = Timestamp::now();
    let add = async |key: fn(ApiKey, Timestamp) -> ApiKey| {
        let text = ApiKeyText::generate();
        let new = ApiKey::new("test", text.hash(), Grant::new(Role::Admin), now);
        let (id, actor) = (IdKind::ApiKey.generate(), Actor::service());
        let keys = things.running.service.admin().keys();
        keys.add(id, key(new, now), &actor, now).await.unwrap();
        text.reveal().to_owned()
    };
    let expired = add(ApiKey::expiring).await;
    let revoked = add(ApiKey::revoked).await;
    let unknown = ApiKeyText::generate();
    for key in
        [None, Some(""), Some("nonsense"), Some(unknown.reveal()), Some(&*expired), Some(&*revoked)]
    {
        walk(&things, key, |_, _| &[401]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_application_finds_nothing() {
    let things = Things::new().await;
    let other = TenantId::new(&things.running.add_app("other").await).unwrap();
    for role in [Role::Admin, Role::Operator, Role::Viewer, Role::Publisher] {
        let grant = Grant::new(role).for_application(other.clone()).with_secrets();
        let key = add_key(&things.running.service, grant).await;
        walk(&things, Some(&key), |method, path| match (method, path) {
            ("GET", "/api/v1/event-type" | "/api/v1/event-type/paid") => &[200],
            // Operations on all applications are refused before any is looked for.
            ("GET" | "POST", "/api/v1/app") | ("PUT", "/api/v1/app/{app}") => &[403],
            ("GET", "/api/v1/background-task") => &[200],
            (_, path)
                if ["event-type", "/auth/", "management", "metrics", "audit-log"]
                    .iter()
                    .any(|part| path.contains(part)) =>
            {
                &[403]
            }
            _ => &[404],
        })
        .await;
    }
}

/// Goal: a role that may only read changes nothing, and sees no secret.
#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_reads_and_touches_nothing() {
    let things = Things::new().await;
    let key = add_key(&things.running.service, Grant::new(Role::Viewer)).await;
    walk(&things, Some(&key), |method, path| match (method, path) {
        ("GET", path)
            if ["/secret", "management", "audit-log", "operational"]
                .iter()
                .any(|part| path.contains(part)) =>
        {
            &[403]
        }
        ("GET", path) if path.contains("atmpt_") => &[404],
        ("GET", _) => &[200],
        _ => &[403],
    })
    .await;
}
