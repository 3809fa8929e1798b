//! `serve`: its start, its signals, and a second copy.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::Value;

use crate::fake_service::{answer, fake_service};
use crate::program::{Place, Served, read};

#[test]
fn the_first_start_makes_a_key_and_the_second_does_not() {
    let mut place = Place::new();
    let first = place.serve(&[]);
    assert!(first.key.as_ref().unwrap().starts_with("whkey_"));
    place.run(&["app", "create", "Acme"]).ok();
    first.signal("TERM");
    assert_eq!(first.wait().code(), Some(0));
    let second = place.serve(&[]);
    assert_eq!(second.key, None);
    assert!(place.run(&["app", "list", "--server", &second.url]).ok().contains("Acme"));
}

#[test]
fn ctrl_c_ends_it_well() {
    let mut place = Place::new();
    let served = place.serve(&[]);
    served.signal("INT");
    assert_eq!(served.wait().code(), Some(0));
    assert!(read(&place.path("serve.log")).contains("ending: "));
}

#[test]
fn a_second_copy_is_told_what_is_wrong() {
    let mut place = Place::new();
    let served = place.serve(&[]);
    let address = served.url.strip_prefix("http://").unwrap().to_owned();
    place.run(&["serve", "--listen", &address]).failed(1, &["cannot listen on", "--listen"]);
    place
        .run(&["serve", "--listen", "127.0.0.1:0"])
        .failed(1, &["cannot open the database webhooks.db"]);
}

#[test]
fn the_first_key_can_go_into_a_file_that_others_cannot_read() {
    use std::os::unix::fs::PermissionsExt as _;

    let mut place = Place::new();
    let served = place.serve(&["--first-key-file", "key"]);
    assert_eq!(served.key, None);
    let mode = std::fs::metadata(place.path("key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ended = place.run(&["app", "list", "--key", "@key"]);
    assert!(!ended.err.contains("warning"), "{ended:?}");
    ended.ok();
}

#[test]
fn a_file_for_the_first_key_that_is_not_written_is_told() {
    let mut place = Place::new();
    place.write("key", "of another service");
    let words = ["serve", "--listen", "127.0.0.1:0", "--first-key-file", "key"];
    place.run(&words).failed(1, &["key, which --first-key-file names, exists", "name another"]);
    assert!(!place.path("webhooks.db").exists());
    drop(place.serve(&[]));
    // The log of a service is complete once it is ready.
    let _served = place.serve(&["--first-key-file", "new"]);
    let log = read(&place.path("serve.log"));
    let says = "webhooks.db has its keys already: --first-key-file is not written";
    assert!(log.contains(says) && !place.path("new").exists(), "{log}");
}

#[test]
fn a_setting_in_another_form_is_told_with_the_right_one() {
    let place = Place::new();
    let check = |words: &[&str], says: &str| {
        place.run(&[&["serve", "--check"], words].concat()).failed(2, &[says]);
    };
    for listen in ["8072", ":8072", "localhost:8072"] {
        check(&["--listen", listen], "write it as 127.0.0.1:8072");
    }
    check(&["--listen", "127.0.0.1"], "such as 127.0.0.1:8071");
    check(&["--allow-network", "10.0.0.1"], "write it as 10.0.0.1/32");
    let url = ["--base-path", "/hooks", "--public-url", "https://a.test"];
    check(&url, "--public-url does not end with the base path /hooks");
    let url = ["--base-path", "/hooks", "--public-url", "https://a.test/hooks/"];
    place.run(&[&["serve", "--check"], &url[..]].concat()).ok();
}

#[test]
fn a_key_without_the_sign_of_its_file_is_told() {
    let mut place = Place::new();
    let _served = place.serve(&["--first-key-file", "key.txt"]);
    place.set("WEBHOOKS_KEY", "key.txt");
    place.run(&["app", "list"]).failed(4, &["did you mean @key.txt?"]);
}

#[test]
fn a_url_that_is_not_that_of_the_service_is_told() {
    let mut place = Place::new();
    let served = place.serve(&["--base-path", "/hooks"]);
    let root = served.url.strip_suffix("/hooks").unwrap();
    let list = |url: &str| place.run(&["app", "list", "--server", url]);
    let other = fake_service(|_method, _path| answer("404 Not Found", "", b"<html>"));
    list(&other).failed(3, &["is no webhook service: it answers 404", "is there a base path"]);
    list(root).failed(3, &["is no webhook service", "is there a base path"]);
    list(&format!("{}/api/v1/", served.url)).failed(3, &["leave out /api/v1"]);
    list(&served.url.replace("http://", "https://")).failed(3, &["use http://"]);
}

#[test]
fn a_key_file_that_others_can_read_is_warned_of() {
    let mut place = Place::new();
    let served = place.serve(&[]);
    place.write("open", served.key.as_ref().unwrap());
    let ended = place.run(&["app", "list", "--key", "@open"]);
    assert!(ended.err.contains("chmod 600 open"), "{ended:?}");
    ended.ok();
}

#[test]
fn settings_are_checked_without_a_database() {
    let place = Place::new();
    place.run(&["serve", "--check"]).ok();
    assert!(!place.path("webhooks.db").exists());
    place
        .run(&["serve", "--check", "--database", "mysql://x"])
        .failed(2, &["neither a file nor a postgres:// URL"]);
    place
        .run(&["serve", "--check", "--sealing-key", "abc"])
        .failed(2, &["--sealing-key is refused"]);
    place.run(&["serve", "--check", "--roles", "api,boss"]).failed(2, &["invalid value 'boss'"]);
}

#[test]
fn a_folder_that_does_not_exist_is_named() {
    Place::new()
        .run(&["serve", "--listen", "127.0.0.1:0", "--database", "none/w.db"])
        .failed(1, &["cannot open the database none/w.db"]);
}

/// Returns the answer to a request on a connection of its own.
fn ask(served: &Served, line: &str, body: &str) -> String {
    let (_, rest) = served.url.split_once("://").unwrap();
    let address = rest.split('/').next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let (key, len) = (served.key.as_deref().unwrap(), body.len());
    let head = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len}\r\n"
    );
    let text = format!("{head}content-type: application/json\r\nconnection: close\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    told
}

#[test]
fn everything_is_under_the_base_path() {
    let mut place = Place::new();
    let served = place.serve(&["--base-path", "/team/hooks/"]);
    assert!(served.url.ends_with("/team/hooks"), "{}", served.url);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    let slash = format!("{}/", served.url);
    assert!(place.run(&["app", "list", "--server", &slash]).ok().contains("acme"));
    let get = |path: &str| ask(&served, &format!("GET {path}"), "");
    for path in ["/team/hooks/docs", "/team/hooks/metrics", "/team/hooks/api/v1/app/acme"] {
        assert!(get(path).starts_with("HTTP/1.1 200 "), "{path}");
    }
    assert!(get("/team/hooks/api/v1/health").starts_with("HTTP/1.1 204 "));
    for path in ["/", "/docs", "/api/v1/app", "/team", "/team/hooksapi/v1/app", "/team/hooks/none"]
    {
        assert!(get(path).starts_with("HTTP/1.1 404 "), "{path}");
    }
    let told = get("/team/hooks/api/v1/openapi.json");
    let document: Value = serde_json::from_str(told.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(document["servers"][0]["url"], "/team/hooks");
    assert!(document["paths"]["/api/v1/app"].is_object());
    let opened = ask(&served, "POST /team/hooks/api/v1/auth/app-portal-access/acme", "{}");
    assert!(opened.contains(&format!("{}/portal#key=", served.url)), "{opened}");
}

#[test]
fn links_to_sessions_can_lead_to_a_portal_elsewhere() {
    let mut place = Place::new();
    let served = place.serve(&["--portal-url", "https://portal.test/x/"]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    let opened = ask(&served, "POST /api/v1/auth/app-portal-access/acme", "{}");
    assert!(opened.contains("\"https://portal.test/x#key="), "{opened}");
}

#[test]
fn base_paths_and_roles_that_cannot_be_are_refused() {
    let mut place = Place::new();
    for path in ["hooks", "/a b", "/{a}", "/../x"] {
        let refused = ["invalid value", "such as /hooks"];
        place.run(&["serve", "--check", "--base-path", path]).failed(2, &refused);
    }
    for role in ["ui", "portal"] {
        let says = format!("--roles names {role:?}, which is not in this build");
        let roles = format!("api,{role}");
        place.run(&["serve", "--check", "--roles", &roles]).failed(2, &[&says, "api and worker"]);
    }
    place.set("WEBHOOKS_ROLES", "ui");
    place.run(&["serve", "--check"]).failed(2, &["WEBHOOKS_ROLES names \"ui\""]);
}

#[test]
fn a_value_of_the_environment_is_named_by_its_variable() {
    for (variable, value, says) in [
        ("WEBHOOKS_LISTEN", "nowhere", "invalid value 'nowhere' for 'WEBHOOKS_LISTEN'"),
        ("WEBHOOKS_SEALING_KEY", "abc", "WEBHOOKS_SEALING_KEY is refused"),
        ("WEBHOOKS_DATABASE", "mysql://x", "WEBHOOKS_DATABASE is neither a file nor"),
        ("WEBHOOKS_LOG_LEVEL", "loud=x", "WEBHOOKS_LOG_LEVEL is refused"),
    ] {
        let mut place = Place::new();
        place.set(variable, value);
        place.run(&["serve", "--check"]).failed(2, &[says]);
    }
    let mut place = Place::new();
    place.set("WEBHOOKS_SERVER", "");
    place.run(&["app", "list"]).failed(2, &["WEBHOOKS_SERVER is not an http or https URL"]);
    let mut place = Place::new();
    place.set("WEBHOOKS_LISTEN", "127.0.0.1:0");
    let given = ["serve", "--check", "--listen", "nowhere"];
    place.run(&given).failed(2, &["for '--listen <ADDRESS>'"]);
    place.write("webhooks.toml", "[serve]\nsealing-key = \"abc\"\n");
    place.run(&["serve", "--check"]).failed(2, &["serve.sealing-key of webhooks.toml is refused"]);
    place.set("WEBHOOKS_CONCURRENCY", "none");
    place.run(&["doctor"]).failed(2, &["'WEBHOOKS_CONCURRENCY'"]);
}

#[test]
fn a_secret_on_the_command_line_is_warned_of() {
    let mut place = Place::new();
    let key = "0f".repeat(32);
    for (option, value) in [
        ("--sealing-key", &*key),
        ("--jwt-secret", "a-secret-of-enough-bytes-for-a-token"),
        ("--database", "postgres://u:topsecret@h/d"),
    ] {
        let ended = place.run(&["serve", "--check", option, value]);
        assert!(ended.err.contains(&format!("use {option} @FILE")), "{ended:?}");
        assert!(!ended.err.contains(value), "{ended:?}");
        ended.ok();
    }
    place.set("WEBHOOKS_SEALING_KEY", &key);
    place.write_private("jwt", "a-secret-of-enough-bytes-for-a-token");
    let words = ["serve", "--check", "--jwt-secret", "@jwt", "--database", "postgres://u@h/d"];
    let ended = place.run(&words);
    assert!(!ended.err.contains("warning"), "{ended:?}");
    ended.ok();
}

/// Starts a service that others could reach, and returns its log once it is ready.
fn log_of_open_service(options: &[&str]) -> String {
    let place = Place::new();
    let log = std::fs::File::create(place.path("log")).unwrap();
    let mut command = place.command(&["serve", "--json", "--listen", "0.0.0.0:0"]);
    let mut child = command.args(options).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains("\"url\""), "{line}");
    read(&place.path("log"))
}

#[test]
fn keys_that_would_travel_without_encryption_are_warned_of_once() {
    assert_eq!(log_of_open_service(&[]).matches("without encryption").count(), 1);
    let behind_a_proxy = log_of_open_service(&["--proxy-network", "10.0.0.0/8"]);
    assert!(!behind_a_proxy.contains("without encryption"), "{behind_a_proxy}");
}
