//! `test`: everything, with whatever it needs.

use crate::shell::{Failure, is_installed, run};

/// The programs that tests check against, and the Debian package of each.
const PEERS: [(&str, &str); 2] = [("openssl version", "openssl"), ("python3 --version", "python3")];

pub(crate) fn run_all() -> Result<(), Failure> {
    install_peers()?;
    run("cargo test --workspace --all-features --locked")
}

fn install_peers() -> Result<(), Failure> {
    let missing: Vec<&str> = (PEERS.iter())
        .filter(|(version, _)| !is_installed(version))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !is_installed("apt-get --version") {
        return Err(Failure(format!("the tests compare with {packages}: install them first")));
    }
    run("apt-get update")?;
    run(&format!("apt-get install -y --no-install-recommends {packages}"))
}
