//! Files that may hold secrets.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// Writes a file that did not exist, and that others cannot read. It is on disk when the call returns. If it cannot be
/// written to its end, it is removed: half of it could pass for the whole.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if written.is_err() {
        // The first error is the one that matters.
        let _still_there = std::fs::remove_file(path);
    }
    written
}

/// Makes a file that did not exist, and that others cannot read.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
