//! The rights on files that hold secrets.

use std::path::{Path, PathBuf};

use super::check::Check;

/// Returns the check that nobody else can read these files. Those that do not exist are passed over.
pub(super) fn check(check: &'static str, files: &[PathBuf], none: &str) -> Check {
    let files: Vec<&PathBuf> = files.iter().filter(|file| file.exists()).collect();
    if files.is_empty() {
        return Check::skipped(check, none);
    }
    let names = |files: &[&PathBuf]| {
        files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ")
    };
    let open: Vec<&PathBuf> = files.iter().copied().filter(|file| is_open(file)).collect();
    if open.is_empty() {
        Check::ok(check, format!("only you can read {}", names(&files)))
    } else {
        let open = names(&open);
        Check::failed(check, format!("others can read {open}"), format!("run `chmod 600 {open}`"))
    }
}

#[cfg(unix)]
fn is_open(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    file.metadata().is_ok_and(|found| found.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open(_file: &Path) -> bool {
    false
}
