//! The errors that a newcomer meets: that each says what is wrong and what to do, and shows no secret.

use serde_json::{Value, json};
use webhooks_admin::{Grant, Role};

use crate::running::{Kind, Running, add_key};

on_each_store! {
    each_wrong_request_is_told_what_is_wrong;
    an_iterator_of_another_list_is_refused_by_each_list;
}

/// Secrets of the wrong requests. No answer may have them.
const SECRETS: [&str; 5] = ["c2hvcnQ", "hunter2", "whkey_", "BEGIN PRIVATE", "not*base64"];

/// Wrong requests by those who may: method, path, body, status, words of the answer.
const WRONG: [(&str, &str, &str, u16, &str); 67] = [
    ("POST", "app", "{}", 422, "it is missing"),
    ("POST", "app", "", 422, "the body is empty"),
    ("POST", "app", "{", 422, "it is not JSON"),
    ("POST", "app", r#"{"name":1}"#, 422, "it must be a string"),
    ("POST", "app", r#"{"name":"a","uid":"a b"}"#, 422, "1 to 256 of A-Z"),
    (
        "POST",
        "app",
        r#"{"name":"a","uid":"shop"}"#,
        409,
        r#"Another application has the uid "shop""#,
    ),
    ("POST", "app", r#"{"name":"a","throttleRate":70000}"#, 422, "0 to 65535"),
    ("PATCH", "app/bank", r#"{"uid":"shop"}"#, 409, r#"uid "shop""#),
    ("GET", "app/nobody", "", 404, "no such application"),
    ("GET", "apps", "", 404, "no such path"),
    ("PUT", "app", "{}", 405, "header Allow"),
    ("GET", "app?limit=a", "", 400, "0 to 250"),
    ("GET", "app?order=up", "", 400, "ascending or descending"),
    ("POST", "app/shop/endpoint", r#"{"url":"nonsense"}"#, 422, "https://"),
    ("POST", "app/shop/endpoint", r#"{"url":"ftp://example.com/"}"#, 422, "http"),
    (
        "POST",
        "app/shop/endpoint",
        r#"{"url":"http://10.0.0.1/"}"#,
        422,
        "not an allowed destination",
    ),
    ("POST", "app/shop/endpoint", r#"{"url":"http://me:hunter2@127.0.0.1/"}"#, 422, "credentials"),
    (
        "POST",
        "app/shop/endpoint",
        r#"{"url":"http://127.0.0.1/","secret":"whsec_c2hvcnQ="}"#,
        422,
        "24 to 64 bytes",
    ),
    (
        "POST",
        "app/shop/endpoint",
        r#"{"url":"http://127.0.0.1/","secret":"whsec_not*base64"}"#,
        422,
        "base64",
    ),
    (
        "POST",
        "app/shop/endpoint",
        r#"{"url":"http://127.0.0.1/","secret":"hunter2"}"#,
        422,
        "whsec_",
    ),
    (
        "POST",
        "app/shop/endpoint",
        r#"{"url":"http://127.0.0.1/","secret":"whsk_c2hvcnQ="}"#,
        422,
        "whsec_",
    ),
    (
        "POST",
        "app/shop/endpoint",
        r#"{"url":"http://127.0.0.1/","uid":"crm"}"#,
        409,
        r#"Another endpoint has the uid "crm""#,
    ),
    (
        "PATCH",
        "app/shop/endpoint/erp",
        r#"{"uid":"crm"}"#,
        409,
        r#"Another endpoint has the uid "crm""#,
    ),
    (
        "POST",
        "app/shop/endpoint",
        r#"{"url":"http://127.0.0.1/","eventTypes":[]}"#,
        422,
        "leave it out",
    ),
    (
        "POST",
        "app/shop/endpoint",
        r#"{"url":"http://127.0.0.1/","eventTypes":["a b"]}"#,
        422,
        "neither '*'",
    ),
    ("POST", "app/shop/endpoint", r#"{"url":"http://127.0.0.1/","channels":["a b"]}"#, 422, "A-Z"),
    (
        "POST",
        "app/shop/endpoint",
        r#"{"url":"http://127.0.0.1/","headers":{"host":"a"}}"#,
        422,
        "host",
    ),
    (
        "POST",
        "app/shop/endpoint",
        r#"{"url":"http://127.0.0.1/","delivery":{"timeoutSecs":0}}"#,
        422,
        "1 to 600",
    ),
    (
        "POST",
        "app/shop/endpoint",
        r#"{"url":"http://127.0.0.1/","delivery":{"timeout":9}}"#,
        422,
        "timeoutSecs",
    ),
    (
        "POST",
        "app/shop/endpoint",
        r#"{"url":"http://127.0.0.1/","delivery":{"body":"xml"}}"#,
        422,
        "payload",
    ),
    ("GET", "app/shop/endpoint/none", "", 404, "no such endpoint"),
    (
        "POST",
        "app/shop/endpoint/crm/secret/rotate",
        r#"{"key":"whsec_c2hvcnQ="}"#,
        422,
        "24 to 64 bytes",
    ),
    (
        "POST",
        "app/shop/endpoint/crm/secret/rotate",
        r#"{"gracePeriodSeconds":999999}"#,
        422,
        "604800",
    ),
    ("PUT", "app/shop/endpoint/crm/headers", r#"{"headers":{"x-a":"a\nhunter2"}}"#, 422, "x-a"),
    (
        "PUT",
        "app/shop/endpoint/crm/oauth",
        r#"{"grantType":"password","authMethod":"clientSecretPost","clientId":"a","tokenUrl":"https://example.com/"}"#,
        422,
        "clientCredentials",
    ),
    (
        "PUT",
        "app/shop/endpoint/crm/oauth",
        r#"{"grantType":"clientCredentials","authMethod":"clientSecretPost","clientId":"a","tokenUrl":"https://example.com/"}"#,
        422,
        "it is missing",
    ),
    ("PUT", "app/shop/endpoint/tls/mtls", r#"{"identity":"hunter2"}"#, 422, "PEM"),
    (
        "PUT",
        "app/shop/endpoint/tls/mtls",
        r#"{"identity":"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"}"#,
        422,
        "do not fit together",
    ),
    ("PUT", "app/shop/endpoint/tls/ca", r#"{"cert":"hunter2"}"#, 422, "PEM"),
    (
        "POST",
        "event-type",
        r#"{"name":"paid","description":""}"#,
        409,
        r#"Another event type has the name "paid""#,
    ),
    ("POST", "event-type", r#"{"name":"a..b","description":""}"#, 422, "single '.'"),
    (
        "POST",
        "event-type",
        r#"{"name":"app_0000000000000000000001","description":""}"#,
        422,
        "looks like an id",
    ),
    (
        "PUT",
        "event-type/paid/retry-schedule",
        r#"{"retrySchedule":[5]}"#,
        422,
        "it must be an object",
    ),
    ("POST", "app/shop/msg", r#"{"eventType":"a b","payload":{}}"#, 422, "allowed are A-Z"),
    ("POST", "app/shop/msg", r#"{"eventType":"a","payload":[]}"#, 422, "it must be an object"),
    ("POST", "app/shop/msg", r#"{"eventType":"a"}"#, 422, "it is missing"),
    (
        "POST",
        "app/shop/msg",
        r#"{"eventType":"a","payload":{},"deliverAt":"tomorrow"}"#,
        422,
        "RFC 3339",
    ),
    (
        "POST",
        "app/shop/msg",
        r#"{"eventType":"a","payload":{},"deliverAt":"2999-01-01T00:00:00Z"}"#,
        422,
        "90 days",
    ),
    (
        "POST",
        "msg/broadcast",
        r#"{"eventType":"a","payload":{},"deliverAt":"2999-01-01T00:00:00Z"}"#,
        422,
        "90 days",
    ),
    (
        "POST",
        "app/shop/msg",
        r#"{"eventType":"paid","payload":{"a":2},"eventId":"one"}"#,
        409,
        "eventId",
    ),
    (
        "POST",
        "app/shop/msg",
        r#"{"eventType":"a","payload":{},"eventId":"a b"}"#,
        422,
        "1 to 256 of A-Z",
    ),
    ("POST", "app/shop/msg/batch", r#"{"eventType":"a","payload":{}}"#, 422, "it must be an array"),
    ("GET", "app/shop/msg/none", "", 404, "no such message"),
    ("GET", "app/shop/msg?before=yesterday", "", 400, "2026-01-31T12:00:00Z"),
    ("GET", "app/shop/msg?event_types=a..b", "", 400, "single '.'"),
    ("GET", "app/shop/msg?with_content=maybe", "", 400, "true or false"),
    ("GET", "app/shop/attempt/endpoint/crm?status=9", "", 400, "0 to 4"),
    ("POST", "app/shop/msg/one/endpoint/off/resend", "", 409, "enable it first"),
    ("POST", "app/shop/endpoint/crm/recover", r#"{"since":"soon"}"#, 422, "RFC 3339"),
    (
        "POST",
        "management/authentication/x/api-token",
        r#"{"name":"a","role":"root"}"#,
        422,
        "publisher",
    ),
    (
        "POST",
        "management/authentication/x/api-token",
        r#"{"name":"a","role":"admin","scopes":["a"]}"#,
        422,
        "role",
    ),
    (
        "POST",
        "management/authentication/x/api-token",
        r#"{"name":"a","role":"viewer","aplication":"shop"}"#,
        422,
        "application",
    ),
    (
        "POST",
        "management/authentication/x/api-token",
        r#"{"name":"a","role":"viewer","application":"nobody"}"#,
        404,
        "no such application",
    ),
    ("POST", "auth/app-portal-access/shop", r#"{"readonly":true}"#, 422, "readOnly"),
    ("PUT", "app/shop/limits", r#"{"maxEndpoint":1}"#, 422, "maxEndpoints"),
    (
        "POST",
        "app/shop/polling-endpoint",
        r#"{"uid":"reader"}"#,
        409,
        r#"Another poller has the uid "reader""#,
    ),
    ("GET", "app/shop/integration", "", 501, "does not offer integrations"),
];

mod behaviour {
    use super::*;

    async fn make(running: &Running, path: &str, body: Value) -> Value {
        let (status, made) = running.ask("POST", &format!("/api/v1/{path}"), body).await;
        assert!((200..300).contains(&status), "{path}: {made}");
        made
    }

    pub(super) async fn each_wrong_request_is_told_what_is_wrong(running: Running) {
        running.add_app("shop").await;
        running.add_app("bank").await;
        let url = "http://127.0.0.1:49151/";
        for uid in ["crm", "erp"] {
            make(&running, "app/shop/endpoint", json!({ "url": url, "uid": uid })).await;
        }
        let safe = json!({ "url": "https://127.0.0.1:49151/", "uid": "tls" });
        make(&running, "app/shop/endpoint", safe).await;
        make(&running, "app/shop/endpoint", json!({ "url": url, "uid": "off" })).await;
        make(&running, "event-type", json!({ "name": "paid", "description": "" })).await;
        make(&running, "app/shop/polling-endpoint", json!({ "uid": "reader" })).await;
        let message = json!({ "eventType": "paid", "payload": { "a": 1 }, "eventId": "one" });
        make(&running, "app/shop/msg", message).await;
        let off = json!({ "disabled": true });
        let off = running.ask("PATCH", "/api/v1/app/shop/endpoint/off", off).await;
        assert_eq!(off.0, 200, "{}", off.1);
        let mut bad = Vec::new();
        for (method, path, body, status, words) in WRONG {
            let key = Some(&*running.key);
            let sent = (!body.is_empty() || method == "POST").then_some(body);
            let (found, answer) =
                running.ask_as(key, method, &format!("/api/v1/{path}"), sent).await;
            let fault = &answer["detail"][0];
            let told =
                fault["msg"].as_str().or_else(|| answer["detail"].as_str()).unwrap_or_default();
            let shows = SECRETS.iter().any(|secret| answer.to_string().contains(secret));
            // A field of the body is named by its own name, not by one that the request does not have.
            let of_request =
                fault["loc"][1].as_str().is_none_or(|name| name != "url" || body.contains("url"));
            if found != status || !told.contains(words) || shows || !of_request {
                bad.push(format!(
                    "{method} {path} {body}\n    {status} {words}\n    {found} {answer}"
                ));
            }
        }
        assert!(bad.is_empty(), "{}", bad.join("\n"));
    }

    /// Goal: a list says that an iterator is wrong; an empty page would end a reader's walk too early.
    pub(super) async fn an_iterator_of_another_list_is_refused_by_each_list(running: Running) {
        let app = running.add_app("shop").await;
        let endpoint = json!({ "url": "http://127.0.0.1:49151/" });
        let endpoint = make(&running, "app/shop/endpoint", endpoint).await;
        let endpoint = endpoint["id"].as_str().unwrap();
        let message = json!({ "eventType": "paid", "payload": {}, "eventId": "one" });
        make(&running, "app/shop/msg", message).await;
        let keys = "management/authentication/x/api-token";
        for (list, foreign) in [
            ("app", endpoint),
            ("event-type", &*app),
            ("event-type", "a..b"),
            ("app/shop/endpoint", &app),
            ("app/shop/polling-endpoint", endpoint),
            ("operational-webhook/endpoint", &app),
            (keys, &app),
            ("audit-log", &app),
            ("background-task", &app),
            ("app/shop/msg", &app),
            ("app/shop/msg/one/endpoint", &app),
            ("app/shop/attempt/msg/one", &app),
            (&format!("app/shop/attempt/endpoint/{endpoint}"), &app),
            (&format!("app/shop/endpoint/{endpoint}/msg"), &app),
            ("app/shop/events", &app),
            ("events", &app),
            ("app/shop/poller/none", &app),
        ] {
            for iterator in [foreign, "nonsense", "prev:", "prev:nonsense", ""] {
                // A name that an event type can have is a place in their list.
                if list == "event-type" && iterator.ends_with("nonsense") {
                    continue;
                }
                let path = format!("/api/v1/{list}?iterator={iterator}");
                let (status, answer) = running.get(&path).await;
                let expected = if list.ends_with("none") { 404 } else { 400 };
                assert_eq!(status, expected, "{path}: {answer}");
                let told = answer["detail"].as_str().unwrap();
                assert!(status == 404 || told.contains("of the same list"), "{path}: {answer}");
            }
        }
    }
}

/// Goal: one who may not is told which role the key has, what it may not do, and which roles may.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_role_and_the_right() {
    let running = Running::start(Kind::Sqlite).await;
    running.add_app("shop").await;
    let endpoint = json!({ "url": "http://127.0.0.1:49151/", "uid": "crm" });
    assert_eq!(running.ask("POST", "/api/v1/app/shop/endpoint", endpoint).await.0, 201);
    for (role, method, path, body, words) in [
        (
            Role::Viewer,
            "POST",
            "app",
            r#"{"name":"a"}"#,
            "the role viewer may not change applications; use a key with the role operator or admin",
        ),
        (
            Role::Publisher,
            "GET",
            "app/shop/endpoint",
            "",
            "the role publisher may not read applications and endpoints",
        ),
        (
            Role::Operator,
            "GET",
            "audit-log",
            "",
            "the role operator may not read the audit log; use a key with the role admin",
        ),
        (
            Role::Operator,
            "GET",
            "app/shop/endpoint/crm/secret",
            "",
            "may not see secrets; use one with `seesSecrets`",
        ),
    ] {
        let key = add_key(&running.service, Grant::new(role)).await;
        let body = (!body.is_empty()).then_some(body);
        let (status, answer) =
            running.ask_as(Some(&key), method, &format!("/api/v1/{path}"), body).await;
        assert_eq!((status, &answer["code"]), (403, &json!("insufficient access")), "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(words), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_is_told_why() {
    let running = Running::start(Kind::Sqlite).await;
    for (key, words) in [
        (None, "Authorization: Bearer"),
        (Some("whkey_short"), "incomplete"),
        (Some("nonsense"), "24 to 256"),
        (Some("whkey_00000000000000000000000000000000000000000000"), "not known"),
    ] {
        let (status, answer) = running.ask_as(key, "GET", "/api/v1/app", None).await;
        assert_eq!((status, &answer["code"]), (401, &json!("authentication_failed")), "{answer}");
        let told = answer["detail"].as_str().unwrap();
        assert!(told.contains(words) && !told.contains("0000"), "{answer}");
    }
}
