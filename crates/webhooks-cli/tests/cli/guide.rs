//! `docs/cli.md` and the README, followed word for word.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::program::{Place, read};

/// Returns the commands of a section of the guide, without the one that builds the program.
fn commands(guide: &str, heading: &str) -> String {
    let section = guide.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let blocks = section.split("```").skip(1).step_by(2);
    let blocks = blocks
        .filter_map(|block| block.strip_prefix("sh\n").or_else(|| block.strip_prefix("text\n")));
    blocks.filter(|block| !block.starts_with("cargo install")).collect()
}

#[test]
fn the_first_webhook_of_the_guide_arrives() {
    follow("docs/cli.md", "A first webhook");
}

#[test]
fn the_first_webhook_of_the_readme_arrives() {
    follow("README.md", "Without Rust");
}

fn follow(file: &str, heading: &str) {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let guide = read(&Path::new(root).join(file));
    // The ports of the guide may be taken here.
    let [free, hook] =
        [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap()).map(|port| port.local_addr());
    let (free, hook) = (free.unwrap().to_string(), hook.unwrap());
    let script = commands(&guide, heading);
    let listen = format!("listen --port {} ", hook.port());
    let hook = hook.to_string();
    let script = script.replace("127.0.0.1:8071", &free).replace("127.0.0.1:3000", &hook);
    let script = script.replace("listen --port 3000 ", &listen);
    assert!([&free, &hook, &listen].iter().all(|text| script.contains(*text)), "{script}");
    let place = Place::new();
    place.write("guide.sh", &format!("trap 'kill $(jobs -p); wait' EXIT\n{script}"));
    let bin = Path::new(env!("CARGO_BIN_EXE_webhooks")).parent().unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-eu", "guide.sh"]).current_dir(place.folder.path()).env_clear();
    bash.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env("HOME", place.folder.path());
    let ended = bash.output().unwrap();
    let out = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{out}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(out.contains("\tsuccess\t") && out.contains("  verified  -> "), "{out}");
}
