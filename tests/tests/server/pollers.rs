//! Pollers, their consumers and their keys, and the messages of an application by cursor.

use std::time::Duration;

use serde_json::{Value, json};
use webhooks_admin::ListQuery;
use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::EngineSettings;

use crate::running::{Kind, Running, add_key, until};

on_each_store! {
    a_follower_gets_each_message_once_in_order;
    a_poller_gets_what_it_wants_and_its_consumers_keep_their_places;
    a_leased_consumer_gets_messages_until_they_are_committed;
    a_broadcast_reaches_each_application_once;
    a_temporary_poller_is_gone_when_its_time_is_over;
    attempts_are_recorded_once_and_within_bounds;
    attempts_are_listed_by_message_also_without_their_poller;
    responses_are_deleted_with_the_content_of_messages;
}

mod behaviour {
    use webhooks_admin::{Grant, Role};

    use super::*;

    pub(super) async fn a_follower_gets_each_message_once_in_order(running: Running) {
        let app = running.add_app("shop").await;
        let other = running.add_app("other").await;
        for number in 0..7 {
            publish(&running, &app, "paid", &format!("m-{number}"), &[]).await;
            publish(&running, &other, "paid", &format!("m-{number}"), &[]).await;
        }
        publish(&running, &app, "sent", "last", &["eu"]).await;
        let path = format!("/api/v1/app/{app}/events");
        let (mut found, mut iterator) = (Vec::new(), String::new());
        loop {
            let (status, page) = running.get(&format!("{path}?limit=3{iterator}")).await;
            assert_eq!(status, 200, "{page}");
            found.extend(ids(&page).into_iter().map(str::to_owned));
            iterator = format!("&iterator={}", page["iterator"].as_str().unwrap());
            if page["done"] == json!(true) {
                break;
            }
        }
        let expected = ["m-0", "m-1", "m-2", "m-3", "m-4", "m-5", "m-6", "last"];
        assert_eq!(found, expected);
        publish(&running, &app, "paid", "later", &[]).await;
        let (_, page) = running.get(&format!("{path}?limit=250{iterator}")).await;
        assert_eq!(ids(&page), ["later"]);
        let (_, page) = running.get(&format!("{path}?event_types=sent")).await;
        assert_eq!(ids(&page), ["last"]);
        let (_, page) = running.get(&format!("{path}?channels=eu,us")).await;
        assert_eq!(ids(&page), ["last"]);
        let (_, page) = running.get(&format!("{path}?after=2100-01-01T00:00:00Z")).await;
        assert_eq!((ids(&page).len(), &page["done"]), (0, &json!(true)));
        for bad in ["limit=0", "limit=251", "iterator=x", "event_types=a..b", "after=x"] {
            assert_eq!(running.get(&format!("{path}?{bad}")).await.0, 400, "{bad}");
        }
        let tenant = TenantId::new(&app).unwrap();
        let blind = Grant::new(Role::Viewer).for_application(tenant).without_payloads();
        let blind = add_key(&running.service, blind).await;
        assert_eq!(running.ask_as(Some(&blind), "GET", &path, None).await.0, 403);
    }

    pub(super) async fn a_poller_gets_what_it_wants_and_its_consumers_keep_their_places(
        running: Running,
    ) {
        let app = running.add_app("shop").await;
        let pollers = format!("/api/v1/app/{app}/polling-endpoint");
        let new = json!({ "uid": "erp", "eventTypes": ["order.*"], "channels": ["eu"] });
        let (status, made) = running.ask("POST", &pollers, new.clone()).await;
        assert_eq!(status, 201, "{made}");
        assert_eq!(running.ask("POST", &pollers, new).await.0, 409, "the uid is taken");
        for bad in [
            json!({ "eventTypes": ["a..b"] }),
            json!({ "eventTypes": [] }),
            json!({ "channels": ["no channel"] }),
            json!({ "uid": made["id"] }),
        ] {
            assert_eq!(running.ask("POST", &pollers, bad.clone()).await.0, 422, "{bad}");
        }
        for (event_type, id, channels) in [
            ("order.paid", "a", &["eu"][..]),
            ("order.paid", "b", &["us"]),
            ("user.left", "c", &["eu"]),
            ("order.sent", "d", &["us", "eu"]),
        ] {
            publish(&running, &app, event_type, id, channels).await;
        }
        let poll = format!("/api/v1/app/{app}/poller/erp");
        assert_eq!(ids(&running.get(&poll).await.1), ["a", "d"]);
        assert_eq!(ids(&running.get(&format!("{poll}?event_type=order.sent")).await.1), ["d"]);
        let one = format!("{poll}/consumer/one");
        let first = running.get(&format!("{one}?limit=1")).await.1;
        assert_eq!(ids(&first), ["a"]);
        assert_eq!(ids(&running.get(&one).await.1), ["a", "d"], "nothing was committed");
        let next = format!("{one}?iterator={}", first["iterator"].as_str().unwrap());
        assert_eq!(ids(&running.get(&next).await.1), ["d"]);
        assert_eq!(ids(&running.get(&one).await.1), ["d"], "the first was");
        assert_eq!(ids(&running.get(&format!("{poll}/consumer/two")).await.1), ["a", "d"]);
        let beyond = running.get(&format!("{one}?iterator=999999-0")).await;
        assert_eq!(beyond.0, 400, "{}", beyond.1);
        let seek = format!("{one}/seek");
        let to = async |time: &str| running.ask("POST", &seek, json!({ "after": time })).await;
        assert_eq!(to("2100-01-01T00:00:00Z").await.0, 200);
        assert!(ids(&running.get(&one).await.1).is_empty());
        assert_eq!(to("2000-01-01T00:00:00Z").await.0, 200);
        assert_eq!(ids(&running.get(&one).await.1), ["a", "d"]);
        let path = format!("{pollers}/erp");
        assert_eq!(running.ask("PUT", &path, json!({ "uid": "erp" })).await.0, 200);
        assert_eq!(ids(&running.get(&poll).await.1), ["a", "b", "c", "d"]);
        assert_eq!(running.ask("DELETE", &path, Value::Null).await.0, 204);
        assert_eq!(running.get(&poll).await.0, 404);
    }

    pub(super) async fn a_leased_consumer_gets_messages_until_they_are_committed(running: Running) {
        let app = running.add_app("shop").await;
        let pollers = format!("/api/v1/app/{app}/polling-endpoint");
        assert_eq!(running.ask("POST", &pollers, json!({ "uid": "erp" })).await.0, 201);
        for id in ["a", "b", "c"] {
            publish(&running, &app, "paid", id, &[]).await;
        }
        let consumer = format!("{pollers}/erp/consumer/one");
        let leased = running.get(&format!("{consumer}?limit=2&lease_duration_ms=3600000")).await.1;
        assert_eq!(ids(&leased), ["a", "b"]);
        let (status, refused) = running.get(&consumer).await;
        assert_eq!(status, 409, "{refused}");
        let offsets: Vec<u64> = leased["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message["offset"].as_u64().unwrap())
            .collect();
        let commit = format!("{consumer}/commit");
        let committed = running.ask("POST", &commit, json!({ "offset": offsets[0] })).await;
        assert_eq!(committed.0, 204, "{}", committed.1);
        assert_eq!(ids(&running.get(&consumer).await.1), ["b", "c"]);
        let late = json!({ "offset": 0 });
        let leased = format!("{consumer}?lease_duration_ms=3600000");
        assert_eq!(running.get(&leased).await.0, 200);
        assert_eq!(running.ask("POST", &commit, late).await.0, 204);
        assert_eq!(running.get(&consumer).await.0, 409, "a late commit ends no lease");
        let again = json!({ "offset": offsets[1] });
        assert_eq!(running.ask("POST", &commit, again).await.0, 204);
        assert_eq!(ids(&running.get(&consumer).await.1), ["c"]);
        let beyond = json!({ "offset": 1_000_000 });
        assert_eq!(running.ask("POST", &commit, beyond).await.0, 400);
        let latest = format!("{pollers}/erp/consumer/new?starting_position=latest");
        assert!(ids(&running.get(&latest).await.1).is_empty());
        publish(&running, &app, "paid", "d", &[]).await;
        assert_eq!(ids(&running.get(&latest).await.1), ["d"], "its place was stored");
        for bad in ["lease_duration_ms=3600001", "starting_position=middle", "limit=0"] {
            assert_eq!(running.get(&format!("{consumer}?{bad}")).await.0, 400, "{bad}");
        }
    }

    pub(super) async fn a_temporary_poller_is_gone_when_its_time_is_over(running: Running) {
        let app = running.add_app("shop").await;
        let pollers = format!("/api/v1/app/{app}/polling-endpoint");
        for bad in [json!({ "expirySecs": 0 }), json!({ "expirySecs": 86_401 })] {
            assert_eq!(running.ask("POST", &pollers, bad.clone()).await.0, 422, "{bad}");
        }
        let new = json!({ "uid": "dev", "expirySecs": 3600 });
        let (status, made) = running.ask("POST", &pollers, new).await;
        assert_eq!(status, 201, "{made}");
        assert!(made["expiresAt"].as_str().unwrap() > made["createdAt"].as_str().unwrap());
        let path = format!("{pollers}/dev");
        let (_, renewed) =
            running.ask("PUT", &path, json!({ "uid": "dev", "expirySecs": 1 })).await;
        assert!(renewed["expiresAt"].as_str().unwrap() < made["expiresAt"].as_str().unwrap());
        until(&running, &pollers, |page| page["data"].as_array().unwrap().is_empty()).await;
        assert_eq!(running.get(&path).await.0, 404);
        // Its uid is free again, and one without a time stays.
        let (status, made) = running.ask("POST", &pollers, json!({ "uid": "dev" })).await;
        assert_eq!((status, &made["expiresAt"]), (201, &Value::Null), "{made}");
    }

    pub(super) async fn attempts_are_recorded_once_and_within_bounds(running: Running) {
        let app = running.add_app("shop").await;
        let other = running.add_app("other").await;
        let pollers = format!("/api/v1/app/{app}/polling-endpoint");
        let new = json!({ "uid": "dev", "eventTypes": ["paid"] });
        assert_eq!(running.ask("POST", &pollers, new).await.0, 201);
        publish(&running, &app, "paid", "a", &[]).await;
        publish(&running, &app, "sent", "c", &[]).await;
        publish(&running, &other, "paid", "d", &[]).await;
        let put = async |message: &str, id: &str, attempt: Value| {
            let path = format!("/api/v1/app/{app}/poller/dev/msg/{message}/attempt/{id}");
            running.ask("PUT", &path, attempt).await
        };
        let failed = attempt(Some(503), "busy");
        let (status, told) = put("a", "1", failed.clone()).await;
        assert_eq!((status, &told["statusText"]), (200, &json!("fail")), "{told}");
        // Once, however often it is reported.
        assert_eq!(put("a", "1", failed).await.0, 200);
        let (status, told) = put("a", "1", attempt(Some(200), "")).await;
        assert_eq!(status, 409, "{told}");
        for (message, why) in [("c", "not wanted"), ("d", "of another application"), ("x", "none")]
        {
            let (status, told) = put(message, "1", attempt(None, "")).await;
            assert_eq!(status, 404, "{why}: {told}");
        }
        for bad in [
            attempt(Some(99), ""),
            attempt(Some(600), ""),
            attempt(Some(200), &"x".repeat(1025)),
            json!({ "timestamp": "2026-01-01T00:00:00Z", "responseDurationMs": 3_600_001 }),
            json!({ "timestamp": "x", "responseDurationMs": 1 }),
            json!({ "responseDurationMs": 1 }),
            json!({ "timestamp": "2026-01-01T00:00:00Z", "responseDurationMs": 1, "a": 1 }),
        ] {
            assert_eq!(put("a", "2", bad.clone()).await.0, 422, "{bad}");
        }
        let long = "x".repeat(257);
        for id in [long.as_str(), "%2e%2e%2f"] {
            assert_eq!(put("a", id, attempt(None, "")).await.0, 422, "{id}");
        }
        // Beyond fifty attempts at one message, others are refused, and those that are there are known.
        for number in 2..=50 {
            let asked = put("a", &number.to_string(), attempt(None, "")).await;
            assert_eq!(asked.0, 200, "{}", asked.1);
        }
        assert_eq!(put("a", "51", attempt(None, "")).await.0, 409);
        assert_eq!(put("a", "50", attempt(None, "")).await.0, 200);
        // Those that come at once are not more.
        publish(&running, &app, "paid", "b", &[]).await;
        let report = async |number: i32| put("b", &number.to_string(), attempt(None, "")).await.0;
        let all = futures_util::future::join_all((0..60).map(report)).await;
        assert!(all.iter().all(|status| [200, 409].contains(status)), "{all:?}");
        let list = format!("/api/v1/app/{app}/poller-attempt?limit=250&msg_id=b");
        let (_, page) = running.get(&list).await;
        let reported = all.iter().filter(|status| **status == 200).count();
        assert_eq!(codes(&page).len(), reported);
        assert!(reported <= 50, "{all:?}");
        assert_eq!(running.ask("DELETE", &format!("{pollers}/dev"), Value::Null).await.0, 204);
        assert_eq!(put("a", "1", attempt(None, "")).await.0, 404);
        let (_, log) = running.get("/api/v1/audit-log?limit=250").await;
        assert!(!log.to_string().contains("busy"), "no response is logged");
    }

    pub(super) async fn attempts_are_listed_by_message_also_without_their_poller(running: Running) {
        let app = running.add_app("shop").await;
        let pollers = format!("/api/v1/app/{app}/polling-endpoint");
        let (_, poller) = running.ask("POST", &pollers, json!({ "uid": "dev" })).await;
        for id in ["a", "b"] {
            publish(&running, &app, "paid", id, &[]).await;
        }
        for (message, id, attempt) in [
            ("b", "1", attempt(None, "no answer")),
            ("a", "1", attempt(Some(503), "busy")),
            ("a", "2", attempt(Some(204), "")),
        ] {
            let path = format!("/api/v1/app/{app}/poller/dev/msg/{message}/attempt/{id}");
            assert_eq!(running.ask("PUT", &path, attempt).await.0, 200);
        }
        assert_eq!(running.ask("DELETE", &format!("{pollers}/dev"), Value::Null).await.0, 204);
        let list = format!("/api/v1/app/{app}/poller-attempt");
        let found = async |query: &str| {
            let (status, page) = running.get(&format!("{list}?{query}")).await;
            assert_eq!(status, 200, "{query}: {page}");
            page
        };
        let page = found("").await;
        assert_eq!(codes(&page), [0, 204, 503], "the newest message first");
        assert_eq!(
            (&page["data"][0]["response"], &page["done"]),
            (&json!("no answer"), &json!(true))
        );
        assert_eq!(page["data"][0]["pollerId"], poller["id"]);
        let page = found("msg_id=a").await;
        assert_eq!((codes(&page), &page["done"]), (vec![204, 503], &json!(true)));
        assert_eq!(page["data"][1]["response"], json!("busy"));
        let first = found("limit=2").await;
        assert_eq!((codes(&first), &first["done"]), (vec![0, 204], &json!(false)));
        let next = format!("limit=2&iterator={}", first["iterator"].as_str().unwrap());
        let next = found(&next).await;
        assert_eq!((codes(&next), &next["done"]), (vec![503], &json!(true)));
        let back = format!("limit=2&iterator={}", next["prevIterator"].as_str().unwrap());
        assert_eq!(codes(&found(&back).await), [0, 204]);
        for (query, count) in [
            ("after=2100-01-01T00:00:00Z", 0),
            ("before=2000-01-01T00:00:00Z", 0),
            ("after=2000-01-01T00:00:00Z&before=2100-01-01T00:00:00Z", 3),
            ("poller_id=poll_x", 0),
            ("limit=0", 0),
        ] {
            assert_eq!(codes(&found(query).await).len(), count, "{query}");
        }
        assert_eq!(found("with_content=false").await["data"][0]["response"], json!(""));
        assert_eq!(running.get(&format!("{list}?msg_id=x")).await.0, 404);
        for bad in ["poller_id=", "poller_id=a/b", "poller_id=%00"] {
            assert_eq!(running.get(&format!("{list}?{bad}")).await.0, 400, "{bad}");
        }
        for bad in ["after=x", "limit=251"] {
            assert_eq!(running.get(&format!("{list}?{bad}")).await.0, 400, "{bad}");
        }
        // They go with the application, the uid of which may come again.
        assert_eq!(running.ask("DELETE", &format!("/api/v1/app/{app}"), Value::Null).await.0, 204);
        assert_eq!(running.get(&list).await.0, 404);
    }

    pub(super) async fn responses_are_deleted_with_the_content_of_messages(running: Running) {
        let app = running.add_app("shop").await;
        let pollers = format!("/api/v1/app/{app}/polling-endpoint");
        assert_eq!(running.ask("POST", &pollers, json!({ "uid": "dev" })).await.0, 201);
        let report = async |message: &str, attempt: &str| {
            let path = format!("/api/v1/app/{app}/poller/dev/msg/{message}/attempt/{attempt}");
            let (status, told) =
                running.ask("PUT", &path, super::attempt(Some(200), "private")).await;
            assert_eq!(status, 200, "{told}");
        };
        for id in ["a", "b", "c", "d"] {
            publish(&running, &app, "paid", id, &[]).await;
            report(id, "1").await;
        }
        let list = format!("/api/v1/app/{app}/poller-attempt");
        let private = async || {
            let (_, page) = running.get(&list).await;
            let all = page["data"].as_array().unwrap().clone();
            all.iter().filter(|one| one["response"] == json!("private")).count()
        };
        assert_eq!(private().await, 4);
        let messages = format!("/api/v1/app/{app}/msg");
        let path = format!("{messages}/a/content");
        assert_eq!(running.ask("DELETE", &path, Value::Null).await.0, 204);
        assert_eq!(private().await, 3);
        // A report that comes later brings nothing back.
        report("a", "2").await;
        assert_eq!(private().await, 3);
        let ids = json!({ "ids": ["b", "x"] });
        let (_, told) = running.ask("POST", &format!("{messages}/bulk-expunge"), ids).await;
        assert_eq!(told["results"], json!({ "b": "expunged", "x": "not-found" }));
        assert_eq!(private().await, 2);
        // Content that came later than a job's time stays.
        let (_, page) = running.get(&list).await;
        let (_, page_of_c) = running.get(&format!("{list}?msg_id=c")).await;
        assert_ne!(page["data"][0]["acceptedAt"], page_of_c["data"][0]["acceptedAt"]);
        let accepted_at = page_of_c["data"][0]["acceptedAt"].as_str().unwrap();
        let accepted_at: Timestamp = accepted_at.parse().unwrap();
        let (tenant, now) = (TenantId::new(&app).unwrap(), Timestamp::now());
        let admin = running.service.admin();
        admin.forget_all_poller_responses(&tenant, accepted_at, now).await.unwrap();
        assert_eq!(private().await, 1);
        let all = format!("{messages}/expunge-all-contents");
        let (_, task) = running.ask("POST", &all, Value::Null).await;
        let path = format!("/api/v1/background-task/{}", task["id"].as_str().unwrap());
        until(&running, &path, |task| task["status"] == json!("finished")).await;
        assert_eq!(private().await, 0);
    }

    pub(super) async fn a_broadcast_reaches_each_application_once(running: Running) {
        let apps = [running.add_app("one").await, running.add_app("two").await];
        publish(&running, &apps[1], "other", "news", &[]).await;
        let message = json!({ "eventType": "news", "eventId": "news", "payload": { "a": 1.0 } });
        let (status, task) = running.ask("POST", "/api/v1/msg/broadcast", message.clone()).await;
        assert_eq!((status, &task["task"]), (202, &json!("message.broadcast")), "{task}");
        let path = format!("/api/v1/background-task/{}", task["id"].as_str().unwrap());
        let ended = until(&running, &path, |task| task["status"] != json!("running")).await;
        assert_eq!(ended["status"], json!("finished"), "{ended}");
        // The second application has a message of this eventId with other content.
        assert_eq!((&ended["data"]["count"], &ended["data"]["conflicts"]), (&json!(1), &json!(1)));
        let made = &ended["data"]["messagesCreated"][0];
        assert_eq!(made["appId"], json!(apps[0]));
        let (_, page) = running.get(&format!("/api/v1/app/{}/events", apps[0])).await;
        assert_eq!(page["data"][0]["id"], made["msgId"]);
        assert_eq!(page["data"][0]["payload"], json!({ "a": 1.0 }));
        // Again, it is the same message.
        let (_, task) = running.ask("POST", "/api/v1/msg/broadcast", message).await;
        let path = format!("/api/v1/background-task/{}", task["id"].as_str().unwrap());
        until(&running, &path, |task| task["status"] == json!("finished")).await;
        let (_, page) = running.get(&format!("/api/v1/app/{}/events", apps[0])).await;
        assert_eq!(page["data"].as_array().unwrap().len(), 1, "{page}");
        let (_, log) = running.get("/api/v1/audit-log?limit=250").await;
        assert!(!log.to_string().contains(":1.0"), "no payload is logged");
        let own = Grant::new(Role::Admin).for_application(TenantId::new(&apps[0]).unwrap());
        let own = add_key(&running.service, own).await;
        let text = json!({ "eventType": "news", "payload": {} }).to_string();
        let asked = running.ask_as(Some(&own), "POST", "/api/v1/msg/broadcast", Some(&text)).await;
        assert_eq!(asked.0, 403, "{}", asked.1);
        let (status, page) = running.get("/api/v1/events").await;
        assert_eq!((status, ids(&page).len()), (200, 0), "{page}");
        assert_eq!(running.ask_as(Some(&own), "GET", "/api/v1/events", None).await.0, 404);
    }
}

/// Goal: a poller's key does nothing else, and a new one ends the older ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_poller_pulls_from_it_alone() {
    let running = Running::start(Kind::Sqlite).await;
    let app = running.add_app("shop").await;
    let pollers = format!("/api/v1/app/{app}/polling-endpoint");
    for uid in ["one", "two"] {
        assert_eq!(running.ask("POST", &pollers, json!({ "uid": uid })).await.0, 201);
    }
    let rotate = format!("/api/v1/auth/app/{app}/poller/one/token/rotate");
    let made = async |body: Value| {
        let (status, made) = running.ask("POST", &rotate, body).await;
        assert_eq!(status, 201, "{made}");
        made["token"].as_str().unwrap().to_owned()
    };
    let status = async |key: &str, path: &str| running.ask_as(Some(key), "GET", path, None).await.0;
    let key = made(json!({ "expiry": 3600 })).await;
    let poll = format!("/api/v1/app/{app}/poller/one");
    assert_eq!(status(&key, &poll).await, 200);
    assert_eq!(status(&key, &format!("{poll}/consumer/c")).await, 200);
    assert_eq!(status(&key, &format!("/api/v1/app/{app}/poller/two")).await, 404);
    for path in ["events", "endpoint", "msg", "polling-endpoint", "polling-endpoint/one"] {
        assert_eq!(status(&key, &format!("/api/v1/app/{app}/{path}")).await, 403, "{path}");
    }
    // It may report what it pulled, and nothing of another poller.
    publish(&running, &app, "paid", "m", &[]).await;
    let attempt =
        json!({ "timestamp": "2026-01-01T00:00:00Z", "responseDurationMs": 1 }).to_string();
    for (poller, expected) in [("one", 200), ("two", 404)] {
        let path = format!("/api/v1/app/{app}/poller/{poller}/msg/m/attempt/1");
        let asked = running.ask_as(Some(&key), "PUT", &path, Some(&attempt)).await;
        assert_eq!(asked.0, expected, "{}", asked.1);
    }
    assert_eq!(status(&key, &format!("/api/v1/app/{app}/poller-attempt")).await, 403);
    let newer = made(json!({ "oldTokenExpiry": 0 })).await;
    assert_eq!(status(&key, &poll).await, 401, "the older key has ended");
    assert_eq!(status(&newer, &poll).await, 200);
    let path = format!("{pollers}/one");
    assert_eq!(running.ask("DELETE", &path, Value::Null).await.0, 204);
    assert_eq!(status(&newer, &poll).await, 401, "its poller is gone");
    for bad in [json!({ "expiry": 0 }), json!({ "oldTokenExpiry": 86_401 }), json!({ "a": 1 })] {
        let two = format!("/api/v1/auth/app/{app}/poller/two/token/rotate");
        assert_eq!(running.ask("POST", &two, bad.clone()).await.0, 422, "{bad}");
    }
}

/// Goal: a reported attempt is stored for no longer than messages are, by the setting of the service or the limit of
/// the application.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_stored_as_long_as_messages() {
    let days = |count: u32| Duration::from_secs(24 * 60 * 60) * count;
    let engine = EngineSettings { retention: days(7), ..EngineSettings::default() };
    let running = Running::start_engine(Kind::Sqlite, engine).await;
    let app = running.add_app("shop").await;
    let pollers = format!("/api/v1/app/{app}/polling-endpoint");
    assert_eq!(running.ask("POST", &pollers, json!({ "uid": "dev" })).await.0, 201);
    let tenant = TenantId::new(&app).unwrap();
    for (id, limit, expected) in [("none", None, 7), ("more", Some(60), 7), ("fewer", Some(2), 2)] {
        let limits = json!({ "retentionDays": limit });
        let (status, told) = running.ask("PUT", &format!("/api/v1/app/{app}/limits"), limits).await;
        assert_eq!(status, 200, "{told}");
        publish(&running, &app, "paid", id, &[]).await;
        let path = format!("/api/v1/app/{app}/poller/dev/msg/{id}/attempt/1");
        assert_eq!(running.ask("PUT", &path, attempt(Some(200), "ok")).await.0, 200);
        let query = ListQuery { limit: 1, is_descending: true, ..ListQuery::default() };
        let attempts = running.service.admin().poller_attempts(&tenant);
        let found = attempts.list(query, Timestamp::now()).await.unwrap().items.remove(0).value;
        let stored = found.stored_until.saturating_since(found.reported_at);
        assert_eq!(stored, days(expected), "{id}");
    }
}

async fn publish(running: &Running, app: &str, event_type: &str, id: &str, channels: &[&str]) {
    let mut message = json!({ "eventType": event_type, "eventId": id, "payload": {} });
    if !channels.is_empty() {
        message["channels"] = json!(channels);
    }
    let (status, answer) = running.ask("POST", &format!("/api/v1/app/{app}/msg"), message).await;
    assert_eq!(status, 202, "{answer}");
}

fn ids(page: &Value) -> Vec<&str> {
    let data = page["data"].as_array().unwrap();
    data.iter().map(|message| message["eventId"].as_str().unwrap()).collect()
}

/// Returns the report of an attempt.
fn attempt(status: Option<u16>, response: &str) -> Value {
    let mut attempt = json!({
        "timestamp": "2026-01-01T00:00:00Z",
        "responseDurationMs": 12,
        "response": response,
    });
    attempt["responseStatusCode"] = status.into();
    attempt
}

fn codes(page: &Value) -> Vec<u64> {
    let all = page["data"].as_array().unwrap().iter();
    all.map(|one| one["responseStatusCode"].as_u64().unwrap()).collect()
}
