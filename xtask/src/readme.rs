//! `readme`: copies the root README's programs as a reader would, and runs them against each other.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::shell::{Failure, command, failure, root};

/// The address on which the README's receiver listens, and to which its senders send.
const ADDRESS: &str = "127.0.0.1:3000";

/// The profile of the workspace, whose dependencies are built already.
const PROFILE: &str = "\n[profile.dev]\ndebug = \"line-tables-only\"\n";

/// The longest time that a program may take: far more than it needs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The interval at which a program is checked.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(crate) fn run() -> Result<(), Failure> {
    println!("\n# the README's programs, as copied");
    let readme = fs::read_to_string(root().join("README.md")).map_err(failure("read README.md"))?;
    // Another port, because 3000 may be taken: other tests may run here too.
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failure("find a free port"))?;
    let address = listener.local_addr().map_err(failure("find a free port"))?.to_string();
    drop(listener);
    let readme = readme.replace(ADDRESS, &address);
    let sender = Copied::new("sender", &readme, "## Send\n", &["send", "durable"])?;
    let receiver = Copied::new("receiver", &readme, "## Receive\n", &["receive"])?;
    let mut receiving = receiver.start("receive")?;
    let outcome = exchange(&sender, &mut receiving, &address);
    let stopped = receiving.0.kill().map_err(failure("end the receiver"));
    let received = receiving.output("the receiver")?;
    outcome?;
    stopped?;
    print!("{received}");
    for line in [r#""created": {"user_id":"123"}"#, r#""invoice.paid": {"invoice":17}"#] {
        expect("the receiver", &received, line)?;
    }
    Ok(())
}

/// Runs both senders against the receiver.
#[expect(clippy::disallowed_methods, reason = "a deadline for a program, by no clock of ours")]
fn exchange(sender: &Copied, receiving: &mut Running, address: &str) -> Result<(), Failure> {
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        if receiving.has_ended()? || start.elapsed() > PATIENCE {
            return Err(Failure(format!("the README's receiver does not listen at {address}")));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    for (program, name, line) in [
        ("send", "`Send`", "my-webhook delivered after 1 attempts"),
        ("durable", "`Send, durably`", "0 still wait"),
    ] {
        let output = sender.start(program)?.output(name)?;
        print!("{output}");
        expect(name, &output, line)?;
    }
    Ok(())
}

fn expect(program: &str, output: &str, line: &str) -> Result<(), Failure> {
    if output.lines().any(|found| found.trim_end() == line) {
        return Ok(());
    }
    Err(Failure(format!("{program} of the README did not print {line:?} but {output:?}")))
}

/// A package with the dependencies and the programs of a section.
struct Copied {
    folder: PathBuf,
}

impl Copied {
    fn new(name: &str, readme: &str, heading: &str, programs: &[&str]) -> Result<Self, Failure> {
        let folder = root().join("target/readme").join(name);
        let section = readme.split(heading).nth(1).unwrap_or_default();
        let manifest = blocks(section, "toml").next().unwrap_or_default();
        let manifest = format!(
            "[package]\nname = \"readme-{name}\"\nedition = \"2024\"\n\n{}\n[workspace]\n{PROFILE}",
            with_paths(manifest)
        );
        write(&folder.join("Cargo.toml"), &manifest)?;
        // The versions that all other tests use.
        fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock"))
            .map_err(failure("copy Cargo.lock"))?;
        let sources = blocks(section, "rust,no_run");
        for (program, source) in programs.iter().zip(sources) {
            write(&folder.join(format!("src/bin/{program}.rs")), source)?;
        }
        let copied = Self { folder };
        let mut build = copied.cargo("build");
        let status = build.status().map_err(failure("run cargo"))?;
        if !status.success() {
            return Err(Failure(format!("the README's {name} does not compile")));
        }
        Ok(copied)
    }

    fn cargo(&self, what: &str) -> Command {
        let mut cargo = command(&format!("cargo {what} --quiet"));
        cargo.current_dir(&self.folder).env("CARGO_TARGET_DIR", root().join("target"));
        cargo
    }

    /// Starts a program in its own folder, where a durable one finds nothing of an earlier run.
    fn start(&self, program: &str) -> Result<Running, Failure> {
        let folder = self.folder.join(format!("run-{program}"));
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(failure("empty a folder"))?;
        }
        fs::create_dir_all(&folder).map_err(failure("make a folder"))?;
        let path = root().join("target/debug").join(program);
        let mut run = Command::new(path);
        run.current_dir(folder).stdout(Stdio::piped());
        run.spawn().map(Running).map_err(failure(&format!("start {program}")))
    }
}

/// A running program. Dropping this ends it.
struct Running(Child);

impl Running {
    fn has_ended(&mut self) -> Result<bool, Failure> {
        Ok(self.0.try_wait().map_err(failure("wait for a program"))?.is_some())
    }

    /// Waits until it ends, and returns its output, which must be smaller than a pipe's buffer.
    #[expect(clippy::disallowed_methods, reason = "a deadline for a program, by no clock of ours")]
    fn output(&mut self, name: &str) -> Result<String, Failure> {
        let start = Instant::now();
        while !self.has_ended()? {
            if start.elapsed() > PATIENCE {
                return Err(Failure(format!("{name} of the README does not end")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let mut output = String::new();
        if let Some(stdout) = &mut self.0.stdout {
            stdout.read_to_string(&mut output).map_err(failure("read what a program prints"))?;
        }
        Ok(output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, unless something failed before.
        let _ended = self.0.kill().and_then(|()| self.0.wait()).is_ok();
    }
}

/// Returns the fenced blocks of a language, in order.
fn blocks<'r>(text: &'r str, language: &str) -> impl Iterator<Item = &'r str> {
    let start = format!("```{language}\n");
    text.split("\n```")
        .filter_map(move |part| part.split_once(start.strip_prefix("```").unwrap_or_default()))
        .filter(|(before, _)| before.is_empty())
        .map(|(_, block)| block)
}

/// Returns the dependencies, with our crates from this workspace instead of the registry.
fn with_paths(manifest: &str) -> String {
    let ours = |line: &str| -> Option<String> {
        let (name, rest) = line.split_once(" = ")?;
        let path = root().join("crates").join(name);
        if !path.exists() {
            return None;
        }
        let path = path.display();
        Some(match rest.strip_prefix('{') {
            Some(rest) => format!("{name} = {{ path = \"{path}\", {rest}"),
            None => format!("{name} = {{ path = \"{path}\" }}"),
        })
    };
    let lines = manifest.lines().map(|line| ours(line).unwrap_or_else(|| line.to_owned()) + "\n");
    lines.collect()
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(failure("make a folder"))?;
    let mut file = fs::File::create(path).map_err(failure("write a file"))?;
    file.write_all(text.as_bytes()).map_err(failure("write a file"))
}
