//! `no-std`: proves that webhooks-sign and everything that it links use neither std nor an
//! allocator.
//!
//! A `no_std` static library with its own panic handler links everything that it uses. With std
//! there are two panic handlers (E0152); with `alloc` an allocator is missing. Two controls, which
//! must fail for exactly these reasons, show that the proof can fail.

use std::fs;
use std::path::{Path, PathBuf};

use crate::shell::{Failure, command, failure, root, run};

/// A target without an operating system. It is built if it is installed.
const BARE_METAL: &str = "thumbv7m-none-eabi";

/// All features except `http` and `std`, which need std.
const FEATURES: &str = r#""ed25519", "p256", "sha1""#;

const MANIFEST: &str = r#"[package]
name = "probe"
version = "0.0.0"
edition = "2024"

[lib]
crate-type = ["staticlib"]

[dependencies]
webhooks-sign = { path = "SIGN", default-features = false, features = [FEATURES] }

[profile.dev]
panic = "abort"

[workspace]
"#;

const PROBE: &str = "\
#![no_std]
pub use webhooks_sign;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
";

const WITH_STD: &str = "extern crate std;\n";

const WITH_ALLOC: &str = "\
extern crate alloc;
pub extern \"C\" fn boxed() -> *mut u8 {
    alloc::boxed::Box::into_raw(alloc::boxed::Box::new(7))
}
";

pub(crate) fn run_all() -> Result<(), Failure> {
    println!("\n$ cargo xtask no-std");
    // The probes are built offline: a missing dependency must fail here, and not as a broken proof.
    run("cargo fetch --locked")?;
    for (name, features) in [("probe", ""), ("probe-features", FEATURES)] {
        match build(name, PROBE, features)? {
            Built::Yes => {
                println!("features [{features}]: links without std and without an allocator");
            }
            Built::No(reason) => {
                let which = format!("webhooks-sign with features [{features}]");
                return Err(Failure(format!("{which} is not no_std:\n{reason}")));
            }
        }
    }
    must_fail("with-std", WITH_STD, "E0152")?;
    must_fail("with-alloc", WITH_ALLOC, "no global memory allocator")?;
    bare_metal()
}

fn must_fail(name: &str, addition: &str, expected: &str) -> Result<(), Failure> {
    match build(name, &format!("{PROBE}{addition}"), FEATURES)? {
        Built::No(reason) if reason.contains(expected) => {
            println!("control {name:?} fails to build, as it must");
            Ok(())
        }
        Built::No(reason) => {
            Err(Failure(format!("control {name:?} fails without {expected:?}:\n{reason}")))
        }
        Built::Yes => Err(Failure(format!("control {name:?} builds: the probe proves nothing"))),
    }
}

enum Built {
    Yes,
    No(String),
}

/// Builds a static library of this source, with the workspace's own versions of dependencies.
fn build(name: &str, source: &str, features: &str) -> Result<Built, Failure> {
    let folder = write_probe(name, source, features).map_err(failure("write the probe"))?;
    let target = root().join("target/no-std/build");
    let mut cargo = command("cargo build --offline --quiet --manifest-path");
    cargo.arg(folder.join("Cargo.toml")).arg("--target-dir").arg(target);
    // The workspace's own RUSTFLAGS must not apply to the probe.
    let output = cargo.env_remove("RUSTFLAGS").output().map_err(failure("run cargo build"))?;
    if output.status.success() {
        return Ok(Built::Yes);
    }
    Ok(Built::No(String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn write_probe(name: &str, source: &str, features: &str) -> std::io::Result<PathBuf> {
    let folder = root().join("target/no-std").join(name);
    fs::create_dir_all(folder.join("src"))?;
    let sign = root().join("crates/webhooks-sign");
    let manifest = MANIFEST.replace("SIGN", &sign.to_string_lossy());
    fs::write(folder.join("Cargo.toml"), manifest.replace("FEATURES", features))?;
    fs::write(folder.join("src/lib.rs"), source)?;
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    Ok(folder)
}

fn bare_metal() -> Result<(), Failure> {
    let line = format!("rustc --print target-libdir --target {BARE_METAL}");
    let output = command(&line).output().map_err(failure(&format!("run `{line}`")))?;
    if !Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir() {
        println!("target {BARE_METAL} is not installed: not built for it");
        return Ok(());
    }
    let line = "cargo build -p webhooks-sign --no-default-features --locked --target";
    run(&format!("{line} {BARE_METAL}"))?;
    run(&format!("{line} {BARE_METAL} --features ed25519,p256,sha1"))
}
