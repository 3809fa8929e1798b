//! The service, a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use webhooks_admin::ApiKeyText;

use super::connection::{Connection, Request};
use super::figures::{CONCURRENCY, PAID, event};

/// The ticks of a second in `/proc/pid/stat`: all of Linux's architectures have as many (`USER_HZ`).
const TICKS: f64 = 100.0;

/// A running service. It ends when dropped.
pub(crate) struct Service {
    process: Child,
    pub(crate) address: String,
    pub(crate) key: String,
}

impl Service {
    /// Starts a service over a store in this folder, which an earlier one may have made.
    pub(crate) fn start(folder: &Path) -> Self {
        // Of the same length as those that are generated.
        let key = ApiKeyText::generate().reveal().to_owned();
        let store = folder.join("bench.db");
        let mut command = Command::new(env!("CARGO_BIN_EXE_service"));
        command.arg(store).arg(&key).arg(CONCURRENCY.to_string());
        Self::spawn(command, key)
    }

    /// Starts axum alone, in place of a service.
    pub(crate) fn axum_alone() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("--axum-alone");
        Self::spawn(command, ApiKeyText::generate().reveal().to_owned())
    }

    fn spawn(mut command: Command, key: String) -> Self {
        // The service warns at each start that it delivers to this machine.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let address = url.trim().strip_prefix("http://").unwrap().to_owned();
        Self { process, address, key }
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(&self.address).await
    }

    pub(crate) fn request(&self, path: &str, body: &str) -> Request {
        Request::new(path, &self.key, body)
    }

    /// Makes an application of this uid with endpoints.
    pub(crate) async fn add_app(&self, uid: &str, endpoints: usize, url: &str) {
        let mut connection = self.connect().await;
        let app = json!({ "name": uid, "uid": uid }).to_string();
        connection.ask(&self.request("/app", &app)).await;
        let endpoint = json!({ "url": url }).to_string();
        for _ in 0..endpoints {
            connection.ask(&self.request(&format!("/app/{uid}/endpoint"), &endpoint)).await;
        }
    }

    /// Returns the processor time that it has used, in seconds: `utime` and `stime`, the 14th and 15th
    /// field (proc(5), "/proc/pid/stat").
    pub(crate) fn cpu(&self) -> f64 {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11..=12].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS
    }

    /// Returns a line of `/proc/pid/status` in MiB: `VmRSS:` is its memory now, and `VmHWM:` the most
    /// that it ever had.
    pub(crate) fn mib(&self, name: &str) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.process.id())).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Returns a message whose payload is what the bare loop sends.
pub(crate) fn message() -> Value {
    let payload: Value = serde_json::from_str(&event(&PAID).to_json()).unwrap();
    json!({ "eventType": "order.paid", "payload": payload })
}
