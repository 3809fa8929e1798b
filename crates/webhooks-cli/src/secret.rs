//! Secrets of the command line: from a file, from standard input, or as they are.

use std::io::Read as _;
use std::path::Path;

use crate::failure::Failure;
use crate::output::Output;

/// The longest secret in bytes.
const MAX_LEN: u64 = 64 * 1024;

/// Reads `@FILE`, `-` for standard input, or the text itself.
pub(crate) fn read(option: &str, text: &str) -> Result<String, Failure> {
    let mut found = String::new();
    let read = if text == "-" {
        std::io::stdin().take(MAX_LEN).read_to_string(&mut found)
    } else if let Some(path) = text.strip_prefix('@') {
        warn_of_readers(option, path);
        let file = std::fs::File::open(path);
        file.and_then(|file| file.take(MAX_LEN).read_to_string(&mut found))
    } else {
        if Path::new(text).is_file() {
            Output::warn(format!("{option} is the name of a file: did you mean @{text}?"));
        }
        return Ok(text.to_owned());
    };
    let place = if text == "-" { "standard input" } else { text.trim_start_matches('@') };
    read.map_err(|error| Failure::file("read", place, error))?;
    found.truncate(found.trim_end().len());
    if found.is_empty() {
        return Err(Failure::usage(format!("{place}, which {option} names, is empty")));
    }
    Ok(found)
}

/// Reads a secret as [`read`] does, and warns if it stands on the command line.
pub(crate) fn read_given(option: &str, text: &str) -> Result<String, Failure> {
    warn_of_literal(option, text);
    read(option, text)
}

/// Warns if a secret stands on the command line itself.
pub(crate) fn warn_of_literal(option: &str, text: &str) {
    if text != "-" && !text.starts_with('@') {
        Output::warn(format!(
            "other users of this machine can see a secret on the command line: use {option} @FILE"
        ));
    }
}

/// Warns if other users of this machine can read the file.
pub(crate) fn warn_of_readers(option: &str, path: &str) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;

        let mode =
            std::fs::metadata(path).map(|found| found.permissions().mode()).unwrap_or_default();
        if mode & 0o077 != 0 {
            Output::warn(format!("others can read {path} ({option}): run `chmod 600 {path}`"));
        }
    }
}
