//! Event types: schemas that are kept to, documents that are imported, and flags that hide.

use std::time::Duration;

use serde_json::{Value, json};
use webhooks_admin::{Actor, EventTypeInfo, Grant, Role, SchemaEnforcement};
use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use crate::running::{Kind, Running, add_key};

on_each_store! {
    a_payload_that_breaks_its_schema_is_refused;
    a_batch_with_one_broken_payload_is_refused_as_a_whole;
    a_warning_is_counted_and_the_message_is_published;
    a_changed_schema_holds_at_once;
    a_document_is_imported_as_a_whole_or_not_at_all;
    an_export_is_imported_elsewhere;
    an_import_archives_the_others;
    a_session_sees_the_features_of_its_flags;
}

const TYPES: &str = "/api/v1/event-type";
const IMPORT: &str = "/api/v1/event-type/import/openapi";
const EXPORT: &str = "/api/v1/event-type/export/openapi";

/// Makes or replaces the event type `paid`.
async fn put(running: &Running, schema: &Value, enforcement: &str) -> (u16, Value) {
    let body =
        json!({ "description": "", "schemas": { "1": schema }, "schemaEnforcement": enforcement });
    running.ask("PUT", &format!("{TYPES}/paid"), body).await
}

/// Publishes a payload as `paid`.
async fn publish(running: &Running, payload: Value) -> (u16, Value) {
    let message = json!({ "eventType": "paid", "payload": payload });
    running.ask("POST", "/api/v1/app/shop/msg", message).await
}

fn order() -> Value {
    json!({ "type": "object", "required": ["order"],
            "properties": { "order": { "type": "integer" },
                            "lines": { "items": { "properties": { "sku": { "maxLength": 3 } } } } } })
}

/// Returns the text of the metric with a name.
async fn metric(running: &Running, name: &str) -> String {
    let (_, text) = running.get("/metrics").await;
    let text = text.as_str().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap().to_owned()
}

mod behaviour {
    use super::*;

    pub(super) async fn a_payload_that_breaks_its_schema_is_refused(running: Running) {
        running.add_app("shop").await;
        assert_eq!(publish(&running, json!({})).await.0, 202, "the type is not known");
        assert_eq!(put(&running, &order(), "off").await.0, 201);
        assert_eq!(publish(&running, json!({})).await.0, 202);
        let (status, made) = put(&running, &order(), "refuse").await;
        assert_eq!((status, &made["schemaEnforcement"]), (200, &json!("refuse")));
        let (status, told) = publish(&running, json!({ "order": "private" })).await;
        assert_eq!(status, 422);
        let fault = &told["detail"][0];
        assert_eq!(fault["loc"], json!(["body", "payload", "order"]));
        assert_eq!(fault["type"], json!("value_error.schema"));
        assert!(fault["msg"].as_str().unwrap().contains("/properties/order/type"), "{told}");
        assert!(!told.to_string().contains("private"), "{told}");
        let (_, told) =
            publish(&running, json!({ "order": 1, "lines": [{ "sku": "private" }] })).await;
        assert_eq!(told["detail"][0]["loc"], json!(["body", "payload", "lines", "0", "sku"]));
        assert_eq!(publish(&running, json!({ "order": 1 })).await.0, 202);
        // It takes a thread of its own.
        let filler = "a".repeat(500_000);
        let large = json!({ "order": 1, "filler": filler });
        assert_eq!(publish(&running, large).await.0, 202);
        assert_eq!(publish(&running, json!({ "order": "1", "filler": filler })).await.0, 422);
        assert_eq!(metric(&running, "webhooks_schema_mismatches_refused_total").await, "3");
        // Nobody learns of an application that is not his, nor makes one.
        let made = json!({ "eventType": "paid", "payload": {},
                           "application": { "name": "new", "uid": "new" } });
        assert_eq!(running.ask("POST", "/api/v1/app/new/msg", made).await.0, 422);
        assert_eq!(running.get("/api/v1/app/new").await.0, 404);
        let key = add_key(&running.service, Grant::new(Role::Viewer)).await;
        let message = json!({ "eventType": "paid", "payload": {} }).to_string();
        let path = "/api/v1/app/shop/msg";
        assert_eq!(running.ask_as(Some(&key), "POST", path, Some(&message)).await.0, 403);
        let (_, list) = running.get(path).await;
        assert_eq!(list["data"].as_array().unwrap().len(), 4, "{list}");
    }

    pub(super) async fn a_batch_with_one_broken_payload_is_refused_as_a_whole(running: Running) {
        running.add_app("shop").await;
        put(&running, &order(), "refuse").await;
        let batch = |last: Value| {
            json!([{ "eventType": "other", "payload": {} },
                   { "eventType": "paid", "payload": { "order": 1 } },
                   { "eventType": "paid", "payload": last }])
        };
        let path = "/api/v1/app/shop/msg/batch";
        let (status, told) = running.ask("POST", path, batch(json!({ "order": "1" }))).await;
        assert_eq!(status, 422);
        assert_eq!(told["detail"][0]["loc"], json!(["body", "2", "payload", "order"]));
        let (_, list) = running.get("/api/v1/app/shop/msg").await;
        assert_eq!(list["data"], json!([]));
        assert_eq!(running.ask("POST", path, batch(json!({ "order": 2 }))).await.0, 202);
    }

    pub(super) async fn a_warning_is_counted_and_the_message_is_published(running: Running) {
        running.add_app("shop").await;
        put(&running, &order(), "warn").await;
        assert_eq!(publish(&running, json!({ "order": 1 })).await.0, 202);
        let name = "webhooks_schema_mismatches_published_total";
        assert_eq!(metric(&running, name).await, "0");
        assert_eq!(publish(&running, json!({})).await.0, 202);
        assert_eq!(metric(&running, name).await, "1");
        assert_eq!(metric(&running, "webhooks_schema_mismatches_refused_total").await, "0");
    }

    pub(super) async fn a_changed_schema_holds_at_once(running: Running) {
        running.add_app("shop").await;
        let path = format!("{TYPES}/paid");
        for round in 0..5 {
            // The newest version counts, by number.
            let schemas = json!({ "9": true, "10": order() });
            let schemas = if round == 0 { json!({ "1": order() }) } else { schemas };
            let (status, told) = put(&running, &order(), "refuse").await;
            assert!(status < 300, "{told}");
            assert_eq!(publish(&running, json!({})).await.0, 422);
            let wide = json!({ "schemas": { "1": {} } });
            assert_eq!(running.ask("PATCH", &path, wide).await.0, 200);
            assert_eq!(publish(&running, json!({})).await.0, 202);
            let (status, told) = running.ask("PATCH", &path, json!({ "schemas": schemas })).await;
            // A schema is an object, as in Svix.
            assert_eq!(status == 200, round == 0, "{told}");
            let schemas = json!({ "9": {}, "10": order() });
            assert_eq!(running.ask("PATCH", &path, json!({ "schemas": schemas })).await.0, 200);
            assert_eq!(publish(&running, json!({})).await.0, 422);
            let archived = running.ask("DELETE", &path, Value::Null).await.0;
            assert_eq!(archived, 204);
            assert_eq!(publish(&running, json!({})).await.0, 422, "it is kept to");
            let gone = running.ask("DELETE", &format!("{path}?expunge=true"), Value::Null).await.0;
            assert_eq!(gone, 204);
            assert_eq!(publish(&running, json!({})).await.0, 202);
        }
    }

    pub(super) async fn a_document_is_imported_as_a_whole_or_not_at_all(running: Running) {
        let yaml = "# pets\nopenapi: 3.1.0\nwebhooks:\n  pet.new:\n    post:\n      tags: [pet]\n      \
                    requestBody:\n        description: A pet.\n        content:\n          \
                    application/json:\n            schema: {$ref: '#/components/schemas/Pet'}\n      \
                    responses:\n        200: {description: done}\ncomponents:\n  schemas:\n    \
                    Pet: {type: object, required: [id]}\n";
        let dry = json!({ "specRaw": yaml, "dryRun": true });
        let (status, told) = running.ask("POST", IMPORT, dry).await;
        assert_eq!(status, 200, "{told}");
        let planned = &told["data"]["to_modify"][0];
        assert_eq!((&planned["name"], &planned["groupName"]), (&json!("pet.new"), &json!("pet")));
        assert_eq!(told["data"]["modified"], json!([]));
        assert_eq!(running.get(&format!("{TYPES}/pet.new")).await.0, 404);
        let (_, told) = running.ask("POST", IMPORT, json!({ "specRaw": yaml })).await;
        assert_eq!(told, json!({ "data": { "modified": ["pet.new"] } }));
        let (_, found) = running.get(&format!("{TYPES}/pet.new")).await;
        assert_eq!(found["schemas"], json!({ "1": { "type": "object", "required": ["id"] } }));
        assert_eq!(found["description"], json!("A pet."));
        let (_, told) = running.ask("POST", IMPORT, json!({ "specRaw": yaml })).await;
        assert_eq!(told["data"]["modified"], json!([]), "nothing is left to change");
        let (_, log) = running.get("/api/v1/audit-log").await;
        assert!(log.to_string().contains("pet.new"), "{log}");

        let item = json!({ "post": {} });
        for (webhooks, place) in [
            (json!({ "fine": item, "not..fine": item }), "not..fine"),
            (json!({ "fine": item, "other": { "get": 1 } }), "other"),
            (json!({ "fine": item, "far": { "$ref": "https://example.com/a" } }), "far"),
        ] {
            let spec = json!({ "openapi": "3.1.0", "webhooks": webhooks });
            let (status, told) = running.ask("POST", IMPORT, json!({ "spec": spec })).await;
            assert_eq!(status, 422, "{told}");
            let loc = json!(["body", "spec", "webhooks", place]);
            assert_eq!(told["detail"][0]["loc"], loc);
            assert_eq!(running.get(&format!("{TYPES}/fine")).await.0, 404);
        }
        for neither in [json!({}), json!({ "spec": {}, "specRaw": "" })] {
            assert_eq!(running.ask("POST", IMPORT, neither).await.0, 400);
        }
        let bomb = (1..40).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
            let before = level - 1;
            format!("{text}a{level}: &a{level} [*a{before}, *a{before}, *a{before}]\n")
        });
        for hostile in [bomb, "[".repeat(100_000), "a: ".repeat(1_000), "\u{0}".to_owned()] {
            let (status, told) = running.ask("POST", IMPORT, json!({ "specRaw": hostile })).await;
            assert_eq!(status, 422, "{told}");
        }
    }

    pub(super) async fn an_export_is_imported_elsewhere(running: Running) {
        let tree = json!({ "$ref": "#/$defs/node", "$defs": {
            "node": { "properties": { "next": { "$ref": "#/$defs/node" } } } } });
        for event_type in [
            json!({ "name": "tree", "description": "A tree.", "schemas": { "1": tree } }),
            json!({ "name": "beta", "description": "", "featureFlag": "beta", "deprecated": true }),
            json!({ "name": "order", "description": "Paid.", "groupName": "shop",
                    "schemaEnforcement": "refuse", "schemas": { "1": {}, "2": order() } }),
        ] {
            assert_eq!(running.ask("POST", TYPES, event_type).await.0, 201);
        }
        let old = json!({ "name": "old", "description": "", "archived": true });
        assert_eq!(running.ask("POST", TYPES, old).await.0, 201);
        let (status, export) = running.ask("POST", EXPORT, Value::Null).await;
        assert_eq!((status, &export["status"]), (202, &json!("finished")), "{export}");
        let spec = &export["data"]["spec"];
        let other = Running::start(Kind::Sqlite).await;
        let (status, told) = other.ask("POST", IMPORT, json!({ "spec": spec })).await;
        assert_eq!(told["data"]["modified"], json!(["beta", "order", "tree"]), "{status} {told}");
        let list = format!("{TYPES}?with_content=true");
        let without_times = |page: Value| {
            let mut all = page["data"].as_array().unwrap().clone();
            for one in &mut all {
                let fields = one.as_object_mut().unwrap();
                fields.retain(|name, _| !["createdAt", "updatedAt"].contains(&&**name));
            }
            all
        };
        let (here, there) = (running.get(&list).await.1, other.get(&list).await.1);
        assert_eq!(without_times(here), without_times(there));
        let (_, again) = running.ask("POST", IMPORT, json!({ "spec": spec })).await;
        assert_eq!(again["data"]["modified"], json!([]));
    }

    pub(super) async fn an_import_archives_the_others(running: Running) {
        for name in ["kept", "left", "archived"] {
            let new = json!({ "name": name, "description": "", "archived": name == "archived" });
            assert_eq!(running.ask("POST", TYPES, new).await.0, 201);
        }
        let webhooks = json!({ "kept": { "post": {} }, "archived": { "post": {} } });
        let spec = json!({ "openapi": "3.1.0", "webhooks": webhooks });
        let import = json!({ "spec": spec, "replaceAll": true });
        let (_, told) = running.ask("POST", IMPORT, import).await;
        assert_eq!(told["data"]["modified"], json!(["archived", "left"]), "{told}");
        let (_, list) = running.get(TYPES).await;
        let names: Vec<&Value> =
            list["data"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, [&json!("archived"), &json!("kept")]);
        let key = add_key(&running.service, Grant::new(Role::Viewer)).await;
        let body = json!({ "spec": spec }).to_string();
        assert_eq!(running.ask_as(Some(&key), "POST", IMPORT, Some(&body)).await.0, 403);
        assert_eq!(running.ask_as(Some(&key), "POST", EXPORT, None).await.0, 202);
        assert_eq!(running.ask_as(None, "POST", EXPORT, None).await.0, 401);
    }

    pub(super) async fn a_session_sees_the_features_of_its_flags(running: Running) {
        let app = running.add_app("shop").await;
        let example = json!({ "1": { "examples": [{}] } });
        for (name, flag) in [("a", None), ("b", Some("beta")), ("c", Some("gamma")), ("d", None)] {
            let new =
                json!({ "name": name, "description": "", "featureFlag": flag, "schemas": example });
            assert_eq!(running.ask("POST", TYPES, new).await.0, 201);
        }
        let endpoint = json!({ "url": "http://127.0.0.1:49151/", "uid": "crm" });
        running.ask("POST", "/api/v1/app/shop/endpoint", endpoint).await;
        let access = format!("/api/v1/auth/app-portal-access/{app}");
        let (beta, gamma) =
            (json!({ "featureFlags": ["beta"] }), json!({ "featureFlags": ["gamma", "x"] }));
        for (input, seen) in [
            (json!({}), vec!["a", "d"]),
            (json!({ "featureFlags": [] }), vec!["a", "d"]),
            (beta, vec!["a", "b", "d"]),
            (gamma, vec!["a", "c", "d"]),
        ] {
            let session = running.ask("POST", &access, input).await.1;
            let session = session["token"].as_str();
            // In pages of one, so that those that are hidden lie between them.
            let (mut names, mut iterator) = (Vec::new(), String::new());
            loop {
                let path = format!("{TYPES}?limit=1{iterator}");
                let (_, page) = running.ask_as(session, "GET", &path, None).await;
                let found = page["data"].as_array().unwrap().iter();
                names.extend(found.map(|one| one["name"].as_str().unwrap().to_owned()));
                if page["done"] == json!(true) {
                    break;
                }
                let next = page["iterator"].as_str().unwrap();
                assert!(seen.contains(&next), "{page}");
                iterator = format!("&iterator={next}");
            }
            assert_eq!(names, seen);
            for name in ["a", "b", "c", "d"] {
                let expected = if seen.contains(&name) { 200 } else { 404 };
                let path = format!("{TYPES}/{name}");
                assert_eq!(running.ask_as(session, "GET", &path, None).await.0, expected, "{name}");
                let path = format!("{TYPES}/{name}/retry-schedule");
                assert_eq!(running.ask_as(session, "GET", &path, None).await.0, expected, "{name}");
                let body = json!({ "eventType": name }).to_string();
                let path = "/api/v1/app/shop/endpoint/crm/send-example";
                let (status, told) = running.ask_as(session, "POST", path, Some(&body)).await;
                assert_eq!(status, expected, "{name}: {told}");
            }
            let (_, export) = running.ask_as(session, "POST", EXPORT, None).await;
            let webhooks = export["data"]["spec"]["webhooks"].as_object().unwrap();
            assert_eq!(webhooks.keys().collect::<Vec<_>>(), seen);
            let all = "/api/v1/environment/export";
            assert_eq!(running.ask_as(session, "POST", all, None).await.0, 403);
        }
        for wrong in [json!(["a b"]), json!("beta"), json!(vec!["a"; 65])] {
            let input = json!({ "featureFlags": wrong });
            assert_eq!(running.ask("POST", &access, input).await.0, 422);
        }
        // A key sees all, also one of the application.
        let tenant = TenantId::new(&app).unwrap();
        let key = add_key(&running.service, Grant::new(Role::Viewer).for_application(tenant)).await;
        let (_, page) = running.ask_as(Some(&key), "GET", TYPES, None).await;
        assert_eq!(page["data"].as_array().unwrap().len(), 4);
    }
}

/// Goal: a schema that payloads cannot be checked against is refused once it is to be kept to, whatever the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_cannot_be_checked_is_refused_where_it_is_enforced() {
    let running = Running::start(Kind::Sqlite).await;
    let mut bomb = json!({ "$ref": "#/$defs/0", "$defs": { "40": {} } });
    for number in 0..40 {
        let next = json!({ "$ref": format!("#/$defs/{}", number + 1) });
        bomb["$defs"][number.to_string()] = json!({ "anyOf": [next, next] });
    }
    for schema in [
        bomb,
        json!({ "type": "nonsense" }),
        json!({ "$ref": "https://example.com/schema.json" }),
        json!({ "$ref": "file:///etc/passwd" }),
        json!({ "properties": { "next": { "$ref": "#" } } }),
        json!({ "pattern": "(?=a)b" }),
        json!({ "pattern": "((a{1,1000}){1,1000}){1,1000}" }),
    ] {
        for enforcement in ["warn", "refuse"] {
            let (status, told) = put(&running, &schema, enforcement).await;
            assert_eq!(status, 422, "{schema}");
            assert_eq!(told["detail"][0]["loc"], json!(["body", "schemas"]), "{told}");
        }
        assert!(put(&running, &schema, "off").await.0 < 300, "{schema}");
        let patch = json!({ "schemaEnforcement": "refuse" });
        let path = format!("{TYPES}/paid");
        assert_eq!(running.ask("PATCH", &path, patch.clone()).await.0, 422);
        // A document cannot bring one either.
        assert!(put(&running, &json!({}), "refuse").await.0 < 300);
        let content = json!({ "application/json": { "schema": { "allOf": [schema] } } });
        let item = json!({ "post": { "requestBody": { "content": content } } });
        let spec = json!({ "openapi": "3.1.0", "webhooks": { "paid": item } });
        let (status, told) = running.ask("POST", IMPORT, json!({ "spec": spec })).await;
        assert_eq!(status, 422, "{told}");
        assert_eq!(
            running.ask("DELETE", &format!("{path}?expunge=true"), Value::Null).await.0,
            204
        );
    }
    let deep = (0..100).fold(json!({}), |inner, _| json!({ "items": inner }));
    assert_eq!(put(&running, &deep, "off").await.0, 422);
    let (status, _) = put(&running, &json!({}), "sometimes").await;
    assert_eq!(status, 422);
}

/// Goal: a change that another process makes holds soon. Method: it is made beside the service.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_another_process_holds_soon() {
    let running = Running::start(Kind::Sqlite).await;
    running.add_app("shop").await;
    put(&running, &order(), "refuse").await;
    assert_eq!(publish(&running, json!({})).await.0, 422);
    let admin = running.service.admin();
    let off = |info| EventTypeInfo { schema_enforcement: SchemaEnforcement::Off, ..info };
    admin.event_types().change("paid", &Actor::service(), Timestamp::now(), off).await.unwrap();
    let deadline = SystemClock.monotonic() + Duration::from_secs(30);
    while publish(&running, json!({})).await.0 != 202 {
        assert!(SystemClock.monotonic() < deadline, "it is still refused");
        SystemClock.sleep(Duration::from_millis(20)).await;
    }
}

/// Goal: an import that meets a change at the same time is made on top of it. Method: several at once.
#[tokio::test(flavor = "multi_thread")]
async fn imports_at_the_same_time_follow_each_other() {
    let running = Running::start(Kind::Sqlite).await;
    let import = |round: usize| {
        let item = json!({ "post": { "description": round.to_string() } });
        let spec = json!({ "openapi": "3.1.0", "webhooks": { "a": item, "b": item } });
        running.ask("POST", IMPORT, json!({ "spec": spec }))
    };
    let told = futures_util::future::join_all((0..4).map(import)).await;
    assert!(told.iter().all(|(status, _)| *status == 200), "{told:?}");
    let a = running.get(&format!("{TYPES}/a")).await.1["description"].clone();
    assert_eq!(running.get(&format!("{TYPES}/b")).await.1["description"], a);
}
