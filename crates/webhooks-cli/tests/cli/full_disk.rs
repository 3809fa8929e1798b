//! A full disk under each command that writes: a clear error, nothing half-written that looks whole, and no harm
//! to what is there.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::program::{Ended, Place, Served, first_line, wait_for};

/// Makes a disk at the folder `$0` that no other process sees.
const MAKE: &str = r#"mount -t tmpfs -o size="$SIZE" tmpfs "$0" && "#;

/// Becomes the program.
const BECOME: &str = r#"exec "$@""#;

/// Runs the program, and lists the files of the disk, which is gone with the last process that sees it.
const LIST: &str = r#"{ "$@"; code=$?; echo "--- disk"; ls -A "$0"; exit $code; }"#;

const PROGRAM: &str = env!("CARGO_BIN_EXE_webhooks");

/// The end of a run on a small disk.
struct OnDisk {
    ended: Ended,
    /// The names of the files on the disk.
    files: Vec<String>,
}

/// Returns a command in a place whose folder `disk` is a disk of this size.
fn on_small_disk(place: &Place, (size, how): (&str, &str), line: &[&str]) -> Command {
    let disk = place.path("disk");
    std::fs::create_dir_all(&disk).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &format!("{MAKE}{how}")]);
    command.arg(disk).args(line).current_dir(place.folder.path()).env_clear();
    let environment = place.command(&[]);
    command.envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("SIZE", size);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(place: &Place, size: &str, words: &[&str]) -> OnDisk {
    let line = [&[PROGRAM], words].concat();
    let mut ended = Ended::new(on_small_disk(place, (size, LIST), &line).output().unwrap());
    ended.is_orderly();
    let (out, names) = ended.out.split_once("--- disk\n").unwrap();
    let files = names.lines().map(str::to_owned).collect();
    ended.out = out.to_owned();
    OnDisk { ended, files }
}

/// Starts a program that runs on; returns it with the first line that it printed.
fn start(place: &Place, size: &str, words: &[&str]) -> (Child, Value) {
    let line = [&[PROGRAM], words].concat();
    let mut child = on_small_disk(place, (size, BECOME), &line).spawn().unwrap();
    let ready = first_line(&mut child);
    assert!(ready.is_object(), "not ready: {:?}", child.wait_with_output());
    (child, ready)
}

impl OnDisk {
    /// Checks that it failed because of the disk, and left these files.
    #[track_caller]
    fn failed(self, says: &str, files: &[&str]) {
        assert_eq!(self.files, files, "{:?}", self.ended);
        let reason = self.ended.err.contains("No space left") || self.ended.err.contains("full");
        assert!(reason, "{:?}", self.ended);
        self.ended.failed(1, &["error: ", says]);
    }
}

/// Returns a place whose service has some hundred kilobytes.
fn served() -> (Place, Served) {
    let mut place = Place::new();
    let served = place.serve(&["--dev"]);
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    place.write("large.json", &format!("{{\"text\":\"{}\"}}", "x".repeat(300_000)));
    place.run(&["publish", "a.b", "@large.json"]).ok();
    (place, served)
}

#[test]
fn a_backup_and_a_restore_leave_nothing() {
    let (place, _served) = served();
    run(&place, "64k", &["backup", "disk/copy.db"]).failed("cannot write", &[]);
    place.run(&["backup", "copy.db"]).ok();
    let words = ["restore", "copy.db", "--database", "disk/new.db"];
    run(&place, "64k", &words).failed("cannot write", &["new.db-lock"]);
}

/// The redirected output is cut off; its end shows that, and `import` refuses it.
/// Exports to a small disk, and keeps what got there.
const SCRIPT: &str =
    r#""$0" export > disk/service.toml; code=$?; cp disk/service.toml .; exit $code"#;

#[test]
fn an_export_is_told_and_refused_by_import() {
    let (place, _served) = served();
    for number in 0..40 {
        place
            .run(&[
                "event-type",
                "create",
                &format!("a.b{number}"),
                "--description",
                &"x".repeat(400),
            ])
            .ok();
    }
    let line = ["sh", "-c", SCRIPT, PROGRAM];
    let ended = on_small_disk(&place, ("8k", BECOME), &line).output().unwrap();
    Ended::new(ended).failed(1, &["cannot write the output", "No space left"]);
    place.run(&["import", "service.toml"]).failed(2, &[]);
}

#[test]
fn a_bundle_and_manual_pages_are_told() {
    let (place, _served) = served();
    run(&place, "4k", &["doctor", "--bundle", "disk/doctor.json"])
        .failed("cannot write disk/doctor.json", &[]);
    let pages = run(&place, "4k", &["man", "disk/pages"]);
    pages.failed("cannot write to disk/pages", &["pages"]);
}

#[test]
fn a_benchmark_and_a_demo_leave_nothing() {
    for words in [&["bench", "--events", "2000"][..], &["demo", "--events", "5", "--fast"]] {
        let mut place = Place::new();
        place.set("TMPDIR", place.path("disk").to_str().unwrap());
        let ended = run(&place, "64k", words);
        assert_eq!(ended.ended.code, Some(1), "{:?}", ended.ended);
        ended.failed("", &[]);
    }
}

/// Returns the small disk, as others reach it.
fn disk_of(child: &Child, place: &Place) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{}", child.id(), place.path("disk").display()))
}

/// Writes until nothing more fits on the disk.
fn fill(disk: &Path) {
    let mut file = OpenOptions::new().append(true).create(true).open(disk.join("filler")).unwrap();
    for size in [64 * 1024, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[test]
fn a_service_that_cannot_start_says_why() {
    let place = Place::new();
    let words = ["serve", "--listen", "127.0.0.1:0", "--database", "disk/webhooks.db"];
    let ended = run(&place, "64k", &words).ended;
    assert!(ended.err.contains("full") || ended.err.contains("No space left"), "{ended:?}");
    ended.failed(1, &["cannot open the database disk/webhooks.db"]);
}

/// Goal: a service refuses on a full disk, loses nothing, and is well again when there is room.
#[test]
fn a_service_recovers() {
    let mut place = Place::new();
    let options =
        ["serve", "--json", "--dev", "--listen", "127.0.0.1:0", "--database", "disk/webhooks.db"];
    let (mut child, ready) = start(&place, "8m", &options);
    place.set("WEBHOOKS_SERVER", ready["url"].as_str().unwrap());
    place.set("WEBHOOKS_KEY", ready["key"].as_str().unwrap());
    place.run(&["app", "create", "Acme", "--uid", "acme"]).ok();
    place.write("large.json", &format!("{{\"text\":\"{}\"}}", "x".repeat(100_000)));
    let publish = || place.run(&["publish", "a.b", "@large.json", "--json"]);
    let mut accepted = vec![publish().json()];
    let disk = disk_of(&child, &place);
    fill(&disk);
    // SQLite may find room in its log for a while.
    let refused = wait_for("a refusal", || {
        let ended = publish();
        match ended.code {
            Some(0) => {
                accepted.push(ended.json());
                None
            }
            _ => Some(ended),
        }
    });
    refused.failed(1, &["(503)"]);
    std::fs::remove_file(disk.join("filler")).unwrap();
    accepted
        .push(wait_for("room", || Some(publish()).filter(|ended| ended.code == Some(0))).json());
    for event in accepted {
        place.run(&["event", "show", event["id"].as_str().unwrap()]).ok();
    }
    child.kill().unwrap();
    let _reaped = child.wait();
}

/// Goal: a request that cannot be stored leaves no half file. Method: a limit on the size of files, with which a write
/// fails in the middle.
#[test]
fn a_receiver_that_cannot_store_a_request_leaves_no_half() {
    let place = Place::new();
    let program = place.command(&["listen", "--json", "--record", "requests"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"trap "" XFSZ; ulimit -f 16; exec "$0" "$@""#]);
    shell.arg(program.get_program()).args(program.get_args());
    shell.current_dir(place.folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    let ready = first_line(&mut child);
    let address = ready["url"].as_str().unwrap().trim_start_matches("http://").to_owned();
    let body = "x".repeat(200_000);
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let ended = Ended::new(child.wait_with_output().unwrap());
    ended.failed(1, &["cannot write requests/", "File too large"]);
    assert_eq!(std::fs::read_dir(place.path("requests")).unwrap().count(), 0);
}
