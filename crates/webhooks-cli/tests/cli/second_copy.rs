//! The same command twice at the same time: both are right, or one says why it is not.

use std::process::{Child, Stdio};

use crate::program::{Ended, Place};

/// Starts a command several times at once, and returns the ends.
fn at_once(place: &Place, times: usize, words: &[&str]) -> Vec<Ended> {
    let start = |_| -> Child {
        let mut command = place.command(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    #[expect(clippy::needless_collect, reason = "all run before one is waited for")]
    let children: Vec<Child> = (0..times).map(start).collect();
    children.into_iter().map(|child| Ended::new(child.wait_with_output().unwrap())).collect()
}

#[test]
fn one_of_several_backups_to_one_file_is_made() {
    let mut place = Place::new();
    let _served = place.serve(&[]);
    place.run(&["app", "create", "Acme"]).ok();
    let ends = at_once(&place, 4, &["backup", "copy.db"]);
    assert_eq!(ends.iter().filter(|ended| ended.code == Some(0)).count(), 1, "{ends:?}");
    for ended in ends.into_iter().filter(|ended| ended.code != Some(0)) {
        let says = ["exists already", "another process writes"];
        assert!(says.iter().any(|says| ended.err.contains(says)), "{ended:?}");
        ended.failed(6, &["nothing was copied"]);
    }
    for ended in at_once(&place, 4, &["backup", "copy.db", "--force"]) {
        assert!(matches!(ended.code, Some(0 | 6)), "{ended:?}");
    }
    assert!(!place.path("copy.db.part").exists());
    let ends = at_once(&place, 4, &["restore", "copy.db", "--database", "new.db"]);
    assert_eq!(ends.iter().filter(|ended| ended.code == Some(0)).count(), 1, "{ends:?}");
    for ended in ends.into_iter().filter(|ended| ended.code != Some(0)) {
        ended.failed(6, &["nothing was copied"]);
    }
    let restored = place.serve(&["--database", "new.db"]);
    assert!(place.run(&["app", "list", "--server", &restored.url]).ok().contains("Acme"));
}

#[test]
fn imports_at_the_same_time_make_nothing_twice() {
    let mut place = Place::new();
    let _served = place.serve(&[]);
    let mut file = "version = 1\n".to_owned();
    for number in 0..10 {
        let table = format!("[[applications]]\nuid = \"app-{number}\"\nname = \"{number}\"\n");
        file.push_str(&table);
    }
    place.write("service.toml", &(file + "[end]\nscope = \"all\"\n"));
    let ends = at_once(&place, 3, &["import", "service.toml"]);
    for ended in &ends {
        // One that was made meanwhile is refused, and named.
        let is_told = ended.code == Some(0) || ended.err.contains("application app-");
        assert!(matches!(ended.code, Some(0 | 7)) && is_told, "{ended:?}");
    }
    let made: usize = ends.iter().map(|ended| ended.out.matches("+ application").count()).sum();
    assert_eq!(made, 10, "{ends:?}");
    assert_eq!(place.run(&["app", "list"]).ok().lines().count(), 10);
    let again = place.run(&["import", "service.toml"]);
    assert!(again.err.contains("0 made, 0 changed, 10 left"), "{again:?}");
}

#[test]
fn demos_and_benchmarks_do_not_disturb_each_other() {
    let place = Place::new();
    for ended in at_once(&place, 2, &["demo", "--events", "5", "--fast"]) {
        assert!(ended.ok().contains("every promise held"));
    }
    for ended in at_once(&place, 2, &["bench", "--events", "20"]) {
        assert!(ended.ok().contains("events/s"));
    }
}

#[test]
fn a_second_receiver_and_a_second_bundle_are_told() {
    let place = Place::new();
    let mut command = place.command(&["listen", "--json"]);
    let mut first = command.stdout(Stdio::piped()).spawn().unwrap();
    let ready = crate::program::first_line(&mut first);
    let port = ready["url"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    place.run(&["listen", "--port", &port]).failed(1, &["cannot listen on port", "--port names"]);
    crate::program::signal(&first, "TERM");
    let _ended = first.wait();
    // Without a server, its checks fail, and the bundle is written.
    let words = ["doctor", "--server", "http://127.0.0.1:1", "--bundle", "doctor.json"];
    place.run(&words).failed(8, &["written: doctor.json"]);
    place.run(&words).failed(1, &["cannot write doctor.json", "name another file"]);
}
