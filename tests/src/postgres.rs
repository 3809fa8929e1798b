//! A PostgreSQL that belongs to the tests: made in a temporary folder, reached by a socket in it,
//! and removed when the process ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::{Connection as _, PgConnection};

/// A running server. It has no network address, and nobody else uses its folder.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    databases: AtomicUsize,
    /// Stops the server and removes the folder when this process ends, for whatever reason.
    _guard: Child,
}

/// The guard's script: it waits for the end of its input, which nobody writes to; then it stops the
/// server by the command it was given, and removes the folder.
const GUARD: &str =
    r#"cat > "/dev/null"; "$@" --silent -D "$0/data" -m immediate stop; rm -rf "$0""#;

/// The pooler's script: it prints a line when the socket is there, and stops the pooler at the end
/// of its input.
const POOLER: &str = r#"pgbouncer -q "$1" > "/dev/null" &
    until [ -S "$0" ]; do kill -0 $! || exit 1; sleep 0.02; done
    echo; cat; kill $!"#;

/// Further settings of the server: answers wait for the disk (`fsync` is on). A pooler keeps two
/// connections open for each database in which a behaviour of the store was tested.
const SETTINGS: &str = "listen_addresses = ''\nmax_connections = 500\n";

/// The users that need no password: everybody except the role `guarded`.
const ACCESS: &str = "local all guarded scram-sha-256\nlocal all all trust\n";

impl Cluster {
    /// Returns the server that all tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&std::env::temp_dir(), ""))
    }

    /// Makes a server in a new folder inside `parent`, with these additional lines of settings.
    ///
    /// # Panics
    /// If PostgreSQL is not installed, or does not start.
    pub fn start(parent: &Path, settings: &str) -> Self {
        let folder = tempfile::tempdir_in(parent).expect("a folder").keep();
        if is_root() {
            let owner = Command::new("chown").arg(user()).arg(&folder).status();
            assert!(owner.expect("chown runs").success());
        }
        let control = program("pg_ctl");
        let mut guard = Command::new("sh");
        let guard = guard.args(["-c", GUARD]).arg(&folder).arg(control.get_program());
        let guard = guard.args(control.get_args()).current_dir("/").stdin(Stdio::piped());
        let guard = guard.stdout(Stdio::null()).stderr(Stdio::null());
        // A separate process group: an interrupt on the terminal is for the tests, and the guard
        // outlives them.
        let guard = std::os::unix::process::CommandExt::process_group(guard, 0);
        let guard = guard.spawn().expect("sh runs");
        let cluster = Self { folder, databases: AtomicUsize::new(0), _guard: guard };
        let data = cluster.folder.join("data");
        let mut initdb = program("initdb");
        initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust"]);
        run(initdb.args(["--username=postgres", "-D"]).arg(&data));
        let socket = format!("unix_socket_directories = '{}'\n", cluster.folder.display());
        let file = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"));
        let written = file.and_then(|mut file| {
            std::io::Write::write_all(&mut file, format!("{SETTINGS}{socket}{settings}").as_bytes())
        });
        let written = written.and_then(|()| std::fs::write(data.join("pg_hba.conf"), ACCESS));
        written.expect("the settings can be written");
        cluster.resume();
        cluster
    }

    /// Stops the server without letting it finish anything, as a crash does, and starts it again.
    pub fn crash(&self) {
        self.control(&["restart", "-m", "immediate"]);
    }

    /// Stops the server without letting it finish anything.
    pub fn stop(&self) {
        self.control(&["stop", "-m", "immediate"]);
    }

    /// Starts it again.
    pub fn resume(&self) {
        self.control(&["start"]);
    }

    fn control(&self, arguments: &[&str]) {
        let mut control = program("pg_ctl");
        control.arg("-D").arg(self.folder.join("data")).arg("-l").arg(self.folder.join("log"));
        run(control.args(["--wait", "--silent"]).args(arguments));
    }

    /// Returns the process that all other processes of the server descend from.
    pub fn process(&self) -> u32 {
        let file = std::fs::read_to_string(self.folder.join("data/postmaster.pid"));
        let file = file.expect("the server runs");
        file.lines().next().and_then(|line| line.parse().ok()).expect("a number")
    }

    /// Makes a new database and returns its URL.
    pub async fn database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let mut connection = connect(&self.url("postgres")).await;
        let create = format!("CREATE DATABASE test_{number}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut connection).await.expect("made");
        connection.close().await.expect("closed");
        self.url(&format!("test_{number}"))
    }

    /// Makes a new database with this encoding, and returns its URL.
    pub async fn encoded_database(&self, encoding: &str) -> String {
        let name = format!("test_{}", encoding.to_lowercase());
        let mut connection = connect(&self.url("postgres")).await;
        let create =
            format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
        sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut connection).await.expect("made");
        connection.close().await.expect("closed");
        self.url(&name)
    }

    /// Starts a pooler in front of the server, which gives a connection to another client after
    /// each transaction.
    ///
    /// # Panics
    /// If PgBouncer is not installed, or does not start.
    pub fn pooler(&self) -> Pooler {
        self.pooler_in("pooler")
    }

    /// Starts a [`pooler`](Self::pooler) in a folder of this name, for a test with more than one.
    pub fn pooler_in(&self, name: &str) -> Pooler {
        let folder = self.folder.join(name);
        let settings = format!(
            "[databases]\n* = host={} user=postgres\n[pgbouncer]\npool_mode = transaction\n\
             default_pool_size = 2\nserver_idle_timeout = 5\nmax_client_conn = 200\nauth_type = any\n\
             listen_addr =\nunix_socket_dir = {}\nlisten_port = 6432\nunix_socket_mode = 0777\n",
            self.folder.display(),
            folder.display()
        );
        run(as_user("mkdir").arg(&folder));
        let file = folder.join("pgbouncer.ini");
        std::fs::write(&file, settings).expect("the settings can be written");
        // It ends with this process, like the server's guard, or earlier when it is dropped.
        let mut pgbouncer = as_user("sh");
        pgbouncer.args(["-c", POOLER]).arg(folder.join(".s.PGSQL.6432")).arg(file);
        let pgbouncer = pgbouncer.current_dir("/").env("PATH", PATH).stdin(Stdio::piped());
        let process = pgbouncer.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut process = process.expect("sh runs");
        let mut said = [0];
        let output = process.stdout.as_mut().expect("it is piped");
        std::io::Read::read_exact(output, &mut said).expect("the pooler has started");
        Pooler { folder, _process: process }
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.folder.display())
    }
}

/// The folder in which Debian puts administrators' programs, besides the usual ones.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// A running PgBouncer. It ends with this process, or when it is dropped.
#[derive(Debug)]
pub struct Pooler {
    folder: PathBuf,
    _process: Child,
}

impl Pooler {
    /// Returns the URL of the same database through the pooler.
    pub fn url(&self, database: &str) -> String {
        let name = database.rsplit('/').find_map(|part| part.split_once("?host="));
        let name = name.map(|(name, _)| name).expect("a URL of this cluster");
        format!("postgres://postgres@localhost:6432/{name}?host={}", self.folder.display())
    }
}

/// Makes leases use the time that callers pass: for tests under simulated time.
pub async fn simulate_leases(url: &str) {
    const CLOCK: &str = "CREATE OR REPLACE FUNCTION webhooks.lease_clock(p_now timestamptz)
        RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT p_now $$";
    sqlx::raw_sql(CLOCK).execute(&mut connect(url).await).await.expect("replaced");
}

/// Connects to a database for the statements of a test.
pub async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("the server runs")
}

/// Runs statements, and returns the connection: what they lock stays locked until it is dropped.
pub async fn hold(url: &str, statements: &str) -> PgConnection {
    let mut connection = connect(url).await;
    let run = sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&mut connection).await;
    run.expect("the statements are right");
    connection
}

/// Returns the first column of the rows of a statement, which is a text.
///
/// # Errors
/// The error of the server, such as that there is no such table.
pub async fn texts(url: &str, statement: &str) -> Result<Vec<String>, sqlx::Error> {
    let mut connection = connect(url).await;
    let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_all(&mut connection).await;
    connection.close().await.expect("closed");
    rows
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).trim() == "0"
}

/// The user that runs the server, because the server refuses to run as root.
fn user() -> &'static str {
    let exists = |user: &&str| {
        let id = Command::new("id").arg(user).stdout(Stdio::null()).stderr(Stdio::null()).status();
        id.is_ok_and(|status| status.success())
    };
    ["postgres", "nobody"].into_iter().find(exists).expect("a user without rights")
}

/// Returns a command that is run by a user without rights.
fn as_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", user(), "--"]).arg(program);
    command
}

fn program(name: &str) -> Command {
    let mut command = as_user(programs().join(name));
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// Returns the folder of the server's programs: the one on the path, or Debian's newest.
fn programs() -> PathBuf {
    let found = Command::new("pg_config").arg("--bindir").output();
    let of_path = found.ok().filter(|found| found.status.success());
    let of_path = of_path.map(|found| PathBuf::from(String::from_utf8_lossy(&found.stdout).trim()));
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    all.sort();
    let has_initdb = |folder: &PathBuf| folder.join("initdb").exists();
    let found = of_path.into_iter().chain(all.into_iter().rev()).find(has_initdb);
    found.expect("PostgreSQL is installed: `cargo xtask test` does so, as Debian's `postgresql`")
}

fn run(command: &mut Command) {
    // The server inherits the open files, so no caller may wait for their end.
    let status = command.stdout(Stdio::null()).status().expect("the program runs");
    assert!(status.success(), "{command:?} failed: {status}");
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("the program runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
