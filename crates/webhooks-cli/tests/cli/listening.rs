//! `listen`: a receiver that prints, verifies, forwards and misbehaves.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use serde_json::Value;

use crate::listener::{Listening, has_status, place, signed};
use crate::program::{Place, read};

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
    has_status(&listening.post("", b"{}"), 401);
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
    has_status(&listening.post(escape, &vec![b'{'; 2 * 1024 * 1024]), 401);
    assert_eq!(listening.next()["verified"], false);
    let mut stream = TcpStream::connect(&listening.address).unwrap();
    let large = 17 * 1024 * 1024;
    write!(stream, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {large}\r\n\r\n").unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    has_status(&listening.post("", b"{}"), 401);
    listening.next();
    let log = listening.log(&place);
    assert!(log.contains("answered 413 to a request: its body has more than 16 MiB"), "{log}");
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
    check(&["--inspect", "0.0.0.0:0"], "name one address");
    check(&["--inspect", "here"], "ADDRESS:PORT");
    check(&["--endpoint", "e"], "--app");
    check(&["--app", "a", "--endpoint", "e", "--types", "b"], "cannot be used with");
    check(&["--app", "a", "--read-timeout", "1s"], "cannot be used with");
}

#[test]
fn what_is_no_request_is_told() {
    let place = Place::new();
    let mut listening = Listening::start(&place, &[]);
    let mut garbage = TcpStream::connect(&listening.address).unwrap();
    garbage.write_all(b"no request\x1b[2J\r\n\r\n").unwrap();
    let mut answer = String::new();
    garbage.read_to_string(&mut answer).unwrap();
    has_status(&answer, 400);
    let mut half = TcpStream::connect(&listening.address).unwrap();
    half.write_all(b"POST / HTTP/1.1\r\nhost: x\r\n").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    half.read_to_end(&mut Vec::new()).unwrap();
    let mut half = TcpStream::connect(&listening.address).unwrap();
    half.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    half.read_to_end(&mut Vec::new()).unwrap();
    let log = listening.log(&place);
    for text in [
        "refused what is no request of HTTP/1.1: invalid URI (from 127.0.0.1:",
        "a connection ended in the middle of a request (from 127.0.0.1:",
        "a request ended in the middle of its body",
    ] {
        assert!(log.contains(text), "{text:?} is not in {log}");
    }
    assert!(!log.contains("no request\u{1b}"), "nothing of it is printed: {log}");
}

#[test]
fn a_request_that_does_not_arrive_in_time_is_refused_and_told() {
    let place = Place::new();
    let mut listening = Listening::start(&place, &["--read-timeout", "100ms"]);
    let mut slow = TcpStream::connect(&listening.address).unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    has_status(&answer, 408);
    let mut slow = TcpStream::connect(&listening.address).unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\nhost: x\r\n").unwrap();
    slow.read_to_end(&mut Vec::new()).unwrap();
    // It receives all the same.
    has_status(&listening.post("", b"{}"), 200);
    let log = listening.log(&place);
    for text in [
        "answered 408 to a request: its body did not arrive in 100ms",
        "a connection brought no whole request in 100ms",
    ] {
        assert!(log.contains(text), "{text:?} is not in {log}");
    }
}
