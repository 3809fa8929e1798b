//! Processes of this program that measure one thing alone, and the memory of a process.

use std::process::Stdio;

use tokio::process::Command;

/// The flag that the arguments of such a process come after.
const ALONE: &str = "--alone";

/// Runs a part in a process of its own; returns the figures that it prints.
pub(crate) async fn alone(part: &str, arguments: &[&str]) -> Vec<f64> {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    let command = command.arg(ALONE).arg(part).args(arguments).kill_on_drop(true);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().await.unwrap();
    assert!(output.status.success(), "{part} {arguments:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the part that this process measures, and its arguments, if it was started by [`alone`].
pub(crate) fn arguments() -> Option<Vec<String>> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next()? == ALONE).then(|| arguments.collect())
}

/// The resident memory of this process in MiB: now, and the most that it ever had (proc(5),
/// "/proc/pid/status").
pub(crate) struct Memory {
    pub(crate) now: f64,
    pub(crate) peak: f64,
}

impl Memory {
    pub(crate) fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
        };
        Self { now: mib("VmRSS:"), peak: mib("VmHWM:") }
    }
}
