//! `backup` and `restore`: nothing that was accepted is lost, and nothing half is left.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::program::Place;

/// Publishes an event; returns its id.
fn publish(place: &Place, number: usize) -> String {
    let data = format!("{{\"n\":{number}}}");
    let accepted = place.run(&["publish", "a.b", &data, "--json"]).json();
    accepted["id"].as_str().unwrap().to_owned()
}

/// Goal: a backup under load has every event that was accepted before it. Method: two threads, one publishes all the
/// time; a second service on the restored file is asked for each event.
#[test]
fn a_backup_under_load_has_every_event_that_was_accepted_before_it() {
    let mut place = Place::new();
    let served = place.serve(&[]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    let mut before: Vec<String> = (0..10).map(|number| publish(&place, number)).collect();
    let (is_over, place_of_load) = (AtomicBool::new(false), &place);
    let after = std::thread::scope(|scope| {
        let (started, has_started) = std::sync::mpsc::channel();
        let is_over = &is_over;
        let load = scope.spawn(move || {
            let mut numbers = 10..;
            while !is_over.load(Ordering::Acquire) {
                // An error means that the receiver has what it wants.
                let _enough = started.send(publish(place_of_load, numbers.next().unwrap()));
            }
            numbers.next().unwrap()
        });
        before.extend(has_started.iter().take(5));
        place.run(&["backup", "copy.db"]).ok();
        is_over.store(true, Ordering::Release);
        load.join().unwrap()
    });
    assert!(after > before.len(), "it was published meanwhile, too");
    place.run(&["restore", "copy.db", "--database", "new.db"]).ok();
    drop(served);
    let restored = place.serve(&["--database", "new.db"]);
    for event in &before {
        let shown = place.run(&["event", "show", event, "--json", "--server", &restored.url]);
        assert_eq!(shown.json()["id"], **event);
    }
    assert!(!place.path("copy.db.part").exists() && !place.path("new.db.part").exists());
}

#[test]
fn the_database_of_serve_is_the_default_and_the_copy_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let mut place = Place::new();
    place.write("webhooks.toml", "[serve]\ndatabase = \"own.db\"\n");
    let _served = place.serve(&[]);
    let made = place.run(&["backup", "copy.db", "--json"]).json();
    assert_eq!((&made["from"], &made["to"]), (&"own.db".into(), &"copy.db".into()));
    let found = std::fs::metadata(place.path("copy.db")).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert_eq!(made["bytes"], Value::from(found.len()));
}

#[test]
fn a_backup_that_is_cut_off_leaves_no_half_file() {
    let mut place = Place::new();
    let _served = place.serve(&[]);
    place.run(&["app", "create", "Acme"]).ok();
    // A file larger than 8 KiB ends the program: the signal is SIGXFSZ.
    let program = env!("CARGO_BIN_EXE_webhooks");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -f 16 && exec \"$0\" backup copy.db", program]);
    let ended = shell.current_dir(place.folder.path()).output().unwrap();
    assert!(!ended.status.success() && !place.path("copy.db").exists(), "{ended:?}");
    assert!(place.path("copy.db.part").exists(), "{ended:?}");
    // The next one is not hindered by what is left.
    place.run(&["backup", "copy.db"]).ok();
    place.run(&["restore", "copy.db", "--database", "new.db"]).ok();
    assert!(!place.path("copy.db.part").exists());
}

#[test]
fn what_is_there_is_not_overwritten() {
    let mut place = Place::new();
    let served = place.serve(&[]);
    place.run(&["app", "create", "Before"]).ok();
    place.run(&["backup", "copy.db"]).ok();
    place.run(&["app", "create", "After"]).ok();
    place.run(&["backup", "copy.db"]).failed(6, &["\"copy.db\" exists already", "--force"]);
    place.run(&["backup", "webhooks.db", "--force"]).failed(6, &["the file that is to be copied"]);
    place
        .run(&["restore", "copy.db", "--database", "copy.db", "--force"])
        .failed(6, &["copy.db\" is the file that is to be copied", "another file"]);
    place.run(&["restore", "copy.db", "--database", "webhooks.db"]).failed(6, &["--force"]);
    place
        .run(&["restore", "copy.db", "--database", "webhooks.db", "--force"])
        .failed(6, &["in use"]);
    place.run(&["backup", "--database", "postgres://h/d", "copy.db"]).failed(2, &["pg_dump"]);
    place.write_private("url", "postgres://u:topsecret@h/d");
    place.run(&["backup", "--database", "@url", "copy.db"]).failed(2, &["pg_dump"]);
    place.run(&["restore", "copy.db", "--database", "@url"]).failed(2, &["pg_dump"]);
    place
        .run(&["backup", "--database", "none.db", "new.db"])
        .failed(2, &["cannot read \"none.db\""]);
    assert!(!place.path("none.db").exists() && !place.path("new.db").exists());
    // Killed, it leaves a log, which must not reach the database that replaces its own.
    drop(served);
    assert!(place.path("webhooks.db-wal").exists());
    place.run(&["restore", "copy.db", "--database", "webhooks.db", "--force"]).ok();
    assert!(!place.path("webhooks.db-wal").exists());
    let restored = place.serve(&[]);
    let apps = place.run(&["app", "list", "--server", &restored.url]).ok();
    assert!(apps.contains("Before") && !apps.contains("After"), "{apps}");
}

/// Goal: a copy does not get the log of the database whose place it takes. Method: a service on the first copy is
/// killed, which leaves its log; the copy that replaces it is restored, which checks it, and asked for what it has.
#[test]
fn the_log_of_the_file_before_does_not_reach_a_backup() {
    let mut place = Place::new();
    let served = place.serve(&[]);
    place.run(&["app", "create", "Before"]).ok();
    place.run(&["backup", "copy.db"]).ok();
    let other = place.serve(&["--database", "copy.db"]);
    place.run(&["app", "create", "Other"]).ok();
    place
        .run(&["backup", "copy.db", "--database", "webhooks.db", "--force"])
        .failed(6, &["in use"]);
    drop(other);
    assert!(place.path("copy.db-wal").exists());
    place.run(&["app", "create", "After", "--server", &served.url]).ok();
    place.run(&["backup", "copy.db", "--force"]).ok();
    assert!(!place.path("copy.db-wal").exists() && !place.path("copy.db.part").exists());
    place.run(&["restore", "copy.db", "--database", "new.db"]).ok();
    let restored = place.serve(&["--database", "new.db"]);
    let apps = place.run(&["app", "list", "--server", &restored.url]).ok();
    assert!(apps.contains("Before") && apps.contains("After"), "{apps}");
    assert!(!apps.contains("Other"), "{apps}");
    // A log alone is not removed unasked.
    place.write("next.db-wal", "the log of a database that is gone");
    place.run(&["backup", "next.db"]).failed(6, &["next.db-wal\" exists already", "--force"]);
    assert!(!place.path("next.db").exists());
    place.run(&["backup", "next.db", "--force"]).ok();
    assert!(!place.path("next.db-wal").exists());
}

#[test]
fn a_backup_is_checked_before_it_is_restored() {
    let mut place = Place::new();
    let served = place.serve(&[]);
    place.run(&["app", "create", "Acme"]).ok();
    place.run(&["backup", "copy.db"]).ok();
    drop(served);
    place.write("text.db", &"no database ".repeat(1_000));
    place
        .run(&["restore", "text.db", "--database", "new.db"])
        .failed(6, &["not the file of a store"]);
    place.write("empty.db", "");
    place
        .run(&["restore", "empty.db", "--database", "new.db"])
        .failed(6, &["not the file of a store"]);
    // The second page and those after it are overwritten.
    let mut bytes = std::fs::read(place.path("copy.db")).unwrap();
    bytes[4_096..].fill(0x5a);
    std::fs::write(place.path("copy.db"), bytes).unwrap();
    place
        .run(&["restore", "copy.db", "--database", "new.db"])
        .failed(8, &["damaged", "older backup"]);
    assert!(!place.path("new.db").exists() && !place.path("new.db.part").exists());
}
