//! The explanations of refused requests: what they show, and what they must not.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "shared/sender.rs"]
mod sender;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, request};
use http_body_util::Full;
use sender::{NOW, StoppedClock, key, receiver, signed};
use webhooks_receive::{Keys, Receiver};
use webhooks_sign::providers::{GITHUB, GITLAB_TOKEN, SLACK, SQUARE};
use webhooks_sign::x_webhook::{self, X_WEBHOOK};
use webhooks_sign::{Algorithm, Envelope, Key, scheme::Scheme};

const BODY: &str = r#"{"card": "4242"}"#;

/// Returns what is told of a refused request: a line, and the details.
async fn told<P>(receiver: Receiver<P>, request: request::Builder, body: &str) -> (String, String) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let receiver = receiver.on_rejection(move |explanation| {
        tell.lock().unwrap().push((explanation.to_string(), format!("{explanation:#}")));
    });
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
    receiver.receive(request).await.unwrap_err();
    let mut told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "once");
    told.remove(0)
}

async fn line<P>(receiver: Receiver<P>, request: request::Builder, body: &str) -> String {
    told(receiver, request, body).await.0
}

fn of(scheme: Scheme) -> Receiver {
    Receiver::new(scheme, scheme.key("secret").unwrap()).unwrap().clock(StoppedClock::new())
}

/// The faults of a first use, each of which has to be found within two minutes.
#[tokio::test]
async fn a_header_that_is_missing_is_named_and_what_came_in_its_place() {
    let sha1 = Request::post("/").header("x-hub-signature", "sha1=00");
    assert!(line(of(GITHUB), sha1, BODY).await.starts_with(
        "webhook refused with 400: the webhook is malformed: the header \"x-hub-signature-256\" \
             is missing (the request has \"x-hub-signature\", which is read by the scheme intercom)"
    ));
    let svix = Request::post("/").header("svix-id", "msg_1").header("svix-signature", "v1,");
    assert_eq!(
        line(receiver(), svix, BODY).await,
        "webhook refused with 400: the webhook is malformed: the header \"webhook-signature\" is \
         missing (the request has \"svix-signature\", which is read by the scheme svix)"
    );
    let plain = Key::from_legacy_bytes(Algorithm::HmacSha256, b"my-secret-key").unwrap();
    let signature = x_webhook::sign(&plain, BODY.as_bytes()).unwrap();
    let ours = Request::post("/").header("x-webhook-signature", signature.as_str());
    let line_of_ours = line(receiver(), ours, BODY).await;
    assert!(line_of_ours.contains("which is read by the scheme x-webhook"), "{line_of_ours}");
    let unsigned = line(receiver(), Request::post("/"), BODY).await;
    assert!(unsigned.contains("has the sender no secret set?"), "{unsigned}");
    for name in ["webhook-id", "webhook-timestamp"] {
        let mut request = signed("msg_1", NOW, BODY.as_bytes());
        request.headers_mut().unwrap().remove(name);
        let line = line(receiver(), request, BODY).await;
        assert!(line.contains(&format!("the header {name:?} is missing")), "{line}");
    }
    let slack = Request::post("/").header("x-slack-signature", "v0=00");
    let line = line(of(SLACK), slack, BODY).await;
    assert!(line.contains("\"x-slack-request-timestamp\" is missing"), "{line}");
}

#[tokio::test]
async fn a_malformed_header_is_told_with_its_form() {
    let digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let github = |value: &str| Request::post("/").header("x-hub-signature-256", value);
    let line_of = line(of(GITHUB), github(digest), BODY).await;
    assert!(
        line_of.contains(
            "the header \"x-hub-signature-256\" is malformed: expected \"sha256=<hexadecimal>\""
        ),
        "{line_of}"
    );
    let mut other_version = signed("msg_1", NOW, BODY.as_bytes());
    let headers = other_version.headers_mut().unwrap();
    headers.insert("webhook-signature", "v2,g0hM9SsE".parse().unwrap());
    let line_of = line(receiver(), other_version, BODY).await;
    assert!(line_of.contains("lists no signature of the form \"v1,<padded base64>\""), "{line_of}");
    let twice = signed("msg_1", NOW, BODY.as_bytes()).header("webhook-id", "msg_2");
    let line_of = line(receiver(), twice, BODY).await;
    assert!(line_of.contains("\"webhook-id\" is given more than once"), "{line_of}");
}

#[tokio::test]
async fn a_clock_that_differs_is_told_by_how_much() {
    let check = async |at: u64, expected: &str| {
        let line = line(receiver(), signed("msg_1", at, BODY.as_bytes()), BODY).await;
        assert!(line.ends_with(expected), "{line}");
    };
    check(NOW - 360, "the timestamp is 360 s old; at most 300 s are allowed").await;
    check(NOW + 360, "the timestamp is 360 s ahead; at most 300 s are allowed").await;
    check(NOW * 1000, "is it in milliseconds?").await;
}

#[tokio::test]
async fn a_body_that_was_changed_is_told_how() {
    let check = async |signed_body: &str, header: Option<&str>, came: &str, expected: &str| {
        let mut request = signed("msg_1", NOW, signed_body.as_bytes());
        if let Some(encoding) = header {
            request = request.header("content-encoding", encoding);
        }
        let line = line(receiver(), request, came).await;
        assert!(line.contains(expected), "{line}");
    };
    check(BODY, None, "", "the body is empty").await;
    check(BODY, Some("gzip"), "x", "the body is compressed").await;
    check(BODY, None, &format!("{BODY}\r\n"), "without white space at the end").await;
    check(&format!("{BODY}\n"), None, BODY, "with a line break at the end").await;
    check(r#"{"card":"4242"}"#, None, BODY, "without spaces").await;
    let mut cut = signed("msg_1", NOW, BODY.as_bytes());
    cut.headers_mut().unwrap().insert("content-length", 34.into());
    let line_of = line(receiver(), cut, BODY.trim_end_matches('}')).await;
    assert!(line_of.contains("content-length is 34 and 15 bytes came"), "{line_of}");
    let square = Keys::from(SQUARE.key("secret").unwrap()).url("https://example.com/");
    let forged = Request::post("/").header("x-square-hmacsha256-signature", "A".repeat(43) + "=");
    let line_of = line(Receiver::new(SQUARE, square).unwrap(), forged, BODY).await;
    assert!(line_of.contains("the URL is signed too"), "{line_of}");
    check(BODY, None, r#"{"card": "4243"}"#, "no signature matches: another secret signed it")
        .await;
}

/// Otherwise strangers could make a receiver hash large bodies over and over.
#[tokio::test]
async fn a_large_body_is_not_tried_otherwise() {
    let large = " ".repeat(64 * 1024);
    let request = signed("msg_1", NOW, large.as_bytes());
    let line = line(receiver(), request, &format!("{large}\n")).await;
    assert!(line.ends_with("another secret signed it, or the body was changed"), "{line}");
}

#[tokio::test]
async fn details_let_body_and_key_be_compared_with_the_senders() {
    let request = signed("msg_1", NOW, b"{}");
    let signature =
        request.headers_ref().unwrap()["webhook-signature"].to_str().unwrap().to_owned();
    let (_, details) = told(receiver(), request, BODY).await;
    for expected in [
        "scheme  standard: webhook-signature: \"v1,<padded base64>\", hmac_sha256 of \
         {webhook-id}.{webhook-timestamp}.{body}",
        "header  webhook-id: \"msg_1\"",
        "header  webhook-signature: 47 bytes, among them \"v1,\"",
        "header  content-type: \"application/json\"",
        // printf %s '{"card": "4242"}' | sha256sum
        "body    16 bytes, SHA-256 cf2da25f",
        &format!("key     #0, fingerprint {}", key().fingerprint()),
        "clock   1767225600 (2026-01-01T00:00:00Z)",
    ] {
        assert!(details.contains(expected), "{expected}\nnot in\n{details}");
    }
    assert!(!details.contains("4242") && !details.contains(&signature), "{details}");

    // A token is the secret itself.
    let request = Request::post("/").header("x-gitlab-token", "hush-hush");
    let (line, details) = told(of(GITLAB_TOKEN), request, BODY).await;
    assert!(details.contains("x-gitlab-token: 9 bytes"), "{details}");
    assert!(!details.contains("hush") && !line.contains("hush"), "{details}");
}

/// An attacker must not be able to add lines to a log.
#[tokio::test]
async fn what_a_stranger_chose_is_escaped_and_cut() {
    let mut request = signed("msg_1", NOW, b"{}");
    let long = format!("a\tb{}", "x".repeat(1000));
    request.headers_mut().unwrap().insert("content-type", long.parse().unwrap());
    let (_, details) = told(receiver(), request, BODY).await;
    assert!(details.contains("content-type: \"a\\tbxxx"), "{details}");
    assert!(details.lines().all(|line| line.len() < 200), "{details}");
}

/// The one who verifies is told, whatever reads the webhook: here a secret of the wrong scheme.
#[tokio::test]
async fn the_same_key_has_the_same_fingerprint_on_both_sides() {
    let secret = "my-secret-key";
    let ours = Key::from_legacy_bytes(Algorithm::HmacSha256, secret.as_bytes()).unwrap();
    let envelope = Envelope::default();
    let signature = X_WEBHOOK.sign(&ours, &envelope, b"{}").unwrap();
    let request = Request::post("/").header("x-webhook-signature", signature.as_str());
    let receiver = Receiver::new(X_WEBHOOK, X_WEBHOOK.key(secret).unwrap()).unwrap();
    let (_, details) = told(receiver, request, BODY).await;
    assert!(details.contains(&ours.fingerprint().to_string()), "{details}");
}

/// The default, with the feature `tracing`: nobody had to ask for it.
#[cfg(feature = "tracing")]
#[tokio::test]
async fn a_refusal_is_logged_once_with_its_reason_and_nothing_private() {
    use std::fmt::Write as _;

    use tracing::field::{Field, Visit};
    use tracing::span;

    /// Writes one line per event.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<String>>);

    struct Line<'l>(&'l mut String);

    impl Visit for Line<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            write!(self.0, " {field}={value:?}").unwrap();
        }
    }

    impl tracing::Subscriber for Log {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target() == "webhooks_receive" && *metadata.level() <= tracing::Level::WARN
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut log = self.0.lock().unwrap();
            write!(log, "{}", event.metadata().level()).unwrap();
            event.record(&mut Line(&mut log));
            log.push('\n');
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    let log = Log::default();
    let _logging = tracing::subscriber::set_default(log.clone());
    let body = Full::new(Bytes::from_static(BODY.as_bytes()));
    let forged = signed("msg_1", NOW, b"{}").body(body).unwrap();
    receiver().receive(forged).await.unwrap_err();
    let shown = log.0.lock().unwrap().clone();
    let expected = "WARN message=webhook refused with 401: the webhook is not authentic: no signature \
        matches: another secret signed it, or the body was changed scheme=\"standard\" \
        reason=\"no_match\"\n";
    assert_eq!(shown, expected);
}
