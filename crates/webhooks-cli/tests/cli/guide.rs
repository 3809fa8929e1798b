//! `docs/cli.md`, `docs/receive.md` and the README, followed word for word.

use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::program::{Place, read, wait_for};

/// The root of the workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

const SECRET: &str = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");

/// Returns the blocks of a section of a guide: the language and the code of each.
fn blocks<'a>(guide: &'a str, heading: &str) -> Vec<(&'a str, &'a str)> {
    let section = guide.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let blocks = section.split("```").skip(1).step_by(2);
    blocks.map(|block| block.split_once('\n').unwrap()).collect()
}

/// Returns the commands of a section of the guide, without the one that builds the program.
fn commands(guide: &str, heading: &str) -> String {
    let blocks = blocks(guide, heading).into_iter();
    let code = blocks.filter(|(language, _)| ["sh", "text"].contains(language));
    code.map(|(_, code)| code).filter(|code| !code.starts_with("cargo install")).collect()
}

#[test]
fn the_first_webhook_of_the_guide_arrives() {
    follow("docs/cli.md", "A first webhook");
}

#[test]
fn the_first_webhook_of_the_readme_arrives() {
    follow("README.md", "Without Rust");
}

fn follow(file: &str, heading: &str) {
    let guide = read(&Path::new(ROOT).join(file));
    // The ports of the guide may be taken here.
    let [free, hook] =
        [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap()).map(|port| port.local_addr());
    let (free, hook) = (free.unwrap().to_string(), hook.unwrap());
    let script = commands(&guide, heading);
    let listen = format!("listen --port {} ", hook.port());
    let hook = hook.to_string();
    let script = script.replace("127.0.0.1:8071", &free).replace("127.0.0.1:3000", &hook);
    let script = script.replace("listen --port 3000 ", &listen);
    assert!([&free, &hook, &listen].iter().all(|text| script.contains(*text)), "{script}");
    let place = Place::new();
    place.write("guide.sh", &format!("trap 'kill $(jobs -p); wait' EXIT\n{script}"));
    let bin = Path::new(env!("CARGO_BIN_EXE_webhooks")).parent().unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-eu", "guide.sh"]).current_dir(place.folder.path()).env_clear();
    bash.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env("HOME", place.folder.path());
    let ended = bash.output().unwrap();
    let out = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{out}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(out.contains("\tsuccess\t") && out.contains("  verified  -> "), "{out}");
}

#[test]
fn the_receiver_in_python_accepts_only_what_verifies() {
    try_receiver("python", "python3", "receiver.py");
}

#[test]
fn the_receiver_in_node_accepts_only_what_verifies() {
    try_receiver("js", "node", "receiver.mjs");
}

/// Goal: a receiver of `docs/receive.md` accepts each genuine and recent webhook, and no other one. Method: it runs
/// as it stands there, on a free port, and `webhooks sign` makes the requests.
fn try_receiver(language: &str, program: &str, file: &str) {
    let guide = read(&Path::new(ROOT).join("docs/receive.md"));
    let blocks = blocks(&guide, "7. Without Rust");
    let (_, code) = blocks.into_iter().find(|(found, _)| *found == language).unwrap();
    assert_eq!(code.matches("3000").count(), 1, "{code}");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let place = Place::new();
    place.write(file, &code.replace("3000", &free.port().to_string()));
    place.write("body.json", r#"{"invoice": 17}"#);

    // The file is empty if the command that should have written the secret into it failed.
    place.write_private("secret.txt", "\n");
    let mut receiver = Running::start(&place, program, file);
    let ended = wait_for("the end of the receiver", || receiver.0.try_wait().unwrap());
    assert!(!ended.success());
    let log = || read(&place.path("receiver.log"));
    assert!(log().contains("secret.txt holds no secret"), "{}", log());

    place.write_private("secret.txt", &format!("{SECRET}\n"));
    let mut receiver = Running::start(&place, program, file);
    wait_for("the port of the receiver", || {
        assert_eq!(receiver.0.try_wait().unwrap(), None, "{}", log());
        TcpStream::connect(free).ok()
    });
    let sign = |options: &[&str]| {
        let words = [&["sign", "--http", "--secret", "@secret.txt", "body.json"], options].concat();
        let request = place.run(&words).ok();
        request.replacen("\r\n", "\r\nhost: localhost\r\nconnection: close\r\n", 1)
    };
    let good = sign(&[]);
    let changed = |from: &str, to: &str| {
        assert_eq!(good.matches(from).count(), 1, "{good}");
        good.replace(from, to)
    };
    for (name, request, expected) in [
        ("as it was signed", good.clone(), "204"),
        ("several signatures", changed("-signature: ", "-signature: v1,AAAA v1a,AAAA "), "204"),
        ("a little old", sign(&["--timestamp", "4m"]), "204"),
        ("too old", sign(&["--timestamp", "6m"]), "401"),
        ("too early", sign(&["--timestamp", "2100-01-01T00:00:00Z"]), "401"),
        ("another body", changed("{\"invoice\": 17}", "{\"invoice\": 18}"), "401"),
        ("another id", changed("webhook-id: ", "webhook-id: x"), "401"),
        ("no timestamp", changed("webhook-timestamp: ", "x-timestamp: "), "401"),
        ("no signature", changed("webhook-signature: ", "x-signature: "), "401"),
    ] {
        assert_eq!(ask(free, &request), expected, "{name}: {request}\n{}", log());
    }
}

/// A receiver that runs until the test ends.
struct Running(Child);

impl Running {
    fn start(place: &Place, program: &str, file: &str) -> Self {
        let log = File::create(place.path("receiver.log")).unwrap();
        let mut command = Command::new(program);
        command.arg(file).current_dir(place.folder.path());
        // `cargo xtask test` installs the program if it is missing.
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Sends a request as it stands, and returns the status code of the answer.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}
