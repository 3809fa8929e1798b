//! `demo`: its promises, its end, and what it leaves behind.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::program::{Place, read, signal};

/// Returns a place whose temporary files are in a folder of their own.
fn place() -> (Place, PathBuf) {
    let mut place = Place::new();
    let temporary = place.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    place.set("TMPDIR", temporary.to_str().unwrap());
    (place, temporary)
}

fn names(folder: &PathBuf) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The settings around it would let it deliver nothing, or reach nothing.
#[test]
fn it_keeps_every_promise_whatever_is_set_around_it_and_leaves_nothing() {
    let (mut place, temporary) = place();
    place.write("webhooks.toml", "[serve]\nroles = [\"api\"]\n");
    place.set("WEBHOOKS_ROLES", "api");
    place.set("WEBHOOKS_DATABASE", "/nowhere/webhooks.db");
    place.set("HTTP_PROXY", "http://127.0.0.1:1");
    place.set("http_proxy", "http://127.0.0.1:1");
    let told = place.run(&["demo", "--events", "12", "--fast", "--seed", "7", "--json"]).json();
    let promises = told["promises"].as_array().unwrap();
    assert_eq!(promises.len(), 5);
    assert!(promises.iter().all(|promise| promise["holds"] == true), "{told}");
    let count = |field: &str| told[field].as_u64().unwrap();
    assert_eq!((count("events"), count("steady"), count("flaky")), (12, 12, 12), "{told}");
    assert_eq!((count("waitingForDead"), count("seed")), (12, 7), "{told}");
    // The kill was in the middle of a delivery, so this one came again.
    assert!(count("refused") >= 24 && count("repeated") >= 1, "{told}");
    assert_eq!(names(&temporary), Vec::<PathBuf>::new());
}

#[test]
fn it_prints_plain_lines_if_nobody_watches() {
    let (place, _temporary) = place();
    let ended = place.run(&["demo", "--events", "5", "--fast"]);
    assert!(!format!("{ended:?}").contains("\\u{1b}"), "{ended:?}");
    assert!(ended.err.contains("webhooks serve --dev"), "{ended:?}");
    let out = ended.ok();
    for text in ["[1] the service runs at", "[3] killed", "5/5", "every promise held"] {
        assert!(out.contains(text), "{text:?} is not in {out}");
    }
}

#[test]
fn its_folder_can_be_kept_and_served() {
    let (mut place, temporary) = place();
    let told = place.run(&["demo", "--events", "3", "--fast", "--keep", "--json"]).json();
    let folder = names(&temporary).remove(0);
    assert_eq!(told["folder"], folder.to_str().unwrap());
    let database = folder.join("webhooks.db");
    let _served = place.serve(&["--dev", "--database", database.to_str().unwrap()]);
    let key = format!("@{}", folder.join("key").display());
    let listed = place.run(&["endpoint", "list", "--app", "demo", "--json", "--key", &key]);
    assert!(!listed.err.contains("warning"), "{listed:?}");
    let uids = listed.ok();
    let uids = uids.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["uid"].clone());
    assert_eq!(uids.count(), 3);
    assert!(read(&folder.join("serve.log")).contains("DEVELOPMENT MODE"));
}

/// Interrupts a demo when its service runs, and checks that neither the service nor a file is left.
#[cfg(unix)]
#[test]
fn ctrl_c_in_the_middle_leaves_no_process_and_no_file() {
    let (place, temporary) = place();
    let mut command = place.command(&["demo", "--events", "500"]);
    let mut demo = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let address = first.split("http://").nth(1).unwrap().split(',').next().unwrap().to_owned();
    assert!(TcpStream::connect(&address).is_ok(), "{first}");
    assert!(lines.next().unwrap().unwrap().starts_with("[2]"));
    signal(&demo, "INT");
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert_eq!(names(&temporary), Vec::<PathBuf>::new());
    assert!(TcpStream::connect(&address).is_err(), "the service runs still");
}

#[test]
fn a_folder_that_cannot_be_made_is_told() {
    let mut place = Place::new();
    place.set("TMPDIR", "none");
    place.run(&["demo"]).failed(2, &["cannot make a folder in none", "TMPDIR"]);
    place.run(&["demo", "--events", "0"]).failed(2, &["--events"]);
}
