//! The rights on files that hold secrets.

use std::path::PathBuf;

use super::check::Check;
use crate::secret::is_open;

/// Returns the check that nobody else can read these files. Those that do not exist are passed over.
pub(super) fn check(check: &'static str, files: &[PathBuf], none: &str) -> Check {
    let files: Vec<&PathBuf> = files.iter().filter(|file| file.exists()).collect();
    if files.is_empty() {
        return Check::skipped(check, none);
    }
    let names = |files: &[&PathBuf]| {
        files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ")
    };
    let open: Vec<&PathBuf> = files
        .iter()
        .copied()
        .filter(|file| file.metadata().is_ok_and(|found| is_open(&found)))
        .collect();
    if open.is_empty() {
        Check::ok(check, format!("only you can read {}", names(&files)))
    } else {
        let open = names(&open);
        Check::failed(check, format!("others can read {open}"), format!("run `chmod 600 {open}`"))
    }
}
