//! `test`: all tests, with everything that they need.

use std::path::Path;

use crate::shell::{Failure, is_installed, root, run};
use crate::{readme, sim};

/// The programs that tests start or compare with, and the Debian package of each.
const PROGRAMS: [(&str, &str); 8] = [
    ("openssl version", "openssl"),
    ("python3 --version", "python3"),
    ("python3 -m pip --version", "python3-pip"),
    ("node --version", "nodejs"),
    ("npm --version", "npm"),
    ("pgbouncer --version", "pgbouncer"),
    ("script --version", "bsdutils"),
    ("tmux -V", "tmux"),
];

/// The folder where Debian puts PostgreSQL, whose server is on no path, and its package.
const POSTGRES: (&str, &str) = ("/usr/lib/postgresql", "postgresql");

/// The root certificates that `HttpTransport::new` needs, in the place where Debian has them, and
/// their package.
const ROOTS: (&str, &str) = ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates");

/// Builds the program that drives the official client for Rust, in a workspace of its own.
const RUST_PEER: &str = "cargo build --quiet --locked --manifest-path tests/peers/rust/Cargo.toml --target-dir target/peers/rust";

/// The official packages of Standard Webhooks and Svix. Tests verify their signatures, and they
/// verify ours.
const PACKAGES: [(&str, &str); 5] = [
    (
        "target/peers/python/standardwebhooks",
        "python3 -m pip install --quiet --target target/peers/python standardwebhooks==1.1.0",
    ),
    (
        "target/peers/node/node_modules/standardwebhooks",
        "npm install --silent --no-audit --no-fund --prefix target/peers/node standardwebhooks@1.1.1",
    ),
    (
        "target/peers/python/svix",
        "python3 -m pip install --quiet --target target/peers/python svix==2.9.1",
    ),
    (
        "target/peers/node/node_modules/svix",
        "npm install --silent --no-audit --no-fund --prefix target/peers/node svix@2.5.0",
    ),
    (
        "target/peers/schemathesis/schemathesis",
        "python3 -m pip install --quiet --target target/peers/schemathesis -r tests/peers/schemathesis/requirements.txt",
    ),
];

pub(crate) fn run_all() -> Result<(), Failure> {
    install_packages()?;
    for (folder, line) in PACKAGES {
        if !root().join(folder).exists() {
            run(line)?;
        }
    }
    run(RUST_PEER)?;
    // webhooks-sign with its default features, as a receiver uses it; the workspace run enables all.
    run("cargo test -p webhooks-sign --locked")?;
    // All failures of one run, and little else: of thousands of lines, nobody sees the one that counts.
    run("cargo test --workspace --all-features --locked --no-fail-fast --quiet")?;
    readme::run()?;
    sim::run_test()
}

fn install_packages() -> Result<(), Failure> {
    let has_apt = is_installed("apt-get --version");
    let mut missing: Vec<&str> = (PROGRAMS.iter())
        .filter(|(version, _)| !is_installed(version))
        .map(|(_, package)| *package)
        .collect();
    if !is_installed("initdb --version") && !has_initdb(Path::new(POSTGRES.0)) {
        missing.push(POSTGRES.1);
    }
    // Systems without apt-get have their roots elsewhere.
    if has_apt && !Path::new(ROOTS.0).exists() {
        missing.push(ROOTS.1);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !has_apt {
        return Err(Failure(format!("the tests need {packages}: install them first")));
    }
    run("apt-get update")?;
    run(&format!("apt-get install -y --no-install-recommends {packages}"))
}

/// Returns whether any version of PostgreSQL in this folder has a server; clients are not enough.
fn has_initdb(folder: &Path) -> bool {
    let mut versions = folder.read_dir().into_iter().flatten().flatten();
    versions.any(|version| version.path().join("bin/initdb").exists())
}
