//! The service of the demo: a child process of this program.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::failure::{Exit, Failure};

/// The time that the service has to be ready.
const START: Duration = Duration::from_secs(15);

/// The lines of the service's log that a failure shows.
const SHOWN: usize = 5;

/// The service, which is dead when it is dropped.
pub(super) struct Service {
    folder: PathBuf,
    child: Option<Child>,
}

impl Service {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), child: None }
    }

    /// Returns the file of the database.
    pub(super) fn database(&self) -> PathBuf {
        self.folder.join("webhooks.db")
    }

    /// Returns the file of the administrator's key, which the first start makes.
    pub(super) fn key_file(&self) -> PathBuf {
        self.folder.join("key")
    }

    /// Starts the service on the same file as before; returns its URL when it is ready.
    pub(super) async fn start(&mut self) -> Result<String, Failure> {
        let because = |error| failed().because(error);
        let mut child = self.command().map_err(because)?.spawn().map_err(because)?;
        let out = child.stdout.take();
        self.child = Some(child);
        let mut line = String::new();
        if let Some(out) = out {
            let mut out = BufReader::new(out);
            let read = timeout(START, out.read_line(&mut line)).await;
            let _len = read.map_err(|late| failed().because(late))??;
        }
        let ready: Value = serde_json::from_str(&line).unwrap_or_default();
        ready["url"].as_str().map(str::to_owned).ok_or_else(|| failed().hint(self.log()))
    }

    /// Kills the service as a crash does: it can end nothing and write nothing. Returns when it is gone.
    ///
    /// # Cancellation
    /// It may still run; call this again.
    pub(super) async fn kill(&mut self) -> Result<(), Failure> {
        if let Some(child) = &mut self.child {
            let killed = child.kill().await;
            killed.map_err(|error| {
                Failure::new(Exit::Failed, "cannot kill the service").because(error)
            })?;
        }
        self.child = None;
        Ok(())
    }

    /// Returns the command, with nothing of the user's configuration: the demo is the same everywhere.
    fn command(&self) -> std::io::Result<Command> {
        let mut options = OpenOptions::new();
        let log = options.create(true).append(true).open(self.folder.join("serve.log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--dev", "--json", "--listen", "127.0.0.1:0"]);
        command.arg("--database").arg(self.database());
        command.arg("--first-key-file").arg(self.key_file());
        let ours = |name: &str| name.starts_with("WEBHOOKS_") || name.starts_with("LISTEN_");
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(ours) {
                command.env_remove(name);
            }
        }
        command.env_remove("NOTIFY_SOCKET").env("XDG_CONFIG_HOME", &self.folder);
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.kill_on_drop(true);
        Ok(command)
    }

    /// Returns the last lines that the service said.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("serve.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(SHOWN)..];
        format!("it said: {}", last.join("\n  "))
    }
}

fn failed() -> Failure {
    Failure::new(Exit::Failed, "the service does not start")
}
