//! Drives a Svix-compatible server with the official, unmodified `svix` crate:
//! `svix-flow --url http://127.0.0.1:8071 --token TOKEN`.
//!
//! Each topic has applications of its own (they stay). The first check that fails says what it expected and what it
//! found, and the exit code is not 0. The server must be allowed to deliver to 127.0.0.1, and must give up after one
//! or two retries of one second.

mod access;
mod flow;
mod messages;
mod receiver;
mod replays;
mod things;

use flow::Flow;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name);
        let value = at.and_then(|at| arguments.get(at + 1)).cloned();
        value.unwrap_or_else(|| panic!("{name} is needed"))
    };
    let flow = Flow::new(argument("--url"), argument("--token")).await;
    things::health(&flow).await;
    things::applications(&flow).await;
    things::event_types(&flow).await;
    things::endpoints(&flow).await;
    things::endpoint_headers(&flow).await;
    things::endpoint_secrets(&flow).await;
    messages::messages(&flow).await;
    messages::lists(&flow).await;
    messages::attempts(&flow).await;
    messages::resend(&flow).await;
    replays::recover(&flow).await;
    replays::replay_missing(&flow).await;
    replays::statistics(&flow).await;
    access::portal(&flow).await;
    access::idempotency(&flow).await;
    access::errors(&flow).await;
    println!("all topics hold");
}
