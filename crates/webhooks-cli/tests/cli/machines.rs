//! The output for programs: with `--json`, an object for each action, and one for each failure.

use serde_json::{Value, json};

use crate::program::{Ended, Place};
use crate::receiver::receiver;

/// Returns the error that a run ended with: the last line of its errors.
#[track_caller]
fn error(ended: &Ended) -> Value {
    let last = ended.err.lines().last().unwrap_or_default();
    let object: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{ended:?}"));
    let error = object["error"].clone();
    assert_eq!(error["exit"], json!(ended.code), "{ended:?}");
    assert!(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{ended:?}");
    error
}

#[test]
fn an_action_without_an_answer_prints_what_was_done() {
    let mut place = Place::new();
    let _served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    place.run(&["endpoint", "create", &receiver("204 No Content"), "--uid", "crm"]).ok();
    place.run(&["event-type", "create", "a.b"]).ok();
    let event = place.run(&["publish", "a.b", "{}", "--json"]).json();
    let event = event["id"].as_str().unwrap();
    let key = place.run(&["key", "create", "x", "--role", "viewer", "--json"]).json();
    let key = key["id"].as_str().unwrap();
    for (words, id, done) in [
        (&["event", "expunge", event][..], event, "expunged"),
        (&["event-type", "archive", "a.b"], "a.b", "archived"),
        (&["key", "revoke", key, "--yes"], key, "revoked"),
        (&["endpoint", "delete", "crm", "--yes"], "crm", "deleted"),
        (&["app", "delete", "acme", "--yes"], "acme", "deleted"),
        (&["serve", "--check"], "serve", "checked"),
        (&["man", "pages"], "pages", "written"),
    ] {
        let ended = place.run(&[words, &["--json"]].concat());
        assert_eq!(ended.err, "", "{words:?}");
        assert_eq!(ended.json(), json!({ "id": id, "done": done }), "{words:?}");
    }
}

#[test]
fn a_failure_is_an_object_with_its_code() {
    let mut place = Place::new();
    place.write_private("secret", "0123456789abcdef0123456789abcdef");
    let of = |words: &[&str]| error(&place.run(&[words, &["--json"]].concat()));
    let usage = of(&["app", "lsit"]);
    assert_eq!((&usage["code"], &usage["exit"]), (&json!("usage"), &json!(2)));
    assert!(usage["detail"].as_str().unwrap().contains("'list'"), "{usage}");
    assert!(
        of(&["publish", "a.b", "@none"])["detail"].as_str().unwrap().contains("cannot read none")
    );
    assert_eq!(of(&["app", "list", "--server", "http://127.0.0.1:1"])["code"], "unreachable");
    assert_eq!(
        of(&["app", "list", "--server", "ftp://x"])["hint"],
        "write it as http://127.0.0.1:8071"
    );
    let verify = place.run_with(&["verify", "--secret", "@secret", "--json"], "{}");
    assert_eq!(error(&verify)["code"], "check_failed");
    let _served = place.serve(&[]);
    let of = |words: &[&str]| error(&place.run(&[words, &["--json"]].concat()));
    assert_eq!(of(&["app", "show", "none"])["code"], "not_found");
    assert_eq!(of(&["app", "list", "--key", "bad"])["code"], "not_allowed");
    assert_eq!(of(&["app", "create", ""])["code"], "refused");
    // Behind --, it is no option.
    place.run(&["app", "show", "--", "--json"]).failed(5, &["error: "]);
}

#[test]
fn what_was_accepted_silently_is_refused() {
    let mut place = Place::new();
    let _served = place.serve(&[]);
    place.run(&["app", "create", "Acme", "--uid", "acme", "--metadata", "plan=gold"]).ok();
    let at = ["publish", "a.b", "{}", "--at", "2020-01-01T00:00:00Z"];
    place.run(&at).failed(2, &["this time is over"]);
    place.run(&["publish", "a.b", "{}", "--within", "5s"]).failed(2, &["--wait"]);
    place.run(&["publish", "a.b", "{}", "--at", "1h"]).ok();
    place
        .run(&["key", "create", "x", "--role", "viewer", "--expires", "2020-01-01T00:00:00Z"])
        .failed(2, &["this time is over"]);
    assert!(place.run(&["app", "show", "acme"]).ok().contains("{\"plan\":\"gold\"}"));
    let made =
        ["endpoint", "create", "https://example.com/", "--uid", "crm", "--metadata", "by=ada"];
    place.run(&made).ok();
    assert!(place.run(&["endpoint", "show", "crm"]).ok().contains("{\"by\":\"ada\"}"));
}
