//! The checks of the database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use webhooks_sqlite::{Inspection, inspect};

use super::check::Check;
use super::mode;
use crate::store::Database;

/// The space on the disk that a service needs for its log and for a burst.
const SPACE: u64 = 256 * 1024 * 1024;

/// The longest time for reading the whole file.
const READING: Duration = Duration::from_secs(20);

/// Checks a database. `is_named` tells whether somebody said that it is there.
pub(super) async fn check(database: &Database, is_named: bool) -> Vec<Check> {
    match database.file() {
        Some(file) => check_file(file, is_named).await,
        None => vec![check_server(database).await],
    }
}

async fn check_server(database: &Database) -> Check {
    const MEND: &str =
        "is PostgreSQL running there, and are user, password and database of the URL right?";
    match database.server_version().await {
        Ok(version) => {
            let version = version.unwrap_or_default();
            Check::ok("database", format!("{database} answers: PostgreSQL {version}"))
        }
        Err(failure) => Check::failure("database", &failure, MEND),
    }
}

async fn check_file(file: &Path, is_named: bool) -> Vec<Check> {
    let shown = file.display();
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    if !folder.is_dir() {
        let mend = format!("make it with `mkdir -p {}`", folder.display());
        return vec![Check::failed("database", format!("{shown} has no folder"), mend)];
    }
    if !file.exists() {
        let found = format!("there is no file {shown}");
        let check = if is_named {
            let mend = "`webhooks serve --database FILE` makes it; --database names another one";
            Check::failed("database", found, mend)
        } else {
            Check::skipped("database", format!("{found}; --database names one"))
        };
        return vec![check, check_space(folder)];
    }
    if !file.is_file() {
        let mend = "--database must name a file";
        return vec![Check::failed("database", format!("{shown} is no file"), mend)];
    }
    let size = file.metadata().map(|found| found.len()).unwrap_or_default();
    vec![
        Check::ok("database", format!("{shown} has {}", megabytes(size))),
        mode::check("database mode", &files(file), "there is no file"),
        check_writable(file, folder),
        check_space(folder),
        check_integrity(file).await,
    ]
}

/// Returns the files of a store.
fn files(file: &Path) -> Vec<PathBuf> {
    let beside = |suffix: &str| {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    vec![file.to_owned(), beside("-wal"), beside("-shm")]
}

async fn check_integrity(file: &Path) -> Check {
    const CHECK: &str = "database integrity";
    const MEND: &str = "stop the service, keep a copy of the file, and go back to a backup";
    match inspect(file, READING).await {
        Ok(Inspection::Sound) => Check::ok(CHECK, "every page is sound"),
        Ok(Inspection::Damaged { faults }) => {
            Check::failed(CHECK, format!("it is damaged: {}", faults.join("; ")), MEND)
        }
        Ok(_unfinished) => {
            let seconds = READING.as_secs();
            Check::skipped(CHECK, format!("no fault within {seconds} s; the file is larger"))
        }
        Err(error) => {
            let failure = crate::failure::Failure::usage("it cannot be read").because(error);
            Check::failure(CHECK, &failure, MEND)
        }
    }
}

#[cfg(unix)]
fn check_writable(file: &Path, folder: &Path) -> Check {
    use rustix::fs::{Access, access};

    const CHECK: &str = "database writable";
    // SQLite makes files beside it.
    match [file, folder].into_iter().find(|path| access(*path, Access::WRITE_OK).is_err()) {
        None => Check::ok(CHECK, "this user can write to the file and its folder"),
        Some(path) => {
            let (path, mend) =
                (path.display(), "run the service as the owner, or change the owner");
            Check::failed(CHECK, format!("this user cannot write to {path}"), mend)
        }
    }
}

#[cfg(not(unix))]
fn check_writable(file: &Path, _folder: &Path) -> Check {
    const CHECK: &str = "database writable";
    match file.metadata() {
        Ok(found) if !found.permissions().readonly() => Check::ok(CHECK, "the file can be written"),
        _ => Check::failed(CHECK, "the file is read-only", "allow writing to it"),
    }
}

#[cfg(unix)]
fn check_space(folder: &Path) -> Check {
    const CHECK: &str = "disk";
    match rustix::fs::statvfs(folder) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            judge_space(CHECK, free, folder)
        }
        Err(error) => Check::skipped(CHECK, format!("the free space is not known: {error}")),
    }
}

#[cfg(not(unix))]
fn check_space(_folder: &Path) -> Check {
    Check::skipped("disk", "the free space is not known on this system")
}

#[cfg_attr(not(unix), expect(dead_code, reason = "the free space is not known"))]
fn judge_space(check: &'static str, free: u64, folder: &Path) -> Check {
    let found = format!("{} are free in {}", megabytes(free), folder.display());
    if free >= SPACE {
        Check::ok(check, found)
    } else {
        let needed = megabytes(SPACE);
        let mend = format!("free some: at least {needed}, or a shorter `serve --retention`");
        Check::failed(check, found, mend)
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_space_is_a_fault_that_says_how_much_is_needed() {
        let folder = Path::new("/data");
        assert!(!judge_space("disk", SPACE, folder).is_failed());
        let check = judge_space("disk", SPACE - 1, folder);
        assert!(check.is_failed() && check.mend.unwrap().contains("256 MiB"));
    }
}
