//! The README's commands, run as a newcomer would.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::process::Command;

/// Returns what an example prints. It sends to this machine, and says loudly that it may.
fn run(example: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--locked", "--example", example])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}{errors}");
    assert!(errors.contains("DEVELOPMENT MODE"), "{errors}");
    shown
}

#[test]
fn the_durable_example_delivers_everything_although_it_is_killed() {
    let shown = run("durable");
    assert!(shown.contains("it is killed"), "{shown}");
    assert!(shown.contains("300 of 300 events arrived"), "{shown}");
}

#[test]
fn the_quickstart_shows_each_of_its_four_stories() {
    let shown = run("quickstart");
    let told: Vec<&str> =
        shown.lines().filter_map(|line| line.trim().strip_prefix("sender:   ")).collect();
    assert_eq!(
        told,
        [
            "my-webhook delivered after 1 attempt(s)",
            "nobody wants it, nothing is sent",
            "my-webhook delivered after 3 attempt(s)",
            "my-webhook failed after 1 attempt(s) (endpoint answered 401 Unauthorized)",
        ]
    );
    assert_eq!(shown.matches("receiver: verified").count(), 2);
    assert_eq!(shown.matches("receiver: refuses it: no signature matches").count(), 1);
}
