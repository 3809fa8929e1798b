//! `delivery tail`: attempts as they end, through a restart of the server, until somebody ends it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::fake_service::{self, fake_service};
use crate::program::{Ended, Place, signal};
use crate::receiver::receiver;

/// A tail that runs.
struct Tail {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Tail {
    fn start(place: &Place, words: &[&str]) -> Self {
        let mut command = place.command(&[&["delivery", "tail"], words].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.lines.read_line(&mut line).unwrap() > 0, "it ended");
        line
    }

    fn attempt(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Ends it by Ctrl-C; returns the rest of its output and its errors.
    fn end(mut self) -> (String, String) {
        signal(&self.child, "INT");
        let (mut rest, mut told) = (String::new(), String::new());
        self.lines.read_to_string(&mut rest).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(130), "{told}");
        (rest, told)
    }
}

fn publish(place: &Place, id: &str) {
    place.run(&["publish", "a.b", "{}", "--id", id, "--wait", "--app", "acme"]).ok();
}

/// Goal: a tail prints each attempt once, those that were made while it had no answer included.
#[test]
fn a_restarted_server_loses_and_doubles_nothing() {
    let mut place = Place::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let options = ["--dev", "--listen", &port];
    let served = place.serve(&options);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    place.run(&["endpoint", "create", &receiver("204 No Content"), "--uid", "crm"]).ok();
    publish(&place, "early");
    let mut tail = Tail::start(&place, &["since:1h", "endpoint:crm", "--app", "acme", "--json"]);
    let mut ids = vec![tail.attempt()["id"].clone()];
    publish(&place, "first");
    let first = tail.attempt();
    assert_eq!((&first["responseStatusCode"], &first["eventType"]), (&204.into(), &"a.b".into()));
    ids.push(first["id"].clone());

    served.signal("TERM");
    assert!(served.wait().success());
    // Its first words are that it has no answer.
    let mut errors = BufReader::new(tail.child.stderr.take().unwrap());
    let mut told = String::new();
    errors.read_line(&mut told).unwrap();
    assert!(told.contains("no answer from") && told.contains("trying again"), "{told}");
    let _served = place.serve(&options);
    publish(&place, "second");
    ids.push(tail.attempt()["id"].clone());
    told.clear();
    errors.read_line(&mut told).unwrap();
    assert!(told.contains("the server answers again"), "{told}");
    publish(&place, "third");
    ids.push(tail.attempt()["id"].clone());
    tail.child.stderr = Some(errors.into_inner());
    let (rest, _told) = tail.end();
    assert_eq!(rest, "");
    ids.sort_by_key(Value::to_string);
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[test]
fn a_query_chooses_and_lines_have_tabs_between_their_cells() {
    let mut place = Place::new();
    let _served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    place.run(&["endpoint", "create", &receiver("204 No Content"), "--uid", "well"]).ok();
    place.run(&["endpoint", "create", &receiver("500 Oh"), "--uid", "ill"]).ok();
    let mut failed = Tail::start(&place, &["--failed", "since:1h"]);
    let options = ["--endpoint", "ill", "--status", "fail", "--since", "1h"];
    let mut ill = Tail::start(&place, &options);
    let mut well = Tail::start(&place, &["code:2xx", "type:a.*", "since:1h"]);
    place.run(&["publish", "a.b", "{}"]).ok();
    let line = failed.line();
    assert_eq!(line.split('\t').collect::<Vec<_>>()[1..4], ["fail", "500", "a.b"], "{line}");
    assert_eq!(ill.line(), line);
    assert_eq!(ill.end().0, "");
    place.run(&["delivery", "tail", "--status", "pending"]).failed(2, &["success or fail"]);
    let line = well.line();
    assert_eq!(line.split('\t').collect::<Vec<_>>()[1..4], ["success", "204", "a.b"], "{line}");
    assert_eq!((failed.end().0, well.end().0), (String::new(), String::new()));
    place.run(&["delivery", "tail", "endpoint:none"]).failed(5, &["endpoint"]);
    place.run(&["delivery", "tail", "--app", "none"]).failed(5, &["application"]);
}

#[test]
fn a_closed_pipe_ends_a_tail_quietly() {
    let mut place = Place::new();
    let _served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    place.run(&["endpoint", "create", &receiver("204 No Content")]).ok();
    publish(&place, "first");
    let mut tail = Tail::start(&place, &["since:1h"]);
    tail.line();
    let Tail { mut child, lines } = tail;
    drop(lines);
    publish(&place, "second");
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!((child.wait().unwrap().code(), &*told), (Some(0), ""));
}

#[test]
fn a_server_that_never_answered_is_a_failure() {
    let mut place = Place::new();
    place.set("WEBHOOKS_SERVER", "http://127.0.0.1:1");
    place.run(&["delivery", "tail", "--app", "a"]).failed(3, &["no answer"]);
    place.set("WEBHOOKS_SERVER", receiver("200 OK").trim_end_matches("/hook"));
    place
        .run(&["delivery", "tail", "--app", "a"])
        .failed(1, &["must be the URL of a webhook service"]);
}

/// Goal: a failure to print is none of the server, and loses no line in silence. Method: the first look finds nothing.
#[test]
fn an_output_that_cannot_be_written_ends_a_tail() {
    let has_begun = AtomicBool::new(false);
    let attempt = json!({ "id": "atmpt_1", "timestamp": "2026-01-02T03:04:05Z" });
    let url = fake_service(move |_method, _path| {
        let count = usize::from(has_begun.swap(true, Ordering::Relaxed));
        let found: Vec<_> = std::iter::repeat_n(&attempt, count).collect();
        fake_service::json(&json!({ "data": found, "iterator": "1", "done": true }))
    });
    let mut place = Place::new();
    place.set("WEBHOOKS_SERVER", &url);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = place.command(&["delivery", "tail", "--app", "a"]);
    let child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let ended = Ended::new(child.wait_with_output().unwrap());
    assert!(!ended.err.contains("trying again"), "{ended:?}");
    ended.failed(1, &["cannot write the output"]);
}
