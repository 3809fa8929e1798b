//! Sessions by one-time tokens, and keys that only publish, on both stores.

use serde_json::{Value, json};

use crate::running::Running;

const EXCHANGE: &str = "/api/v1/auth/one-time-token";

on_each_store! {
    a_one_time_token_opens_one_session;
    a_one_time_token_ends_with_its_session;
    a_key_for_messages_publishes_in_one_application;
}

mod behaviour {
    use super::*;

    /// Opens a session; returns its answer.
    async fn open(running: &Running, body: Value) -> Value {
        let (status, opened) =
            running.ask("POST", "/api/v1/auth/app-portal-access/shop", body).await;
        assert_eq!(status, 200, "{opened}");
        opened
    }

    /// Exchanges a token, without a key.
    async fn exchange(running: &Running, token: &Value) -> (u16, Value) {
        let body = json!({ "oneTimeToken": token }).to_string();
        running.ask_as(None, "POST", EXCHANGE, Some(&body)).await
    }

    async fn whoami(running: &Running, key: &Value) -> (u16, Value) {
        running.ask_as(key.as_str(), "GET", "/api/v1/auth/whoami", None).await
    }

    pub(super) async fn a_one_time_token_opens_one_session(running: Running) {
        let app = running.add_app("shop").await;
        let opened = open(&running, json!({ "expiry": 3600 })).await;
        let once = &opened["oneTimeToken"];
        assert_eq!(whoami(&running, once).await.0, 401, "it is no key");
        // Only one of many at once opens a session.
        let all = futures_util::future::join_all((0..8).map(|_| exchange(&running, once))).await;
        let made: Vec<_> = all.iter().filter(|(status, _)| *status == 200).collect();
        assert_eq!(made.len(), 1, "{all:?}");
        let (_, session) = made[0];
        assert!(all.iter().all(|(status, _)| [200, 401].contains(status)), "{all:?}");
        let rights = ["ViewBase", "ViewEndpointSecret", "ManageEndpoint", "ManageEndpointSecret"];
        assert_eq!(session["capabilities"].as_array().unwrap()[..4], rights);
        assert_ne!(session["token"], opened["token"]);
        let (status, who) = whoami(&running, &session["token"]).await;
        assert_eq!((status, &who["appId"], &who["role"]), (200, &json!(app), &json!("customer")));
        let (status, answer) = exchange(&running, once).await;
        assert_eq!((status, &answer["code"]), (401, &json!("authentication_failed")));
        assert!(answer["detail"].as_str().unwrap().contains("it was used"), "{answer}");
        let read = open(&running, json!({ "readOnly": true })).await;
        let (_, session) = exchange(&running, &read["oneTimeToken"]).await;
        assert_eq!(session["capabilities"], json!(["ViewBase"]));
        let (_, log) = running.get("/api/v1/audit-log").await;
        assert!(!log.to_string().contains(once.as_str().unwrap()));
        let (status, answer) = exchange(&running, &json!("a".repeat(5_000))).await;
        assert_eq!(status, 413, "{answer}");
        for wrong in [json!(null), json!(""), json!("whkey_short")] {
            let (status, answer) = exchange(&running, &wrong).await;
            assert_eq!(status, if wrong.is_null() { 422 } else { 401 }, "{answer}");
        }
    }

    pub(super) async fn a_one_time_token_ends_with_its_session(running: Running) {
        running.add_app("shop").await;
        let (left, ended) = (open(&running, json!({})).await, open(&running, json!({})).await);
        let (_, session) = exchange(&running, &left["oneTimeToken"]).await;
        let out =
            running.ask_as(ended["token"].as_str(), "POST", "/api/v1/auth/logout", None).await;
        assert_eq!(out.0, 204, "{}", out.1);
        assert_eq!(exchange(&running, &ended["oneTimeToken"]).await.0, 401);
        assert_eq!(whoami(&running, &session["token"]).await.0, 200);
        let unused = open(&running, json!({})).await;
        let all = running.ask("POST", "/api/v1/auth/app/shop/expire-all", json!({})).await;
        assert_eq!(all.0, 204, "{}", all.1);
        assert_eq!(whoami(&running, &session["token"]).await.0, 401);
        assert_eq!(exchange(&running, &unused["oneTimeToken"]).await.0, 401);
    }

    pub(super) async fn a_key_for_messages_publishes_in_one_application(running: Running) {
        running.add_app("shop").await;
        running.add_app("bank").await;
        let path = "/api/v1/auth/app/shop/create-message-token";
        let new = json!({ "name": "checkout", "expiry": 3600 });
        let (status, made) = running.ask("POST", path, new).await;
        assert_eq!(status, 200, "{made}");
        assert!(made["expiresAt"].is_string(), "{made}");
        let message = r#"{"eventType":"paid","payload":{}}"#;
        let publish = async |app: &str| {
            let path = format!("/api/v1/app/{app}/msg");
            running.ask_as(made["token"].as_str(), "POST", &path, Some(message)).await.0
        };
        assert_eq!((publish("shop").await, publish("bank").await), (202, 404));
        let endpoints = "/api/v1/app/shop/endpoint";
        let told = running.ask_as(made["token"].as_str(), "GET", endpoints, None).await;
        assert_eq!(told.0, 403);
        for wrong in [json!({ "name": "a", "expiry": 0 }), json!({ "name": "" }), json!({})] {
            let (status, answer) = running.ask("POST", path, wrong).await;
            assert_eq!(status, 422, "{answer}");
        }
        let (status, answer) = running.get("/api/v1/auth/app/shop/poller/one/token").await;
        assert_eq!(status, 501, "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains("token/rotate"), "{answer}");
    }
}
