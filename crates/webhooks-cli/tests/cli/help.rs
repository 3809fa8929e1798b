//! Help, completions and manual pages.

use crate::program::Place;
use crate::tree;

#[test]
fn each_help_begins_with_examples_that_the_program_accepts() {
    let place = tree::place();
    for command in tree::commands() {
        assert!(command.help.starts_with("Examples:\n"), "{}", command.name());
        let examples = command.examples();
        assert!(!examples.is_empty(), "{}", command.name());
        for example in examples {
            assert_eq!(example[..command.words.len()], *command.words, "{example:?}");
            let words: Vec<_> = example.iter().map(String::as_str).chain(["--zzz"]).collect();
            // Everything else is accepted, and nothing is done.
            place.run(&words).failed(2, &["unexpected argument '--zzz'"]);
        }
    }
}

#[test]
fn help_lists_the_exit_codes() {
    let help = Place::new().run(&["--help"]).ok();
    for code in ["0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "6 ", "7 ", "8 ", "9 ", "130 "] {
        assert!(help.contains(&format!("\n  {code}")), "{code}");
    }
}

#[test]
fn a_misspelt_command_is_answered_with_a_suggestion() {
    Place::new().run(&["servee"]).failed(2, &["'serve'"]);
    Place::new().run(&["serve", "--datbase", "x"]).failed(2, &["'--database'"]);
}

#[test]
fn five_shells_have_completions() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let text = place.run(&["completions", shell]).ok();
        assert!(text.contains("endpoint") && text.contains("replay"), "{shell}");
    }
    let checked = place.run(&["completions", "bash"]).ok();
    place.write("completions.bash", &checked);
    let mut bash = std::process::Command::new("bash");
    assert!(bash.arg("-n").arg(place.path("completions.bash")).status().unwrap().success());
}

#[test]
fn each_command_has_a_manual_page() {
    let place = Place::new();
    place.run(&["man", "pages/man1"]).ok();
    for command in tree::commands() {
        let name = [vec!["webhooks"], command.words()].concat().join("-");
        let page = crate::program::read(&place.path(&format!("pages/man1/{name}.1")));
        assert!(page.contains(".TH"), "{name}");
    }
}
