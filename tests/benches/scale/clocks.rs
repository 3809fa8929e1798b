//! Processor time, also that of a server.

use std::path::Path;

/// Returns the processor time in seconds that the processes of a server have used, except those that
/// have ended. It counts nanoseconds, since a claim takes less than a tick of other statistics
/// (proc(5), "/proc/pid/schedstat").
pub(crate) fn server_cpu(postmaster: u32) -> f64 {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let of_server = processes.filter(|path| is_of(path, postmaster).unwrap_or(false));
    of_server.filter_map(|path| seconds(&path)).sum()
}

/// Returns whether a process is the postmaster or one of its children.
fn is_of(process: &Path, postmaster: u32) -> Option<bool> {
    if process.ends_with(postmaster.to_string()) {
        return Some(true);
    }
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse() == Ok(postmaster))
}

/// Each process of the server has one thread.
fn seconds(process: &Path) -> Option<f64> {
    let times = std::fs::read_to_string(process.join("schedstat")).ok()?;
    Some(times.split(' ').next()?.parse::<f64>().ok()? / 1e9)
}
