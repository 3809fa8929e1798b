//! Client libraries of others, unmodified, against the service.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use tokio::process::Command;

use crate::running::{Kind, Running};

/// Makes the virtual environment with the Python client once; returns its interpreter.
async fn python() -> PathBuf {
    static LOCK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let _one = LOCK.lock().await;
    if let Some(python) = MADE.get() {
        return python.clone();
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-clients");
    let python = folder.join("bin/python");
    let run = async |program: &Path, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).stdout(Stdio::null()).status().await;
        assert!(status.unwrap().success(), "{} {arguments:?}", program.display());
    };
    if !python.exists() {
        run(Path::new("python3"), &["-m", "venv", folder.to_str().unwrap()]).await;
    }
    // With nothing to do it takes a moment.
    let requirements = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/svix-python/requirements.txt");
    run(&python, &["-m", "pip", "install", "--quiet", "-r", requirements]).await;
    MADE.get_or_init(|| python).clone()
}

async fn drive(kind: Kind) {
    let (python, running) = (python().await, Running::start(kind).await);
    let flow = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/svix-python/flow.py");
    let mut flow = {
        let mut command = Command::new(python);
        command.arg(flow).args(["--url", &running.url, "--token", &running.key]);
        command
    };
    let output = flow.output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_of_svix_finds_all_it_needs_on_sqlite() {
    drive(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_of_svix_finds_all_it_needs_on_postgres() {
    drive(Kind::Postgres).await;
}
