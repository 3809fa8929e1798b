//! The guides, as a newcomer follows them: each of their code blocks runs.

use serde_json::json;
use tokio::process::Command;
use webhooks_tests::Receiver;

use crate::running::{Kind, Running, until};

/// The root of the workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

const API: &str = include_str!("../../../docs/api.md");
const MIGRATING: &str = include_str!("../../../docs/migrating-from-svix.md");

/// Returns the code blocks of a document in a language, without their indentation.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    let parts = document.split(&start).skip(1);
    let code = parts.map(|part| part.split("```").next().unwrap());
    let dedent = |code: &str| {
        let indent = code.len() - code.trim_start().len();
        let lines = code.lines().map(|line| line.get(indent..).unwrap_or_default());
        lines.flat_map(|line| [line, "\n"]).collect()
    };
    code.map(dedent).collect()
}

/// Runs a program at the root of the workspace; returns its output.
async fn run(program: &str, argument: &str, code: &str) -> String {
    let mut program = Command::new(program);
    program.env("PYTHONPATH", format!("{ROOT}/target/peers/python"));
    let output = program.current_dir(ROOT).args([argument, code]).output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{code}\n{told}\n{why}");
    told
}

/// Goal: the commands of the API's guide work one after another, and the message arrives. Method: a shell runs
/// them as they stand, with the addresses and the key of this test, and ends at the first error of HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_guide_work() {
    let (running, receiver) = (Running::start(Kind::Sqlite).await, Receiver::answering(204).await);
    let mut code = blocks(API, "sh");
    assert_eq!(code.remove(0), "cargo run -p webhooks-server --example serve\n");
    // The program is read and set up, on any port, and ends before it waits for requests.
    let program =
        code.remove(0).replace(", 3000)", ", 0)").replace("serve_forever", "server_close");
    run("bash", "-ec", &program).await;
    assert!(code.len() >= 4, "{code:?}");
    let hook = receiver.url().trim_end_matches('/').to_owned();
    let code = code.concat();
    let code = code.replace("http://127.0.0.1:8071", &running.url);
    let code = code.replace("http://127.0.0.1:3000/hook", &hook);
    let code = code.replace("http://127.0.0.1:3000", &hook);
    let code = code.replace("export KEY=whkey_...", &format!("export KEY={}", running.key));
    let code = code.replace("curl -sS", "curl -sS --fail-with-body");
    assert!(code.contains("--fail-with-body") && code.contains(&running.key), "{code}");
    let told = run("bash", "-ec", &code).await;
    assert!(told.contains("whsec_") && told.contains("whkey_"), "{told}");
    let attempts = "/api/v1/app/shop/attempt/msg/order-17";
    until(&running, attempts, |page| page["data"][0]["status"] == json!(0)).await;
    let got = receiver.received();
    assert!(got.iter().any(|got| &got.body[..] == br#"{"order": 17}"#), "{got:?}");
}

/// Goal: the code of the guide for users of Svix works, with the client library that it names.
#[tokio::test(flavor = "multi_thread")]
async fn the_guide_for_users_of_svix_works() {
    let (from, to) = (Running::start(Kind::Sqlite).await, Running::start(Kind::Sqlite).await);
    from.add_app("shop").await;
    let [python] = &blocks(MIGRATING, "python")[..] else { panic!("one block") };
    let python = python.replace("whkey_...", &from.key);
    let python = python.replace("https://webhooks.example.com", &from.url);
    let told = run("python3", "-c", &format!("{python}\nprint(svix.application.list())")).await;
    assert!(told.contains("shop"), "{told}");
    let [shell] = &blocks(MIGRATING, "sh")[..] else { panic!("one block") };
    let (install, copy) = shell.split_once('\n').unwrap();
    assert_eq!(install, "pip install svix==2.9.1");
    let copy = copy.replace("testsk_...", &from.key).replace("whkey_...", &to.key);
    let copy = copy.replace("https://api.eu.svix.com", &from.url);
    let copy = copy.replace("http://127.0.0.1:8071", &to.url);
    run("bash", "-ec", &copy).await;
    assert_eq!(to.get("/api/v1/app/shop").await.0, 200);
}
