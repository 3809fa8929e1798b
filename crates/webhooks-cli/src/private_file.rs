//! Files that may hold secrets.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Makes a file that did not exist, and that others cannot read.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
