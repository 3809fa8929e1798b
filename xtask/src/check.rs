//! `check`: everything that is not a test.

use crate::shell::{Failure, is_installed, run, run_with};
use crate::{layers, no_std, prose};

/// The version of cargo-deny to install if there is none. Without optimization it is built in half of the time, and
/// the check takes seconds in any case.
const CARGO_DENY: &str = "cargo install --locked --debug cargo-deny --version 0.20.2";

/// The feature sets that matter: all at once, and those that a receiver uses alone, each by itself.
const CLIPPY: [&str; 18] = [
    "cargo clippy --workspace --all-targets --all-features --locked -- -D warnings",
    "cargo clippy -p webhooks-sign --all-targets --no-default-features --locked -- -D warnings",
    "cargo clippy -p webhooks-sign --features ed25519 --locked -- -D warnings",
    "cargo clippy -p webhooks-sign --features http --locked -- -D warnings",
    "cargo clippy -p webhooks-sign --features p256 --locked -- -D warnings",
    "cargo clippy -p webhooks-sign --features sha1 --locked -- -D warnings",
    "cargo clippy -p webhooks-receive --all-targets --locked -- -D warnings",
    "cargo clippy -p webhooks-receive --features axum --locked -- -D warnings",
    "cargo clippy -p webhooks-receive --features memory --locked -- -D warnings",
    "cargo clippy -p webhooks-receive --features postgres --locked -- -D warnings",
    "cargo clippy -p webhooks-receive --features sqlite --locked -- -D warnings",
    "cargo clippy -p webhooks-receive --features tracing --locked -- -D warnings",
    "cargo clippy -p webhooks-dispatch --features tracing --locked -- -D warnings",
    "cargo clippy -p webhooks-http --lib --examples --locked -- -D warnings",
    "cargo clippy -p webhooks-conformance --locked -- -D warnings",
    "cargo clippy -p webhooks --locked -- -D warnings",
    "cargo clippy -p webhooks --no-default-features --features axum --locked -- -D warnings",
    "cargo clippy -p webhooks --features postgres,sqlite,tracing --locked -- -D warnings",
];

const DOC: &str =
    "cargo doc --workspace --no-deps --all-features --document-private-items --locked";

pub(crate) fn run_all() -> Result<(), Failure> {
    install()?;
    run("cargo fmt --all --check")?;
    for line in CLIPPY {
        run(line)?;
    }
    run_with(DOC, &[("RUSTDOCFLAGS", "-D warnings")])?;
    layers::run()?;
    prose::run("")?;
    no_std::run_all()?;
    run("cargo deny --locked --all-features check bans licenses sources")
}

fn install() -> Result<(), Failure> {
    if !is_installed("cargo fmt --version") || !is_installed("cargo clippy --version") {
        run("rustup component add rustfmt clippy")?;
    }
    if !is_installed("cargo deny --version") {
        run(CARGO_DENY)?;
    }
    Ok(())
}
