//! `listen`: a receiver that prints, verifies, forwards and misbehaves.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use crate::program::{Place, read, signal};

const SECRET: &str = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");

/// A receiver that runs.
struct Listening {
    child: Child,
    out: BufReader<ChildStdout>,
    ready: Value,
    address: String,
}

impl Listening {
    fn start(place: &Place, options: &[&str]) -> Self {
        let mut command = place.command(&[&["listen", "--json"], options].concat());
        let log = std::fs::File::create(place.path("listen.log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("not ready: {}", read(&place.path("listen.log"))));
        let address = ready["url"].as_str().unwrap_or_default().trim_start_matches("http://");
        Self { address: address.to_owned(), child, out, ready }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"))
    }

    fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Opens a connection and sends a request.
    fn send(&self, headers: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "POST /in?x=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // It may answer before it reads everything.
        let _unread = stream.write_all(body);
        stream
    }

    /// Sends a request, and returns the answer.
    fn post(&self, headers: &str, body: &[u8]) -> String {
        let mut answer = Vec::new();
        self.send(headers, body).read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Signs a body, and returns the headers.
fn signed(place: &Place, body: &str) -> String {
    let headers = place.run_with(&["sign", "--secret", "@secret", "--id", "msg_1", "-"], body).ok();
    headers.replace('\n', "\r\n")
}

fn place() -> Place {
    let place = Place::new();
    place.write_private("secret", SECRET);
    place
}

#[track_caller]
fn has_status(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
}

/// Checks that no answer came yet.
#[track_caller]
fn is_silent(mut stream: &TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn requests_are_verified_printed_and_stored() {
    let place = place();
    let options =
        ["--secret", "@secret", "--record", "stored/requests", "--full", "--respond", "204"];
    let mut listening = Listening::start(&place, &options);
    let body = r#"{"type":"invoice.paid"}"#;
    let headers = signed(&place, body);
    has_status(&listening.post(&headers, body.as_bytes()), 204);
    let seen = listening.next();
    assert_eq!(
        (
            &seen["type"],
            &seen["id"],
            &seen["verified"],
            &seen["status"],
            &seen["target"],
            &seen["body"]
        ),
        (
            &"invoice.paid".into(),
            &"msg_1".into(),
            &true.into(),
            &204.into(),
            &"/in?x=1".into(),
            &body.into()
        )
    );
    listening.post(&headers, b"{\"type\": \"invoice.paid\"}");
    let seen = listening.next();
    assert_eq!(seen["verified"], false);
    assert!(seen["reason"].as_str().unwrap().contains("the body was changed"), "{seen}");
    listening.post("", &[0xff, 0]);
    let seen = listening.next();
    assert_eq!((&seen["body"], &seen["bodyHex"]), (&Value::Null, &"ff00".into()));

    let mut files: Vec<_> = std::fs::read_dir(place.path("stored/requests"))
        .unwrap()
        .map(|file| file.unwrap().path().display().to_string())
        .collect();
    files.sort();
    assert_eq!(files.len(), 3);
    place.run(&["verify", "--secret", "@secret", "--request", &files[0]]).ok();
    let ended = place.run(&["verify", "--secret", "@secret", "--request", &files[1]]);
    assert_eq!(ended.code, Some(8), "{ended:?}");

    listening.signal("INT");
    assert_eq!(listening.code(), Some(0));
    let log = read(&place.path("listen.log"));
    assert!(log.contains("received 3: 1 verified, 2 did not; answers: 204 x 3"), "{log}");
}

#[test]
fn it_misbehaves_as_asked() {
    let place = Place::new();
    let listening = Listening::start(&place, &["--fail", "503:2", "--respond", "202"]);
    for status in [503, 503, 202] {
        has_status(&listening.post("", b"{}"), status);
    }
    has_status(&Listening::start(&place, &["--fail", "500"]).post("", b""), 500);
    has_status(&Listening::start(&place, &["--fail-rate", "1"]).post("", b""), 503);
    has_status(&Listening::start(&place, &["--gone"]).post("", b""), 410);
    let redirect = ["--redirect", "http://example.com/x"];
    let answer = Listening::start(&place, &redirect).post("", b"");
    has_status(&answer, 307);
    assert!(answer.contains("location: http://example.com/x\r\n"), "{answer}");
    has_status(&Listening::start(&place, &["--delay", "10ms"]).post("", b""), 200);
    let mut listening = Listening::start(&place, &["--delay", "1h"]);
    let waiting = listening.send("", b"");
    assert_eq!(listening.next()["status"], 200);
    is_silent(&waiting);
}

#[test]
fn it_breaks_connections_as_asked() {
    let place = Place::new();
    let mut listening = Listening::start(&place, &["--reset"]);
    let error = listening.send("", b"{}").read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(listening.next()["answer"], "reset (by --reset)");

    let mut listening = Listening::start(&place, &["--hang"]);
    let hanging = listening.send("", b"{}");
    assert_eq!(listening.next()["answer"], "no answer (by --hang)");
    is_silent(&hanging);
    // A signal ends it in spite of the request under way.
    listening.signal("TERM");
    assert_eq!(listening.code(), Some(0));

    let mut buffer = vec![0; 1024 * 1024];
    let listening = Listening::start(&place, &["--huge-body"]);
    listening.send("", b"{}").read_exact(&mut buffer).unwrap();
    let listening = Listening::start(&place, &["--slow-body"]);
    let mut stream = listening.send("", b"{}");
    let mut seen = Vec::new();
    while !seen.windows(10).any(|part| part == b"\r\n1\r\n.\r\n1\r") {
        let len = stream.read(&mut buffer).unwrap();
        assert!(len > 0);
        seen.extend_from_slice(&buffer[..len]);
    }
    has_status(&String::from_utf8_lossy(&seen), 200);
}

#[test]
fn it_ends_when_all_came_that_were_expected() {
    let place = place();
    let mut listening =
        Listening::start(&place, &["--expect", "2", "--within", "1m", "--secret", "@secret"]);
    let headers = signed(&place, "{}");
    has_status(&listening.post(&headers, b"{}"), 200);
    has_status(&listening.post(&headers, b"{}"), 200);
    assert_eq!(listening.code(), Some(0));

    let mut listening = Listening::start(&place, &["--expect", "1", "--secret", "@secret"]);
    has_status(&listening.post("", b"{}"), 200);
    assert_eq!(listening.code(), Some(8));
    place
        .run(&["listen", "--expect", "1", "--within", "100ms"])
        .failed(9, &["0 of 1 came in time"]);
}

#[test]
fn a_signal_before_anything_came_is_told_apart() {
    let place = Place::new();
    let mut listening = Listening::start(&place, &[]);
    listening.signal("INT");
    assert_eq!(listening.code(), Some(130));
    let mut listening = Listening::start(&place, &["--expect", "2"]);
    listening.post("", b"{}");
    listening.next();
    listening.signal("INT");
    assert_eq!(listening.code(), Some(130));
    assert!(read(&place.path("listen.log")).contains("1 of 2 came"));
}

#[test]
fn requests_are_forwarded_by_type() {
    let (place, behind) = (place(), place());
    let mut all = Listening::start(&behind, &["--secret", "@secret", "--respond", "201"]);
    let other = Place::new();
    let mut users = Listening::start(&other, &["--respond", "202"]);
    let all_url = format!("http://{}/all", all.address);
    let users_url = format!("user.*=http://{}/users", users.address);
    let mut listening =
        Listening::start(&place, &["--forward-to", &all_url, "--forward-types", &users_url]);
    let body = r#"{"type":"invoice.paid"}"#;
    has_status(&listening.post(&signed(&place, body), body.as_bytes()), 201);
    let seen = all.next();
    assert_eq!((&seen["verified"], &seen["target"]), (&true.into(), &"/all".into()));
    assert_eq!(listening.next()["forwarded"][0]["status"], 201);
    let body = r#"{"type":"user.created"}"#;
    has_status(&listening.post("", body.as_bytes()), 201);
    assert_eq!(listening.next()["forwarded"].as_array().unwrap().len(), 2);
    assert_eq!(users.next()["type"], "user.created");
    // Nobody is behind any longer.
    drop(all);
    has_status(&listening.post("", b"{}"), 502);
    assert_eq!(listening.next()["forwarded"][0]["error"], "not reachable");
}

#[test]
fn a_port_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    Place::new()
        .run(&["listen", "--port", &port])
        .failed(1, &["cannot listen on port", "another program has it"]);
}

#[test]
fn hostile_requests_do_not_end_it() {
    let place = place();
    let mut listening = Listening::start(&place, &["--secret", "@secret"]);
    let mut garbage = TcpStream::connect(&listening.address).unwrap();
    garbage.write_all(b"\xff\xfe\r\n\r\n").unwrap();
    garbage.read_to_end(&mut Vec::new()).unwrap();
    drop(TcpStream::connect(&listening.address).unwrap());
    let escape = "x-github-event: a\u{9b}31m\r\nwebhook-signature: x\r\n";
    has_status(&listening.post(escape, &vec![b'{'; 2 * 1024 * 1024]), 200);
    assert_eq!(listening.next()["verified"], false);
    let mut stream = TcpStream::connect(&listening.address).unwrap();
    let large = 17 * 1024 * 1024;
    write!(stream, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {large}\r\n\r\n").unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    has_status(&listening.post("", b"{}"), 200);
    listening.next();
}

#[test]
fn wrong_options_are_told() {
    let place = Place::new();
    let check = |options: &[&str], says: &str| {
        place.run(&[&["listen"], options].concat()).failed(2, &[says]);
    };
    check(&["--fail", "99"], "200 to 599");
    check(&["--fail-rate", "2"], "0 to 1");
    check(&["--hang", "--reset"], "cannot be used with");
    check(&["--app", "a", "--port", "1"], "cannot be used with");
    check(&["--app", "a", "--hang"], "cannot be used with");
    check(&["--types", "a.b"], "--app");
    check(&["--forward-to", "ftp://x"], "http or https");
    check(&["--forward-types", "http://x"], "TYPE=URL");
    check(&["--within", "1s"], "--expect");
    check(&["--expect", "0"], "--expect");
}

#[test]
fn events_are_pulled_forwarded_and_the_poller_is_removed() {
    let mut place = place();
    let _served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    place.run(&["publish", "invoice.paid", "{\"n\":  0}", "--app", "acme"]).ok();
    let behind = self::place();
    let mut receiver = Listening::start(&behind, &["--secret", "@secret", "--full"]);
    let url = format!("http://{}/hook", receiver.address);
    let options =
        ["--app", "acme", "--types", "invoice.*", "--secret", "@secret", "--forward-to", &url];
    let mut pulling = Listening::start(&place, &options);
    assert_eq!((&pulling.ready["app"], &pulling.ready["secret"]), (&"acme".into(), &SECRET.into()));
    let poller = pulling.ready["poller"].as_str().unwrap().to_owned();
    place.run(&["publish", "user.created", "{}", "--app", "acme"]).ok();
    let published =
        place.run(&["publish", "invoice.paid", "{\"n\":  1}", "--app", "acme", "--json"]);
    let id = published.json()["id"].as_str().unwrap().to_owned();
    let seen = pulling.next();
    assert_eq!((&seen["id"], &seen["type"]), (&id.clone().into(), &"invoice.paid".into()));
    assert_eq!(seen["forwarded"][0]["status"], 200);
    // The payload comes byte for byte, signed.
    let seen = receiver.next();
    assert_eq!(
        (&seen["body"], &seen["verified"], &seen["id"]),
        (&"{\"n\":  1}".into(), &true.into(), &id.into())
    );
    pulling.signal("INT");
    assert_eq!(pulling.code(), Some(0));
    assert!(!pollers(&place).contains(&poller));

    let mut pulling = Listening::start(&place, &["--app", "acme", "--expect", "1"]);
    assert!(pulling.ready["secret"].as_str().unwrap().starts_with("whsec_"));
    let poller = pulling.ready["poller"].as_str().unwrap().to_owned();
    assert!(pollers(&place).contains(&poller));
    place.run(&["publish", "a.b", "{}", "--app", "acme"]).ok();
    assert_eq!(pulling.code(), Some(0));
    assert!(!pollers(&place).contains(&poller));
    place.run(&["listen", "--app", "none"]).failed(5, &["application"]);
}

/// Asks the service for the pollers of the application.
fn pollers(place: &Place) -> String {
    let url = place.get("WEBHOOKS_SERVER").unwrap();
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    let key = place.get("WEBHOOKS_KEY").unwrap();
    write!(
        stream,
        "GET /api/v1/app/acme/polling-endpoint HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    has_status(&answer, 200);
    answer
}
