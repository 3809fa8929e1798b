//! `sign` and `verify`: what one signs, the other verifies, and what is wrong is explained.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::program::{Ended, Place};

const SECRET: &str = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");

const BODY: &str = r#"{"invoice":17,"url":"https://example.com/é"}"#;

/// A place with a secret and a signed body.
fn place() -> Place {
    let place = Place::new();
    for (name, text) in [("secret", SECRET), ("plain", "my-secret"), ("body.json", BODY)] {
        place.write_private(name, text);
    }
    place
}

/// Signs the body, and returns the request as it would be stored.
fn request(place: &Place, options: &[&str], body: &str) -> String {
    let words = [&["sign", "body.json"], options].concat();
    let headers = place.run(&words).ok();
    let mut text = "POST /hook HTTP/1.1\r\nhost: example.com\r\n".to_owned();
    for line in headers.lines() {
        write!(text, "{line}\r\n").unwrap();
    }
    format!("{text}\r\n{body}")
}

fn verify(place: &Place, request: &str, options: &[&str]) -> Ended {
    place.write("request.http", request);
    place.run(&[&["verify", "--request", "request.http"], options].concat())
}

#[test]
fn a_signed_body_verifies() {
    let place = place();
    let text = request(&place, &["--secret", "@secret"], BODY);
    let ended = verify(&place, &text, &["--secret", "@secret"]);
    assert_eq!(ended.err, "", "{ended:?}");
    assert!(ended.ok().starts_with("verified by secret 1"));
    let found = verify(&place, &text, &["--secret", "@plain", "--secret", "@secret", "--json"]);
    let found = found.json();
    assert_eq!((&found["verified"], &found["secret"]), (&true.into(), &2.into()));
    for scheme in
        ["github", "stripe", "x-webhook", "slack", "webflow", "zendesk", "telegram", "box"]
    {
        let options = ["--secret", "@plain", "--scheme", scheme];
        let text = request(&place, &options, BODY);
        verify(&place, &text, &options).ok();
    }
}

#[test]
fn the_headers_stand_alone_and_follow_the_options() {
    let place = place();
    let options = ["--secret", "@secret", "--id", "msg_1", "--timestamp", "1767225600"];
    let words = [&["sign", "body.json"], &options[..]].concat();
    let headers = place.run(&words).ok();
    let mut lines = headers.lines();
    assert_eq!(lines.next(), Some("webhook-id: msg_1"));
    assert_eq!(lines.next(), Some("webhook-timestamp: 1767225600"));
    assert!(lines.next().unwrap().starts_with("webhook-signature: v1,"));
    let found = place.run(&[&words[..], &["--json"]].concat()).json();
    assert_eq!(found["headers"]["webhook-id"], "msg_1");
    // The same body from standard input has the same signature.
    let words = [&["sign", "-"], &options[..]].concat();
    assert_eq!(place.run_with(&words, BODY).ok(), headers);
    let curl = place
        .run_with(&[&words[..], &["--curl", "http://localhost/h?a=1&b='"]].concat(), "it's @x")
        .ok();
    let curl = shlex::split(&curl).unwrap();
    assert_eq!(curl.last().unwrap(), "http://localhost/h?a=1&b='");
    assert!(curl.windows(2).any(|pair| pair == ["--data-raw", "it's @x"]), "{curl:?}");
    assert!(curl.contains(&"webhook-id: msg_1".to_owned()));
}

#[test]
fn what_is_wrong_is_explained_with_exit_code_8() {
    let place = place();
    let sign = |body| request(&place, &["--secret", "@secret"], body);
    let check = |text: &str, options: &[&str], says: &[&str]| {
        let ended = verify(&place, text, options);
        assert_eq!((ended.code, &*ended.err), (Some(8), ""), "{ended:?}");
        for text in says {
            assert!(ended.out.contains(text), "{text:?} is not in {}", ended.out);
        }
        assert!(!ended.out.contains("MfKQ9r8"), "{}", ended.out);
    };
    let own = ["--secret", "@secret"];
    let pretty =
        serde_json::to_string_pretty(&serde_json::from_str::<Value>(BODY).unwrap()).unwrap();
    check(
        &sign(&pretty),
        &own,
        &[
            "the body was changed after signing",
            "without spaces: YES",
            "with a line break at the end",
            ": no",
            "so        something formats the JSON anew",
        ],
    );
    check(&sign(BODY).replace("webhook-id", "x-id"), &own, &["webhook-id is missing"]);
    check(&sign(BODY), &["--secret", "@plain"], &["does not start with \"whsec_\""]);
    check(
        &sign(BODY),
        &[&own[..], &["--at", "2h"]].concat(),
        &["ahead", "one side may take local time"],
    );
    check(&sign(BODY), &[&own[..], &["--at", "2099-01-01T00:00:00Z"]].concat(), &["s old"]);
    let found = verify(&place, &sign("{}"), &[&own[..], &["--json"]].concat());
    assert_eq!(found.code, Some(8));
    let found: Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!((&found["verified"], &found["cause"]), (&false.into(), &"unknown".into()));
    place.write_private("quoted", &format!("\"{SECRET}\""));
    check(&sign(BODY), &["--secret", "@quoted"], &["quotes", "remove what surrounds the secret"]);
    check("POST / HTTP/1.1\n\n{}", &own, &["no header holds a signature of a known scheme"]);
}

#[test]
fn a_tolerance_and_a_time_can_be_given() {
    let place = place();
    let text =
        request(&place, &["--secret", "@secret", "--timestamp", "2026-01-01T00:00:00Z"], BODY);
    let at = |time, more: &[&str]| {
        verify(&place, &text, &[&["--secret", "@secret", "--at", time], more].concat())
    };
    at("2026-01-01T00:05:00Z", &[]).ok();
    assert_eq!(at("2026-01-01T00:05:01Z", &[]).code, Some(8));
    at("2026-01-01T00:09:00Z", &["--tolerance", "10m"]).ok();
}

#[test]
fn headers_of_the_command_line_and_a_body_of_standard_input_are_read() {
    let place = place();
    let headers = place.run(&["sign", "body.json", "--secret", "@secret"]).ok();
    let mut words = vec!["verify", "--secret", "@secret"];
    for line in headers.lines() {
        words.extend(["--header", line]);
    }
    place.run_with(&words, BODY).ok();
    place.run(&[&words[..], &["body.json"]].concat()).ok();
    let ended = place.run_with(&words, &format!("{BODY}\n"));
    assert_eq!(ended.code, Some(8));
    assert!(ended.out.contains("without white space at the end: YES"), "{ended:?}");
}

#[test]
fn an_archive_has_the_request_its_time_and_its_url() {
    let place = place();
    let time = "2026-01-01T00:00:00Z";
    let headers =
        place.run(&["sign", "body.json", "--secret", "@secret", "--timestamp", time]).ok();
    let pairs = headers.lines().map(|line| line.split_once(": ").unwrap());
    let mut headers: Vec<_> =
        pairs.map(|(name, value)| json!({ "name": name, "value": value })).collect();
    headers.push(json!({ "name": ":authority", "value": "example.com" }));
    let other =
        json!({ "request": { "method": "GET", "url": "https://example.com/", "headers": [] } });
    let signed = json!({
        "startedDateTime": "2026-01-01T00:00:01.000Z",
        "request": {
            "method": "POST",
            "url": "https://example.com/hook",
            "headers": headers,
            "postData": { "mimeType": "application/json", "text": BODY },
        },
    });
    let archive = |entries: Value| json!({ "log": { "entries": entries } }).to_string();
    let own = ["--secret", "@secret"];
    verify(&place, &archive(json!([other, signed])), &own).ok();
    verify(&place, &archive(json!([signed, signed])), &own).failed(2, &["2 requests", "--entry"]);
    let two = archive(json!([signed, other]));
    verify(&place, &two, &[&own[..], &["--entry", "1"]].concat()).ok();
    verify(&place, &two, &[&own[..], &["--entry", "3"]].concat()).failed(2, &["2 requests"]);
}

#[test]
fn hostile_input_is_refused_or_explained() {
    let place = place();
    let own = ["--secret", "@secret"];
    let check = |text: &str, says: &[&str]| verify(&place, text, &own).failed(2, says);
    check("", &["holds no request"]);
    check("POST\n", &["METHOD TARGET"]);
    check("POST / HTTP/1.1\nno colon\n\n{}", &["line 2", "NAME: VALUE"]);
    check("POST / HTTP/1.1\na: \u{1}\n\n{}", &["the value of a has a control character"]);
    check("{\"log\":", &["no HTTP archive"]);
    check("{\"log\":{\"entries\":[]}}", &["0 requests"]);
    check("{\"log\":{\"entries\":[{\"request\":{}}]}}", &["no HTTP archive"]);
    place
        .run(&["verify", "--secret", "@secret", "--header", "x", "body.json"])
        .failed(2, &["NAME: VALUE"]);
    place.run(&["verify", "--secret", "@secret", "none"]).failed(2, &["none"]);
    place.run(&["verify", "--secret", "@none", "body.json"]).failed(2, &["none"]);
    place.run(&["verify", "--secret", "-", "-"]).failed(2, &["one thing alone"]);
    place
        .run(&["verify", "--secret", "@secret", "--scheme", "githab", "body.json"])
        .failed(2, &["github"]);
    place.run(&["verify", "body.json"]).failed(2, &["--secret"]);

    // Bodies that are not UTF-8, and large ones, are signed and verified byte for byte.
    for body in [vec![0xff, 0, b'\r', b'\n'], vec![0xc3; 3 * 1024 * 1024]] {
        std::fs::write(place.path("body.json"), &body).unwrap();
        let mut text = request(&place, &own, "").into_bytes();
        text.extend(&body);
        std::fs::write(place.path("request.http"), &text).unwrap();
        place.run(&["verify", "--request", "request.http", "--secret", "@secret"]).ok();
        text.push(b'x');
        std::fs::write(place.path("request.http"), &text).unwrap();
        let ended = place.run(&["verify", "--request", "request.http", "--secret", "@secret"]);
        assert_eq!(ended.code, Some(8), "{ended:?}");
        assert!(ended.out.contains("not UTF-8"), "{ended:?}");
    }
}

#[test]
fn what_cannot_be_signed_is_told() {
    let place = place();
    let sign = |options: &[&str]| place.run(&[&["sign", "body.json"], options].concat());
    sign(&["--secret", "@plain"]).failed(6, &["no key of standard", "whsec_"]);
    sign(&["--secret", "@secret", "--id", "a.b"]).failed(6, &["--id"]);
    sign(&["--secret", "@secret", "--timestamp", "soon"]).failed(2, &["--timestamp"]);
    sign(&["--secret", "@plain", "--scheme", "square"]).failed(6, &["--url"]);
    sign(&["--secret", "@plain", "--scheme", "mailgun"]).failed(2, &["in the body"]);
    sign(&["--secret", "@plain", "--scheme", "none"]).failed(2, &["invalid value 'none'"]);
    sign(&["--secret", SECRET]).ok();
    assert!(sign(&["--secret", SECRET]).err.contains("use --secret @FILE"));
    place.run(&["sign", "--secret", "-", "-"]).failed(2, &["standard input cannot be"]);
}

#[test]
fn a_whole_request_goes_through_a_pipe() {
    let place = place();
    let sign = |options: &[&str]| {
        place.run(&[&["sign", "--secret", "@plain", "--http", "body.json"], options].concat())
    };
    let verify = |options: &[&str], request: &str| {
        place.run_with(
            &[&["verify", "--secret", "@plain", "--request", "-"], options].concat(),
            request,
        )
    };
    for scheme in ["github", "stripe", "x-webhook", "slack"] {
        let request = sign(&["--scheme", scheme]).ok();
        assert!(
            request.starts_with("POST / HTTP/1.1\r\ncontent-type: application/json\r\n"),
            "{request}"
        );
        assert!(
            request.ends_with(&format!("content-length: {}\r\n\r\n{BODY}", BODY.len())),
            "{request}"
        );
        verify(&["--scheme", scheme], &request).ok();
        verify(&["--scheme", scheme], &request.replace("17", "18")).failed(8, &[]);
    }
    // The URL is signed, and goes along.
    let url = "https://example.com/hook?a=1";
    let request = sign(&["--scheme", "trello", "--url", url]).ok();
    assert!(request.starts_with(&format!("POST {url} HTTP/1.1\r\n")), "{request}");
    verify(&["--scheme", "trello"], &request).ok();
    sign(&["--scheme", "github", "--json"]).failed(2, &["choose one"]);
    sign(&["--scheme", "github", "--headers"]).failed(2, &["cannot be used with"]);
    sign(&["--scheme", "github", "--url", "https://example.com/ \r\nx: y"]).failed(2, &["--url"]);
    sign(&["--scheme", "github", "--method", "PO ST"]).failed(2, &["--method"]);
}
