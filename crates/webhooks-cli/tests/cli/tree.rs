//! All commands, as the program itself lists them: a new command is in each test that walks over them.

use std::sync::OnceLock;

use crate::program::{Ended, Place};

/// The commands that work on this machine. All others ask the server first.
///
/// A new command that needs no server is added here, and gets tests of its own.
const LOCAL: [&str; 15] = [
    "backup",
    "bench",
    "completions",
    "config check",
    "config init",
    "config show",
    "demo",
    "doctor",
    "listen",
    "man",
    "migrate-store",
    "restore",
    "serve",
    "sign",
    "verify",
];

/// A command, those with commands of their own included.
pub(crate) struct Listed {
    pub(crate) words: Vec<String>,
    pub(crate) help: String,
    /// Whether it does something itself, and has no commands of its own.
    pub(crate) is_leaf: bool,
}

/// Returns all commands.
pub(crate) fn commands() -> &'static [Listed] {
    static COMMANDS: OnceLock<Vec<Listed>> = OnceLock::new();
    COMMANDS.get_or_init(|| {
        let (place, mut found) = (place(), Vec::new());
        add(&place, &[], &mut found);
        assert!(found.len() > 40, "the commands are not found in the help");
        found
    })
}

/// Returns the commands that do something.
pub(crate) fn leaves() -> impl Iterator<Item = &'static Listed> {
    commands().iter().filter(|command| command.is_leaf)
}

/// Returns the commands that ask the server.
pub(crate) fn remote() -> impl Iterator<Item = &'static Listed> {
    leaves().filter(|command| !LOCAL.contains(&command.name().as_str()))
}

/// Returns a place with the files that examples name.
pub(crate) fn place() -> Place {
    let mut place = Place::new();
    // Longer than any example: a line that is wrapped is no command.
    place.set("COLUMNS", "1000");
    place.write("other.toml", "");
    place.write("schema.json", "{}");
    place.write("invoice.json", "{}");
    place.write(
        "service.toml",
        "version = 1\n[[eventTypes]]\nname = \"a.b\"\n[end]\nscope = \"all\"\n",
    );
    place.write_private("secret.txt", concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    place
}

impl Listed {
    pub(crate) fn name(&self) -> String {
        self.words.join(" ")
    }

    pub(crate) fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }

    /// Returns the words of each example, without the name of the program and without what is for the shell.
    pub(crate) fn examples(&self) -> Vec<Vec<String>> {
        let lines = self.help.lines().skip(1).take_while(|line| line.starts_with("  "));
        let example = |line| {
            let mut words = shlex::split(line).unwrap();
            let end = words.iter().position(|word| word == ">" || word == "|");
            words.truncate(end.unwrap_or(words.len()));
            assert_eq!(words.remove(0), "webhooks", "{line}");
            words
        };
        lines.map(example).collect()
    }

    /// Returns whether this stands in its help.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.help.contains(option)
    }

    /// Returns the first example, with the consent that it needs.
    pub(crate) fn example(&self) -> Vec<String> {
        let mut words = self.examples().swap_remove(0);
        if self.has("--yes") && !words.iter().any(|word| word == "--yes") {
            words.push("--yes".to_owned());
        }
        words
    }

    /// Runs the first example.
    pub(crate) fn run(&self, place: &Place) -> Ended {
        let words = self.example();
        place.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn add(place: &Place, words: &[&str], found: &mut Vec<Listed>) {
    let help = place.run(&[words, &["--help"]].concat()).ok();
    let below = below(&help);
    let words_owned = words.iter().map(|&word| word.to_owned()).collect();
    found.push(Listed { words: words_owned, help, is_leaf: below.is_empty() });
    for name in &below {
        add(place, &[words, &[name]].concat(), found);
    }
}

/// Returns the names of the commands that a help lists.
fn below(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| !line.is_empty());
    // The second line of a description is farther right.
    let names = names.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}
