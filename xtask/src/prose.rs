//! `prose`: the habits of English that a search can find, in Markdown, comments and rustdoc.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::shell::{Failure, failure, files_below, folder_entries, root};

/// A habit of English, and what to write instead.
struct Habit<P> {
    pattern: P,
    /// The hits that are none.
    exception: Option<P>,
    advice: &'static str,
}

const HABITS: [Habit<&str>; 4] = [
    Habit {
        pattern: r"(?:^|[.!:;] |\| )(?:What|Who|Whoever|Whose|Whatever|Whichever)\b[^?]*$",
        exception: None,
        advice: "begin with the thing, not with a clause",
    },
    Habit {
        pattern: r"\b(?:once|twice|(?:an?|one|two|three|four|five|[0-9][0-9,.]*) [a-z-]+) an? [a-z-]+",
        // Rates with a unit of time are common English: a thousand events a second.
        exception: Some(NO_RATE),
        advice: "write `per` or `for each`",
    },
    Habit {
        pattern: r"\bso (?:many|much|long)\b|\b(?:by|since|until) then\b",
        exception: None,
        advice: "name the parameter",
    },
    Habit { pattern: r"\bbut for\b", exception: None, advice: "write `except`" },
];

const NO_RATE: &str = r"^(?:an?|one) (?:of|in|on|for|to|by|as|at|from|with|is|has|than|that|and|or|but|when|if|like|such) an? |an? (?:second|minute|hour|day|week|month|year|few|lot|little|while|time)$";

/// The folders whose files are checked, besides the Markdown of the root.
const FOLDERS: [&str; 4] = ["crates", "docs", "tests", "xtask"];

/// Folders that tools fill.
const GENERATED: [&str; 4] = ["artifacts", "corpus", "node_modules", "target"];

/// Checks all files whose path contains `part`.
pub(crate) fn run(part: &str) -> Result<(), Failure> {
    println!("\n$ cargo xtask prose {part}");
    let habits = Habits::new()?;
    let is_generated = |path: &Path| GENERATED.iter().any(|name| path.ends_with(name));
    let mut files: Vec<PathBuf> = folder_entries(&root())?;
    files.retain(|file| file.is_file());
    for folder in FOLDERS {
        files.extend(files_below(root().join(folder), is_generated)?);
    }
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        let Some(kind) = Kind::of(&file).filter(|_| name.contains(part)) else { continue };
        let text = fs::read_to_string(&file).map_err(failure(&format!("read {name}")))?;
        for (line, advice, hit) in habits.find(kind, &text) {
            found.push(format!("{name}:{line}: {advice}: {hit:?}"));
        }
    }
    Failure::if_any(&found)
}

/// The way in which a file marks its prose.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Markdown,
    Rust,
    Sql,
}

impl Kind {
    fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "md" => Some(Self::Markdown),
            "rs" => Some(Self::Rust),
            "sql" => Some(Self::Sql),
            _ => None,
        }
    }

    /// Returns the prose of a line.
    fn prose(self, line: &str) -> Option<&str> {
        let line = line.trim_start();
        match self {
            Self::Markdown => Some(line.trim_start_matches(|c: char| " *-|".contains(c))),
            Self::Rust => {
                // A comment behind code; not in a text, such as the `//` of a URL.
                let behind = || line.split_once(" // ").filter(|(code, _)| !code.contains('"'));
                let rest = line.strip_prefix("//").or_else(|| Some(behind()?.1))?;
                Some(rest.trim_start_matches(['/', '!']).trim_start())
            }
            Self::Sql => Some(line.split_once("--")?.1.trim_start()),
        }
    }
}

struct Habits {
    habits: Vec<Habit<Regex>>,
    code: Regex,
}

impl Habits {
    fn new() -> Result<Self, Failure> {
        let regex = |pattern| {
            Regex::new(pattern).map_err(|error| Failure(format!("a pattern is wrong: {error}")))
        };
        let habits = HABITS.map(|Habit { pattern, exception, advice }| {
            let exception = exception.map(regex).transpose()?;
            Ok(Habit { pattern: regex(pattern)?, exception, advice })
        });
        Ok(Self { habits: habits.into_iter().collect::<Result<_, _>>()?, code: regex("`[^`]*`")? })
    }

    /// Returns the habits of a text: line, advice and hit.
    fn find(&self, kind: Kind, text: &str) -> Vec<(usize, &'static str, String)> {
        let mut found = Vec::new();
        let mut is_code = false;
        for (index, line) in text.lines().enumerate() {
            let Some(prose) = kind.prose(line) else {
                // A comment has ended, and a fence in it with it.
                is_code = false;
                continue;
            };
            if prose.starts_with("```") {
                is_code = !is_code;
            }
            if is_code || prose.starts_with('#') {
                continue;
            }
            let prose = self.code.replace_all(prose, "``");
            for Habit { pattern, exception, advice } in &self.habits {
                let is_none = |hit: &str| exception.as_ref().is_some_and(|e| e.is_match(hit));
                let hits = pattern.find_iter(&prose).map(|hit| hit.as_str());
                for hit in hits.filter(|hit| !is_none(hit)) {
                    found.push((index + 1, *advice, hit.to_owned()));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, text: &str, expected: &[&str]) {
        let found = Habits::new().unwrap().find(kind, text);
        let found: Vec<&str> = found.iter().map(|(_, advice, _)| *advice).collect();
        assert_eq!(found, expected, "{text}");
    }

    const BEGIN: &str = "begin with the thing, not with a clause";
    const PER: &str = "write `per` or `for each`";
    const NAME: &str = "name the parameter";

    #[test]
    fn a_clause_in_front_is_found_and_a_question_is_not() {
        check(Kind::Markdown, "What was kept is put away.", &[BEGIN]);
        check(Kind::Markdown, "* It is done. Whoever asks waits.", &[BEGIN]);
        check(Kind::Markdown, "| `a` | Who reads |", &[BEGIN]);
        check(Kind::Markdown, "What is kept?\n## What is absent\nIt says what is kept.", &[]);
        check(
            Kind::Rust,
            "    /// What follows.\n    fn what() {} // Whose it is\n",
            &[BEGIN, BEGIN],
        );
        check(Kind::Sql, "id bigint, -- What it is", &[BEGIN]);
    }

    #[test]
    fn a_rate_without_per_is_found_unless_of_time() {
        check(Kind::Markdown, "It keeps a lane an endpoint, hashed once a key.", &[PER, PER]);
        check(Kind::Markdown, "A thousand events a second, one try a minute, once an hour.", &[]);
        check(Kind::Markdown, "One of a kind, and the event of an endpoint.", &[]);
    }

    #[test]
    fn a_parameter_without_a_name_and_but_for_are_found() {
        check(Kind::Rust, "/// Waits so long; until then, nothing.", &[NAME, NAME]);
        check(Kind::Rust, "// All but for one.", &["write `except`"]);
    }

    #[test]
    fn code_is_no_prose() {
        check(Kind::Markdown, "```text\nWhat was kept\n```\nIt is `a lane an endpoint`.", &[]);
        check(Kind::Rust, "//! ```\n//! What\n//! ```\nlet url = \"http://What\";", &[]);
    }
}
