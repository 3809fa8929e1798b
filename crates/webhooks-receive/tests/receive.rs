//! Receiving, without any framework: what is taken, what is refused, and how.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "shared/sender.rs"]
mod sender;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Channel, Empty, Full};
use sender::{NOW, StoppedClock, key, receiver, signed};
use tokio::time::Instant;
use webhooks_core::Timestamp;
use webhooks_receive::provider::Standard;
use webhooks_receive::{BoxError, Keys, Receiver, Rejection, SetupError, TenantKeys, Webhook};
use webhooks_sign::providers::{GITHUB, GITLAB_TOKEN, MAILGUN, SQUARE, TWILIO};
use webhooks_sign::standard::STANDARD;
use webhooks_sign::{Envelope, Error, KeyRing, Tolerance};

const BODY: &[u8] = br#"{"test": 2432232314}"#;

async fn receive<B>(request: Request<B>) -> Result<Request<Webhook>, Rejection>
where
    B: Body<Error: Into<BoxError>>,
{
    receiver().receive(request).await
}

fn full(builder: http::request::Builder, body: &'static [u8]) -> Request<Full<Bytes>> {
    builder.body(Full::new(Bytes::from_static(body))).unwrap()
}

/// A body that fails the test when it is read.
struct Untouched;

impl Body for Untouched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("the body was read")
    }
}

#[tokio::test]
async fn a_verified_body_comes_out_as_it_went_in() {
    let received = receive(full(signed("msg_1", NOW, BODY).extension(7_u8), BODY)).await.unwrap();
    assert_eq!(received.uri(), "/hook");
    assert_eq!(received.extensions().get::<u8>(), Some(&7));
    let webhook = received.into_body();
    assert_eq!(webhook.body(), BODY);
    assert_eq!((webhook.id(), webhook.scheme()), (Some("msg_1"), "standard"));
    assert_eq!(webhook.timestamp().unwrap().as_unix_seconds(), NOW);
    assert_eq!((webhook.tenant(), webhook.key_index()), (None, 0));
    assert!(!format!("{webhook:?}").contains("2432232314"));
}

#[tokio::test]
async fn however_a_body_is_cut_it_is_the_same() {
    for size in [1, 7, BODY.len()] {
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(BODY.len());
        for chunk in BODY.chunks(size) {
            sender.send_data(Bytes::from_static(chunk)).await.unwrap();
        }
        drop(sender);
        let received = receive(signed("msg_1", NOW, BODY).body(body).unwrap()).await.unwrap();
        assert_eq!(received.body().body(), BODY);
    }
}

#[tokio::test]
async fn an_empty_body_can_be_signed() {
    let empty = Empty::<Bytes>::new();
    let received = receive(signed("msg_1", NOW, b"").body(empty).unwrap()).await.unwrap();
    assert!(received.body().body().is_empty());
    // And one that was emptied on the way is refused.
    let emptied = receive(signed("msg_1", NOW, BODY).body(Empty::<Bytes>::new()).unwrap()).await;
    assert!(matches!(emptied, Err(Rejection::Unauthentic { source: Error::NoMatch })));
}

#[tokio::test]
async fn both_edges_of_the_tolerance_are_inside() {
    let check = async |at: u64, expected: Result<(), Error>| {
        let found = match receive(full(signed("msg_1", at, BODY), BODY)).await {
            Ok(_) => Ok(()),
            Err(Rejection::Unauthentic { source }) => Err(source),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found, expected, "{at}");
    };
    check(NOW - 301, Err(Error::TimestampTooOld { age: 301, tolerance: 300 })).await;
    check(NOW - 300, Ok(())).await;
    check(NOW + 300, Ok(())).await;
    check(NOW + 301, Err(Error::TimestampTooNew { lead: 301, tolerance: 300 })).await;

    let strict = receiver().tolerance(Tolerance { past: 5, future: 0 });
    assert!(strict.receive(full(signed("msg_1", NOW - 5, BODY), BODY)).await.is_ok());
    for at in [NOW - 6, NOW + 1] {
        let refused = strict.receive(full(signed("msg_1", at, BODY), BODY)).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn what_the_headers_tell_is_refused_unread() {
    let check = async |request: http::request::Builder, expected: StatusCode| {
        let refused = receive(request.body(Untouched).unwrap()).await.unwrap_err();
        assert_eq!(refused.status(), expected, "{refused:?}");
    };
    let good = || signed("msg_1", NOW, BODY);
    check(Request::post("/hook"), StatusCode::BAD_REQUEST).await;
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let mut missing = good();
        missing.headers_mut().unwrap().remove(name);
        check(missing, StatusCode::BAD_REQUEST).await;
        let value = good().headers_ref().unwrap()[name].clone();
        check(good().header(name, value), StatusCode::BAD_REQUEST).await;
    }
    check(signed("msg_1", NOW - 3600, BODY), StatusCode::UNAUTHORIZED).await;
    check(good().header("content-length", 1024 * 1024 + 1), StatusCode::PAYLOAD_TOO_LARGE).await;
}

#[tokio::test]
async fn webhooks_are_posted_unless_set_otherwise() {
    let put = || {
        let mut request = full(signed("msg_1", NOW, BODY), BODY);
        *request.method_mut() = Method::PUT;
        request
    };
    let refused = receive(put()).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(refused.to_response().headers()["allow"], "POST");
    let either = receiver().methods([Method::POST, Method::PUT]);
    assert!(either.receive(put()).await.is_ok());
    let refused = either.receive(Request::get("/").body(Untouched).unwrap()).await.unwrap_err();
    assert_eq!(refused.to_response().headers()["allow"], "POST, PUT");
}

#[tokio::test]
async fn a_body_over_the_cap_is_read_no_further() {
    let max = BODY.len();
    let receiver = receiver().max_body(max);
    assert!(receiver.receive(full(signed("msg_1", NOW, BODY), BODY)).await.is_ok());

    // It goes on for ever, undeclared, and not even its signature is wrong yet.
    let read = Arc::new(AtomicUsize::new(0));
    let endless = Endless { read: Arc::clone(&read) };
    let request = signed("msg_1", NOW, BODY).body(endless).unwrap();
    let refused = receiver.receive(request).await.unwrap_err();
    assert!(matches!(refused, Rejection::TooLarge { max: found } if found == max), "{refused:?}");
    assert_eq!(read.load(Ordering::Relaxed), max + 1);
}

/// A body of single bytes without end.
struct Endless {
    read: Arc<AtomicUsize>,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.read.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b" ")))))
    }
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up_at_the_deadline() {
    let clock = StoppedClock::new();
    let receiver = receiver().clock(clock.clone());
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    sender.send_data(Bytes::from_static(b"{")).await.unwrap();
    let receiving = tokio::spawn(async move {
        receiver.receive(signed("msg_1", NOW, BODY).body(body).unwrap()).await
    });
    // There is room for the next chunk as soon as the first was read.
    sender.send_data(Bytes::from_static(b"\"")).await.unwrap();
    assert!(!receiving.is_finished());
    clock.is_over.send_replace(true);
    let refused = receiving.await.unwrap().unwrap_err();
    assert!(matches!(refused, Rejection::TimedOut), "{refused:?}");
    assert_eq!(refused.status(), StatusCode::REQUEST_TIMEOUT);
}

/// Method: time is paused, and jumps to the next thing that anybody waits for.
#[tokio::test(start_paused = true)]
async fn the_deadline_is_ten_seconds_unless_set() {
    let now = Timestamp::now().as_unix_seconds();
    let system = Receiver::<Standard>::from_keys(key()).unwrap();
    for (receiver, expected) in
        [(system.clone(), 10), (system.read_deadline(Duration::from_secs(3)), 3)]
    {
        let (_sender, body) = Channel::<Bytes, Infallible>::new(1);
        let start = Instant::now();
        let request = signed("msg_1", now, BODY).body(body).unwrap();
        let refused = receiver.receive(request).await.unwrap_err();
        assert!(matches!(refused, Rejection::TimedOut), "{refused:?}");
        assert_eq!(start.elapsed().as_secs(), expected);
    }
}

/// A body of empty frames.
struct Nothings {
    left: usize,
}

impl Body for Nothings {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or_default();
        Poll::Ready(left.map(|_| Ok(Frame::data(Bytes::new()))))
    }
}

/// Empty frames that are always ready reach no limit. Method: their number is finite, so that the test
/// also ends without the deadline, and then for another reason.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_always_ready_with_nothing_is_given_up_at_the_deadline() {
    let system = Receiver::<Standard>::from_keys(key()).unwrap();
    let now = Timestamp::now().as_unix_seconds();
    let request = signed("msg_1", now, BODY).body(Nothings { left: 1_000_000 }).unwrap();
    let receiving = tokio::spawn(async move { system.receive(request).await });
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_secs(11)).await;
    let refused = receiving.await.unwrap().unwrap_err();
    assert!(matches!(refused, Rejection::TimedOut), "{refused:?}");
}

#[tokio::test]
async fn a_body_that_breaks_off_says_why_to_the_log_alone() {
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
    sender.send_data(Bytes::from_static(b"{")).await.unwrap();
    sender.abort(std::io::Error::other("the connection is gone"));
    let refused = receive(signed("msg_1", NOW, BODY).body(body).unwrap()).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let source = std::error::Error::source(&refused).unwrap();
    assert_eq!(source.to_string(), "the connection is gone");
    assert_eq!(text(&refused).await, "Bad Request");
}

async fn text(rejection: &Rejection) -> String {
    let body = rejection.to_response().into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

/// An attacker who tries secrets, tenants or clocks must not learn which of them was wrong.
#[tokio::test]
async fn all_that_is_not_authentic_looks_the_same_from_outside() {
    let forged = receive(full(signed("msg_1", NOW, b"{}"), BODY)).await.unwrap_err();
    let stale = receive(full(signed("msg_1", NOW - 301, BODY), BODY)).await.unwrap_err();
    let request = full(signed("msg_1", NOW, BODY), BODY);
    let stranger = by_path().receive(request).await.unwrap_err();
    assert!(matches!(stranger, Rejection::UnknownTenant));
    let told = async |rejection: &Rejection| {
        let (head, _) = rejection.to_response().into_parts();
        (head.status, head.headers, text(rejection).await)
    };
    assert_eq!(told(&forged).await, told(&stale).await);
    assert_eq!(told(&forged).await, told(&stranger).await);
    assert_eq!(forged.status(), StatusCode::UNAUTHORIZED);
}

/// Returns a receiver whose tenants are named by the path; there is one, `/acme`.
fn by_path() -> Receiver {
    let lookup = |head: &Parts| {
        let tenant = head.uri.path().trim_start_matches('/').to_owned();
        async move { Ok((tenant == "acme").then(|| TenantKeys::new(tenant, &KeyRing::from(key())))) }
    };
    Receiver::new(STANDARD, Keys::lookup(lookup)).unwrap().clock(StoppedClock::new())
}

#[tokio::test]
async fn keys_are_looked_up_by_the_path() {
    let request = full(signed("msg_1", NOW, BODY).uri("/acme"), BODY);
    let webhook = by_path().receive(request).await.unwrap().into_body();
    assert_eq!(webhook.tenant(), Some("acme"));
}

/// The decoy's secret is in the source for all to read: what it signs must not count.
#[tokio::test]
async fn nobody_gets_in_by_the_keys_that_stand_for_unknown_tenants() {
    let refused = by_path().receive(full(signed("msg_1", NOW, BODY), BODY)).await;
    assert!(matches!(refused, Err(Rejection::UnknownTenant)), "signed by the decoy's very secret");
}

#[tokio::test]
async fn a_tenant_without_keys_is_as_good_as_none() {
    let lookup = |_: &Parts| async { Ok(Some(TenantKeys::new("acme", &KeyRing::<0>::new()))) };
    let receiver =
        Receiver::new(STANDARD, Keys::lookup(lookup)).unwrap().clock(StoppedClock::new());
    let refused = receiver.receive(full(signed("msg_1", NOW, BODY), BODY)).await.unwrap_err();
    assert!(matches!(refused, Rejection::UnknownTenant), "{refused:?}");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

/// Otherwise how far a body is read would tell which tenants there are.
#[tokio::test]
async fn the_body_of_an_unknown_tenant_is_read_as_far_as_any() {
    let receiver = by_path().max_body(BODY.len());
    for path in ["/acme", "/nobody"] {
        let read = Arc::new(AtomicUsize::new(0));
        let body = Endless { read: Arc::clone(&read) };
        let request = signed("msg_1", NOW, BODY).uri(path).body(body).unwrap();
        let refused = receiver.receive(request).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        assert_eq!(read.load(Ordering::Relaxed), BODY.len() + 1, "{path}");
    }
}

#[tokio::test]
async fn malformed_and_stale_requests_cost_no_lookup() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let lookup = move |_: &Parts| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Err(BoxError::from("the database is away")) }
    };
    let receiver =
        Receiver::new(STANDARD, Keys::lookup(lookup)).unwrap().clock(StoppedClock::new());
    for request in [Request::post("/"), signed("msg_1", NOW - 301, BODY)] {
        assert!(receiver.receive(request.body(Untouched).unwrap()).await.is_err());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    let request = signed("msg_1", NOW, BODY).body(Untouched).unwrap();
    let refused = receiver.receive(request).await.unwrap_err();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.to_response().headers()["retry-after"], "5");
}

#[tokio::test]
async fn an_old_key_counts_while_it_is_in_the_ring() {
    let new = STANDARD.key(concat!("whsec_", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")).unwrap();
    let receiver = Receiver::new(STANDARD, KeyRing::from([new, key()])).unwrap();
    let receiver = receiver.clock(StoppedClock::new());
    let received = receiver.receive(full(signed("msg_1", NOW, BODY), BODY)).await.unwrap();
    assert_eq!(received.body().key_index(), 1);
}

#[tokio::test]
async fn a_url_that_is_signed_comes_from_the_settings() {
    let url = "https://example.com/hook";
    let key = SQUARE.key("signature-key").unwrap();
    let signature = SQUARE.sign(&key, &Envelope { url, ..Envelope::default() }, BODY).unwrap();
    let request = || {
        let builder = Request::post("/").header("host", "example.com");
        full(builder.header("x-square-hmacsha256-signature", signature.as_str()), BODY)
    };
    let receiver = Receiver::new(SQUARE, Keys::from(key.clone()).url(url)).unwrap();
    assert!(receiver.receive(request()).await.is_ok());
    let other = Keys::from(key.clone()).url("https://example.com/other");
    assert!(Receiver::new(SQUARE, other).unwrap().receive(request()).await.is_err());
    // Without one, nothing could ever be verified.
    let refused = Receiver::new(SQUARE, key).unwrap_err();
    assert!(matches!(refused, SetupError::MissingUrl { scheme: "square" }), "{refused:?}");
}

/// Each has a URL of its own, which is signed.
#[tokio::test]
async fn tenants_bring_the_url_that_their_sender_was_given() {
    let key = SQUARE.key("signature-key").unwrap();
    let ring = KeyRing::from(key.clone());
    let lookup = move |head: &Parts| {
        let (tenant, ring) = (head.uri.path().to_owned(), ring.clone());
        async move {
            let keys = TenantKeys::new(&*tenant, &ring);
            let url = format!("https://example.com{tenant}");
            Ok(Some(if tenant == "/no-url" { keys } else { keys.url(&url) }))
        }
    };
    let receiver = Receiver::new(SQUARE, Keys::lookup(lookup)).unwrap();
    let request = |tenant: &str, signed_for: &str| {
        let url = &*format!("https://example.com{signed_for}");
        let signature = SQUARE.sign(&key, &Envelope { url, ..Envelope::default() }, BODY).unwrap();
        let builder = Request::post(tenant);
        full(builder.header("x-square-hmacsha256-signature", signature.as_str()), BODY)
    };
    for tenant in ["/acme", "/umbrella"] {
        let received = receiver.receive(request(tenant, tenant)).await.unwrap();
        assert_eq!(received.body().tenant(), Some(tenant));
    }
    let refused = receiver.receive(request("/acme", "/umbrella")).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let refused = receiver.receive(request("/no-url", "/no-url")).await.unwrap_err();
    assert!(matches!(refused, Rejection::TenantKeys { .. }), "{refused:?}");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

/// Otherwise it would tell which tenants there are.
#[tokio::test]
async fn a_tenant_with_keys_of_another_algorithm_looks_like_a_wrong_signature() {
    let sha512 = webhooks_sign::Key::from_bytes(webhooks_sign::Algorithm::HmacSha512, &[7; 32]);
    let ring = KeyRing::from(sha512.unwrap());
    let lookup = move |_: &Parts| {
        let ring = ring.clone();
        async move { Ok(Some(TenantKeys::new("acme", &ring))) }
    };
    let receiver =
        Receiver::new(STANDARD, Keys::lookup(lookup)).unwrap().clock(StoppedClock::new());
    let refused = receiver.receive(full(signed("msg_1", NOW, BODY), BODY)).await.unwrap_err();
    assert!(matches!(&refused, Rejection::TenantKeys { tenant, .. } if &**tenant == "acme"));
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

/// It signs the fields of a form, however the form is written.
#[tokio::test]
async fn a_form_of_twilio_is_received() {
    let (url, key) = ("https://example.com/sms?from=1", TWILIO.key("12345").unwrap());
    let fields = [("From", "+14158675309"), ("Body", "a b")];
    let signature = TWILIO.sign_form(&key, url, &mut fields.to_vec()).unwrap();
    let receiver = Receiver::new(TWILIO, Keys::from(key).url(url)).unwrap();
    let request = |body: &'static [u8]| {
        let builder = Request::post("/sms?from=1")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-twilio-signature", signature.as_str());
        full(builder, body)
    };
    let received = receiver.receive(request(b"From=%2B14158675309&Body=a+b")).await.unwrap();
    assert_eq!(received.body().body(), "From=%2B14158675309&Body=a+b");
    assert!(receiver.receive(request(b"Body=a%20b&From=%2B14158675309")).await.is_ok());
    let refused = receiver.receive(request(b"From=%2B14158675309&Body=b")).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

/// It signs a time and a token in the body, which is used once.
#[tokio::test]
async fn an_event_of_mailgun_is_received_by_its_token() {
    let key = MAILGUN.key("signing-key").unwrap();
    let signature = MAILGUN.sign_token(&key, &NOW.to_string(), "a8ce0edb").unwrap();
    let receiver = Receiver::new(MAILGUN, key).unwrap().clock(StoppedClock::new());
    let event = |token: &str| {
        let signature = format!(
            r#"{{"signature":{{"timestamp":"{NOW}","token":"{token}","signature":"{signature}"}},"event-data":{{}}}}"#
        );
        Request::post("/").body(Full::new(Bytes::from(signature))).unwrap()
    };
    let webhook = receiver.receive(event("a8ce0edb")).await.unwrap().into_body();
    assert_eq!(webhook.id(), Some("a8ce0edb"));
    let refused = receiver.receive(event("a8ce0edc")).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

/// Nothing in the body could make it a right one.
#[tokio::test]
async fn a_wrong_token_is_refused_unread() {
    let receiver = Receiver::new(GITLAB_TOKEN, GITLAB_TOKEN.key("secret").unwrap()).unwrap();
    let request = Request::post("/").header("x-gitlab-token", "guess").body(Untouched).unwrap();
    let refused = receiver.receive(request).await.unwrap_err();
    assert!(matches!(refused, Rejection::Unauthentic { source: Error::NoMatch }), "{refused:?}");
    let right = full(Request::post("/").header("x-gitlab-token", "secret"), BODY);
    assert!(receiver.receive(right).await.is_ok());
}

/// GitHub's pushes have up to 25 MB, and it does not send them again.
#[tokio::test]
async fn a_body_may_be_as_large_as_its_provider_documents() {
    let key = GITHUB.key("secret").unwrap();
    let body: &'static [u8] = vec![b' '; 3_048_076].leak();
    let request = || {
        let signature = GITHUB.sign(&key, &Envelope::default(), body).unwrap();
        full(Request::post("/").header("x-hub-signature-256", signature.as_str()), body)
    };
    let receiver = Receiver::new(GITHUB, key.clone()).unwrap();
    assert!(receiver.receive(request()).await.is_ok());
    let refused = receiver.max_body(1024).receive(request()).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[test]
fn keys_for_another_algorithm_are_refused_at_once() {
    let sha512 = webhooks_sign::Key::from_bytes(webhooks_sign::Algorithm::HmacSha512, &[7; 32]);
    for keys in [Keys::from(sha512.unwrap()), Keys::from(KeyRing::<0>::new())] {
        let refused = Receiver::new(GITHUB, keys).unwrap_err();
        assert!(matches!(refused, SetupError::UnsuitableKeys { scheme: "github", .. }));
    }
}

#[tokio::test]
async fn json_is_parsed_only_where_the_content_type_says_so() {
    let webhook = async |content_type: &str, body: &'static [u8]| {
        let mut request = full(signed("msg_1", NOW, body), body);
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        receive(request).await.unwrap().into_body()
    };
    let value: serde_json::Value = webhook("application/json", BODY).await.json().unwrap();
    assert_eq!(value["test"], 2_432_232_314_u64);
    let labelled = async |receiver: Receiver<Standard>| {
        let mut request = full(signed("msg_1", NOW, BODY), BODY);
        request.headers_mut().insert("content-type", "text/plain".parse().unwrap());
        receiver.receive(request).await.unwrap().into_body().json::<serde_json::Value>()
    };
    assert!(labelled(receiver().json_of_any_type()).await.is_ok());
    let wrong = labelled(receiver()).await.unwrap_err();
    assert_eq!(wrong.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let broken = webhook("application/json", b"{").await.json::<serde_json::Value>().unwrap_err();
    assert_eq!(broken.status(), StatusCode::BAD_REQUEST);
    assert!(std::error::Error::source(&broken).is_some());
    // Logs are no place for what webhooks are about.
    let secret = webhook("application/json", br#""4242424242""#).await.json::<u64>().unwrap_err();
    let shown = format!("{secret:?} {}", std::error::Error::source(&secret).unwrap());
    assert!(shown.contains("line 1") && !shown.contains("4242"), "{shown}");
}

/// A framework may pass a boxed body, and the future must be `Send`.
#[tokio::test]
async fn any_body_will_do_on_any_thread() {
    let body: BoxBody<Bytes, Infallible> = Full::new(Bytes::from_static(BODY)).boxed();
    let request = signed("msg_1", NOW, BODY).body(body).unwrap();
    let received = tokio::spawn(async move { receive(request).await });
    assert!(received.await.unwrap().is_ok());
}
