//! A server that is away for a time, or has too many requests: what is made again, and what goes on afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::fake_service::{self, Answer, answer, fake_service};
use crate::listener::Listening;
use crate::program::{Place, read};
use crate::walk::anything;

/// More than the tries of one request.
const MANY: usize = 8;

/// An answer that asks for the same request at once.
fn put_off() -> Answer {
    answer("429 Too Many Requests", "retry-after: 0\r\n", br#"{"detail":"Slowly."}"#)
}

fn unavailable() -> Answer {
    answer("503 Service Unavailable", "retry-after: 0\r\n", b"{}")
}

/// Returns a place whose server answers the first requests of a method for a path with this end in one way, and all
/// others in another way; and the number of the former.
fn place(
    method: &'static str,
    end: &'static str,
    (times, first): (usize, Answer),
    then: Value,
) -> (Place, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let url = fake_service(move |asked, path| {
        let is_meant = asked == method && path.ends_with(end);
        if is_meant && counted.fetch_add(1, Ordering::Relaxed) < times {
            return first.clone();
        }
        fake_service::json(&then)
    });
    let mut place = Place::new();
    place.set("WEBHOOKS_SERVER", &url);
    (place, count)
}

#[test]
fn a_request_that_is_put_off_is_made_again() {
    for (words, method) in [
        (&["app", "list"][..], "GET"),
        (&["publish", "a.b", "{}", "--app", "a"], "POST"),
        (&["app", "edit", "a", "--name", "b"], "PATCH"),
        (&["app", "delete", "a", "--yes"], "DELETE"),
    ] {
        let (place, count) = place(method, "", (2, put_off()), anything("text"));
        place.run(words).ok();
        assert!(count.load(Ordering::Relaxed) >= 3, "{words:?}");
    }
    let (place, count) = place("POST", "/msg", (usize::MAX, put_off()), anything("text"));
    place.run(&["publish", "a.b", "{}", "--app", "a"]).failed(6, &["Slowly. (429)"]);
    assert_eq!(count.load(Ordering::Relaxed), 6);
}

/// Goal: the limit of a day is told at once, and not waited for.
#[test]
fn a_long_wait_is_a_refusal() {
    let later = answer("429 Too Many Requests", "retry-after: 86400\r\n", b"{}");
    let (place, count) = place("POST", "/msg", (usize::MAX, later), anything("text"));
    place.run(&["publish", "a.b", "{}", "--app", "a"]).failed(6, &["(429)"]);
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn commands_that_wait_for_an_end_go_on_when_the_server_answers_again() {
    let mut done = anything("text_1");
    done["data"][0]["statusText"] = "success".into();
    let wait = ["publish", "a.b", "{}", "--app", "a", "--wait"];
    let recover = ["endpoint", "recover", "crm", "--since", "2h", "--app", "a"];
    let replay = ["delivery", "replay", "--where", "status:failed", "--app", "a", "--yes"];
    let mut job = anything("text_1");
    job["data"][0]["statusText"] = "fail".into();
    for (words, end, then) in [
        (&wait[..], "/msg/text_1/endpoint", done),
        (&recover[..], "/background-task/text_1", anything("text_1")),
        (&replay[..], "/background-task/text_1", job),
    ] {
        for first in [put_off(), unavailable()] {
            let (place, count) = place("GET", end, (MANY, first), then.clone());
            let ended = place.run(words);
            assert!(ended.err.contains("trying again"), "{words:?}: {ended:?}");
            assert!(ended.err.contains("the server answers again"), "{words:?}: {ended:?}");
            ended.ok();
            assert!(count.load(Ordering::Relaxed) > MANY, "{words:?}");
        }
    }
}

#[test]
fn a_poller_that_is_put_off_goes_on() {
    for first in [put_off(), unavailable()] {
        let message = json!({ "id": "one", "eventType": "a.b", "payload": {},
                              "timestamp": "2026-01-02T03:04:06Z" });
        let then = json!({ "id": "poll_1", "createdAt": "2026-01-02T03:04:05Z",
                           "data": [message], "iterator": "1", "done": true });
        let (place, count) = place("GET", "/poller/poll_1", (MANY, first), then);
        let mut pulling = Listening::start(&place, &["--app", "a", "--expect", "1"]);
        assert_eq!(pulling.next()["id"], "one");
        assert_eq!(pulling.code(), Some(0));
        assert!(count.load(Ordering::Relaxed) > MANY);
        let log = read(&place.path("listen.log"));
        assert!(log.contains("trying again") && log.contains("answers again"), "{log}");
    }
}

/// Goal: each request is judged in one way, also those whose refusals a command looks at itself.
#[test]
fn an_answer_of_another_program_is_none_of_the_service() {
    let page = answer("404 Not Found", "content-type: text/html\r\n", b"<!DOCTYPE html>");
    let (place, _count) = place("POST", "", (usize::MAX, page), anything("text"));
    for words in [
        &["publish", "a.b", "{}", "--app", "a"][..],
        &["delivery", "retry", "evt", "--endpoint", "crm", "--app", "a"],
    ] {
        place.run(words).failed(3, &["is no webhook service", "is there a base path"]);
    }
}
