//! Processor time, also that of a server.

use std::path::Path;

/// The ticks of a second in `/proc/pid/stat`: all of Linux's architectures have as many (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Returns the processor time in seconds that the processes of a server have used. It counts
/// nanoseconds, since a claim takes less than a tick of other statistics (proc(5),
/// "/proc/pid/schedstat"); for those that have ended, it counts ticks.
pub(crate) fn server_cpu(postmaster: u32) -> f64 {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let of_server = processes.filter(|path| is_of(path, postmaster).unwrap_or(false));
    let living: f64 = of_server.filter_map(|path| seconds(&path)).sum();
    living + of_ended(postmaster).unwrap()
}

/// Returns the seconds that the children of a process have used which have ended: `cutime` and `cstime`,
/// the 16th and 17th field (proc(5), "/proc/pid/stat").
fn of_ended(process: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = [13, 14].map(|field: usize| fields.get(field)?.parse::<f64>().ok());
    Some((ticks[0]? + ticks[1]?) / TICKS)
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
