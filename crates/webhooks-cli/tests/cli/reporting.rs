//! `listen --app`: a temporary poller, whose answers the service records.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fake_service::{self, fake_service};
use crate::listener::{Listening, has_status, place};
use crate::program::{Ended, Place, read, signal};
use crate::receiver::receiver;

#[test]
fn events_are_pulled_forwarded_and_the_poller_is_removed() {
    let mut place = place();
    let _served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    place.run(&["publish", "invoice.paid", "{\"n\":  0}", "--app", "acme"]).ok();
    let behind = crate::listener::place();
    let mut receiver = Listening::start(&behind, &["--secret", "@secret", "--full"]);
    let url = format!("http://{}/hook", receiver.address);
    let options =
        ["--app", "acme", "--types", "invoice.*", "--secret", "@secret", "--forward-to", &url];
    let mut pulling = Listening::start(&place, &options);
    // A secret that was given is not printed.
    assert_eq!((&pulling.ready["app"], &pulling.ready["secret"]), (&"acme".into(), &Value::Null));
    let poller = pulling.ready["poller"].as_str().unwrap().to_owned();
    place.run(&["publish", "user.created", "{}", "--app", "acme"]).ok();
    let published =
        place.run(&["publish", "invoice.paid", "{\"n\":  1}", "--app", "acme", "--json"]);
    let id = published.json()["id"].as_str().unwrap().to_owned();
    let seen = pulling.next();
    assert_eq!((&seen["id"], &seen["type"]), (&id.clone().into(), &"invoice.paid".into()));
    assert_eq!(seen["forwarded"][0]["status"], 200);
    // The payload comes byte for byte, signed.
    let seen = receiver.next();
    assert_eq!(
        (&seen["body"], &seen["verified"], &seen["id"]),
        (&"{\"n\":  1}".into(), &true.into(), &id.into())
    );
    pulling.signal("INT");
    assert_eq!(pulling.code(), Some(0));
    assert!(!pollers(&place).contains(&poller));

    let mut pulling = Listening::start(&place, &["--app", "acme", "--expect", "1"]);
    assert!(pulling.ready["secret"].as_str().unwrap().starts_with("whsec_"));
    let poller = pulling.ready["poller"].as_str().unwrap().to_owned();
    assert!(pollers(&place).contains(&poller));
    place.run(&["publish", "a.b", "{}", "--app", "acme"]).ok();
    assert_eq!(pulling.code(), Some(0));
    assert!(!pollers(&place).contains(&poller));
    place.run(&["listen", "--app", "none"]).failed(5, &["application"]);
}

/// Asks the service for the pollers of the application.
fn pollers(place: &Place) -> String {
    let url = place.get("WEBHOOKS_SERVER").unwrap();
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    let key = place.get("WEBHOOKS_KEY").unwrap();
    write!(
        stream,
        "GET /api/v1/app/acme/polling-endpoint HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    has_status(&answer, 200);
    answer
}

/// A receiver that answers once, with this answer; returns its URL.
fn answers(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The head, and a part of the body at least.
        let _head = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    });
    url
}

/// Publishes an event, waits until endpoints have it, and returns its id.
fn publish(place: &Place, event_type: &str) -> String {
    let words = ["publish", event_type, "{}", "--app", "acme", "--json", "--wait"];
    let printed = place.run(&words).ok();
    let published: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    published["id"].as_str().unwrap().to_owned()
}

/// Returns the objects that a command prints.
fn rows(place: &Place, words: &[&str]) -> Vec<Value> {
    let printed = place.run(&[words, &["--app", "acme", "--json"]].concat()).ok();
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Goal: answers are attempts of the temporary poller, and no other endpoint is concerned.
#[test]
fn answers_are_recorded_as_attempts() {
    let mut place = place();
    let _served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    let url = receiver("204 No Content");
    place.run(&["endpoint", "create", &url, "--uid", "crm", "--app", "acme"]).ok();
    let options = ["--app", "acme", "--fail", "503:1", "--delay", "20ms", "--respond", "202"];
    let mut pulling = Listening::start(&place, &options);
    let poller = pulling.ready["poller"].as_str().unwrap().to_owned();
    let failed = publish(&place, "invoice.paid");
    assert_eq!(pulling.next()["status"], 503);
    let taken = publish(&place, "invoice.sent");
    assert_eq!(pulling.next()["status"], 202);

    let shown = &rows(&place, &["delivery", "show", &failed, "--endpoint", &poller])[0];
    let attempt = &shown["attempts"][0];
    assert_eq!(
        (&attempt["endpointId"], &attempt["responseStatusCode"], &attempt["statusText"]),
        (&poller.clone().into(), &503.into(), &"fail".into())
    );
    assert!(attempt["responseDurationMs"].as_u64().unwrap() >= 20, "{attempt}");
    assert_eq!(shown["deliveries"][0]["id"], poller.as_str());
    // Beside the endpoint, which got each event once.
    publish(&place, "invoice.sent");
    let shown = &rows(&place, &["delivery", "show", &taken])[0];
    let endpoints = shown["deliveries"].as_array().unwrap();
    assert_eq!(endpoints.len(), 2, "{shown}");
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 2, "{shown}");
    let of_poller = |words: &[&str]| rows(&place, &[&["delivery", "list"], words].concat());
    let ids = |rows: &[Value]| -> Vec<String> {
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    pulling.next();
    assert_eq!(pulling.log(&place).matches("was not recorded").count(), 0);
    assert!(!pollers(&place).contains(&poller));
    // They stay when the poller is gone, the newest event first.
    let all = of_poller(&["--endpoint", &poller]);
    assert_eq!((all.len(), &ids(&all)[1..]), (3, &[taken, failed.clone()][..]));
    assert_eq!(ids(&of_poller(&["--endpoint", &poller, "--status", "fail"])), [failed]);
    assert!(of_poller(&["--endpoint", &poller, "--since", "2100-01-01T00:00:00Z"]).is_empty());
    assert_eq!(of_poller(&[]).len(), 6);
    let of_crm = of_poller(&["--endpoint", "crm"]);
    assert!(of_crm.iter().all(|row| row["statusText"] == "success"), "{of_crm:?}");
}

#[test]
fn the_answer_of_the_receiver_behind_is_recorded() {
    let mut place = place();
    let _served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    let attempt = |place: &Place, url: &str| {
        let options = ["--app", "acme", "--forward-to", url, "--expect", "1"];
        let mut pulling = Listening::start(place, &options);
        let poller = pulling.ready["poller"].as_str().unwrap().to_owned();
        let event = publish(place, "invoice.paid");
        assert_eq!(pulling.code(), Some(0));
        let shown = rows(place, &["delivery", "show", &event, "--endpoint", &poller]);
        shown[0]["attempts"][0].clone()
    };
    let url = answers("HTTP/1.1 422 No\r\ncontent-length: 12\r\n\r\nno such user");
    let found = attempt(&place, &url);
    assert_eq!(
        (&found["responseStatusCode"], &found["response"]),
        (&422.into(), &"no such user".into())
    );
    // Nobody is behind.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", taken.local_addr().unwrap());
    drop(taken);
    let found = attempt(&place, &url);
    assert_eq!(found["responseStatusCode"], 0, "{found}");
    assert!(found["response"].as_str().unwrap().ends_with(": not reachable"), "{found}");
}

#[test]
fn a_poller_gets_what_an_endpoint_gets_and_ends_by_itself() {
    let mut place = place();
    let _served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    let url = receiver("204 No Content");
    let create = ["endpoint", "create", &url, "--uid", "crm", "--app", "acme"];
    place.run(&[&create[..], &["--types", "user.*"]].concat()).ok();
    let mut pulling = Listening::start(&place, &["--app", "acme", "--endpoint", "crm"]);
    publish(&place, "invoice.paid");
    let wanted = publish(&place, "user.created");
    assert_eq!(pulling.next()["id"], wanted.as_str());
    // Nobody can remove it: the service does so when its time is over.
    pulling.signal("KILL");
    pulling.code();
    let answer = pollers(&place);
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let found: Value = serde_json::from_str(body).unwrap();
    let time = |name: &str| found["data"][0][name].as_str().unwrap().to_owned();
    assert!(time("expiresAt") > time("createdAt"), "{found}");
    place.run(&["listen", "--app", "acme", "--endpoint", "none"]).failed(5, &["endpoint"]);
}

/// Goal: a service that restarts and a poller that has expired cost no event. Method: the service answers in turn with
/// an event, 502 and 404, and with another event to a new poller.
#[test]
fn a_restart_is_waited_for_and_a_poller_that_is_gone_is_made_again() {
    let (made, pulls) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let url = fake_service(move |method, path| {
        let page = |id: &str| {
            let mut message = json!({ "id": id, "eventType": "a.b", "payload": {} });
            message["timestamp"] = "2026-01-02T03:04:06Z".into();
            fake_service::json(&json!({ "data": [message], "iterator": "1", "done": true }))
        };
        let is_first = path.ends_with("/poller/poll_1");
        match method {
            "POST" => {
                let id = format!("poll_{}", made.fetch_add(1, Ordering::Relaxed) + 1);
                fake_service::json(&json!({ "id": id, "createdAt": "2026-01-02T03:04:05Z" }))
            }
            "GET" if is_first => match pulls.fetch_add(1, Ordering::Relaxed) {
                0 => page("first"),
                1 => fake_service::answer("502 Bad Gateway", "", b"restarting"),
                _ => fake_service::answer("404 Not Found", "", b"{}"),
            },
            "GET" => page("second"),
            _ => fake_service::json(&json!({})),
        }
    });
    let mut place = Place::new();
    place.set("WEBHOOKS_SERVER", &url);
    let mut pulling = Listening::start(&place, &["--app", "a", "--expect", "2"]);
    assert_eq!(pulling.next()["id"], "first");
    assert_eq!(pulling.next()["id"], "second");
    assert_eq!(pulling.code(), Some(0));
    let log = read(&place.path("listen.log"));
    for text in ["restarting (502)", "poll_1 is gone from the service; poll_2 goes on"] {
        assert!(log.contains(text), "{text:?} is not in {log}");
    }
}

#[test]
fn a_signal_ends_it_while_the_service_is_silent() {
    let (sender, asked) = mpsc::sync_channel(10);
    let url = fake_service(move |_method, _path| {
        let _told = sender.send(());
        loop {
            std::thread::park();
        }
    });
    let mut place = Place::new();
    place.set("WEBHOOKS_SERVER", &url);
    for words in [&["listen"][..], &["delivery", "tail", "endpoint:crm"]] {
        let mut command = place.command(&[words, &["--app", "a"]].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        asked.recv_timeout(Duration::from_mins(1)).unwrap();
        signal(&child, "INT");
        Ended::new(child.wait_with_output().unwrap()).failed(130, &["interrupted"]);
    }
}
