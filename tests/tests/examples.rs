//! The examples, run as programs.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::json;
use tokio_rustls::rustls::crypto::ring;
use webhooks_core::{Event, Timestamp};
use webhooks_dispatch::Dispatcher;
use webhooks_http::HttpTransport;
use webhooks_registry::{Endpoint, Registry};
use webhooks_sign::{Key, standard};

/// Builds an example with all features, as this test was built: so nothing else is built anew. `check` builds that of
/// the README without them. Returns its command.
fn program(example: &str) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--workspace", "--all-features"]);
    cargo.args(["--example", example]).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    assert!(cargo.status().unwrap().success());
    let test = std::env::current_exe().unwrap();
    Command::new(test.parent().unwrap().with_file_name("examples").join(example))
}

/// Returns the output of an example. It sends to this machine, and prints a warning that it may.
fn run(example: &str) -> String {
    let output = program(example).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}{errors}");
    assert!(errors.contains("DEVELOPMENT MODE"), "{errors}");
    shown
}

#[test]
fn the_durable_example_delivers_everything_although_it_is_killed() {
    let shown = run("durable");
    assert!(shown.contains("it is killed"), "{shown}");
    assert!(shown.contains("300 of 300 events arrived"), "{shown}");
}

#[test]
fn the_outbox_stores_an_order_with_its_event_or_neither() {
    let output = program("outbox_sqlite").output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    // Deliveries go on meanwhile, so only their number is certain.
    let (sent, told): (Vec<&str>, Vec<&str>) =
        shown.lines().partition(|line| line.starts_with("sent: "));
    assert_eq!(
        told,
        [
            "order 17 is placed: tea",
            "order 17 is not placed, and nothing is sent: UNIQUE constraint failed: orders.id",
            "order 18 is placed: coffee",
            "there are 2 orders",
        ]
    );
    assert_eq!(sent.len(), 2, "{sent:?}");
}

#[test]
fn the_service_example_lists_searches_and_replays() {
    let output = program("service").output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "billing is registered, and only once.",
        "  crm      active  failing, 0 wait",
        "  billing  paused  healthy, 40 wait",
        "A search for order A-17 finds 1 event.",
        "40 of 40 replayed",
        "The replay has ended: finished.",
        "The worker ends; 0 deliveries wait.",
        "accepted 80, delivered 80, failed 40",
        "attempts 120, of which failed",
    ] {
        assert!(shown.contains(line), "{line:?} in {shown}");
    }
}

#[test]
fn the_quickstart_shows_each_of_its_four_stories() {
    let shown = run("quickstart");
    let told: Vec<&str> =
        shown.lines().filter_map(|line| line.trim().strip_prefix("sender:   ")).collect();
    assert_eq!(
        told,
        [
            "my-webhook delivered after 1 attempt(s)",
            "nobody wants it, nothing is sent",
            "my-webhook delivered after 3 attempt(s)",
            "my-webhook failed after 1 attempt(s) (endpoint answered 401 Unauthorized)",
        ]
    );
    assert_eq!(shown.matches("receiver: verified").count(), 2);
    assert_eq!(shown.matches("receiver: refuses it: no signature matches").count(), 1);
}

/// A running receiver of the examples.
struct Running {
    process: Child,
    shown: Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Running {
    /// Starts an example whose first line is its URL.
    fn start(example: &str) -> Self {
        let mut process = program(example).stdout(Stdio::piped()).spawn().unwrap();
        let mut shown = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = shown.next().unwrap().unwrap();
        Self { process, shown, url }
    }

    /// Sends an invoice and returns the status of the answer.
    async fn send(&self, secret: &str, event: &Event) -> Option<u16> {
        let registry = Registry::new();
        registry.register("hook", Endpoint::new(&self.url, secret).unwrap()).unwrap();
        let dispatcher = Dispatcher::new(registry, HttpTransport::development().unwrap());
        dispatcher.dispatch(event).await[0].status_code
    }

    /// Sends a signed request that our own sender would not send, and returns the status of the
    /// answer.
    async fn send_signed(&self, secret: &str, content_type: &str, body: &'static str) -> u16 {
        let (key, now) = (Key::standard(secret).unwrap(), Timestamp::now().as_unix_seconds());
        let signature = standard::sign(&key, content_type, now, body.as_bytes()).unwrap();
        // Another test may have installed it.
        let _is_first = ring::default_provider().install_default().is_ok();
        let request = reqwest::Client::new()
            .post(&self.url)
            .header("content-type", content_type)
            .header("webhook-id", content_type)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature.as_str());
        request.body(body).send().await.unwrap().status().as_u16()
    }

    /// Ends it, and returns its output since the start.
    fn stop(&mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.shown.by_ref().map(Result::unwrap).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// Every framework's example takes signed requests, each once, and refuses the rest.
async fn check_receiver(example: &str, handled: u16) {
    let mut receiver = Running::start(example);
    let secret = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let other = concat!("whsec_", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let paid = |number: u64| Event::new("invoice.paid", json!({ "number": number })).unwrap();
    let first = paid(17);
    assert_eq!(receiver.send(secret, &first).await, Some(handled));
    assert_eq!(receiver.send(secret, &first).await, Some(200), "and does nothing");
    assert_eq!(receiver.send(other, &paid(18)).await, Some(401));
    assert_eq!(receiver.send(secret, &paid(19)).await, Some(handled));
    assert_eq!(receiver.send_signed(secret, "text/plain", "{}").await, 415);
    assert_eq!(receiver.send_signed(secret, "application/json", "{").await, 400);
    assert_eq!(receiver.stop(), ["invoice 17 is paid", "invoice 19 is paid"]);
}

#[tokio::test]
async fn the_example_for_axum_receives() {
    check_receiver("receive_axum", 204).await;
}

#[tokio::test]
async fn the_example_for_hyper_receives() {
    check_receiver("receive_hyper", 200).await;
}

#[tokio::test]
async fn the_example_for_actix_web_receives() {
    check_receiver("receive_actix", 200).await;
}
