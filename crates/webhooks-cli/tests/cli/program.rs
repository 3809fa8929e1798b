//! The program, started in a folder of its own with an environment of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

/// A folder in which the program runs.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    environment: Vec<(String, String)>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Writes a file that others cannot read.
    pub(crate) fn write_private(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;

        self.write(name, text);
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.environment.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.environment.retain(|(found, _)| found != name);
    }

    /// Returns the program with these words. Nothing of this machine's environment reaches it.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_webhooks"));
        command.args(words).current_dir(self.folder.path()).env_clear();
        command.env("HOME", self.folder.path()).env("XDG_CONFIG_HOME", self.path("config"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        Ended::new(self.command(words).output().unwrap())
    }

    /// Runs the program with a text on its standard input.
    pub(crate) fn run_with(&self, words: &[&str], input: &str) -> Ended {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may end before it reads everything.
        let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
        Ended::new(child.wait_with_output().unwrap())
    }

    /// Starts a service, and lets the commands of this place use it.
    pub(crate) fn serve(&mut self, options: &[&str]) -> Served {
        let served = Served::start(self, options);
        self.set("WEBHOOKS_SERVER", &served.url);
        if let Some(key) = &served.key {
            self.set("WEBHOOKS_KEY", key);
        }
        served
    }
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Returns the output of a run that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Returns the one object that it printed.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Checks that it failed with this code and said this.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let err = self.prose();
        for text in says {
            assert!(err.contains(text), "{text:?} is not in {self:?}");
        }
    }

    /// Returns what it said, with an error that is an object in the words that it has without `--json`.
    fn prose(&self) -> String {
        let last = self.err.lines().next_back().unwrap_or_default();
        let Ok(object) = serde_json::from_str::<Value>(last) else { return self.err.clone() };
        let (error, text) =
            (&object["error"], |of: &Value| of.as_str().unwrap_or_default().to_owned());
        format!("{}error: {}\n  {}", self.err, text(&error["detail"]), text(&error["hint"]))
    }

    /// Checks that it ended in an orderly way: with a code of its own, and without a panic.
    #[track_caller]
    pub(crate) fn is_orderly(&self) {
        assert!(self.code.is_some_and(|code| code < 10), "{self:?}");
        assert!(!self.err.contains("panicked") && !self.out.contains("panicked"), "{self:?}");
    }

    /// Checks that nothing that a terminal obeys was printed.
    #[track_caller]
    pub(crate) fn is_plain(&self) {
        for text in [&self.out, &self.err] {
            assert!(!has_controls(text), "{self:?}");
        }
    }
}

/// Returns whether a text has characters that a terminal obeys, or that change the order of letters.
pub(crate) fn has_controls(text: &str) -> bool {
    let hidden = |letter: char| {
        (letter.is_control() && !matches!(letter, '\n' | '\t'))
            || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.contains(hidden)
}

/// A service that runs.
pub(crate) struct Served {
    child: Child,
    pub(crate) url: String,
    pub(crate) key: Option<String>,
}

impl Served {
    fn start(place: &Place, options: &[&str]) -> Self {
        let mut command = place.command(&["serve", "--json"]);
        if !options.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let log = std::fs::File::create(place.path("serve.log")).unwrap();
        let mut child = command.args(options).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let ready = first_line(&mut child);
        assert!(ready.is_object(), "not ready: {}", read(&place.path("serve.log")));
        let text = |name: &str| ready[name].as_str().map(str::to_owned);
        Self { child, url: text("url").unwrap_or_default(), key: text("key") }
    }

    /// Calls the API with a key: a request that no command makes.
    pub(crate) fn ask(&self, key: &str, method: &str, path: &str, body: &Value) -> Value {
        use std::io::Read as _;

        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let body = body.to_string();
        let text = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
        if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() }
    }

    /// Sends the signal by which service managers and Ctrl-C end a program.
    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Returns the JSON on the first line that a program prints.
pub(crate) fn first_line(child: &mut Child) -> Value {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_default()
}

/// Sends a signal to a process: by the shell, since a bare machine has no program `kill`.
pub(crate) fn signal(child: &Child, name: &str) {
    let line = format!("kill -s {name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
}

/// Looks again and again until something is there. It is not late before a minute is over.
#[track_caller]
pub(crate) fn wait_for<T>(name: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = SystemClock.monotonic();
    loop {
        if let Some(found) = look() {
            return found;
        }
        let waited = SystemClock.monotonic().saturating_since(start);
        assert!(waited < Duration::from_mins(1), "{name} did not come");
        std::thread::yield_now();
    }
}
