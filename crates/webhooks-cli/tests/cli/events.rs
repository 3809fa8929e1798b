//! Events that are found, shown and published anew, and payloads that are checked.

use serde_json::{Value, json};

use crate::program::Place;
use crate::receiver::receiver;

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_event_is_published_again_under_another_id() {
    let mut place = Place::new();
    let _served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme"]).ok();
    place.run(&["endpoint", "create", &receiver("204 No Content"), "--uid", "crm"]).ok();
    let payload = "{\"total\":  1.50, \"by\": \"\\u001b[2J\"}";
    let published =
        ["publish", "invoice.paid", payload, "--id", "i-17", "--tag", "import", "--wait"];
    place.run(&published).ok();
    place.run(&["publish", "user.made", "{}"]).ok();

    let again = place.run(&["event", "again", "i-17", "--json"]).json();
    let id = again["id"].as_str().unwrap();
    assert_eq!((&again["eventType"], &again["tags"]), (&json!("invoice.paid"), &json!(["import"])));
    assert!(again["eventId"].is_null(), "{again}");
    assert_eq!(place.run(&["event", "show", id, "--payload"]).ok(), payload);
    let named = ["event", "again", "i-17", "--id", "i-18", "--wait", "--json"];
    let first = rows(&place.run(&named).ok());
    assert_eq!(first[1]["statusText"], "success");
    // The same id again is the same event.
    assert_eq!(rows(&place.run(&named).ok())[0]["id"], first[0]["id"]);
    place.run(&["event", "again", "none"]).failed(5, &["There is no such message: none (404)"]);

    let pretty = place.run(&["event", "show", "i-17", "--payload", "pretty"]).ok();
    assert_eq!(pretty, "{\n  \"total\": 1.50,\n  \"by\": \"\\u001b[2J\"\n}\n");
    let shown = place.run(&["event", "show", "i-17", "--deliveries"]).ok();
    assert!(shown.contains("invoice.paid") && shown.contains("\t204\t"), "{shown}");
    let shown = rows(&place.run(&["event", "show", "i-17", "--deliveries", "--json"]).ok());
    assert_eq!(shown[1]["deliveries"][0]["statusText"], "success");
    place.run(&["event", "show", "i-17", "--payload", "yaml"]).failed(2, &["yaml"]);

    let list =
        |words: &[&str]| place.run(&[&["event", "list"], words].concat()).ok().lines().count();
    assert_eq!((list(&[]), list(&["type:invoice.*"]), list(&["type:user.made"])), (4, 3, 1));
    assert_eq!((list(&["tag:import", "since:1h"]), list(&["until:1h"])), (3, 0));
    assert_eq!((list(&["--type", "user.*"]), list(&["type:invoice.*", "--limit", "2"])), (1, 2));
}

#[test]
fn a_wait_says_why_nothing_arrives() {
    let mut place = Place::new();
    let _served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme"]).ok();
    let url = receiver("503 Service Unavailable");
    place.run(&["endpoint", "create", &url, "--uid", "crm", "--types", "invoice.*"]).ok();
    let unwanted = place.run(&["publish", "user.made", "{}", "--wait"]);
    assert!(unwanted.err.contains("crm wants invoice.*"), "{unwanted:?}");
    unwanted.ok();
    let words = ["publish", "invoice.paid", "{}", "--wait", "--within", "4s"];
    place.run(&words).failed(9, &["crm: 503; next attempt at 20", "1 of 1 still wait"]);
}

#[test]
fn payloads_are_checked_against_the_schema_of_a_type_or_of_a_file() {
    let mut place = Place::new();
    let schema = r#"{"type": "object", "required": ["total"], "properties": {"total": {"type": "number"},
        "lines": {"type": "array", "items": {"properties": {"a/b": {"type": "string"}}}}}}"#;
    place.write("schema.json", schema);
    place.write("good.json", "{\n  \"total\": 1\n}\n");
    place.write(
        "many.ndjson",
        "{\"total\": 1}\n\n{\"total\": \"\\u001b[2J\"}\n{\"total\": 2, \"lines\": [{}, {\"a/b\": 1}]}\n{}\n{\"total\n",
    );
    let check = |words: &[&str]| place.run(&[&["event-type", "check"], words].concat());
    // Without a server.
    check(&["good.json", "--schema", "schema.json"]).ok();
    let wrong = check(&["many.ndjson", "--schema", "schema.json", "--json"]);
    let found = rows(&wrong.out);
    let places: Vec<_> =
        found.iter().map(|row| (row["line"].clone(), row["place"].clone())).collect();
    let expected = [(3, "/total"), (4, "/lines/1/a~1b"), (5, ""), (6, "")]
        .map(|(line, place)| (json!(line), json!(place)));
    assert_eq!(places, expected);
    assert!(found[2]["reason"].as_str().unwrap().contains("\"total\" is missing"), "{found:?}");
    assert!(found[3]["reason"].as_str().unwrap().contains("not JSON"), "{found:?}");
    assert!(!wrong.out.contains("[2J"), "a value of the payload: {wrong:?}");
    wrong.failed(8, &["4 of 5 payloads do not match schema.json", "\"check_failed\""]);
    check(&["none.json", "--schema", "schema.json"]).failed(2, &["none.json"]);
    check(&["good.json", "--schema", "many.ndjson"]).failed(2, &["many.ndjson is not JSON"]);
    place.write("bad.json", "{\"type\": 7}");
    check(&["good.json", "--schema", "bad.json"]).failed(2, &["not a valid JSON Schema"]);
    place.write("far.json", "{\"$ref\": \"http://127.0.0.1:1/x\"}");
    check(&["good.json", "--schema", "far.json"]).failed(2, &["does not lead to a place"]);
    place.write("empty.json", " \n");
    check(&["empty.json", "--schema", "schema.json"]).failed(2, &["holds no payload"]);
    place.write("deep.json", &"[".repeat(100_000));
    check(&["deep.json", "--schema", "schema.json"]).failed(8, &["1 of 1"]);
    check(&["good.json"]).failed(2, &["--type"]);
    check(&["-", "--schema", "-"]).failed(2, &["standard input"]);

    let _served = place.serve(&[]);
    place.run(&["event-type", "create", "invoice.paid"]).ok();
    let of_type = ["event-type", "check", "-", "--type", "invoice.paid"];
    place.run_with(&of_type, "{}").failed(5, &["has no schema", "--schema FILE"]);
    place.run(&["event-type", "edit", "invoice.paid", "--schema", "schema.json"]).ok();
    place.run_with(&of_type, "{\"total\": 1}").ok();
    let done = place.run_with(&[&of_type[..], &["--json"]].concat(), "{\"total\": 1}").json();
    assert_eq!(done, json!({ "id": "invoice.paid version 1", "done": "checked" }));
    place.run_with(&of_type, "{\"total\": \"x\"}").failed(8, &["1 of 1 payloads do not match"]);
    place.run_with(&of_type, "[1]").failed(8, &["1 of 1"]);
    let other = [&of_type[..], &["--version", "2"]].concat();
    place.run_with(&other, "{}").failed(5, &["has no schema of version 2"]);
    place.run(&["event-type", "check", "good.json", "--type", "none"]).failed(5, &["event type"]);
}
