//! `doctor`: what it finds in good and in broken places, and its bundle.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::program::{Place, Served, read, wait_for};
use crate::waiting::until;

/// The checks of a run, by name.
struct Checks(Value);

impl Checks {
    #[track_caller]
    fn of(place: &Place, words: &[&str], code: i32) -> Self {
        let ended = place.run(&[&["doctor", "--json"], words].concat());
        assert_eq!(ended.code, Some(code), "{ended:?}");
        Self(serde_json::from_str(&ended.out).unwrap())
    }

    /// Checks the state of one, and that it says this, in what was found or in what mends it.
    #[track_caller]
    fn has(&self, name: &str, state: &str, says: &str) {
        let check = self.0["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
        let check = check.unwrap_or_else(|| panic!("no {name} in {}", self.0));
        assert_eq!(check["state"], state, "{check}");
        assert!(check.to_string().contains(says), "{says:?} is not in {check}");
        let is_bad = matches!(state, "failed" | "warning");
        assert_eq!(check["mend"].is_string(), is_bad, "{check}");
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Starts a service whose key is in a file, with an application that has an endpoint where nobody listens.
fn served() -> (Place, Served) {
    let mut place = Place::new();
    let served = place.serve(&["--dev", "--first-key-file", "key"]);
    place.set("WEBHOOKS_KEY", "@key");
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    let url = "http://127.0.0.1:1999/T0/urltoken?token=urltoken";
    place.run(&["endpoint", "create", url, "--uid", "crm"]).ok();
    (place, served)
}

#[test]
fn all_is_well_in_a_good_place() {
    let (mut place, _served) = served();
    place.set("WEBHOOKS_DEV", "true");
    let checks = Checks::of(&place, &["--endpoint", "crm"], 0);
    checks.has("server", "ok", env!("CARGO_PKG_VERSION"));
    checks.has("key", "ok", "admin");
    checks.has("endpoint", "ok", "http://127.0.0.1:1999");
    checks.has("key files", "ok", "key");
    for name in [
        "health",
        "clock",
        "queue",
        "address policy",
        "database",
        "database mode",
        "database writable",
        "database integrity",
        "disk",
        "root certificates",
        "resolver",
    ] {
        checks.has(name, "ok", "");
    }
    assert_eq!((&checks.0["ok"], checks.0.to_string().contains("urltoken")), (&true.into(), false));
}

#[test]
fn a_server_that_is_not_there_is_told_to_people() {
    let place = Place::new();
    let ended = place.run(&["doctor", "--server", "http://127.0.0.1:1"]);
    assert!(ended.out.contains("FAILED   server"), "{ended:?}");
    assert!(ended.out.contains("-> is it running? `webhooks serve` starts it"), "{ended:?}");
    ended.failed(8, &["1 of 7 checks failed"]);
}

#[test]
fn keys_that_are_wrong_missing_or_open_to_others_are_told() {
    let (mut place, served) = served();
    set_mode(&place.path("key"), 0o644);
    Checks::of(&place, &[], 8).has("key files", "failed", "chmod 600 key");
    place.write("bad", "whkey_wrong");
    set_mode(&place.path("bad"), 0o600);
    let checks = Checks::of(&place, &["--key", "@bad", "--endpoint", "crm"], 8);
    checks.has("key", "failed", "401");
    checks.has("queue", "skipped", "401");
    checks.has("endpoint", "skipped", "valid key");
    let missing = Checks::of(&place, &["--key", "@none"], 8);
    missing.has("key", "failed", "cannot read none");
    missing.has("key", "failed", "webhooks key create NAME --role admin --database FILE");
    let other = Place::new();
    Checks::of(&other, &["--server", &served.url], 8).has("key", "failed", "there is no key");
    place.write("config/webhooks/config.toml", "key = \"whkey_mine\"\n");
    set_mode(&place.path("config/webhooks/config.toml"), 0o644);
    place.unset("WEBHOOKS_KEY");
    Checks::of(&place, &[], 8).has("configuration", "failed", "config.toml");
}

#[test]
fn an_endpoint_that_gets_nothing_is_told() {
    let (place, _served) = served();
    // The service was told to deliver to this machine, and the settings here don't say so: nobody knows.
    let unsure = Checks::of(&place, &["--endpoint", "crm"], 0);
    unsure.has("address policy", "warning", "serve --dev");
    let look = |id: &str| Checks::of(&place, &["--endpoint", id], 8);
    look("none").has("endpoint", "failed", "webhooks endpoint list");
    place.run(&["endpoint", "pause", "crm"]).ok();
    look("crm").has("endpoint", "failed", "webhooks endpoint resume crm --app acme");
    place.run(&["endpoint", "disable", "crm"]).ok();
    look("crm").has("endpoint", "failed", "webhooks endpoint enable crm --app acme");
}

/// Checks that the advice for an endpoint that fails is to see why, to try again, and only then to end the attempts.
#[track_caller]
fn tells_what_mends(check: &Value) {
    let mend = check["mend"].as_str().unwrap();
    let commands = [
        "`webhooks delivery show EVENT --app acme`",
        "`webhooks delivery retry --where endpoint:crm --app acme`",
        "`webhooks endpoint disable crm --app acme`",
    ];
    let places = commands.map(|command| mend.find(command));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{mend}");
}

#[test]
fn an_endpoint_that_is_held_is_named_before_its_deliveries_are_late() {
    let (place, _served) = served();
    for _ in 0..8 {
        place.run(&["publish", "invoice.paid", "{}"]).ok();
    }
    let queue = wait_for("an open circuit breaker", || {
        let told = Checks::of(&place, &[], 0).0;
        let checks = told["checks"].as_array().unwrap();
        let queue = checks.iter().find(|check| check["name"] == "queue").unwrap();
        (queue["state"] == "warning").then(|| queue.clone())
    });
    let found = queue["found"].as_str().unwrap();
    for text in ["8 deliveries wait in all", "1 endpoint is held after failures", "acme/crm fails"]
    {
        assert!(found.contains(text), "{text:?} is not in {found}");
    }
    assert!(!found.contains("none is late"), "{found}");
    tells_what_mends(&queue);
}

/// The service knows its policy, whatever is set where the doctor runs.
#[test]
fn the_service_is_asked_whether_it_may_deliver() {
    let (place, _served) = served();
    place.run(&["publish", "invoice.paid", "{}"]).ok();
    let checks = || {
        let words = ["doctor", "--json", "--endpoint", "crm"];
        let told: Value = serde_json::from_str(&place.run(&words).out).unwrap();
        told["checks"].as_array().unwrap().clone()
    };
    let policy = || checks().into_iter().find(|check| check["name"] == "address policy").unwrap();
    until("an attempt", || policy()["state"] == "ok");
    // One attempt that failed is enough for a warning.
    let endpoint = checks().into_iter().find(|check| check["name"] == "endpoint").unwrap();
    assert_eq!(endpoint["state"], "warning", "{endpoint}");
    tells_what_mends(&endpoint);
    assert!(endpoint["found"].as_str().unwrap().contains("its last attempt failed at 20"));
    assert!(
        policy()["found"].as_str().unwrap().contains("the service sends there"),
        "{}",
        policy()
    );
}

#[test]
fn what_the_service_refuses_to_reach_is_told() {
    let mut place = Place::new();
    let networks = ["--allow-network", "127.0.0.0/8"];
    let first = place.serve(&networks);
    let url = "https://127.0.0.1:1999/hook";
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    place.run(&["endpoint", "create", url, "--uid", "crm"]).ok();
    drop(first);
    // The settings here allow it, and those of the service no longer.
    let key = place.get("WEBHOOKS_KEY").unwrap().to_owned();
    let _second = place.serve(&[]);
    place.set("WEBHOOKS_KEY", &key);
    place.set("WEBHOOKS_ALLOW_NETWORK", "127.0.0.0/8");
    place.run(&["publish", "invoice.paid", "{}"]).ok();
    until("the refusal of the service", || {
        let ended = place.run(&["doctor", "--endpoint", "crm"]);
        ended.out.contains("the service refuses it: the delivery is blocked")
    });
}

#[test]
fn a_database_that_cannot_be_used_is_told() {
    let (place, served) = served();
    set_mode(&place.path("webhooks.db"), 0o644);
    Checks::of(&place, &[], 8).has("database mode", "failed", "chmod 600");
    drop(served);
    place.write("text.db", "this is no database, but a text that is long enough to look like one");
    Checks::of(&place, &["--database", "text.db"], 8).has("database integrity", "failed", "");
    let missing = Checks::of(&place, &["--database", "none.db"], 8);
    missing.has("database", "failed", "webhooks serve --database");
    assert!(!place.path("none.db").exists());
    let missing = Checks::of(&place, &["--database", "none/w.db"], 8);
    missing.has("database", "failed", "mkdir -p none");
    let server = "postgres://u:topsecret@127.0.0.1:1/d";
    let unreachable = Checks::of(&place, &["--database", server], 8);
    unreachable.has("database", "failed", "postgres://127.0.0.1/d");
    assert!(!unreachable.0.to_string().contains("topsecret"), "{}", unreachable.0);
}

/// Answers each request on a connection of its own with this.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut seen, mut piece) = (Vec::new(), [0; 1024]);
            while !seen.ends_with(b"\r\n\r\n") {
                let len = stream.read(&mut piece).unwrap();
                if len == 0 {
                    break;
                }
                seen.extend_from_slice(&piece[..len]);
            }
            let _unsent = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn a_server_with_another_time_or_of_another_kind_is_told() {
    let place = Place::new();
    let late = answering(
        "HTTP/1.1 204 No Content\r\ndate: Wed, 01 Jan 2020 00:00:00 GMT\r\nconnection: close\r\n\r\n",
    );
    Checks::of(&place, &["--server", &late], 8).has("clock", "failed", "NTP");
    let other =
        answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    Checks::of(&place, &["--server", &other], 8).has("server", "failed", "404");
    let with_path = format!("{other}/api/v1");
    Checks::of(&place, &["--server", &with_path], 8).has("server", "failed", "leave out /api/v1");
}

/// Plants a secret in each place that holds one, and looks for them in all that is told.
#[test]
fn the_bundle_holds_no_secret() {
    let (mut place, _served) = served();
    let planted = ["topsecret", "urltoken", "0f0f0f0f"];
    let sealing = "0f".repeat(32);
    place.set("WEBHOOKS_SEALING_KEY", &sealing);
    place.write("jwt", "jwt-topsecret");
    set_mode(&place.path("jwt"), 0o600);
    place.write(
        "webhooks.toml",
        "[serve]\njwt-secret = \"@jwt\"\npublic-url = \"https://u:topsecret@hooks.test/\"\n",
    );
    let user = "[profile.p]\nkey = \"whkey_topsecret\"\n";
    place.write("config/webhooks/config.toml", user);
    place.set("WEBHOOKS_DATABASE", "postgres://u:topsecret@127.0.0.1:1/d");
    let words = ["doctor", "--endpoint", "crm", "--bundle", "bundle.json"];
    let ended = place.run(&words);
    assert_eq!(ended.code, Some(8), "{ended:?}");
    let bundle = read(&place.path("bundle.json"));
    let key = read(&place.path("key"));
    for secret in planted.iter().chain([&key.trim()]) {
        assert!(!bundle.contains(secret), "{secret} is in {bundle}");
        assert!(!format!("{ended:?}").contains(secret), "{secret} is in {ended:?}");
    }
    let told: Value = serde_json::from_str(&bundle).unwrap();
    assert!(told["metrics"].as_str().unwrap().contains("webhooks_published_total"), "{told}");
    let settings = told["settings"].as_array().unwrap();
    let setting = settings.iter().find(|row| row["setting"] == "serve.jwt-secret").unwrap();
    assert_eq!(
        (&setting["value"], &setting["origin"]),
        (&"@jwt".into(), &"file webhooks.toml".into())
    );
    let mode = std::fs::metadata(place.path("bundle.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A file that is there is not written over.
    place.run(&words).failed(1, &["cannot write bundle.json", "name another file"]);
    // A key on the command line, with the profile's key for the same server.
    let words = ["doctor", "--profile", "p", "--bundle", "second.json"];
    place.unset("WEBHOOKS_KEY");
    assert_eq!(place.run(&words).code, Some(8));
    assert!(!read(&place.path("second.json")).contains("topsecret"));
}
