//! Help, completions and manual pages.

use crate::program::Place;

/// Returns the names of the commands below these words, as their help lists them.
fn below(place: &Place, words: &[&str]) -> Vec<String> {
    let help = place.run(&[words, &["--help"]].concat()).ok();
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.trim_start().split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

/// Calls a function for each command, those with commands of their own included.
fn each(place: &Place, words: &[&str], visit: &mut dyn FnMut(&[&str], &str)) {
    visit(words, &place.run(&[words, &["--help"]].concat()).ok());
    for name in below(place, words) {
        each(place, &[words, &[&name]].concat(), visit);
    }
}

#[test]
fn each_help_begins_with_examples_that_the_program_accepts() {
    let place = Place::new();
    // An example names it, and the configuration is read before the command line.
    place.write("other.toml", "");
    let (mut commands, mut examples) = (0, 0);
    each(&place, &[], &mut |words, help| {
        commands += 1;
        let mut lines = help.lines();
        assert_eq!(lines.next(), Some("Examples:"), "{words:?}");
        for line in lines.take_while(|line| line.starts_with("  ")) {
            let mut parts = shlex::split(line).unwrap();
            parts.truncate(
                parts.iter().position(|part| part == ">" || part == "|").unwrap_or(parts.len()),
            );
            assert_eq!(parts.remove(0), "webhooks", "{line}");
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            assert_eq!(parts[..words.len()], *words, "{line}");
            // Parsed with the help option, nothing is done: an option that does not exist is an error still.
            let found = place.run(&[&parts[..], &["--zzz"]].concat());
            assert!(found.err.contains("unexpected argument '--zzz'"), "{line}: {found:?}");
            examples += 1;
        }
    });
    assert!(commands > 30 && examples > commands, "{commands} {examples}");
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
    let mut count = 0;
    each(&place, &[], &mut |words, _help| {
        let name = [&["webhooks"], words].concat().join("-");
        let page = crate::program::read(&place.path(&format!("pages/man1/{name}.1")));
        assert!(page.contains(".TH"), "{name}");
        count += 1;
    });
    assert!(count > 30, "{count}");
}
