//! `docs/cli.md`, followed word for word.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::program::{Place, read};
use crate::receiver::receiver;

/// Returns the commands of a section of the guide.
fn commands(guide: &str, heading: &str) -> String {
    let section = guide.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.collect()
}

#[test]
fn the_first_webhook_of_the_guide_arrives() {
    let guide = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md")));
    // The ports of the guide may be taken here.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let hook = receiver("204 No Content");
    let script = commands(&guide, "A first webhook");
    let script =
        script.replace("127.0.0.1:8071", &free).replace("http://127.0.0.1:3000/hook", &hook);
    assert!(script.contains(&free) && script.contains(&hook), "{script}");
    let place = Place::new();
    place.write("guide.sh", &format!("trap 'kill %1; wait' EXIT\n{script}"));
    let bin = Path::new(env!("CARGO_BIN_EXE_webhooks")).parent().unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-eu", "guide.sh"]).current_dir(place.folder.path()).env_clear();
    bash.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env("HOME", place.folder.path());
    let ended = bash.output().unwrap();
    let out = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{out}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(out.contains("\tsuccess\t") && out.contains("whsec_"), "{out}");
}
