//! `listen --inspect`: the page that shows what came.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use crate::listener::{Listening, SECRET, has_status, place, signed};
use crate::program::Place;

/// The text that no page may run.
const ATTACK: &str = "<img src=x onerror=alert(1)>";

/// A `listen` with its page.
struct Inspected {
    place: Place,
    listening: Listening,
    /// The address of the page.
    page: String,
}

impl Inspected {
    fn start() -> Self {
        let place = place();
        let listening = Listening::start(&place, &["--secret", "@secret", "--inspect"]);
        let page = listening.ready["inspect"].as_str().unwrap();
        let page = page.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Self { place, listening, page }
    }

    /// Returns the answer to a request for the page.
    fn ask(&self, method: &str, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(&self.page).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\n{headers}connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Returns the head and the body of a page.
    fn get(&self, path: &str) -> (String, String) {
        let answer = self.ask("GET", path, &format!("host: {}\r\n", self.page));
        has_status(&answer, 200);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }

    /// Sends a request that is hostile in all its parts, with a secret in a header, and returns its body.
    fn attack(&mut self) -> String {
        let body = format!("{{\"type\": \"{ATTACK}\", \"n\": 18446744073709551616}}");
        let headers = signed(&self.place, &body);
        let headers = format!(
            "{headers}x-note: \u{202e}{ATTACK}\r\nx-token: {SECRET}\r\nx-quote: it's $(id)\r\n"
        );
        has_status(&self.listening.post(&headers, body.as_bytes()), 200);
        self.listening.next();
        body
    }

    fn requests(&self) -> (String, Value) {
        let (_, text) = self.get("/requests?after=0");
        let found = serde_json::from_str(&text).unwrap();
        (text, found)
    }
}

#[test]
fn the_page_holds_nothing_of_requests_and_runs_only_its_own_script() {
    let mut inspected = Inspected::start();
    inspected.attack();
    let (head, page) = inspected.get("/");
    assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
    for policy in ["default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"] {
        assert!(head.contains(policy), "{head}");
    }
    assert!(!head.contains("unsafe"), "{head}");
    for header in ["x-content-type-options: nosniff", "cache-control: no-store"] {
        assert!(head.contains(header), "{head}");
    }
    let nonce = |head: &str| {
        let (_, rest) = head.split_once("script-src 'nonce-").unwrap();
        rest.split_once('\'').unwrap().0.to_owned()
    };
    let own = nonce(&head);
    assert!(page.to_lowercase().contains(&format!("<script nonce=\"{own}\">")), "{page}");
    assert_ne!(nonce(&inspected.get("/").0), own);
    // One script and one style, both in the page, and no other host.
    assert_eq!((page.matches("<script").count(), page.matches("<style").count()), (1, 1));
    for foreign in ["alert(1)", "src=", "http:", "https:", "innerHTML", "outerHTML", "(nonce)"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn requests_are_shown_without_markup_and_without_the_secret() {
    let mut inspected = Inspected::start();
    inspected.attack();
    let (text, found) = inspected.requests();
    assert!(!text.contains(['<', '>', '&']), "{text}");
    assert!(!text.contains(SECRET.trim_start_matches("whsec_")), "{text}");
    let one = &found["requests"][0];
    assert_eq!(one["type"], ATTACK);
    assert_eq!((&one["verified"], &one["status"]), (&true.into(), &200.into()));
    assert_eq!((&one["id"], &one["answer"]), (&"msg_1".into(), &"200".into()));
    // Pretty, and a number as it was written.
    let body = format!("{{\n  \"type\": \"{ATTACK}\",\n  \"n\": 18446744073709551616\n}}");
    assert_eq!((&one["bodyKind"], &one["body"]), (&"JSON".into(), &body.into()));
    let headers = one["headers"].as_array().unwrap();
    for header in [["x-token", "(hidden)"], ["x-note", &format!("\u{fffd}{ATTACK}")]] {
        assert!(headers.contains(&serde_json::json!(header)), "{headers:?}");
    }

    inspected.listening.post("", b"\xff\0");
    inspected.listening.next();
    let (_, found) = inspected.requests();
    let one = &found["requests"][1];
    assert_eq!((&one["verified"], &one["body"]), (&false.into(), &"ff 00".into()));
    assert!(one["reason"].as_str().unwrap().contains("no header"), "{one}");
    let (_, later) = inspected.get("/requests?after=2");
    let later: Value = serde_json::from_str(&later).unwrap();
    assert_eq!((later["requests"].as_array().unwrap().len(), &later["isDone"]), (0, &true.into()));
}

#[test]
fn a_request_can_be_copied_and_stored() {
    let mut inspected = Inspected::start();
    let body = inspected.attack();
    let (_, found) = inspected.requests();
    let curl = found["requests"][0]["curl"].as_str().unwrap();
    let words = shlex::split(curl).unwrap();
    assert_eq!(words[..5], ["curl", "--globoff", "--path-as-is", "-X", "POST"]);
    let has = |word: &str| words.iter().any(|found| found == word);
    assert!(has(&body) && has("x-quote: it's $(id)") && has("x-token: (hidden)"), "{words:?}");
    assert_eq!(*words.last().unwrap(), format!("http://{}/in?x=1", inspected.listening.address));
    for kind in ["http", "har"] {
        let (head, file) = inspected.get(&format!("/requests/1.{kind}"));
        let name = format!("content-disposition: attachment; filename=\"request-1.{kind}\"");
        assert!(head.contains(&name), "{head}");
        assert!(!file.contains(SECRET.trim_start_matches("whsec_")), "{file}");
        let name = format!("request.{kind}");
        inspected.place.write(&name, &file);
        let verify = ["verify", "--secret", "@secret", "--request", &name];
        inspected.place.run(&verify).ok();
    }
}

#[test]
fn other_names_methods_and_paths_are_refused() {
    let mut inspected = Inspected::start();
    inspected.attack();
    let (_, port) = inspected.page.split_once(':').unwrap();
    let own = format!("host: {}\r\n", inspected.page);
    for host in [format!("host: localhost:{port}\r\n"), format!("host: [::1]:{port}\r\n")] {
        has_status(&inspected.ask("GET", "/", &host), 200);
    }
    for host in [
        String::new(),
        format!("host: evil.example:{port}\r\n"),
        "host: localhost:1\r\n".to_owned(),
        format!("{own}{own}"),
    ] {
        for path in ["/", "/requests", "/requests/1.http"] {
            let answer = inspected.ask("GET", path, &host);
            has_status(&answer, 421);
            assert!(!answer.contains("onerror"), "{answer}");
        }
    }
    let target = format!("http://evil.example:{port}/requests");
    has_status(&inspected.ask("GET", &target, &own), 421);
    has_status(&inspected.ask("POST", "/", &own), 405);
    has_status(&inspected.ask("HEAD", "/", &own), 200);
    has_status(&inspected.ask("GET", "/requests?after=x", &own), 400);
    for path in
        ["/x", "/requests/2.http", "/requests/1.exe", "/requests/../secret", "//", "/requests/"]
    {
        has_status(&inspected.ask("GET", path, &own), 404);
    }
    has_status(&inspected.ask("GET", "*", &own), 404);
}

#[test]
fn an_address_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    place().run(&["listen", "--inspect", &address]).failed(1, &["cannot show a page", &address]);
}
