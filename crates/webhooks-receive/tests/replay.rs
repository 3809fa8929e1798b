//! The guard: handlers run once, and again only after they failed.
#![cfg(feature = "memory")]
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "shared/sender.rs"]
mod sender;

use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode};
use http_body_util::Full;
use sender::{NOW, StoppedClock, key, receiver, signed};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use webhooks_core::Timestamp;
use webhooks_receive::provider::Standard;
use webhooks_receive::seen::{BeginOutcome, SeenClaim, SeenError, SeenId, SeenStore};
use webhooks_receive::{
    Keys, MemorySeenStore, MisuseError, Receiver, Rejection, ReplayGuard, RunOutcome, SetupError,
    TenantKeys, Webhook,
};
use webhooks_sign::providers::{DROPBOX, GITHUB, GITLAB_TOKEN, TWILIO, TWITCH};
use webhooks_sign::standard::STANDARD;
use webhooks_sign::{KeyRing, Tolerance, scheme::Scheme};

fn request(id: &str) -> Request<Full<Bytes>> {
    signed(id, NOW, b"{}").body(Full::new(Bytes::from_static(b"{}"))).unwrap()
}

async fn webhook(id: &str) -> Webhook {
    receiver().receive(request(id)).await.unwrap().into_body()
}

fn guard() -> ReplayGuard<MemorySeenStore> {
    ReplayGuard::new(&receiver(), "billing", MemorySeenStore::new()).unwrap()
}

/// Runs a handler that answers at once, and tells whether it ran.
async fn run(
    guard: &ReplayGuard<impl SeenStore>,
    id: &str,
    status: u16,
) -> Result<bool, Rejection> {
    let status = StatusCode::from_u16(status).unwrap();
    let guarded = guard.run(&webhook(id).await, ready(status)).await?;
    Ok(matches!(guarded, RunOutcome::Ran { .. }))
}

#[tokio::test]
async fn what_was_handled_is_answered_without_the_handler() {
    let guard = guard();
    assert!(run(&guard, "msg_1", 204).await.unwrap());
    assert!(!run(&guard, "msg_1", 204).await.unwrap());
    let guarded = guard.run(&webhook("msg_1").await, ready(StatusCode::CREATED)).await.unwrap();
    assert_eq!(guarded.status(), StatusCode::OK);
    assert!(run(&guard, "msg_2", 204).await.unwrap());
}

#[tokio::test]
async fn a_handler_that_fails_is_run_again_on_the_retry() {
    let guard = guard();
    for status in [500, 400, 302, 204] {
        assert!(run(&guard, "msg_1", status).await.unwrap(), "{status}");
    }
    assert!(!run(&guard, "msg_1", 204).await.unwrap());
    let result: Result<(), StatusCode> = Err(StatusCode::BAD_GATEWAY);
    let webhook = webhook("msg_2").await;
    let guarded = guard.run(&webhook, ready(result)).await.unwrap();
    assert!(matches!(guarded, RunOutcome::Ran { .. }));
    assert_eq!(guarded.status(), StatusCode::BAD_GATEWAY);
    assert!(run(&guard, "msg_2", 204).await.unwrap());
}

#[tokio::test]
async fn a_body_that_is_no_json_is_the_senders_fault() {
    let check = async |content_type: &str, body: &'static [u8], expected: StatusCode| {
        let mut request = signed("msg_1", NOW, body).body(Full::new(Bytes::from(body))).unwrap();
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        let webhook = receiver().receive(request).await.unwrap().into_body();
        let handler = async { webhook.json::<Value>().map(drop) };
        let guarded = guard().run(&webhook, handler).await.unwrap();
        assert_eq!(guarded.status(), expected, "{content_type}");
    };
    check("text/plain", b"{}", StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    check("application/json", b"{", StatusCode::BAD_REQUEST).await;
    check("application/json", b"{}", StatusCode::OK).await;
}

/// 1,000 repetitions come while the handler runs. Method: it is held at a gate until all others
/// wait for it, which each tells by having been polled.
async fn a_thousand_at_once(status: u16) -> (usize, Vec<Result<StatusCode, Rejection>>) {
    let (guard, webhook) = (guard(), webhook("msg_1").await);
    let (gate, runs) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let come = Arc::new(Semaphore::new(0));
    let mut all = JoinSet::new();
    for _ in 0..1000 {
        let (guard, webhook) = (guard.clone(), webhook.clone());
        let (gate, runs, come) = (Arc::clone(&gate), Arc::clone(&runs), Arc::clone(&come));
        all.spawn(async move {
            come.add_permits(1);
            let handler = async {
                runs.fetch_add(1, Ordering::Relaxed);
                gate.acquire().await.unwrap().forget();
                StatusCode::from_u16(status).unwrap()
            };
            Ok(guard.run(&webhook, handler).await?.status())
        });
    }
    come.acquire_many(1000).await.unwrap().forget();
    gate.add_permits(1);
    (runs.load(Ordering::Relaxed), all.join_all().await)
}

#[tokio::test]
async fn a_thousand_at_once_run_the_handler_exactly_once() {
    let (runs, answers) = a_thousand_at_once(201).await;
    assert_eq!(runs, 1);
    let count = |status| {
        answers.iter().filter(|answer| matches!(answer, Ok(found) if *found == status)).count()
    };
    assert_eq!((count(StatusCode::CREATED), count(StatusCode::OK)), (1, 999));
}

#[tokio::test]
async fn those_that_wait_for_a_handler_that_fails_get_its_status() {
    let (runs, answers) = a_thousand_at_once(422).await;
    assert_eq!(runs, 1);
    let statuses = answers.into_iter().map(|answer| match answer {
        Ok(status) => status,
        Err(rejection) => rejection.status(),
    });
    assert!(statuses.into_iter().all(|status| status == StatusCode::UNPROCESSABLE_ENTITY));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_make_no_difference() {
    let (guard, webhook) = (guard(), webhook("msg_1").await);
    let runs = Arc::new(AtomicUsize::new(0));
    let mut all = JoinSet::new();
    for _ in 0..1000 {
        let (guard, webhook, runs) = (guard.clone(), webhook.clone(), Arc::clone(&runs));
        all.spawn(async move {
            let handler = async {
                runs.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                StatusCode::OK
            };
            guard.run(&webhook, handler).await.unwrap().status()
        });
    }
    assert!(all.join_all().await.into_iter().all(|status| status == StatusCode::OK));
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

/// The sender gives up and closes the connection, and hyper drops the handler. Method: one that
/// never ends is dropped while another waits for it.
#[tokio::test]
async fn a_handler_that_is_dropped_gives_its_id_back() {
    let (guard, webhook) = (guard(), webhook("msg_1").await);
    let handler = tokio::spawn({
        let (guard, webhook) = (guard.clone(), webhook.clone());
        async move { guard.run(&webhook, pending::<StatusCode>()).await }
    });
    tokio::task::yield_now().await;
    let waiter = tokio::spawn({
        let (guard, webhook) = (guard.clone(), webhook.clone());
        async move { guard.run(&webhook, ready(StatusCode::OK)).await.unwrap_err() }
    });
    tokio::task::yield_now().await;
    assert!(!waiter.is_finished());
    handler.abort();
    assert!(handler.await.unwrap_err().is_cancelled());
    let told = waiter.await.unwrap();
    assert_eq!(told.status(), StatusCode::CONFLICT);
    assert_eq!(told.to_response().headers()["retry-after"], "1");
    guard.idle().await;
    assert!(run(&guard, "msg_1", 204).await.unwrap());
}

#[tokio::test]
async fn a_handler_that_panics_gives_its_id_back() {
    let (guard, webhook) = (guard(), webhook("msg_1").await);
    let handler = tokio::spawn({
        let guard = guard.clone();
        async move {
            let handler =
                async { if true { panic!("a bug of the handler's") } else { StatusCode::OK } };
            guard.run(&webhook, handler).await
        }
    });
    assert!(handler.await.unwrap_err().is_panic());
    guard.idle().await;
    assert!(run(&guard, "msg_1", 204).await.unwrap());
}

/// Two processes share a store. Method: two guards, of which each knows its own flights alone.
#[tokio::test]
async fn another_process_is_told_to_come_again() {
    let store = MemorySeenStore::new();
    let here = ReplayGuard::new(&receiver(), "billing", store.clone()).unwrap();
    let there = ReplayGuard::new(&receiver(), "billing", store).unwrap();
    let webhook = webhook("msg_1").await;
    let during = async {
        let refused = there.run(&webhook, ready(StatusCode::OK)).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::CONFLICT);
        assert_eq!(refused.to_response().headers()["retry-after"], "60");
        StatusCode::OK
    };
    assert_eq!(here.run(&webhook, during).await.unwrap().status(), StatusCode::OK);
    assert!(!run(&there, "msg_1", 204).await.unwrap());
}

/// The process that had it died, or takes longer than it may. Method: the other one's clock is a
/// lease ahead.
#[tokio::test]
async fn another_process_takes_over_when_the_claim_has_ended() {
    let store = MemorySeenStore::new();
    let here = ReplayGuard::new(&receiver(), "billing", store.clone()).unwrap();
    let later = receiver().clock(StoppedClock::at(NOW + 60));
    let there = ReplayGuard::new(&later, "billing", store).unwrap();
    let again = later.receive(request("msg_1")).await.unwrap().into_body();
    let slow = async {
        let guarded = there.run(&again, ready(StatusCode::OK)).await.unwrap();
        assert!(matches!(guarded, RunOutcome::Ran { .. }));
        StatusCode::INTERNAL_SERVER_ERROR
    };
    here.run(&webhook("msg_1").await, slow).await.unwrap();
    // The failure here must not undo the success there.
    let guarded = there.run(&again, ready(StatusCode::OK)).await.unwrap();
    assert!(matches!(guarded, RunOutcome::Duplicate));
}

/// A store that is away, at one call or another.
#[derive(Default)]
struct Away {
    begins: bool,
    inner: MemorySeenStore,
}

fn away<T>() -> Result<T, SeenError> {
    Err(SeenError::Unavailable { source: "the database is away".into() })
}

impl SeenStore for Away {
    async fn begin(&self, claim: SeenClaim, now: Timestamp) -> Result<BeginOutcome, SeenError> {
        if self.begins { self.inner.begin(claim, now).await } else { away() }
    }

    async fn done(&self, _: SeenId, _: Timestamp) -> Result<(), SeenError> {
        away()
    }

    async fn release(&self, _: SeenClaim) -> Result<(), SeenError> {
        away()
    }
}

#[tokio::test]
async fn without_its_store_no_handler_runs() {
    let guard = ReplayGuard::new(&receiver(), "billing", Away::default()).unwrap();
    let handler = async { if true { panic!("it ran") } else { StatusCode::OK } };
    let refused = guard.run(&webhook("msg_1").await, handler).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(matches!(
        refused,
        Rejection::SeenStoreFailed { source: SeenError::Unavailable { .. } }
    ));
}

#[tokio::test]
async fn a_store_that_takes_no_note_is_reported_beside_the_answer() {
    let guard =
        ReplayGuard::new(&receiver(), "billing", Away { begins: true, ..Away::default() }).unwrap();
    let guarded = guard.run(&webhook("msg_1").await, ready(StatusCode::CREATED)).await.unwrap();
    let RunOutcome::Ran { result: StatusCode::CREATED, remembered: Err(error) } = guarded else {
        panic!("{guarded:?}")
    };
    assert!(matches!(error, SeenError::Unavailable { .. }));
}

/// Otherwise one tenant, who knows an id of another's, could use it up.
#[tokio::test]
async fn tenants_do_not_share_ids() {
    let lookup = |head: &Parts| {
        let tenant = head.uri.path().to_owned();
        async move { Ok(Some(TenantKeys::new(tenant, &KeyRing::from(key())))) }
    };
    let receiver =
        Receiver::new(STANDARD, Keys::lookup(lookup)).unwrap().clock(StoppedClock::new());
    let guard = ReplayGuard::new(&receiver, "billing", MemorySeenStore::new()).unwrap();
    for tenant in ["/acme", "/emca"] {
        let request = signed("msg_1", NOW, b"{}").uri(tenant);
        let request = request.body(Full::new(Bytes::from_static(b"{}"))).unwrap();
        let webhook = receiver.receive(request).await.unwrap().into_body();
        let guarded = guard.run(&webhook, ready(StatusCode::OK)).await.unwrap();
        assert!(matches!(guarded, RunOutcome::Ran { .. }), "{tenant}");
    }
}

#[tokio::test]
async fn what_another_receiver_verified_is_none_of_the_guards() {
    let other = Receiver::<Standard>::from_keys(key()).unwrap();
    let guard = ReplayGuard::new(&other, "billing", MemorySeenStore::new()).unwrap();
    let refused = run(&guard, "msg_1", 204).await.unwrap_err();
    let Rejection::Misuse { source } = refused else { panic!("{refused:?}") };
    assert!(matches!(source, MisuseError::OtherReceiver), "{source:?}");
}

#[tokio::test]
async fn a_receiver_may_be_set_up_after_its_guard_was_made() {
    let guard = ReplayGuard::new(&receiver(), "billing", MemorySeenStore::new()).unwrap();
    let later = receiver().max_body(100);
    let webhook = later.receive(request("msg_1")).await.unwrap().into_body();
    assert!(guard.run(&webhook, ready(StatusCode::OK)).await.is_ok());
    // But not so that ids would be forgotten too soon.
    let always = receiver().tolerance(Tolerance::DANGEROUS_UNLIMITED);
    let webhook = always.receive(request("msg_2")).await.unwrap().into_body();
    let refused = guard.run(&webhook, ready(StatusCode::OK)).await.unwrap_err();
    let Rejection::Misuse { source } = refused else { panic!("{refused:?}") };
    assert!(matches!(source, MisuseError::Tolerance), "{source:?}");
}

/// Signs a body by a scheme without id or time, and returns how often it is handled in two attempts.
async fn handled(
    scheme: Scheme,
    guard: impl Fn(&Receiver) -> ReplayGuard<MemorySeenStore>,
    attempts: [&'static str; 2],
) -> usize {
    let key = scheme.key("secret").unwrap();
    let receiver = Receiver::new(scheme, key.clone()).unwrap();
    let guard = guard(&receiver);
    let mut handled = 0;
    for body in attempts {
        let signature =
            scheme.sign(&key, &webhooks_sign::Envelope::default(), body.as_bytes()).unwrap();
        let request = Request::post("/").header(scheme.signature_header(), signature.as_str());
        let request = request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap();
        let webhook = receiver.receive(request).await.unwrap().into_body();
        let guarded = guard.run(&webhook, ready(StatusCode::OK)).await.unwrap();
        handled += usize::from(matches!(guarded, RunOutcome::Ran { .. }));
    }
    handled
}

/// Many providers count their attempts in the body, so that no two are the same.
#[tokio::test]
async fn attempts_are_told_by_the_field_that_they_share() {
    let attempts = [r#"{"id":"evt_1","attempt":0}"#, r#"{"id":"evt_1","attempt":1}"#];
    let others = [r#"{"id":"evt_1","at":0}"#, r#"{"id":"evt_2","at":0}"#];
    let scheme = Scheme::custom("acme", "acme-signature").build().unwrap();
    let by_id = |receiver: &Receiver| {
        ReplayGuard::by_fields(receiver, "billing", MemorySeenStore::new(), &["/id"]).unwrap()
    };
    let by_body = |receiver: &Receiver| {
        ReplayGuard::by_body(receiver, "billing", MemorySeenStore::new()).unwrap()
    };
    assert_eq!(handled(scheme, by_id, attempts).await, 1);
    assert_eq!(handled(scheme, by_body, attempts).await, 2, "what the field is for");
    assert_eq!(handled(scheme, by_id, others).await, 2);
    // A body without the field is identified by its hash.
    assert_eq!(handled(scheme, by_id, [r#"{"ping":1}"#, r#"{"ping":2}"#]).await, 2);
    assert_eq!(handled(scheme, by_id, ["ping", "ping"]).await, 1);
    // A scheme that knows its field needs not be told.
    let known = Scheme::custom("acme", "acme-signature").event_id_fields(&["/id"]).build().unwrap();
    let of_scheme = |receiver: &Receiver| {
        ReplayGuard::new(receiver, "billing", MemorySeenStore::new()).unwrap()
    };
    assert_eq!(handled(known, of_scheme, attempts).await, 1);
    let receiver = Receiver::new(scheme, scheme.key("secret").unwrap()).unwrap();
    for pointers in [&[][..], &["id"], &["/id", ""]] {
        let refused =
            ReplayGuard::by_fields(&receiver, "billing", MemorySeenStore::new(), pointers);
        assert!(matches!(refused, Err(SetupError::Pointer)), "{pointers:?}");
    }
}

/// A form's fields are signed, not how they are written: whoever saw it could write it anew.
#[tokio::test]
async fn a_form_is_the_same_however_it_is_written() {
    let (url, key) = ("https://example.com/sms", TWILIO.key("12345").unwrap());
    let receiver = Receiver::new(TWILIO, Keys::from(key.clone()).url(url)).unwrap();
    let guard = ReplayGuard::by_body(&receiver, "sms", MemorySeenStore::new()).unwrap();
    let run = async |fields: &[(&str, &str)], body: &'static str| {
        let signature = TWILIO.sign_form(&key, url, &mut fields.to_vec()).unwrap();
        let request = Request::post("/sms")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-twilio-signature", signature.as_str())
            .body(Full::new(Bytes::from_static(body.as_bytes())))
            .unwrap();
        let webhook = receiver.receive(request).await.unwrap().into_body();
        let guarded = guard.run(&webhook, ready(StatusCode::OK)).await.unwrap();
        matches!(guarded, RunOutcome::Ran { .. })
    };
    let fields = [("Digits", "2"), ("From", "1")];
    assert!(run(&fields, "From=1&Digits=2").await);
    for body in ["Digits=2&From=1", "%46rom=1&Digits=2", "From=1&From=1&Digits=2"] {
        assert!(!run(&fields, body).await, "{body}");
    }
    assert!(run(&[("Digits", "3"), ("From", "1")], "Digits=3&From=1").await);
}

/// Two webhooks without a body have nothing in common that would make them one.
#[tokio::test]
async fn without_a_body_each_is_handled() {
    let scheme = Scheme::custom("acme", "acme-signature").build().unwrap();
    let by_body = |receiver: &Receiver| {
        ReplayGuard::by_body(receiver, "billing", MemorySeenStore::new()).unwrap()
    };
    assert_eq!(handled(scheme, by_body, ["", ""]).await, 2);
}

/// Dropbox tells which account has changed, and nothing else: the second change would be lost.
#[test]
fn where_bodies_repeat_by_design_there_is_no_guard() {
    let receiver = Receiver::new(DROPBOX, DROPBOX.key("secret").unwrap()).unwrap();
    for refused in [
        ReplayGuard::by_body(&receiver, "files", MemorySeenStore::new()),
        ReplayGuard::new(&receiver, "files", MemorySeenStore::new()),
    ] {
        assert!(matches!(refused, Err(SetupError::RepeatedBodies { scheme: "dropbox" })));
    }
}

#[tokio::test]
async fn destinations_that_share_a_store_handle_the_same_webhook_each() {
    let store = MemorySeenStore::new();
    for scope in ["billing", "crm"] {
        let guard = ReplayGuard::new(&receiver(), scope, store.clone()).unwrap();
        assert!(run(&guard, "msg_1", 204).await.unwrap(), "{scope}");
        assert!(!run(&guard, "msg_1", 204).await.unwrap(), "{scope}");
    }
}

#[test]
fn an_id_that_is_not_signed_is_refused_at_set_up() {
    let github = Receiver::new(GITHUB, GITHUB.key("secret").unwrap()).unwrap();
    let refused = ReplayGuard::new(&github, "billing", MemorySeenStore::new()).unwrap_err();
    assert!(matches!(refused, SetupError::UnsignedId { scheme: "github" }), "{refused:?}");
    assert!(ReplayGuard::by_body(&github, "billing", MemorySeenStore::new()).is_ok());

    // A token covers not even the body.
    let token = Receiver::new(GITLAB_TOKEN, GITLAB_TOKEN.key("secret").unwrap()).unwrap();
    let refused = ReplayGuard::by_body(&token, "billing", MemorySeenStore::new()).unwrap_err();
    assert!(matches!(refused, SetupError::UnsignedBody { scheme: "gitlab-token" }), "{refused:?}");

    let twitch = Receiver::new(TWITCH, TWITCH.key("secret").unwrap()).unwrap();
    assert!(ReplayGuard::new(&twitch, "billing", MemorySeenStore::new()).is_ok());
}

#[tokio::test]
async fn without_an_id_the_body_tells_repetitions() {
    let key = GITHUB.key("secret").unwrap();
    let receiver = Receiver::new(GITHUB, key.clone()).unwrap();
    let guard = ReplayGuard::by_body(&receiver, "billing", MemorySeenStore::new()).unwrap();
    let run = async |body: &'static [u8], delivery: u16| {
        let signature = GITHUB.sign(&key, &webhooks_sign::Envelope::default(), body).unwrap();
        let request = Request::post("/")
            .header("x-hub-signature-256", signature.as_str())
            .header("x-github-delivery", delivery);
        let request = request.body(Full::new(Bytes::from_static(body))).unwrap();
        let webhook = receiver.receive(request).await.unwrap().into_body();
        let guarded = guard.run(&webhook, ready(StatusCode::OK)).await.unwrap();
        matches!(guarded, RunOutcome::Ran { .. })
    };
    assert!(run(b"{\"action\":\"opened\"}", 1).await);
    // Another id in a header that nobody signed makes it no other webhook.
    assert!(!run(b"{\"action\":\"opened\"}", 2).await);
    assert!(run(b"{\"action\":\"closed\"}", 3).await);
}

#[test]
fn ids_are_remembered_longer_than_their_webhooks_are_valid() {
    let short = guard().ttl(Duration::from_secs(600)).unwrap_err();
    assert!(matches!(short, SetupError::TtlTooShort { .. }), "{short:?}");
    // 5 minutes either way, 10 s in which the body comes, and a second for those that are rounded.
    assert!(guard().ttl(Duration::from_secs(611)).is_err());
    assert!(guard().ttl(Duration::from_millis(611_001)).is_ok());
    let always = receiver().tolerance(Tolerance::DANGEROUS_UNLIMITED);
    assert!(matches!(
        ReplayGuard::new(&always, "billing", MemorySeenStore::new()),
        Err(SetupError::TtlTooShort { .. })
    ));
}

#[tokio::test]
async fn an_id_is_remembered_for_its_time() {
    let store = MemorySeenStore::new();
    let guard = ReplayGuard::new(&receiver(), "billing", store.clone()).unwrap();
    let guard = guard.ttl(Duration::from_secs(612)).unwrap();
    assert!(run(&guard, "msg_1", 204).await.unwrap());
    let check = async |second: u64, expected: BeginOutcome| {
        let now = Timestamp::from_unix_seconds(NOW + second);
        let id = SeenId::new("7:billing", "msg_1");
        let claim = SeenClaim { id, until: now + Duration::from_secs(1) };
        assert_eq!(store.begin(claim, now).await.unwrap(), expected, "{second}");
    };
    check(611, BeginOutcome::Done).await;
    check(612, BeginOutcome::Claimed).await;
}
