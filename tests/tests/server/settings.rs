//! Settings of endpoints, applications and event types that the engine obeys.

use serde_json::{Value, json};
use webhooks_tests::Receiver;

use crate::running::{Kind, Running, until};

on_each_store! {
    the_settings_of_deliveries_are_shown_and_obeyed;
    an_event_type_has_a_retry_schedule_of_its_own;
    an_application_keeps_to_its_limits;
    the_messages_of_a_day_are_those_that_were_accepted;
    the_messages_of_a_day_are_counted_exactly_at_once;
}

mod behaviour {
    use super::*;

    pub(super) async fn the_settings_of_deliveries_are_shown_and_obeyed(running: Running) {
        let app = running.add_app("shop").await;
        let receiver = Receiver::answering(204).await;
        let path = format!("/api/v1/app/{app}/endpoint");
        let delivery = json!({
            "ordered": true, "paused": true, "retrySchedule": [5, 60], "timeoutSecs": 7,
            "maxInFlight": 3, "throttlePeriodSecs": 60, "maxAgeSecs": 3600, "body": "event",
        });
        let new = json!({
            "url": receiver.url(), "uid": "crm", "throttleRate": 600, "delivery": delivery,
        });
        let (status, made) = running.ask("POST", &path, new).await;
        assert_eq!((status, &made["delivery"]), (201, &delivery), "{made}");
        let message = json!({ "eventType": "paid", "eventId": "one", "payload": { "a": 1 } });
        let messages = format!("/api/v1/app/{app}/msg");
        assert_eq!(running.ask("POST", &messages, message).await.0, 202);
        // The request of an old client library changes nothing of it.
        let one = format!("{path}/crm");
        let old = json!({ "url": receiver.url(), "uid": "crm", "throttleRate": 300 });
        let (status, after) = running.ask("PUT", &one, old).await;
        assert_eq!((status, &after["delivery"]), (200, &delivery), "{after}");
        assert!(receiver.received().is_empty(), "it is paused");
        let resumed = json!({ "delivery": { "paused": false, "retrySchedule": null } });
        let (status, after) = running.ask("PATCH", &one, resumed).await;
        assert_eq!(status, 200, "{after}");
        assert_eq!(after["delivery"]["paused"], json!(false));
        assert!(after["delivery"].get("retrySchedule").is_none(), "{after}");
        let delivered = |page: &Value| page["data"][0]["status"] == json!(0);
        until(&running, &format!("/api/v1/app/{app}/attempt/msg/one"), delivered).await;
        let body: Value = serde_json::from_slice(&receiver.received()[0].body).unwrap();
        assert_eq!(body["event_type"], json!("paid"), "the event, and not the payload alone");
        for bad in [
            json!({ "retrySchedule": [2_592_001] }),
            json!({ "retrySchedule": vec![1; 51] }),
            json!({ "timeoutSecs": 0 }),
            json!({ "timeoutSecs": 601 }),
            json!({ "maxInFlight": 1025 }),
            json!({ "maxInFlight": 0 }),
            json!({ "throttlePeriodSecs": 86_401 }),
            json!({ "body": "xml" }),
            json!({ "order": true }),
        ] {
            let (status, answer) = running.ask("PATCH", &one, json!({ "delivery": bad })).await;
            assert_eq!(status, 422, "{bad}: {answer}");
        }
        let both = json!({ "disabled": true, "delivery": { "paused": true } });
        assert_eq!(running.ask("PATCH", &one, both).await.0, 422);
    }

    pub(super) async fn an_event_type_has_a_retry_schedule_of_its_own(running: Running) {
        let app = running.add_app("shop").await;
        let receiver = Receiver::answering(500).await;
        let new = json!({ "url": receiver.url(), "uid": "crm" });
        let path = format!("/api/v1/app/{app}/endpoint");
        assert_eq!(running.ask("POST", &path, new).await.0, 201);
        let schedule = "/api/v1/event-type/paid/retry-schedule";
        assert_eq!(running.get(schedule).await.0, 404);
        let new = json!({ "name": "paid", "description": "" });
        assert_eq!(running.ask("POST", "/api/v1/event-type", new).await.0, 201);
        assert_eq!(running.get(schedule).await.1, json!({}));
        let none = json!({ "retrySchedule": [] });
        assert_eq!(running.ask("PUT", schedule, none.clone()).await, (200, none.clone()));
        assert_eq!(running.get(schedule).await.1, none);
        let publish = async |id: &str, event_type: &str| {
            let message = json!({ "eventType": event_type, "eventId": id, "payload": {} });
            let path = format!("/api/v1/app/{app}/msg");
            assert_eq!(running.ask("POST", &path, message).await.0, 202);
        };
        publish("once", "paid").await;
        let status_of = async |id: &str, wanted: u8| {
            let path = format!("/api/v1/app/{app}/endpoint/crm/msg?limit=250");
            until(&running, &path, |page| {
                let mut all = page["data"].as_array().unwrap().iter();
                all.any(|one| one["eventId"] == json!(id) && one["status"] == json!(wanted))
            })
            .await
        };
        // Failed, and not to be tried again: the service has one retry.
        status_of("once", 2).await;
        publish("other", "sent").await;
        status_of("other", 3).await;
        let long = json!({ "retrySchedule": [{ "secs": 100_000 }] });
        assert_eq!(running.ask("PUT", schedule, long).await.0, 200);
        let unset = json!({ "retrySchedule": null });
        assert_eq!(running.ask("PUT", schedule, unset).await.0, 200);
        assert_eq!(running.get(schedule).await.1, json!({}));
        let bad = json!({ "retrySchedule": [{ "secs": 2_592_001 }] });
        assert_eq!(running.ask("PUT", schedule, bad).await.0, 422);
    }

    /// Goal: what is refused or was accepted before costs nothing of the day, and what was accepted is
    /// answered again when the day is used up.
    pub(super) async fn the_messages_of_a_day_are_those_that_were_accepted(running: Running) {
        let app = running.add_app("shop").await;
        let (limits, messages) =
            (format!("/api/v1/app/{app}/limits"), format!("/api/v1/app/{app}/msg"));
        let batch = format!("{messages}/batch");
        let message = |id: &str, payload: Value| json!({ "eventType": "paid", "eventId": id, "payload": payload });
        let one = |id: &str| message(id, json!({}));
        let (status, _) = running.ask("PUT", &limits, json!({ "messagesPerDay": 2 })).await;
        assert_eq!(status, 200);
        let (status, first) = running.ask("POST", &messages, one("a")).await;
        assert_eq!(status, 202, "{first}");
        // None of these is a new message.
        for _ in 0..3 {
            assert_eq!(running.ask("POST", &messages, one("a")).await, (202, first.clone()));
        }
        let other = message("a", json!({ "n": 1 }));
        assert_eq!(running.ask("POST", &messages, other.clone()).await.0, 409);
        let long = message("long", json!({ "text": "x".repeat(1_200_000) }));
        let (status, refused) = running.ask("POST", &messages, long.clone()).await;
        assert!((400..500).contains(&status) && status != 429, "{status} {refused}");
        assert_ne!(running.ask("POST", &batch, json!([one("b"), long])).await.0, 202);
        assert_eq!(running.ask("POST", &batch, json!([one("a"), one("a")])).await.0, 202);
        assert_eq!(running.ask("POST", &messages, one("b")).await.0, 202);
        // The day is used up.
        assert_eq!(running.ask("POST", &messages, one("c")).await.0, 429);
        assert_eq!(running.ask("POST", &messages, one("a")).await, (202, first));
        assert_eq!(running.ask("POST", &messages, other.clone()).await.0, 409);
        assert_eq!(running.ask("POST", &batch, json!([one("a"), one("b"), other])).await.0, 202);
        assert_eq!(running.ask("POST", &batch, json!([one("a"), one("c")])).await.0, 429);
        let (status, _) = running.ask("PUT", &limits, json!({ "messagesPerDay": 3 })).await;
        assert_eq!(status, 200);
        let again = json!([one("a"), one("c"), one("c"), one("b")]);
        let (status, made) = running.ask("POST", &batch, again).await;
        assert_eq!(status, 202, "{made}");
        let states: Vec<&Value> =
            made["data"].as_array().unwrap().iter().map(|found| &found["status"]).collect();
        assert_eq!(states, ["duplicate", "created", "duplicate", "duplicate"]);
        assert_eq!(running.ask("POST", &messages, one("d")).await.0, 429);
    }

    pub(super) async fn the_messages_of_a_day_are_counted_exactly_at_once(running: Running) {
        let app = running.add_app("shop").await;
        let limits = format!("/api/v1/app/{app}/limits");
        assert_eq!(running.ask("PUT", &limits, json!({ "messagesPerDay": 10 })).await.0, 200);
        let publish = |number: u32| {
            let path = format!("/api/v1/app/{app}/msg");
            let message = json!({ "eventType": "paid", "payload": { "n": number } });
            let running = &running;
            async move { running.ask("POST", &path, message).await.0 }
        };
        let told = futures_util::future::join_all((0..40).map(publish)).await;
        assert_eq!(told.iter().filter(|status| **status == 202).count(), 10, "{told:?}");
        assert_eq!(told.iter().filter(|status| **status == 429).count(), 30, "{told:?}");
    }

    pub(super) async fn an_application_keeps_to_its_limits(running: Running) {
        let app = running.add_app("shop").await;
        let path = format!("/api/v1/app/{app}/limits");
        let none = json!({ "maxEndpoints": null, "messagesPerDay": null, "retentionDays": null });
        assert_eq!(running.get(&path).await, (200, none));
        let limits = json!({ "maxEndpoints": 1, "messagesPerDay": 3, "retentionDays": 7 });
        assert_eq!(running.ask("PUT", &path, limits.clone()).await, (200, limits.clone()));
        assert_eq!(running.get("/api/v1/app/shop/limits").await.1, limits);
        let endpoint = json!({ "url": "http://127.0.0.1:9999/" });
        let endpoints = format!("/api/v1/app/{app}/endpoint");
        let (status, made) = running.ask("POST", &endpoints, endpoint.clone()).await;
        assert_eq!(status, 201, "{made}");
        assert_eq!(running.ask("POST", &endpoints, endpoint.clone()).await.0, 409);
        let messages = format!("/api/v1/app/{app}/msg");
        let message = json!({ "eventType": "paid", "payload": {} });
        assert_eq!(running.ask("POST", &messages, message.clone()).await.0, 202);
        let three = json!([message, message, message]);
        let (status, refused) = running.ask("POST", &format!("{messages}/batch"), three).await;
        assert_eq!((status, &refused["code"]), (429, &json!("quota_exceeded")), "{refused}");
        let two = json!([message, message]);
        assert_eq!(running.ask("POST", &format!("{messages}/batch"), two).await.0, 202);
        assert_eq!(running.ask("POST", &messages, message.clone()).await.0, 429);
        let other = running.add_app("other").await;
        let elsewhere = format!("/api/v1/app/{other}/msg");
        assert_eq!(running.ask("POST", &elsewhere, message.clone()).await.0, 202);
        assert_eq!(running.ask("DELETE", &path, Value::Null).await.0, 204);
        assert_eq!(running.ask("POST", &messages, message).await.0, 202);
        assert_eq!(running.ask("POST", &endpoints, endpoint).await.0, 201);
        for bad in [json!({ "retentionDays": 0 }), json!({ "maxEndpoint": 1 })] {
            assert_eq!(running.ask("PUT", &path, bad.clone()).await.0, 422, "{bad}");
        }
    }
}

/// Goal: credentials and certificates of an endpoint are set, used by the engine, and never shown.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_certificates_are_set_and_never_shown() {
    let running = Running::start(Kind::Sqlite).await;
    let app = running.add_app("shop").await;
    let endpoint = json!({ "url": "https://127.0.0.1:9999/hook", "uid": "crm" });
    let endpoints = format!("/api/v1/app/{app}/endpoint");
    assert_eq!(running.ask("POST", &endpoints, endpoint).await.0, 201);
    let path = |rest: &str| format!("{endpoints}/crm/{rest}");
    assert_eq!(running.get(&path("oauth")).await.0, 404);
    let (_, state) = running.get(&path("oauth-config")).await;
    assert_eq!(state, json!({ "enabled": false, "config": null }));
    let config = json!({
        "grantType": "clientCredentials", "authMethod": "clientSecretPost", "clientId": "acme",
        "clientSecret": "hush-hush", "tokenUrl": "http://127.0.0.1:9999/token", "scopes": ["a", "b"],
        "extraParams": { "audience": "hooks" },
    });
    let (status, answer) = running.ask("PUT", &path("oauth"), config.clone()).await;
    assert_eq!(status, 204, "{answer}");
    let (_, shown) = running.get(&path("oauth")).await;
    let mut expected = config.clone();
    expected.as_object_mut().unwrap().remove("clientSecret");
    assert_eq!(shown, expected);
    // Without the secret, the present one stays, except for another place.
    assert_eq!(running.ask("PUT", &path("oauth"), expected.clone()).await.0, 204);
    expected["tokenUrl"] = json!("http://127.0.0.1:9999/other");
    assert_eq!(running.ask("PUT", &path("oauth"), expected).await.0, 422);
    let registration = running.service.engine().endpoints();
    let tenant = webhooks_core::TenantId::new(&app).unwrap();
    let found = registration.tenant(tenant).list(webhooks_registry::EndpointQuery::default()).await;
    let found = found.unwrap().items.remove(0);
    let credentials = found.endpoint.client_credentials.as_deref().unwrap();
    assert_eq!(credentials.dangerous_client_secret(), "hush-hush");
    for bad in [
        json!({ "grantType": "refreshToken" }),
        json!({ "authMethod": "clientSecretJwt" }),
        json!({ "tokenUrl": "ftp://a" }),
        json!({ "extraParams": { "resource": "x" } }),
        json!({ "extraHeaders": { "a": "b" } }),
    ] {
        let mut input = config.clone();
        input.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
        assert_eq!(running.ask("PUT", &path("oauth"), input).await.0, 422, "{bad}");
    }
    assert_eq!(running.ask("DELETE", &path("oauth"), Value::Null).await.0, 204);
    assert_eq!(running.get(&path("oauth")).await.0, 404);
    let made = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    assert_eq!(running.get(&path("mtls")).await.0, 404);
    let identity = json!({ "identity": format!("{key}{cert}") });
    let (status, answer) = running.ask("PUT", &path("mtls"), identity).await;
    assert_eq!(status, 204, "{answer}");
    assert_eq!(running.get(&path("mtls")).await.0, 200);
    let only = json!({ "identity": cert });
    assert_eq!(running.ask("PUT", &path("mtls"), only).await.0, 422, "there is no key");
    assert_eq!(running.get(&path("ca")).await.1, json!({ "cert": null }));
    assert_eq!(running.ask("PUT", &path("ca"), json!({ "cert": cert })).await.0, 204);
    assert_eq!(running.get(&path("ca")).await.1, json!({ "cert": cert }));
    assert_eq!(running.ask("DELETE", &path("mtls"), Value::Null).await.0, 204);
    assert_eq!(running.get(&path("mtls-config")).await.1["enabled"], json!(false));
    assert_eq!(running.get(&path("ca")).await.1, json!({ "cert": cert }), "it stays");
    assert_eq!(running.ask("PUT", &path("ca"), json!({ "cert": null })).await.0, 204);
    let broken = json!({ "cert": "no certificate" });
    let (status, answer) = running.ask("PUT", &path("ca"), broken).await;
    assert_eq!(status, 422, "{answer}");
    let (_, log) = running.get("/api/v1/audit-log?limit=250").await;
    let log = log.to_string();
    assert!(!log.contains("hush-hush") && !log.contains("PRIVATE KEY"), "{log}");
}
