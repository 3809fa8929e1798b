//! Runs programs from the workspace's root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A sentence about the reason why a command failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) String);

/// Returns a failure for an error that prevents an action.
pub(crate) fn failure(action: &str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure(format!("cannot {action}: {error}"))
}

/// Returns the workspace's root: that of the present folder, since several worktrees may share what
/// was built.
pub(crate) fn root() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let found = here.ancestors().find(|folder| folder.join("xtask/Cargo.toml").is_file());
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    found.map_or_else(built, Path::to_owned)
}

impl Failure {
    /// Fails if there are any findings, with a line for each.
    pub(crate) fn if_any(findings: &[String]) -> Result<(), Self> {
        if findings.is_empty() { Ok(()) } else { Err(Self(findings.join("\n       "))) }
    }
}

/// Returns the sorted paths of all files below a folder, which need not exist. Folders and files for
/// which `is_skipped` are left out.
pub(crate) fn files_below(
    folder: PathBuf,
    is_skipped: impl Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>, Failure> {
    let (mut files, mut folders) = (Vec::new(), vec![folder]);
    while let Some(folder) = folders.pop() {
        let entries = if folder.is_dir() { folder_entries(&folder)? } else { Vec::new() };
        for path in entries.into_iter().filter(|path| !is_skipped(path)) {
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}

/// Returns the sorted paths of a folder's entries.
pub(crate) fn folder_entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let what = format!("read {}", folder.display());
    let entries = fs::read_dir(folder).map_err(failure(&what))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(failure(&what))?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Returns a command for a line that is split at spaces; it runs in the root.
pub(crate) fn command(line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir(root());
    command
}

/// Prints and runs a command line, with our own output.
pub(crate) fn run(line: &str) -> Result<(), Failure> {
    run_with(line, &[])
}

/// Does the same with more variables in the environment.
pub(crate) fn run_with(line: &str, variables: &[(&str, &str)]) -> Result<(), Failure> {
    println!("\n$ {line}");
    let mut command = command(line);
    command.envs(variables.iter().copied());
    let status = command.status().map_err(failure(&format!("run `{line}`")))?;
    if status.success() { Ok(()) } else { Err(Failure(format!("`{line}` failed: {status}"))) }
}

/// Returns whether a program can be run; `line` asks for its version.
pub(crate) fn is_installed(line: &str) -> bool {
    let outcome = command(line).stdout(Stdio::null()).stderr(Stdio::null()).status();
    outcome.is_ok_and(|status| status.success())
}
