//! A PostgreSQL server of a test's own.

use std::fs::read_dir;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Where Debian keeps what is not for everybody's path.
const ROOT: &str = "/usr/lib/postgresql";

/// A server on a socket in a temporary folder. It ends, and its data with it, when dropped.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
}

impl Cluster {
    /// Starts a server with an empty database `postgres`.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cluster = Self { folder };
        if is_root() {
            // PostgreSQL refuses to run as root.
            let owned = Command::new("chown").arg("postgres").arg(cluster.path()).status();
            assert!(owned.expect("chown").success(), "is PostgreSQL installed?");
        }
        let data = cluster.data();
        let init = ["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8"];
        run(cluster.command("initdb").args(init).arg("-D").arg(&data));
        let socket = cluster.path().display();
        let options = format!("-k {socket} -c listen_addresses='' -c fsync=off");
        let log = cluster.path().join("log");
        let start = ["start", "-w", "-o", &options];
        run(cluster.command("pg_ctl").args(start).arg("-l").arg(log).arg("-D").arg(&data));
        cluster
    }

    /// Returns a URL that leads here.
    pub fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.path().display())
    }

    /// Runs statements by `psql`, and returns what it prints.
    pub fn sql(&self, statements: &str) -> String {
        let mut psql = self.command("psql");
        psql.args(["-At", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-c", statements]);
        let output = psql.arg("-h").arg(self.path()).output().expect("psql");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Returns a command of the newest PostgreSQL that is installed.
    fn command(&self, program: &str) -> Command {
        let versions = read_dir(ROOT).expect("`cargo xtask test` installs PostgreSQL");
        let versions = versions.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let newest = versions.max_by_key(|version| version.parse::<u32>().unwrap_or(0));
        let path = format!("{ROOT}/{}/bin/{program}", newest.expect("a version"));
        let mut command = if is_root() {
            let mut runuser = Command::new("runuser");
            runuser.args(["-u", "postgres", "--", &path]);
            runuser
        } else {
            Command::new(&path)
        };
        command.current_dir(self.path());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let stop = ["stop", "-m", "immediate"];
        let mut command = self.command("pg_ctl");
        let command = command.args(stop).arg("-D").arg(self.data()).stdout(Stdio::null());
        // The test has passed or failed by now, whatever becomes of the server.
        let _ended = command.status();
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id");
    id.stdout == b"0\n"
}

fn run(command: &mut Command) {
    // Not to a pipe: the server would inherit it, and nobody would see its end.
    let status = command.stdout(Stdio::null()).status().expect("a program");
    assert!(status.success(), "{command:?}");
}
