//! A server that is hostile, or another program: what it answers does no harm, and is no success.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::json;

use crate::fake_service::{Answer, answer, fake_service, json};
use crate::program::{Ended, Place, has_controls};
use crate::terminal::at_terminal;
use crate::tree::{self, Listed};
use crate::walk::anything;

/// A text that clears a screen, sets a title, and changes the order of letters, if a terminal gets it as it is.
const EVIL: &str = "a\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}b\r\u{8}c\u{7f}";

/// Runs each command that asks the server against one that always answers this.
fn each(answer: &Answer, check: impl Fn(&Listed, Ended)) {
    let mut place = tree::place();
    let answer = answer.clone();
    place.set("WEBHOOKS_SERVER", &fake_service(move |_method, _path| answer.clone()));
    for command in tree::remote() {
        let ended = command.run(&place);
        ended.is_orderly();
        ended.is_plain();
        assert!(ended.err.len() < 20_000, "{}: {} bytes", command.name(), ended.err.len());
        check(command, ended);
    }
}

fn is_no_service(command: &Listed, ended: Ended) {
    assert!(ended.out.is_empty(), "{}: {ended:?}", command.name());
    ended.failed(1, &["error: ", "--server must be the URL of a webhook service"]);
}

#[test]
fn garbage_and_pages_for_people_are_no_success() {
    each(&answer("200 OK", "", &[0xff, 0x1b, b'[', b'2', b'J', 0, 0x9b]), is_no_service);
    let page = "<!DOCTYPE html><title>Sign in \u{1b}[2J</title>";
    each(&answer("200 OK", "content-type: text/html\r\n", page.as_bytes()), is_no_service);
}

#[test]
fn ten_megabytes_are_no_success() {
    each(&answer("200 OK", "", &vec![b'['; 10_000_000]), is_no_service);
    let detail = json!({ "detail": "x".repeat(10_000_000) }).to_string();
    each(&answer("422 Unprocessable Content", "", detail.as_bytes()), |command, ended| {
        // An import goes on after a refusal.
        let code = if command.name() == "import" { 7 } else { 6 };
        ended.failed(code, &["xxx", "(422)"]);
    });
}

/// The key must not follow a redirect to another server.
#[test]
fn a_redirect_is_not_followed() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let location = format!("location: http://{}/\r\n", other.local_addr().unwrap());
    each(&answer("302 Found", &location, b""), |_command, ended| ended.failed(1, &["302 Found"]));
    other.set_nonblocking(true).unwrap();
    assert_eq!(other.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn refusals_are_told_without_what_a_terminal_obeys() {
    for detail in
        [json!(EVIL), json!([{ "loc": ["body", EVIL], "msg": EVIL }]), json!({ "x": EVIL })]
    {
        let body = json!({ "code": EVIL, "detail": detail }).to_string();
        each(&answer("403 Forbidden", "", body.as_bytes()), |_command, ended| {
            ended.failed(4, &["error: ", "(403)"]);
        });
    }
}

#[test]
fn an_answer_that_is_no_http_or_breaks_off_is_told() {
    each(&b"\xff\xfe\x1b[2J\r\n\r\n".to_vec(), |_command, ended| {
        ended.failed(3, &["no answer from"]);
    });
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"data\":".to_vec();
    each(&cut, |_command, ended| ended.failed(3, &["no answer from"]));
}

#[test]
fn a_server_that_is_silent_or_never_ends_is_left() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let words = ["app", "list", "--timeout", "50ms", "--server", &url];
    Place::new().run(&words).failed(9, &["no answer from"]);

    let endless = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", endless.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _peer) = endless.accept().unwrap();
        // An answer before the request is no answer.
        let _request = stream.read(&mut [0; 4_096]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let part = vec![b' '; 1024 * 1024];
        while stream.write_all(&part).is_ok() {}
    });
    Place::new().run(&["app", "list", "--server", &url]).failed(1, &["answers with more than"]);
}

/// Goal: names that strangers stored do nothing to the terminal of a reader. Method: each command prints them at a
/// terminal, as a table and as JSON; the program's own sequences are taken away.
#[test]
fn hostile_names_do_nothing_to_a_terminal() {
    let mut place = tree::place();
    place.set("WEBHOOKS_SERVER", &fake_service(|_method, _path| json(&anything(EVIL))));
    let mut shown = 0;
    for command in tree::remote() {
        for form in [None, Some("--json")] {
            let mut words = command.example();
            words.retain(|word| word != "--json");
            words.extend(form.map(str::to_owned));
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let text = at_terminal(&place, &words).out;
            let mut plain = text.replace("\r\n", "\n");
            for own in
                ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[33m", "\r\u{1b}[2K"]
            {
                plain = plain.replace(own, "");
            }
            assert!(!has_controls(&plain), "{words:?}: {text:?}");
            shown += usize::from(text.contains("title"));
        }
    }
    assert!(shown > 20, "{shown}");
}
