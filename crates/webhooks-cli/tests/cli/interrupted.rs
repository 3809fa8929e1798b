//! Ctrl-C in the middle of each long command: its exit code, what it leaves, and what it says.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::fake_service::{answer, fake_service, json};
use crate::program::{Ended, Place, read, signal, wait_for};
use crate::walk::anything;

/// Starts a command; it is in the middle of its work when the server gets a request for a path with this end, which
/// it answers as if nothing had changed.
fn start(place: &mut Place, words: &[&str], end: &'static str) -> (Child, Receiver<()>) {
    let (sender, asked) = mpsc::sync_channel(1_000);
    let url = fake_service(move |method, path| {
        let mut found = anything("text_1");
        if path.ends_with(end) && method == "GET" {
            // The test has seen enough.
            let _full = sender.try_send(());
            found["status"] = "running".into();
            if !path.ends_with("/endpoint") {
                found["done"] = false.into();
                found["iterator"] = "more".into();
            }
            found["data"][0]["statusText"] = "pending".into();
        }
        json(&found)
    });
    place.set("WEBHOOKS_SERVER", &url);
    let mut command = place.command(words);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    (child, asked)
}

/// Waits until the server was asked.
#[track_caller]
fn wait(asked: &Receiver<()>) {
    asked.recv_timeout(Duration::from_mins(1)).unwrap();
}

fn interrupt(child: Child) -> Ended {
    signal(&child, "INT");
    Ended::new(child.wait_with_output().unwrap())
}

#[test]
fn commands_that_ask_the_server_say_how_to_go_on() {
    let check = |words: &[&str], end, says: &str| {
        let mut place = crate::tree::place();
        let (child, asked) = start(&mut place, words, end);
        // The second request follows the first: it is well under way.
        wait(&asked);
        wait(&asked);
        let ended = interrupt(child);
        ended.is_plain();
        ended.failed(130, &["error: interrupted", says]);
    };
    let app = ["--app", "acme"];
    check(
        &[&["publish", "a.b", "{}", "--wait"], &app[..]].concat(),
        "/endpoint",
        "the event is accepted; what becomes of it: webhooks delivery show text_1 --app acme",
    );
    let recover = ["endpoint", "recover", "crm", "--since", "2h"];
    check(&[&recover[..], &app].concat(), "/background-task/text_1", "the job goes on");
    check(&["export", "--json"], "/event-type", "`webhooks import` refuses it: export again");
    check(&["app", "list", "--limit", "1000000"], "/app", "interrupted");
}

/// Starts a server that never answers, and says when it was asked.
fn silent() -> (String, Receiver<()>) {
    let (sender, asked) = mpsc::sync_channel(1_000);
    let url = fake_service(move |_method, _path| {
        let _told = sender.send(());
        loop {
            std::thread::park();
        }
    });
    (url, asked)
}

#[test]
fn each_command_ends_while_the_server_is_silent() {
    let (url, asked) = silent();
    let mut place = crate::tree::place();
    place.set("WEBHOOKS_SERVER", &url);
    let remote = crate::tree::remote().map(crate::tree::Listed::example);
    for words in remote.chain([vec!["doctor".to_owned()]]) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = place.command(&words);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait(&asked);
        let ended = interrupt(child);
        ended.is_plain();
        // People end a tail in this way, and it has nothing to say.
        let says: &[&str] = if words.contains(&"tail") { &[] } else { &["error: interrupted"] };
        ended.failed(130, says);
    }
}

/// Goal: the second signal ends a service at once. Method: a delivery is under way that never ends.
#[test]
fn a_service_ends_at_once_by_a_second_signal() {
    let mut place = Place::new();
    let served = place.serve(&["--dev"]);
    let receiver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hook = format!("http://{}/", receiver.local_addr().unwrap());
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    place.run(&["endpoint", "create", &hook, "--app", "acme"]).ok();
    place.run(&["publish", "a.b", "--app", "acme"]).ok();
    let _under_way = receiver.accept().unwrap();
    served.signal("INT");
    let log = place.path("serve.log");
    wait_for("the end", || read(&log).contains("a second signal ends at once").then_some(()));
    served.signal("INT");
    assert_eq!(served.wait().code(), Some(130));
    assert!(read(&log).contains("nothing is lost"));
}

/// Goal: an import that is interrupted is finished by the next one. Method: the server refuses nothing and is silent
/// at the second application.
#[test]
fn an_import_can_be_run_again() {
    let mut place = Place::new();
    let (sender, asked) = mpsc::sync_channel(10);
    let url = fake_service(move |_method, path| {
        if path.ends_with("/two") {
            let _told = sender.send(());
            loop {
                std::thread::park();
            }
        }
        answer("404 Not Found", "", b"{}")
    });
    place.set("WEBHOOKS_SERVER", &url);
    let app = |uid: &str| format!("[[applications]]\nuid = \"{uid}\"\nname = \"{uid}\"\n");
    let file = format!("version = 1\n{}{}[end]\nscope = \"all\"\n", app("one"), app("two"));
    place.write("service.toml", &file);
    let mut command = place.command(&["import", "service.toml"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait(&asked);
    interrupt(child).failed(130, &["interrupted", "run it again to go on"]);
}

/// A read of standard input is woken by nothing.
#[test]
fn commands_that_wait_for_standard_input_end() {
    for words in
        [&["publish", "a.b", "-"][..], &["import", "-"], &["sign", "--secret", "@secret.txt", "-"]]
    {
        let place = crate::tree::place();
        let mut command = place.command(words);
        let mut child = command
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // More than a pipe holds: once it is written, the program reads, and waits for more.
        let mut input = child.stdin.take().unwrap();
        input.write_all(&vec![b' '; 256 * 1024]).unwrap();
        let ended = interrupt(child);
        ended.failed(130, &["interrupted"]);
    }
}

/// Goal: an unfinished copy is gone. Method: the database is large, and the signal comes when a part of the copy is
/// there; a copy that is quicker is made again.
#[test]
fn a_backup_and_a_restore_leave_no_part() {
    let mut place = Place::new();
    let served = place.serve(&[]);
    place.run(&["app", "create", "Acme"]).ok();
    for _ in 0..40 {
        place.write("large.json", &format!("{{\"text\":\"{}\"}}", "x".repeat(500_000)));
        place.run(&["publish", "a.b", "@large.json"]).ok();
    }
    place.run(&["backup", "whole.db"]).ok();
    drop(served);
    for (words, to) in [
        (&["backup", "copy.db"][..], "copy.db"),
        (&["restore", "whole.db", "--database", "new.db"], "new.db"),
    ] {
        let (part, to) = (place.path(&format!("{to}.part")), place.path(to));
        let ended = wait_for("an interruption in the middle", || {
            let child =
                place.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            wait_for("the copy", || {
                let len = std::fs::metadata(&part).map_or(0, |found| found.len());
                (len > 0 || to.exists()).then_some(())
            });
            let ended = interrupt(child);
            let is_whole = ended.code == Some(0);
            assert_eq!(to.exists(), is_whole, "{ended:?}");
            assert!(!part.exists(), "{ended:?}");
            // A copy that was quicker is made again.
            let _removed = std::fs::remove_file(&to);
            (!is_whole).then_some(ended)
        });
        ended.failed(130, &["interrupted", "run it again"]);
    }
}

#[test]
fn a_benchmark_leaves_no_folder() {
    let mut place = Place::new();
    let temporary = place.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    place.set("TMPDIR", temporary.to_str().unwrap());
    let mut command = place.command(&["bench", "--events", "1000000"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let is_empty = || std::fs::read_dir(&temporary).unwrap().next().is_none();
    wait_for("the folder", || (!is_empty()).then_some(()));
    interrupt(child).failed(130, &["interrupted"]);
    assert!(is_empty());
}
