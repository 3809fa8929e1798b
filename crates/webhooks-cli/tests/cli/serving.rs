//! `serve`: its start, its signals, and a second copy.

use crate::program::{Place, read};

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
