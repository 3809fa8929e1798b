//! Every command, good and wrong: each test walks over all of them.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::fake_service::{self, fake_service};
use crate::program::{Ended, Place};
use crate::tree::{self, Listed};

/// Longer than any name, and shorter than the longest argument that Linux takes.
const LONG: usize = 100_000;

/// An answer that has a field for each command: a thing, a list of one thing, and a job that has ended.
pub(crate) fn anything(text: &str) -> Value {
    let thing = json!({
        "id": text, "uid": text, "name": text, "key": text, "token": text, "url": text, "description": text,
        "eventType": text, "eventTypes": [text], "channels": [text], "tags": [text], "timestamp": "2026-01-02T03:04:05Z",
        "createdAt": "2026-01-02T03:04:05Z", "updatedAt": text, "expiresAt": text, "role": text, "prefix": text,
        "payload": text, "status": 0, "statusText": text, "nextAttempt": null, "task": text, "response": text,
        "endpointId": text, "metadata": { text: text }, "headers": {}, "sensitive": [], "disabled": false,
        "success": 1, "fail": 0, "pending": 0, "sending": 0, "responseStatusCode": 200, "responseDurationMs": 1,
        "data": { "deliveries": 1, "error": text }, "schemas": { "1": { "examples": [{ "total": 1 }] } },
        "groupName": text, "archived": false, "error": text,
    });
    let mut answer = thing.clone();
    answer["data"] = json!([thing]);
    answer["done"] = true.into();
    answer["status"] = "finished".into();
    answer["iterator"] = Value::Null;
    answer
}

/// Returns a place whose server gives this answer to every request.
fn place_with(answer: fake_service::Answer) -> Place {
    let mut place = tree::place();
    place.set("WEBHOOKS_SERVER", &fake_service(move |_method, _path| answer.clone()));
    place
}

fn place_with_anything() -> Place {
    place_with(fake_service::json(&anything("text")))
}

/// Calls a function for each command that asks the server.
fn each_remote(place: &Place, check: impl Fn(&Listed, Ended)) {
    for command in tree::remote() {
        check(command, command.run(place));
    }
}

#[test]
fn an_unknown_option_is_answered_with_a_suggestion() {
    let place = Place::new();
    for command in tree::commands() {
        let words = [command.words(), vec!["--jsonn"]].concat();
        place.run(&words).failed(2, &["unexpected argument '--jsonn'", "'--json'"]);
    }
}

/// Goal: the usage of an error names what is needed, and not what the environment has.
#[test]
fn the_usage_of_an_error_is_that_of_the_help() {
    let mut place = Place::new();
    for (name, value) in
        [("WEBHOOKS_APP", "acme"), ("WEBHOOKS_SERVER", "http://127.0.0.1:1"), ("WEBHOOKS_KEY", "k")]
    {
        place.set(name, value);
    }
    for (words, usage) in [
        (&["publish"][..], "Usage: webhooks publish [OPTIONS] <TYPE> [DATA]\n"),
        (&["endpoint", "create"], "Usage: webhooks endpoint create [OPTIONS] <URL>\n"),
        (&["key", "create", "a"], "Usage: webhooks key create [OPTIONS] --role <ROLE> <NAME>\n"),
        (&["app", "list", "--nothing"], "Usage: webhooks app list [OPTIONS]\n"),
        (&["nothing"], "Usage: webhooks [OPTIONS] <COMMAND>\n"),
    ] {
        place.run(words).failed(2, &[usage]);
    }
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let mut place = tree::place();
    place.set("WEBHOOKS_SERVER", "http://127.0.0.1:1");
    each_remote(&place, |command, ended| {
        assert!(ended.out.is_empty(), "{}: {ended:?}", command.name());
        ended.failed(3, &["no answer from http://127.0.0.1:1", "webhooks serve"]);
    });
}

/// Method: the commands that print data are those that print some to a pipe.
#[test]
fn output_that_cannot_be_written_is_told_and_a_closed_pipe_is_not() {
    let place = place_with_anything();
    let mut printed = 0;
    for command in tree::leaves() {
        let is_remote = tree::remote().any(|remote| remote.words == command.words);
        let mut words = command.example();
        words.extend((!is_remote).then(|| "--help".to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ended = place.run(&words);
        ended.is_orderly();
        if ended.out.is_empty() {
            continue;
        }
        printed += 1;
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ended =
            Ended::new(place.command(&words).stdout(full).stderr(Stdio::piped()).output().unwrap());
        ended.failed(1, &["error: cannot write the output", "No space left on device"]);

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = Ended::new(
            place.command(&words).stdout(writer).stderr(Stdio::piped()).output().unwrap(),
        );
        ended.is_orderly();
        assert!(ended.code == Some(0) && !ended.err.contains("error"), "{words:?}: {ended:?}");
    }
    assert!(printed > 25, "{printed}");
}

#[test]
fn without_a_terminal_nothing_is_asked() {
    let place = place_with_anything();
    let mut asking = 0;
    // Bulks ask what to do with the deliveries that they find, and `deliveries` has them.
    for command in tree::remote().filter(|command| command.has("--yes") && !command.has("--where"))
    {
        // Only this option of the import removes something.
        let mut words = command.example();
        words.retain(|word| word != "--yes" && word != "--dry-run");
        words.extend(command.has("--prune").then(|| "--prune".to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        // There is an answer, and nobody asks for it.
        place.run_with(&words, "y\n").failed(2, &["not confirmed", "--yes"]);
        place.run(&[&words[..], &["--no-input"]].concat()).failed(2, &["not confirmed"]);
        asking += 1;
    }
    assert!(asking > 2, "{asking}");
}

#[test]
fn arguments_that_are_not_utf_8_are_refused() {
    let place = tree::place();
    let broken = OsStr::from_bytes(b"\xff\x1b[2J");
    for command in tree::leaves() {
        for option in [None, Some("--server"), Some("--profile")] {
            let mut run = place.command(&command.words());
            run.args(option).arg(broken).env("WEBHOOKS_SERVER", "http://127.0.0.1:1");
            let output = run.output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!text.contains("panicked"), "{}: {text}", command.name());
            let code = output.status.code().unwrap();
            // The manual pages go into whatever folder is named.
            let is_folder = command.name() == "man" && option.is_none();
            assert_eq!(code == 0, is_folder, "{} {option:?}: {text}", command.name());
            assert!(is_folder || text.contains("error: "), "{}: {text}", command.name());
        }
    }
}

/// Returns the first example with each of its own values replaced by another one.
fn with_values(command: &Listed, value: &str) -> Vec<String> {
    let mut words = command.example();
    let mut is_named = false;
    for word in words.iter_mut().skip(command.words.len()) {
        let is_option = word.starts_with("--");
        if !is_option && !is_named {
            value.clone_into(word);
        }
        is_named = is_option;
    }
    words
}

/// A part of a path that is empty or dots would name another thing: the list, or the application itself.
#[test]
fn names_that_are_no_names_reach_no_server() {
    let place = place_with(fake_service::answer("204 No Content", "", b""));
    let takes_id = |command: &&Listed| {
        let usage = command.help.lines().find(|line| line.starts_with("Usage:")).unwrap();
        let has_value = with_values(command, "x") != command.example();
        has_value && ["<ID>", "<EVENT"].iter().any(|name| usage.contains(name))
    };
    assert!(tree::remote().filter(takes_id).count() > 10);
    for command in tree::remote().filter(takes_id) {
        for value in ["", ".", ".."] {
            let words = with_values(command, value);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            place.run(&words).failed(2, &[&format!("\"{value}\" is no id and no name")]);
        }
    }
    let long = "x".repeat(5_000);
    place.run(&["app", "show", &long]).failed(2, &["5000 bytes is too long"]);
    for app in ["", "..", "."] {
        place.run(&["endpoint", "list", "--app", app]).failed(2, &["is no id and no name"]);
    }
}

#[test]
fn very_long_values_end_in_an_orderly_way() {
    let place = place_with_anything();
    let long = "x".repeat(LONG);
    for command in tree::leaves().filter(|command| command.name() != "man") {
        let words = with_values(command, &long);
        if words == command.example() {
            continue;
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        place.run(&words).is_orderly();
    }
    place.run(&["app", "list", "--server", &long]).failed(2, &["--server"]);
}
