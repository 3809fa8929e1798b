//! Deliveries in bulk: by a query, at a rate, interrupted, refused.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use crate::fake_service::{Answer, answer, fake_service, json};
use crate::program::{Ended, Place, Served, signal};
use crate::receiver::{receiver, receiver_by};

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs a command until its rows are as they are to be.
fn until(place: &Place, words: &[&str], is_right: impl Fn(&[Value]) -> bool) {
    let deadline = SystemClock.monotonic() + Duration::from_mins(1);
    loop {
        let found = rows(&place.run(&[words, &["--json"]].concat()).ok());
        if is_right(&found) {
            return;
        }
        assert!(SystemClock.monotonic() < deadline, "{words:?}: {found:?}");
    }
}

fn start(place: &Place, words: &[&str]) -> Child {
    let mut command = place.command(words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Six events, three of each type: they reached *two*, and wait for *crm*, which is paused.
fn place() -> (Place, Served) {
    let mut place = Place::new();
    let served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme"]).ok();
    for uid in ["crm", "two"] {
        place.run(&["endpoint", "create", &receiver("204 No Content"), "--uid", uid]).ok();
    }
    place.run(&["endpoint", "pause", "crm"]).ok();
    for number in 0..3 {
        for event_type in ["a.b", "c.d"] {
            let id = format!("{event_type}-{number}");
            place.run(&["publish", event_type, "{}", "--id", &id]).ok();
        }
    }
    until(&place, &["delivery", "list", "endpoint:two status:success"], |found| found.len() == 6);
    (place, served)
}

#[test]
fn a_query_chooses_what_is_cancelled_and_replayed() {
    let (place, _served) = place();
    let count = |query: &str| rows(&place.run(&["delivery", "list", query, "--json"]).ok()).len();
    assert_eq!((count("status:pending"), count("type:a.* status:pending")), (6, 3));
    assert_eq!((count("code:2xx"), count("code:204 since:1h"), count("code:503")), (6, 6, 0));
    assert_eq!((count("code:none"), count("until:1h"), count("endpoint:crm,two")), (0, 0, 12));

    let cancel = ["delivery", "cancel", "--where", "endpoint:crm type:a.*"];
    place.run(&cancel).failed(2, &["3 match (crm 3). Cancel?", "--yes"]);
    let dry = place.run(&[&cancel[..], &["--dry-run"]].concat());
    assert!(dry.err.contains("3 match; dry run"), "{dry:?}");
    assert_eq!(dry.ok(), "crm\t3\n");
    let dry = rows(&place.run(&[&cancel[..], &["--dry-run", "--json"]].concat()).ok());
    assert_eq!(dry[0], json!({ "endpoint": "crm", "matched": 3 }));
    let counted = |matched: u32| {
        json!({
            "done": "cancelled", "matched": matched, "deliveries": 0, "refused": 0, "dryRun": true
        })
    };
    assert_eq!(dry[1], counted(3));
    let none = ["delivery", "cancel", "--where", "type:none", "--dry-run", "--json"];
    assert_eq!(place.run(&none).json(), counted(0));
    assert_eq!(count("status:pending"), 6);
    let ended = place.run(&[&cancel[..], &["--yes", "--json"]].concat()).json();
    let expected = json!({ "done": "cancelled", "matched": 3, "deliveries": 3, "refused": 0 });
    assert_eq!(ended, expected);
    assert_eq!((count("status:cancelled"), count("status:pending")), (3, 3));
    place.run(&cancel).ok();
    assert_eq!(place.run(&[&cancel[..], &["--json"]].concat()).json()["matched"], 0);

    place.run(&["endpoint", "resume", "crm"]).ok();
    let replay = ["delivery", "replay", "--where", "status:canceled", "--rate", "100/s"];
    place.run(&replay).failed(2, &["3 match (", " 3). Replay at 100/s, about 0 s?"]);
    let ended = place.run(&[&replay[..], &["--yes", "--json"]].concat()).json();
    assert_eq!((&ended["deliveries"], &ended["refused"]), (&json!(3), &json!(0)));
    let job = ended["jobs"][0].as_str().unwrap();
    let shown = place.run(&["delivery", "jobs", job, "--json"]).json();
    assert_eq!((&shown["status"], &shown["data"]["deliveries"]), (&json!("finished"), &json!(3)));
    let success = ["delivery", "list", "endpoint:crm", "--status", "success"];
    until(&place, &success, |found| found.len() == 6);
}

/// Goal: a newcomer sees why nothing comes, and once the receiver is mended, a retry does not wait.
#[test]
fn an_endpoint_that_is_held_is_told_and_tried_at_once() {
    let mut place = Place::new();
    let _served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme"]).ok();
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&is_mended);
    let url = receiver_by(move || {
        if mended.load(Ordering::SeqCst) { "204 No Content" } else { "500 Internal Server Error" }
    });
    place.run(&["endpoint", "create", &url, "--uid", "crm"]).ok();
    for number in 0..5 {
        place.run(&["publish", "a.b", "{}", "--id", &format!("e{number}")]).ok();
    }
    until(&place, &["endpoint", "show", "crm"], |found| found[0]["health"]["state"] == "held");
    let shown = place.run(&["endpoint", "show", "crm"]).ok();
    assert!(shown.contains("failures in a row; "), "{shown}");
    let shown = place.run(&["delivery", "show", "e1", "--endpoint", "crm"]);
    assert!(shown.err.contains("failures in a row; "), "{shown:?}");
    tries_what_waits_there(&place);
    let retry = ["delivery", "retry", "e1", "--endpoint", "crm"];
    let retried = place.run(&[&retry[..], &["e2"]].concat());
    assert!(retried.err.contains("e1 waits for its turn at crm\n"), "{retried:?}");
    assert_eq!(retried.err.matches(TRIED).count(), 1, "{retried:?}");
    retried.ok();
    is_mended.store(true, Ordering::SeqCst);
    until(&place, &["endpoint", "show", "crm"], |found| {
        // The attempt of the last wish may have found it as it was before.
        place.run(&retry).ok();
        found[0]["health"]["state"] == "sending"
    });
    until(&place, &["delivery", "show", "e1"], |found| {
        found[0]["deliveries"][0]["statusText"] == "success"
    });

    place.run(&["endpoint", "pause", "crm"]).ok();
    let retried = place.run(&["delivery", "retry", "e1", "--endpoint", "crm"]);
    assert!(
        retried.err.contains("crm is paused: its events wait until it is resumed"),
        "{retried:?}"
    );
}

/// The words about an endpoint that is held.
const TRIED: &str =
    "failures in a row; the delivery that has waited longest there is tried at once, and the rest";

/// Goal: deliveries that were held before their first attempt are found, and those of a later time are left.
fn tries_what_waits_there(place: &Place) {
    for (id, at) in [("due", "0s"), ("later", "2h")] {
        place.run(&["publish", "c.d", "{}", "--id", id, "--at", at]).ok();
    }
    let retry = ["delivery", "retry", "--where", "endpoint:crm type:c.d"];
    assert_eq!(place.run(&[&retry[..], &["--dry-run"]].concat()).ok(), "crm\t1\n");
    let replayed = place.run(&["delivery", "replay", "due"]);
    assert!(
        replayed.err.contains("no delivery of due has the status fail or canceled: "),
        "{replayed:?}"
    );
    replayed.failed(6, &[" at crm\n", "webhooks delivery retry due --app "]);
    let retried = place.run(&[&retry[..], &["--yes"]].concat());
    assert!(retried.err.contains(TRIED), "{retried:?}");
    assert!(retried.err.contains("1 of 1 are back in the queue"), "{retried:?}");
    let retried = place.run(&["delivery", "retry", "due"]);
    assert!(retried.err.contains("due waits for its turn at ep_"), "{retried:?}");
    retried.ok();
}

#[test]
fn a_query_that_finds_nothing_tells_what_there_is_instead() {
    let (place, _served) = place();
    for repair in ["retry", "replay"] {
        let none = place.run(&["delivery", repair, "--endpoint", "crm"]);
        assert!(none.err.contains("nothing matches\ncrm has others: 6 pending\n"), "{none:?}");
        assert!(none.err.contains("crm is paused: its events wait"), "{none:?}");
        none.ok();
    }
    let delivered =
        place.run(&["delivery", "retry", "a.b-0", "--status", "fail", "--endpoint", "two"]);
    let says =
        ["has the status fail: success at two", "delivery replay a.b-0 --endpoint two --app "];
    delivered.failed(6, &says);
}

#[test]
fn a_wait_tells_what_holds_the_endpoint_back() {
    let asked = AtomicUsize::new(0);
    let url = fake_service(move |method, path| {
        if method == "POST" {
            return json(&json!({ "id": "msg_1", "eventType": "a.b" }));
        }
        if path.ends_with("/health") {
            asked.fetch_add(1, Ordering::SeqCst);
            return json(&json!({ "state": "paused" }));
        }
        let status = if asked.load(Ordering::SeqCst) == 0 { "pending" } else { "success" };
        let delivery = json!({ "id": "ep_1", "uid": "crm", "statusText": status });
        json(&json!({ "data": [delivery], "done": true, "iterator": null }))
    });
    let mut place = Place::new();
    place.set("WEBHOOKS_SERVER", &url);
    let waited = place.run(&["publish", "a.b", "--app", "acme", "--wait", "--within", "1m"]);
    let says = "crm is paused: its events wait until it is resumed\n";
    assert_eq!(waited.err.matches(says).count(), 1, "{waited:?}");
    waited.ok();
}

#[test]
fn a_next_attempt_is_not_before_the_end_of_a_hold() {
    let url = fake_service(|_method, path| {
        if path.ends_with("/health") {
            return json(&json!({ "state": "held", "until": "2999-01-02T03:04:05Z" }));
        }
        let delivery = json!({ "id": "ep_1", "uid": "crm", "statusText": "sending",
            "nextAttempt": "2026-01-02T03:04:05Z" });
        let data = if path.ends_with("/endpoint") { json!([delivery]) } else { json!([]) };
        json(&json!({ "data": data, "done": true, "iterator": null }))
    });
    let mut place = Place::new();
    place.set("WEBHOOKS_SERVER", &url);
    let words = ["delivery", "show", "one", "--endpoint", "crm", "--app", "acme"];
    let shown = place.run(&words);
    assert!(shown.err.contains("crm is held; the next attempt is made in "), "{shown:?}");
    assert!(shown.ok().contains("\tsending\t2999-01-02T03:04:05"));
    let shown = place.run(&[&words[..], &["--json"]].concat()).json();
    assert_eq!(shown["deliveries"][0]["nextAttempt"], "2026-01-02T03:04:05Z");
}

#[test]
fn refusals_are_counted_and_do_not_stop_the_others() {
    let (place, _served) = place();
    // Two types are more than a job of the server takes.
    let query = "type:a.b,c.d status:success";
    let replay = ["delivery", "replay", "--where", query, "--yes", "--json"];
    assert_eq!(place.run(&replay).json()["deliveries"], 6);
    let success = ["delivery", "list", "endpoint:two status:success"];
    until(&place, &success, |found| found.len() == 6);
    place.run(&["endpoint", "disable", "two"]).ok();
    let refused = place.run(&replay);
    assert!(refused.out.contains("\"refused\":6"), "{refused:?}");
    refused.failed(7, &["6 of 6 were refused", "enable it first"]);
    let job = place.run(&["delivery", "replay", "--where", "status:success", "--yes", "--json"]);
    assert!(job.out.contains("\"refused\":6"), "{job:?}");
    job.failed(7, &["enable it first"]);

    // Events that are named.
    let named = ["delivery", "cancel", "a.b-0", "c.d-0", "--endpoint", "crm", "--json"];
    let done = rows(&place.run(&named).ok());
    assert_eq!(done[0], json!({ "id": "a.b-0", "endpoint": "crm", "done": "cancelled" }));
    place.run(&named).failed(7, &["2 of 2 were refused"]);
    place.run(&["delivery", "cancel", "a.b-0", "--endpoint", "crm"]).failed(6, &["409"]);
    place.run(&["delivery", "cancel", "none"]).failed(5, &["message"]);
    place.run(&["delivery", "cancel", "a.b-0"]).failed(6, &["no delivery of a.b-0 has the status"]);
    place.run(&["endpoint", "resume", "crm"]).ok();
    place.run(&["event", "replay", "a.b-0"]).ok();
    let success = ["delivery", "list", "endpoint:crm status:success type:a.b"];
    until(&place, &success, |found| found.len() == 3);
}

#[test]
fn ctrl_c_in_a_bulk_tells_what_was_done() {
    let (place, _served) = place();
    let query = "endpoint:two type:a.b,c.d status:success";
    let mut child =
        start(&place, &["delivery", "replay", "--where", query, "--rate", "1/s", "--yes"]);
    // The oldest comes first.
    until(&place, &["delivery", "show", "a.b-0", "--endpoint", "two"], |found| {
        found[0]["attempts"].as_array().unwrap().len() == 2
    });
    signal(&child, "INT");
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{told}");
    assert!(told.contains(" of 6 are back in the queue, 0 refused"), "{told}");
    assert!(told.contains("the same command finds them"), "{told}");
}

#[test]
fn ctrl_c_leaves_the_job_of_the_server_running() {
    let (place, _served) = place();
    let query = "endpoint:two status:success";
    let mut child =
        start(&place, &["delivery", "replay", "--where", query, "--rate", "2/s", "--yes"]);
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    assert!(line.contains("runs, also if this command is interrupted"), "{line}");
    let job = line.split_whitespace().find(|word| word.starts_with("qtask_")).unwrap().to_owned();
    signal(&child, "INT");
    let mut told = String::new();
    errors.read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{told}");
    assert!(told.contains(&format!("`webhooks delivery jobs {job}`")), "{told}");
    until(&place, &["delivery", "jobs", &job], |found| {
        found[0]["status"] == "finished" && found[0]["data"]["deliveries"] == 6
    });
}

/// A service with one delivery that failed, `one` to `ep_1`. It answers each POST with `posted`.
fn with_one(posted: impl Fn() -> Answer + Send + Sync + 'static) -> Place {
    let url = fake_service(move |method, path| {
        if method == "POST" {
            posted()
        } else if path.ends_with("/qtask_1") {
            json(&json!({ "status": "finished", "data": { "deliveries": 1 } }))
        } else {
            let delivery = json!({ "id": "one", "eventType": "a.b", "statusText": "fail" });
            json(&json!({ "data": [delivery], "done": true, "iterator": null }))
        }
    });
    let mut place = Place::new();
    place.set("WEBHOOKS_SERVER", &url);
    place
}

/// The words of a bulk over that delivery.
fn of_one(repair: &str) -> [&str; 8] {
    ["delivery", repair, "--where", "endpoint:ep_1", "--app", "acme", "--yes", "--json"]
}

#[test]
fn one_that_was_delivered_meanwhile_is_passed_over() {
    let place = with_one(|| {
        answer("409 Conflict", "", br#"{ "code": "other_status", "detail": "It is delivered." }"#)
    });
    let expected = json!({
        "done": "retried", "matched": 1, "deliveries": 0, "refused": 0, "passedOver": 1
    });
    assert_eq!(place.run(&of_one("retry")).json(), expected);
    let told = place.run(&of_one("retry")[..7]);
    assert!(told.err.contains("0 of 1 are back in the queue, 1 had ended meanwhile"), "{told:?}");
    let place = with_one(|| answer("409 Conflict", "", br#"{ "code": "conflict" }"#));
    place.run(&of_one("retry")).failed(7, &["1 of 1 were refused"]);
}

#[test]
fn an_event_that_is_named_twice_is_delivered_once() {
    let place = with_one(|| json(&json!({})));
    let named =
        ["delivery", "retry", "one", "one", "--endpoint", "ep_1", "--app", "acme", "--json"];
    assert_eq!(rows(&place.run(&named).ok()).len(), 1);
}

#[test]
fn a_job_is_asked_for_once_more_if_the_answer_is_lost() {
    let asked = AtomicUsize::new(0);
    let place = with_one(move || match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Vec::new(),
        _ => json(&json!({ "id": "qtask_1" })),
    });
    let ended = place.run(&of_one("replay")).json();
    assert_eq!((&ended["deliveries"], &ended["jobs"]), (&json!(1), &json!(["qtask_1"])));

    let place = with_one(Vec::new);
    let says = ["0 of 1 are back in the queue", "it may have begun: `webhooks delivery jobs`"];
    place.run(&of_one("replay")).failed(3, &says);
}

#[test]
fn ctrl_c_ends_the_wait_for_a_job_to_begin() {
    let (sender, asked) = mpsc::sync_channel(10);
    let place = with_one(move || {
        let _told = sender.send(());
        loop {
            std::thread::park();
        }
    });
    let mut command = place.command(&of_one("replay"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    asked.recv_timeout(Duration::from_mins(1)).unwrap();
    signal(&child, "INT");
    let ended = Ended::new(child.wait_with_output().unwrap());
    ended.failed(130, &["interrupted", "it may have begun: `webhooks delivery jobs`"]);
}

#[test]
fn a_job_can_be_left_to_itself() {
    let (place, _served) = place();
    let replay = ["delivery", "replay", "--where", "status:success", "--yes", "--no-wait"];
    let job = place.run(&replay).ok();
    until(&place, &["delivery", "jobs", job.trim()], |found| found[0]["status"] == "finished");
    let exact = ["delivery", "replay", "--where", "code:204", "--yes", "--no-wait"];
    place.run(&exact).failed(2, &["--no-wait is for what the server does by itself"]);
}

#[test]
fn a_wrong_query_is_told_before_anything_is_asked() {
    let mut place = Place::new();
    // Nobody answers there.
    place.set("WEBHOOKS_SERVER", "http://127.0.0.1:1");
    for (words, says) in [
        (&["delivery", "list", "stauts:failed"][..], "did you mean \"status\"?"),
        (&["delivery", "list", "since:1h", "--since", "2h"], "--since is in the query too"),
        (&["delivery", "tail", "status:pending"], "an attempt has the status success or fail"),
        (&["delivery", "tail", "tag:a"], "\"tag\" cannot be asked for here"),
        (
            &["delivery", "replay", "--where", "status:pending"],
            "replay is for deliveries of the status",
        ),
        (
            &["delivery", "cancel", "--where", "status:failed"],
            "cancel is for deliveries of the status",
        ),
        (&["delivery", "retry"], "say what to retry"),
        (&["delivery", "retry", "a", "--where", "code:503"], "cannot be used with"),
        (&["delivery", "retry", "a", "--since", "1h"], "--since and --until are for --where"),
        (&["delivery", "retry", "a", "--dry-run"], "--dry-run is for --where"),
        (&["delivery", "retry", "--where", "code:503", "--rate", "0/s"], "such as 50/s"),
        (&["delivery", "replay", "--where", "code:\u{1b}[2J"], "no code"),
        (&["event", "list", "status:failed"], "\"status\" cannot be asked for here"),
    ] {
        place.run(words).failed(2, &[says]);
    }
    let hostile = place.run(&["delivery", "list", "\u{1b}[2J:x"]);
    assert!(!hostile.err.contains('\u{1b}'), "{hostile:?}");
    place.run(&["delivery", "list", "status:failed"]).failed(3, &["no answer"]);
}
