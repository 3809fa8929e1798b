//! Payloads that are deleted at a time of their own, on both stores.

use std::time::Duration;

use serde_json::{Value, json};
use webhooks_admin::{ContentEnd, ListQuery};
use webhooks_core::{EventId, TenantId, Timestamp};

use crate::running::{Running, until};

const HOUR: Duration = Duration::from_secs(60 * 60);

on_each_store! {
    a_message_says_how_long_its_payload_is_stored;
    a_payload_is_deleted_at_its_end_and_the_message_stays;
}

/// Returns the ends of content that are stored.
async fn ends(running: &Running) -> Vec<ContentEnd> {
    let query = ListQuery { limit: 100, ..ListQuery::default() };
    let ends = running.service.admin().content_ends().list(query, Timestamp::now()).await.unwrap();
    ends.items.into_iter().map(|entry| entry.value).collect()
}

mod behaviour {
    use super::*;

    pub(super) async fn a_message_says_how_long_its_payload_is_stored(running: Running) {
        let app = running.add_app("shop").await;
        let messages = format!("/api/v1/app/{app}/msg");
        let message = |id: &str, field: &str, value: Value| {
            let mut message = json!({ "eventType": "paid", "payload": {}, "eventId": id });
            message[field] = value;
            message
        };
        let before = Timestamp::now();
        for id in ["one", "one"] {
            let new = message(id, "payloadRetentionHours", json!(1));
            assert_eq!(running.ask("POST", &messages, new).await.0, 202);
        }
        let after = Timestamp::now();
        let found = ends(&running).await;
        // The second request stored one, too: if the first had got no answer, it could have stored none.
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|end| end.event == found[0].event && end.tenant.as_str() == app));
        assert!(found.iter().all(|end| (before + HOUR..=after + HOUR).contains(&end.at)));

        let batch = json!([
            message("two", "payloadRetentionPeriod", json!(2)),
            message("three", "payloadRetentionPeriod", json!(null)),
            // The message is deleted before.
            message("four", "payloadRetentionPeriod", json!(90)),
        ]);
        assert_eq!(running.ask("POST", &format!("{messages}/batch"), batch).await.0, 202);
        let found = ends(&running).await;
        assert_eq!(found.len(), 3);
        assert!(found[2].at >= after + HOUR * 48);

        let broadcast = message("all", "payloadRetentionPeriod", json!(1));
        let (status, task) = running.ask("POST", "/api/v1/msg/broadcast", broadcast).await;
        assert_eq!(status, 202, "{task}");
        let path = format!("/api/v1/background-task/{}", task["id"].as_str().unwrap());
        until(&running, &path, |task| task["status"] == json!("finished")).await;
        assert_eq!(ends(&running).await.len(), 4);

        for (field, value) in [
            ("payloadRetentionPeriod", json!(0)),
            ("payloadRetentionPeriod", json!(91)),
            ("payloadRetentionHours", json!(0)),
            ("payloadRetentionHours", json!(2161)),
        ] {
            let (status, answer) =
                running.ask("POST", &messages, message("no", field, value)).await;
            assert_eq!((status, &answer["detail"][0]["loc"][1]), (422, &json!(field)), "{answer}");
        }
        let mut both = message("no", "payloadRetentionPeriod", json!(1));
        both["payloadRetentionHours"] = json!(1);
        assert_eq!(running.ask("POST", &messages, both).await.0, 422);
        // It could never be delivered.
        let mut late = message("no", "payloadRetentionHours", json!(1));
        late["deliverAt"] = json!((Timestamp::now() + Duration::from_secs(7_200)).to_string());
        for path in [&*messages, "/api/v1/msg/broadcast"] {
            let (status, answer) = running.ask("POST", path, late.clone()).await;
            assert_eq!((status, &answer["detail"][0]["loc"][1]), (422, &json!("deliverAt")));
        }
        late["payloadRetentionHours"] = json!(3);
        assert_eq!(running.ask("POST", &messages, late).await.0, 202);
    }

    pub(super) async fn a_payload_is_deleted_at_its_end_and_the_message_stays(running: Running) {
        let app = running.add_app("shop").await;
        let messages = format!("/api/v1/app/{app}/msg");
        let publish = async |hours: u32| {
            let new = json!({ "eventType": "paid", "payload": { "a": 1 }, "payloadRetentionHours": hours });
            let (status, made) = running.ask("POST", &messages, new).await;
            assert_eq!(status, 202, "{made}");
            made["id"].as_str().unwrap().to_owned()
        };
        let (old, young) = (publish(1).await, publish(2).await);
        // As if it had been published an hour ago. The other's end is far, and one that nobody knows is over.
        let tenant = TenantId::new(&app).unwrap();
        let end = |event: &str, at| ContentEnd {
            tenant: tenant.clone(),
            event: EventId::new(event).unwrap(),
            at,
        };
        let now = Timestamp::now();
        let unknown = end("msg_0000000000000000000001", now.saturating_sub(HOUR));
        running.service.admin().add_content_ends([end(&old, now), unknown], now).await.unwrap();
        let is_gone = |shown: &Value| shown["payload"] == json!({ "expired": true });
        until(&running, &format!("{messages}/{old}"), is_gone).await;
        let (_, left) = running.get(&format!("{messages}/{young}")).await;
        assert_eq!(left["payload"], json!({ "a": 1 }));
        let (_, list) = running.get(&messages).await;
        assert_eq!(list["data"].as_array().unwrap().len(), 2, "{list}");
        let events: Vec<EventId> = ends(&running).await.into_iter().map(|end| end.event).collect();
        assert_eq!(events.iter().filter(|event| event.to_string() == young).count(), 1);
    }
}
