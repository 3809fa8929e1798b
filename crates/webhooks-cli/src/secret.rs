//! Secrets of the command line: from a file, from standard input, or as they are.

use std::fs::Metadata;
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
    if std::fs::metadata(path).is_ok_and(|found| is_open(&found)) {
        Output::warn(format!("others can read {path} ({option}): run `chmod 600 {path}`"));
    }
}

/// Returns whether others than this user, for whom the file is meant, can read it.
#[cfg(unix)]
pub(crate) fn is_open(file: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    file.mode() & mode_of_others(file.uid(), rustix::process::geteuid().as_raw()) != 0
}

#[cfg(not(unix))]
pub(crate) fn is_open(_file: &Metadata) -> bool {
    false
}

/// Returns the rights on a file that nobody should have. This process may get a file of another user by reading through
/// its group: Kubernetes gives secrets so (`fsGroup`). The superuser needs no group.
#[cfg(unix)]
const fn mode_of_others(owner: u32, user: u32) -> u32 {
    if owner == user || user == 0 { 0o077 } else { 0o037 }
}

#[cfg(all(test, unix))]
mod tests {
    use super::mode_of_others;

    #[test]
    fn the_group_may_read_a_file_of_somebody_else() {
        assert_eq!(0o440 & mode_of_others(0, 65_532), 0);
        assert_ne!(0o460 & mode_of_others(0, 65_532), 0);
        assert_ne!(0o444 & mode_of_others(0, 65_532), 0);
        assert_ne!(0o440 & mode_of_others(65_532, 65_532), 0);
        assert_ne!(0o640 & mode_of_others(65_532, 0), 0);
        assert_eq!(0o600 & mode_of_others(65_532, 65_532), 0);
    }
}
