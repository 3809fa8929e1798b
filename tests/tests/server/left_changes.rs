//! Changes of endpoints that a killed process has left: between the change and its row in the audit log.

use std::time::Duration;

use serde_json::{Value, json};
use webhooks_admin::{Actor, AdminError, EndpointChange, EndpointEntry, IdKind};
use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::{BoxedStore, Endpoints};
use webhooks_http::HttpTransport;
use webhooks_registry::Endpoint;
use webhooks_tests::Receiver;

use crate::life::wait;
use crate::running::Running;

on_each_store! {
    a_change_that_was_left_has_its_row;
    a_refused_change_leaves_no_note;
    an_entry_goes_with_the_end_of_its_change;
}

/// The key with which the process was asked that is gone.
const WHO: &str = "key_gone";

/// The service in the state in which a process leaves it that is killed.
struct Left<'r> {
    running: &'r Running,
    tenant: TenantId,
    endpoints: Endpoints<'r, BoxedStore, HttpTransport>,
}

impl Left<'_> {
    /// Adds an endpoint's entry, and perhaps its registration, as a request does.
    async fn add(&self, uid: &str, is_registered: bool) -> String {
        let (id, now) = (IdKind::Endpoint.generate(), Timestamp::now());
        let entry = EndpointEntry { uid: Some(uid.to_owned()) };
        let entries = self.running.service.admin().endpoints(&self.tenant);
        entries.add(id.clone(), entry, &Actor::service(), now).await.unwrap();
        if is_registered {
            let endpoint =
                Endpoint::new("http://127.0.0.1:9999/?token=hush", "my-secret-key").unwrap();
            self.endpoints.create(&id, endpoint).await.unwrap();
        }
        id
    }

    /// Notes that a change began ten minutes ago.
    async fn begin(&self, id: &str, is_there: bool) {
        let found = if is_there { self.endpoints.get(id).await.unwrap() } else { None };
        let before = found.map(|found| {
            let mut shown = serde_json::to_value(found.view()).unwrap();
            shown["url"] = json!("http://127.0.0.1:9999/?...");
            shown
        });
        let (who, endpoint, application) = (WHO.to_owned(), id.to_owned(), self.tenant.clone());
        let change = EndpointChange { who, from: None, application, endpoint, before };
        let ago = Timestamp::now().saturating_sub(Duration::from_secs(600));
        self.running.service.admin().begin_endpoint_change(change, ago).await.unwrap();
    }

    async fn rename(&self, id: &str) {
        let renamed = |endpoint: Endpoint| Ok(endpoint.name("renamed"));
        self.endpoints.update(id, None, renamed).await.unwrap();
    }

    /// Returns the versions before and after in the rows of the process that is gone.
    async fn rows(&self, id: &str) -> Vec<(Value, Value)> {
        let (status, log) = self.running.get("/api/v1/audit-log?limit=250").await;
        assert_eq!(status, 200, "{log}");
        assert!(!log.to_string().contains("hush"), "{log}");
        let rows = log["data"].as_array().unwrap().iter();
        let rows = rows.filter(|row| row.to_string().contains(WHO) && row.to_string().contains(id));
        rows.map(|row| (row["before"]["version"].clone(), row["after"]["version"].clone()))
            .collect()
    }
}

mod behaviour {
    use super::*;

    /// Goal: each change is a row of the audit log and is told, also if the process is killed between the two
    /// writes, at any point. Method: the states that a kill leaves are made by hand, and the tasks of a
    /// service are started again.
    pub(super) async fn a_change_that_was_left_has_its_row(running: Running) {
        let tenant = TenantId::new(&running.add_app("shop").await).unwrap();
        let endpoints = running.service.engine().endpoints().tenant(tenant.clone());
        let left = Left { running: &running, tenant, endpoints };
        let receiver = Receiver::answering(200).await;
        let input = json!({ "url": receiver.url() });
        let (status, _) = running.ask("POST", "/api/v1/operational-webhook/endpoint", input).await;
        assert_eq!(status, 201);
        let reserved = left.add("reserved", false).await;
        left.begin(&reserved, false).await;
        let made = left.add("made", true).await;
        left.begin(&made, false).await;
        let changed = left.add("changed", true).await;
        left.begin(&changed, true).await;
        left.rename(&changed).await;
        let same = left.add("same", true).await;
        left.begin(&same, true).await;
        let gone = left.add("gone", true).await;
        left.begin(&gone, true).await;
        left.endpoints.unregister(&gone).await.unwrap();
        // Somebody changed these two before anybody found what was left.
        let both = left.add("both", true).await;
        left.begin(&both, true).await;
        left.rename(&both).await;
        let other = left.add("other", true).await;
        left.begin(&other, true).await;
        for uid in ["both", "other"] {
            let path = format!("/api/v1/app/shop/endpoint/{uid}");
            let (status, answer) =
                running.ask("PATCH", &path, json!({ "description": "new" })).await;
            assert_eq!(status, 200, "{answer}");
        }
        let admin = running.service.admin();
        let count = async || {
            let now = Timestamp::now();
            admin.left_endpoint_changes(now, now).await.unwrap().len()
        };
        assert_eq!(count().await, 7);
        let _started_again = running.service.router();
        wait(async || count().await == 0).await;
        let none = Value::Null;
        assert_eq!(left.rows(&reserved).await, []);
        assert_eq!(left.rows(&made).await, [(none.clone(), json!(1))]);
        assert_eq!(left.rows(&changed).await, [(json!(1), json!(2))]);
        assert_eq!(left.rows(&same).await, []);
        assert_eq!(left.rows(&gone).await, [(json!(1), none)]);
        assert_eq!(left.rows(&both).await, [(json!(1), json!(2))], "the change by this process");
        assert_eq!(left.rows(&other).await, []);
        // The uids of endpoints that are not there are free at once.
        for uid in ["reserved", "gone"] {
            let input = json!({ "url": "http://127.0.0.1:9999/", "uid": uid });
            let (status, answer) = running.ask("POST", "/api/v1/app/shop/endpoint", input).await;
            assert_eq!(status, 201, "{uid}: {answer}");
        }
        let is_told = |kind: &str, id: &str| {
            receiver.received().iter().any(|one| {
                let body: Value = serde_json::from_slice(&one.body).unwrap();
                let told = &body["payload"];
                let told = if told.is_null() { &body } else { told };
                told["type"] == json!(kind) && told["data"]["endpointId"] == json!(id)
            })
        };
        wait(async || {
            is_told("endpoint.created", &made)
                && is_told("endpoint.updated", &changed)
                && is_told("endpoint.deleted", &gone)
        })
        .await;
        assert!(!is_told("endpoint.created", &reserved));
    }

    /// Goal: a change that the engine refuses leaves no note, from which another process would write a row.
    pub(super) async fn a_refused_change_leaves_no_note(running: Running) {
        running.add_app("shop").await;
        let path = "/api/v1/app/shop/endpoint";
        let good = json!({ "url": "http://127.0.0.1:9999/", "uid": "crm" });
        let (status, answer) = running.ask("POST", path, good).await;
        assert_eq!(status, 201, "{answer}");
        let rows = async || {
            let (status, log) = running.get("/api/v1/audit-log?limit=250").await;
            assert_eq!(status, 200, "{log}");
            log["data"].as_array().unwrap().len()
        };
        let before = rows().await;
        let (crm, headers) = (format!("{path}/crm"), format!("{path}/crm/headers"));
        let bad = json!({ "url": "http://10.0.0.1/" });
        for (method, path, body) in [
            ("PATCH", crm.as_str(), bad.clone()),
            ("PUT", crm.as_str(), bad.clone()),
            ("PATCH", headers.as_str(), json!({ "headers": { "a b": "c" } })),
            ("PUT", headers.as_str(), json!({ "headers": { "a b": "c" } })),
        ] {
            let (status, answer) = running.ask(method, path, body).await;
            assert_eq!(status, 422, "{method} {path}: {answer}");
        }
        assert_eq!(rows().await, before);
        // A new one has its entry before it is refused, and not after it.
        let (status, answer) = running.ask("POST", path, bad).await;
        assert_eq!(status, 422, "{answer}");
        let taken = json!({ "url": "http://127.0.0.1:9999/", "uid": "crm" });
        assert_eq!(running.ask("POST", path, taken).await.0, 409);
        let (admin, now) = (running.service.admin(), Timestamp::now());
        let left = admin.left_endpoint_changes(now, now).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }

    /// Goal: of a request and another process that takes it for dead, one ends the change, and the entry goes if
    /// it is the other process alone.
    pub(super) async fn an_entry_goes_with_the_end_of_its_change(running: Running) {
        let tenant = TenantId::new(&running.add_app("shop").await).unwrap();
        let endpoints = running.service.engine().endpoints().tenant(tenant.clone());
        let left = Left { running: &running, tenant: tenant.clone(), endpoints };
        let (admin, now) = (running.service.admin(), Timestamp::now());
        for is_request_first in [true, false] {
            let id = left.add(&format!("crm-{is_request_first}"), false).await;
            let (who, application) = (WHO.to_owned(), tenant.clone());
            let endpoint = id.clone();
            let change = EndpointChange { who, from: None, application, endpoint, before: None };
            let change = admin.begin_endpoint_change(change, now).await.unwrap();
            if is_request_first {
                admin.end_endpoint_change(&change, None, now).await.unwrap();
                let ended = admin.end_absent_endpoint_change(&change, None, now).await;
                assert!(matches!(ended, Err(AdminError::Changed)), "{ended:?}");
            } else {
                admin.end_absent_endpoint_change(&change, None, now).await.unwrap();
                let ended = admin.end_endpoint_change(&change, None, now).await;
                assert!(matches!(ended, Err(AdminError::Changed)), "{ended:?}");
            }
            let entry = admin.endpoints(&tenant).look_up(&id, now).await.unwrap();
            assert_eq!(entry.is_some(), is_request_first);
        }
    }
}
