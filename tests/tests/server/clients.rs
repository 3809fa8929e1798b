//! Client libraries of others, unmodified, against the service. `cargo xtask test` installs and builds them.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::running::{Kind, Running};

/// The root of the workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Lets a program drive a service through all that a client needs.
async fn drive(mut program: Command, kind: Kind) {
    let running = Running::start(kind).await;
    program.args(["--url", &running.url, "--token", &running.key]);
    let output = program.output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{why}");
}

fn python() -> Command {
    let mut python = Command::new("python3");
    python.arg(format!("{ROOT}/tests/peers/svix_flow.py"));
    python.env("PYTHONPATH", format!("{ROOT}/target/peers/python"));
    python
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_of_svix_finds_all_it_needs_on_sqlite() {
    drive(python(), Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_of_svix_finds_all_it_needs_on_postgres() {
    drive(python(), Kind::Postgres).await;
}

fn javascript() -> Command {
    let mut node = Command::new("node");
    node.arg(format!("{ROOT}/tests/peers/svix_flow.mjs"));
    node.args(["--packages", &format!("{ROOT}/target/peers/node")]);
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_client_of_svix_finds_all_it_needs_on_sqlite() {
    drive(javascript(), Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_client_of_svix_finds_all_it_needs_on_postgres() {
    drive(javascript(), Kind::Postgres).await;
}

fn rust() -> Command {
    Command::new(format!("{ROOT}/target/peers/rust/debug/svix-flow"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_of_svix_finds_all_it_needs_on_sqlite() {
    drive(rust(), Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_of_svix_finds_all_it_needs_on_postgres() {
    drive(rust(), Kind::Postgres).await;
}

/// Copies everything by the program of the guide; returns its output.
async fn migrate(from: &Running, to: &Running) -> String {
    let mut program = Command::new("python3");
    program.arg(format!("{ROOT}/docs/migrate_from_svix.py"));
    program.env("PYTHONPATH", format!("{ROOT}/target/peers/python"));
    program.env("FROM_TOKEN", &from.key).env("TO_TOKEN", &to.key);
    program.args(["--from", &from.url, "--to", &to.url]);
    let output = program.output().await.unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{why}");
    told
}

/// Goal: the program of the guide copies all, secrets included, and a second run changes nothing. Method: more
/// things than a page has; the names and settings of both services are compared.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_copies_what_a_server_of_svix_has() {
    let (from, to) = (Running::start(Kind::Sqlite).await, Running::start(Kind::Postgres).await);
    let made = async |path: &str, body: Value| {
        let (status, made) = from.ask("POST", path, body).await;
        assert_eq!(status, 201, "{made}");
    };
    let event_type = json!({ "name": "paid", "description": "Paid", "schemas": { "1": {} } });
    made("/api/v1/event-type", event_type).await;
    made("/api/v1/app", json!({ "name": "Shop", "uid": "shop" })).await;
    for number in 0..101 {
        made("/api/v1/app", json!({ "name": "n", "uid": format!("app-{number}") })).await;
    }
    let endpoint = json!({ "url": "http://127.0.0.1:9999/", "uid": "crm", "eventTypes": ["paid"],
                           "channels": ["eu"], "throttleRate": 7, "disabled": true,
                           "metadata": { "a": "b" }, "headers": { "x-own": "1" } });
    made("/api/v1/app/shop/endpoint", endpoint).await;
    let first = migrate(&from, &to).await;
    assert_eq!(first.lines().count(), 1 + 102 + 1, "{first}");
    assert_eq!(migrate(&from, &to).await, "", "nothing is left to do");
    for rest in ["", "/secret", "/headers"] {
        let path = format!("/api/v1/app/shop/endpoint/crm{rest}");
        let (mut old, mut new) = (from.get(&path).await.1, to.get(&path).await.1);
        for shown in [&mut old, &mut new] {
            let fields = shown.as_object_mut().unwrap();
            fields.retain(|name, _| !["id", "createdAt", "updatedAt"].contains(&name.as_str()));
        }
        assert_eq!(old, new, "{path}");
    }
    let (_, copied) = to.get("/api/v1/event-type/paid").await;
    assert_eq!((&copied["description"], &copied["schemas"]), (&json!("Paid"), &json!({ "1": {} })));
}
