//! Settings: which place counts, where each value comes from, and what is refused.

use serde_json::Value;

use crate::program::{Ended, Place};

/// Returns the value of a setting and its origin.
fn setting(ended: Ended, name: &str) -> (String, String) {
    let out = ended.ok();
    let rows = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let row = rows.into_iter().find(|row| row["setting"] == name).unwrap();
    let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
    (text("value"), text("origin"))
}

#[test]
fn each_place_counts_before_the_one_below_it() {
    let mut place = Place::new();
    let show = |place: &Place, words: &[&str]| {
        setting(place.run(&[&["config", "show", "--json"], words].concat()), "timeout")
    };
    assert_eq!(show(&place, &[]), ("30s".to_owned(), "default".to_owned()));
    place.write("config/webhooks/config.toml", "timeout = \"1s\"\n");
    let (value, origin) = show(&place, &[]);
    assert_eq!(value, "1s");
    assert!(origin.ends_with("config/webhooks/config.toml"), "{origin}");
    place.write("webhooks.toml", "timeout = \"2s\"\n");
    assert_eq!(show(&place, &[]), ("2s".to_owned(), "file webhooks.toml".to_owned()));
    place.set("WEBHOOKS_TIMEOUT", "3s");
    assert_eq!(show(&place, &[]), ("3s".to_owned(), "environment WEBHOOKS_TIMEOUT".to_owned()));
    let given = show(&place, &["--timeout", "4s"]);
    assert_eq!(given, ("4s".to_owned(), "command line".to_owned()));
}

#[test]
fn a_section_sets_the_options_of_its_command() {
    let place = Place::new();
    place.write("webhooks.toml", "[serve]\nroles = [\"api\"]\ndev = true\nconcurrency = 7\n");
    let show = |name| setting(place.run(&["config", "show", "--json"]), name).0;
    assert_eq!(
        (show("serve.roles"), show("serve.dev"), show("serve.concurrency")),
        ("api".to_owned(), "true".to_owned(), "7".to_owned())
    );
}

#[test]
fn a_profile_counts_before_the_rest_of_its_file() {
    let place = Place::new();
    let file = "server = \"http://one.test\"\n[profile.prod]\nserver = \"http://two.test\"\n";
    place.write("config/webhooks/config.toml", file);
    let server = |words: &[&str]| {
        setting(place.run(&[&["config", "show", "--json"], words].concat()), "server").0
    };
    assert_eq!(server(&[]), "http://one.test");
    assert_eq!(server(&["--profile", "prod"]), "http://two.test");
    place
        .run(&["config", "show", "--profile", "pord"])
        .failed(2, &["no file has the profile \"pord\""]);
}

#[test]
fn what_is_wrong_in_a_file_is_named_with_its_place() {
    let place = Place::new();
    for (file, says) in [
        ("listen = 3\n", "listen in the file webhooks.toml: there is no such setting"),
        ("[serve]\nlisten = 3\n", "serve.listen in the file webhooks.toml: invalid value '3'"),
        (
            "[serve]\nretention = [[1]]\n",
            "serve.retention in webhooks.toml is neither a value nor a list",
        ),
        ("[serve]\ndev = \"maybe\"\n", "serve.dev in the file webhooks.toml: it is true or false"),
        (
            "[serve]\ncheck = true\n",
            "serve.check in the file webhooks.toml: there is no such setting",
        ),
        ("[server]\nlisten = 3\n", "server in webhooks.toml is neither a value nor a list"),
        ("a = 1\nkey = whkey_secret\n", "line 2 of webhooks.toml is not TOML"),
    ] {
        place.write("webhooks.toml", file);
        let ended = place.run(&["config", "check"]);
        assert!(!ended.err.contains("whkey_secret"), "{ended:?}");
        ended.failed(2, &[says]);
    }
}

#[test]
fn a_file_that_is_named_must_exist() {
    Place::new()
        .run(&["config", "check", "--config", "none.toml"])
        .failed(2, &["cannot read none.toml"]);
}

#[test]
fn keys_and_passwords_are_not_shown() {
    let mut place = Place::new();
    place.set("WEBHOOKS_KEY", "whkey_topsecret");
    place.set("WEBHOOKS_DATABASE", "postgres://u:topsecret@h/d");
    for words in [
        &["config", "show"][..],
        &["config", "show", "--json"],
        &["serve", "--help"],
        &["serve", "--check"],
    ] {
        let ended = place.run(words);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!format!("{ended:?}").contains("topsecret"), "{ended:?}");
    }
}

/// The author of a project's file must not get the key that the user has for another server.
#[test]
fn a_project_cannot_send_the_users_key_to_a_server_of_its_own() {
    let place = Place::new();
    place.write("config/webhooks/config.toml", "key = \"whkey_mine\"\n");
    place.write("webhooks.toml", "server = \"http://127.0.0.1:1\"\n");
    place.run(&["app", "list"]).failed(4, &["would get the key of"]);
    // With a server of the user's own choice it is used.
    place.run(&["app", "list", "--server", "http://127.0.0.1:1"]).failed(3, &["no answer from"]);
}

#[test]
fn the_sample_file_is_right() {
    let place = Place::new();
    let sample = place.run(&["config", "init"]).ok();
    let open = sample
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")).unwrap_or(line));
    place.write("webhooks.toml", &open.collect::<Vec<_>>().join("\n"));
    place.run(&["config", "check"]).ok();
}
