//! Client libraries of others, unmodified, against the service. `cargo xtask test` installs and builds them.

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
