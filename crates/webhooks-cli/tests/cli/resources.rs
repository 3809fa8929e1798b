//! Applications, endpoints, events, deliveries and keys: a whole flow, and what is refused.

use serde_json::Value;

use crate::program::Place;
use crate::receiver::receiver;

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_event_goes_from_the_command_line_to_a_receiver() {
    let mut place = Place::new();
    let _served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme Inc", "--uid", "acme", "--metadata", "plan=gold"]).ok();
    let endpoint = place
        .run(&[
            "endpoint",
            "create",
            &receiver("204 No Content"),
            "--uid",
            "crm",
            "--types",
            "invoice.*",
            "--json",
        ])
        .json();
    assert_eq!(endpoint["eventTypes"], serde_json::json!(["invoice.*"]));
    let event = place
        .run(&["publish", "invoice.paid", "{\"invoice\":  17}", "--wait", "--id", "i-17", "--json"])
        .ok();
    let event = &rows(&event)[0];
    let id = event["id"].as_str().unwrap();
    // The same again is the same event.
    let again = place
        .run(&["publish", "invoice.paid", "{\"invoice\":  17}", "--id", "i-17", "--json"])
        .json();
    assert_eq!(again["id"], id);
    place.run(&["publish", "invoice.paid", "{}", "--id", "i-17"]).failed(6, &["409"]);

    assert_eq!(place.run(&["event", "show", "i-17", "--payload"]).ok(), "{\"invoice\":  17}");
    let found = place.run(&["event", "search", "\"invoice\":  17"]).ok();
    assert_eq!(found.split('\t').next(), Some(id));
    let shown = place.run(&["delivery", "show", id, "--json"]).json();
    assert_eq!(
        (&shown["deliveries"][0]["statusText"], &shown["attempts"][0]["responseStatusCode"]),
        (&"success".into(), &204.into())
    );
    let listed = place.run(&["delivery", "list", "--endpoint", "crm", "--status", "success"]).ok();
    assert!(listed.starts_with(id), "{listed}");
    assert!(place.run(&["delivery", "list"]).ok().starts_with(id));
    assert_eq!(place.run(&["delivery", "list", "--status", "fail"]).ok(), "");
    place.run(&["delivery", "retry", id, "--endpoint", "crm"]).ok();
    place
        .run(&["delivery", "retry", id, "msg_none", "--endpoint", "crm"])
        .failed(7, &["1 of 2 were refused"]);
    let stats = place.run(&["endpoint", "stats", "crm", "--json"]).json();
    assert_eq!(stats["fail"], 0);

    let secret = place.run(&["endpoint", "secret", "show", "crm"]).ok();
    let rotated = place.run(&["endpoint", "secret", "rotate", "crm"]).ok();
    assert!(rotated.starts_with("whsec_") && rotated != secret);
    place.run_with(&["endpoint", "secret", "rotate", "crm", "--secret", "-"], &secret).ok();
    assert_eq!(place.run(&["endpoint", "secret", "show", "crm"]).ok(), secret);
}

#[test]
fn a_replay_delivers_what_failed() {
    let mut place = Place::new();
    let _served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme"]).ok();
    // 410 disables the endpoint, and nothing is tried again.
    place.run(&["endpoint", "create", &receiver("410 Gone"), "--uid", "crm"]).ok();
    place.run(&["publish", "a.b", "{\"n\":1}", "--wait"]).failed(1, &["1 of 1 were not delivered"]);
    place.run(&["endpoint", "edit", "crm", "--url", &receiver("200 OK")]).ok();
    place.run(&["endpoint", "enable", "crm"]).ok();
    let replay = ["delivery", "replay", "--endpoint", "crm", "--since", "1h"];
    place.run(&replay).failed(2, &["--yes"]);
    let ended = place.run(&[&replay[..], &["--yes", "--json"]].concat()).json();
    assert_eq!((&ended["done"], &ended["deliveries"]), (&"replayed".into(), &1.into()));
    let job = ended["jobs"][0].as_str().unwrap();
    let jobs = place.run(&["delivery", "jobs", "--json"]).ok();
    assert_eq!(
        (&rows(&jobs)[0]["id"], &rows(&jobs)[0]["status"]),
        (&job.into(), &"finished".into())
    );
}

#[test]
fn a_key_has_the_rights_that_it_was_made_with() {
    let mut place = Place::new();
    let _served = place.serve(&[]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    let made = place.run(&["key", "create", "billing", "--role", "publisher", "--app", "acme"]);
    assert!(made.err.contains("this once") && !made.err.contains("whkey_"), "{made:?}");
    place.write("key.txt", &made.ok());
    let as_publisher =
        |words: &[&str]| place.run(&[words, &["--key", "@key.txt", "--app", "acme"]].concat());
    as_publisher(&["publish", "a.b", "{}"]).ok();
    as_publisher(&["endpoint", "list"]).failed(4, &["403"]);
    let keys = rows(&place.run(&["key", "list", "--json"]).ok());
    let id = keys.iter().find(|key| key["name"] == "billing").unwrap()["id"].as_str().unwrap();
    let rotated = place.run(&["key", "rotate", id, "--grace", "0s"]).ok();
    as_publisher(&["publish", "a.b", "{}"]).failed(4, &["401"]);
    place.write("key.txt", &rotated);
    as_publisher(&["publish", "a.b", "{}"]).ok();
    as_publisher(&["endpoint", "list"]).failed(4, &["403"]);
    let keys = rows(&place.run(&["key", "list", "--json"]).ok());
    let is_live = |key: &&Value| key["name"] == "billing" && key["id"] != id;
    let id = keys.iter().find(is_live).unwrap()["id"].as_str().unwrap();
    place.run(&["key", "revoke", id]).failed(2, &["not confirmed", "--yes"]);
    as_publisher(&["publish", "a.b", "{}"]).ok();
    place.run(&["key", "revoke", id, "--yes"]).ok();
    as_publisher(&["publish", "a.b", "{}"]).failed(4, &["401"]);
}

#[test]
fn a_key_that_may_not_list_applications_uses_its_own_or_asks_for_a_name() {
    let mut place = Place::new();
    let _served = place.serve(&[]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    let make = |name: &str, more: &[&str]| {
        let words = ["key", "create", name, "--role", "publisher"];
        place.write_private(name, &place.run(&[&words[..], more].concat()).ok());
    };
    make("own", &["--app", "acme"]);
    make("all", &[]);
    let publish = |key: &str| place.run(&["publish", "a.b", "{}", "--key", key]);
    publish("@own").ok();
    publish("@all").failed(4, &["may not list applications", "name it with --app"]);
    place.run(&["publish", "a.b", "{}", "--key", "@all", "--app", "acme"]).ok();
    publish("whkey_bad").failed(4, &["401", "give a key with"]);
}

#[test]
fn a_profile_of_the_command_line_counts_before_the_environment() {
    let mut place = Place::new();
    let served = place.serve(&[]);
    place.run(&["app", "create", "Acme"]).ok();
    let (url, key) = (&served.url, served.key.as_ref().unwrap());
    let profile = format!("[profile.prod]\nserver = \"{url}\"\nkey = \"{key}\"\n");
    place.write_private("config/webhooks/config.toml", &profile);
    let other = "http://127.0.0.1:1";
    place.write("webhooks.toml", &format!("server = \"{other}\"\n"));
    place.set("WEBHOOKS_SERVER", other);
    place.set("WEBHOOKS_KEY", "whkey_other");
    let list = ["app", "list", "--profile", "prod"];
    assert!(place.run(&list).ok().contains("Acme"));
    place.run(&[&list[..], &["--server", other]].concat()).failed(3, &[other]);
    place.set("WEBHOOKS_PROFILE", "prod");
    place.run(&["app", "list"]).failed(3, &[other]);
}

#[test]
fn mistakes_are_told_with_their_exit_codes() {
    let mut place = Place::new();
    place
        .run(&["app", "list", "--server", "http://127.0.0.1:1"])
        .failed(3, &["no answer", "webhooks serve"]);
    place.run(&["app", "list", "--server", "ftp://x"]).failed(2, &["--server"]);
    place.run(&["app", "list", "--server", "http://u:secret@x"]).failed(2, &["--server"]);
    let _served = place.serve(&[]);
    place.run(&["endpoint", "list"]).failed(2, &["webhooks app create"]);
    place.run(&["app", "create", "A", "--uid", "a"]).ok();
    place.run(&["app", "create", "B", "--uid", "b"]).ok();
    place.run(&["endpoint", "list"]).failed(2, &["name one with --app", "a", "b"]);
    place.run(&["app", "show", "none"]).failed(5, &["application"]);
    place.run(&["app", "list", "--key", "whkey_bad"]).failed(4, &["401", "warning"]);
    place.run(&["publish", "bad type", "{}", "--app", "a"]).failed(6, &["bad type"]);
    place.run(&["publish", "a.b", "{bad", "--app", "a"]).failed(2, &["not JSON"]);
    place.run(&["publish", "a.b", "@none.json", "--app", "a"]).failed(2, &["none.json"]);
    place.write("inv.json", "{}");
    let without_sign = ["publish", "a.b", "inv.json", "--app", "a"];
    place.run(&without_sign).failed(2, &["did you mean @inv.json?"]);
    let of_this_machine = ["endpoint", "create", "http://127.0.0.1:3571/hook", "--app", "a"];
    place.run(&of_this_machine).failed(6, &["webhooks serve --dev", "--allow-network"]);
    place.run_with(&["publish", "a.b", "-", "--app", "a"], "{\"from\": \"stdin\"}").ok();
    place.run(&["app", "delete", "a"]).failed(2, &["--yes"]);
    place.run(&["app", "delete", "a", "--yes"]).ok();
}

#[test]
fn a_trigger_publishes_the_example_with_changes() {
    let mut place = Place::new();
    let _served = place.serve(&[]);
    place.run(&["app", "create", "Acme"]).ok();
    place.run(&["trigger", "invoice.paid"]).failed(5, &["event type"]);
    place.run(&["event-type", "create", "invoice.paid"]).ok();
    place.run(&["trigger", "invoice.paid"]).failed(6, &["has no example"]);
    let schema =
        "{\"type\": \"object\", \"examples\": [{\"total\": 1, \"by\": {\"name\": \"Ada\"}}]}";
    place.write("schema.json", schema);
    place.run(&["event-type", "edit", "invoice.paid", "--schema", "schema.json"]).ok();
    let sent = place
        .run(&["trigger", "invoice.paid", "--set", "by.name=Eve", "--set", "total=5", "--json"])
        .json();
    assert_eq!(sent["payload"], serde_json::json!({ "total": 5, "by": { "name": "Eve" } }));
}

/// A server of another kind must not pass for a success: events would be lost.
#[test]
fn a_server_of_another_kind_is_a_failure() {
    let mut place = Place::new();
    place.set("WEBHOOKS_SERVER", receiver("200 OK").trim_end_matches("/hook"));
    for words in [
        &["app", "list"][..],
        &["app", "create", "Acme"],
        &["publish", "a.b", "{}", "--app", "a"],
        &["publish", "a.b", "{}", "--app", "a", "--json"],
        &["key", "create", "x", "--role", "viewer"],
        &["endpoint", "secret", "rotate", "crm", "--app", "a"],
        &["export"],
    ] {
        place.run(words).failed(1, &["--server must be the URL of a webhook service"]);
    }
}

#[test]
fn a_key_can_replace_itself() {
    let mut place = Place::new();
    let served = place.serve(&[]);
    let keys = rows(&place.run(&["key", "list", "--json"]).ok());
    let id = keys[0]["id"].as_str().unwrap();
    place.write_private("new.txt", &place.run(&["key", "rotate", id, "--grace", "0s"]).ok());
    place.run(&["app", "list"]).failed(4, &["401"]);
    let keys = place.run(&["key", "list", "--json", "--key", "@new.txt"]).ok();
    assert_eq!(rows(&keys).iter().filter(|key| key["expiresAt"].is_null()).count(), 1);
    drop(served);
}
