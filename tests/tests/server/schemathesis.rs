//! Thousands of requests, right and wrong ones, made from the OpenAPI document. `cargo xtask test` installs
//! the program that makes them.

use std::fs;

use serde_json::{Value, json};
use tokio::process::Command;
use webhooks_http::{AddressPolicy, HttpTransport};
use webhooks_tests::NameServer;

use crate::running::{Kind, Running, until};

/// The root of the workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// All checks, except that each request that fits the document is accepted: the document cannot say all (a
/// time is later than another, an iterator is of this list).
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,\
                      negative_data_rejection,missing_required_header,unsupported_method,\
                      allow_header_conformance,use_after_free,ensure_resource_availability,ignored_auth";

/// The networks that have all addresses except 127.0.0.0/8.
const OTHER_NETWORKS: [&str; 9] = [
    "0.0.0.0/2",
    "64.0.0.0/3",
    "96.0.0.0/4",
    "112.0.0.0/5",
    "120.0.0.0/6",
    "124.0.0.0/7",
    "126.0.0.0/8",
    "128.0.0.0/1",
    "::/0",
];

/// Starts a service that reaches this machine alone: other addresses are denied, and no name server is asked
/// except `names`.
async fn start(kind: Kind, names: &NameServer) -> Running {
    let networks = OTHER_NETWORKS.into_iter().map(|network| network.parse().unwrap());
    let policy = networks.fold(AddressPolicy::development(), AddressPolicy::deny_network);
    let transport = HttpTransport::builder().address_policy(policy).dns_server(names.address());
    Running::start_with(kind, transport.build().unwrap()).await
}

/// Makes requests until the program is content.
async fn request(running: &Running, config: &str, arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let config_file = folder.path().join("schemathesis.toml");
    fs::write(&config_file, config).unwrap();
    let mut program = Command::new("python3");
    program.env("PYTHONPATH", format!("{ROOT}/target/peers/schemathesis"));
    program.current_dir(folder.path()).args(["-m", "schemathesis.cli", "--config-file"]);
    program.arg(config_file).arg("run").arg(format!("{}/api/v1/openapi.json", running.url));
    program.args(["--header", &format!("Authorization: Bearer {}", running.key)]);
    // Generating is slow on a busy machine, which is no fault.
    program.args(["--suppress-health-check", "too_slow"]);
    program.args(["--seed", "1", "--checks", CHECKS]).args(arguments);
    let output = program.output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{why}");
    // A request could have ended the key, and all others would have been refused.
    assert_eq!(running.get("/api/v1/app").await.0, 200);
}

/// Goal: no request that can be made from the document gets an error of the server, and no answer differs
/// from the document.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_the_document_says() {
    let names = NameServer::start(60, []).await;
    let running = start(Kind::Sqlite, &names).await;
    request(&running, "", &["--max-examples", "4"]).await;
}

/// Goal: the same for things that are there, whose ids no chance would find.
#[tokio::test(flavor = "multi_thread")]
async fn answers_about_things_that_are_there_are_as_the_document_says() {
    let names = NameServer::start(60, []).await;
    let running = start(Kind::Postgres, &names).await;
    let make = async |path: &str, body: Value| {
        let (status, made) = running.ask("POST", path, body).await;
        assert!((200..300).contains(&status), "{path}: {made}");
        made["id"].as_str().unwrap().to_owned()
    };
    let app = running.add_app("shop").await;
    let path = format!("/api/v1/app/{app}");
    // Nobody listens there, so there is an attempt soon.
    let endpoint = json!({ "url": "http://127.0.0.1:49151/" });
    let endpoint = make(&format!("{path}/endpoint"), endpoint).await;
    let event_type = json!({ "name": "paid", "description": "",
                             "schemas": { "1": { "examples": [{ "amount": 1 }] } } });
    let (status, made) = running.ask("POST", "/api/v1/event-type", event_type).await;
    assert_eq!(status, 201, "{made}");
    let message = json!({ "eventType": "paid", "payload": { "amount": 1 } });
    let message = make(&format!("{path}/msg"), message).await;
    let key = "/api/v1/management/authentication/default/api-token";
    let key = make(key, json!({ "name": "other", "role": "viewer" })).await;
    let poller = make(&format!("{path}/polling-endpoint"), json!({})).await;
    let since = json!({ "since": "2026-01-01T00:00:00Z" });
    let task = make(&format!("{path}/endpoint/{endpoint}/recover"), since).await;
    let attempts = format!("{path}/attempt/msg/{message}");
    let attempts = until(&running, &attempts, |page| page["data"][0]["id"].is_string()).await;
    let attempt = attempts["data"][0]["id"].as_str().unwrap();
    let config = format!(
        "[parameters]\n\"path.app_id\" = \"{app}\"\n\"path.endpoint_id\" = \"{endpoint}\"\n\
         \"path.msg_id\" = \"{message}\"\n\"path.attempt_id\" = \"{attempt}\"\n\
         \"path.key_id\" = \"{key}\"\n\"path.task_id\" = \"{task}\"\n\
         \"path.event_type_name\" = \"paid\"\n\"path.sink_id\" = \"{poller}\"\n\
         \"path.consumer_id\" = \"one\"\n"
    );
    let arguments = ["--max-examples", "12", "--phases", "fuzzing", "--exclude-method", "DELETE"];
    request(&running, &config, &arguments).await;
}
