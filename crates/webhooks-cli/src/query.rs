//! Queries: the words by which lists, tails and bulk commands choose, such as `status:failed type:invoice.* since:2h`.

use std::ops::RangeInclusive;

use clap::ValueEnum;
use serde_json::Value;
use webhooks_core::{EventType, Timestamp};
use webhooks_registry::Subscription;

use crate::failure::Failure;
use crate::moment::past;

/// The states of a delivery, in the words and numbers of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Status {
    /// Waits for its first attempt
    Pending = 1,
    /// Failed, and will be tried again
    #[value(alias = "retrying")]
    Sending = 3,
    /// Was delivered
    #[value(alias = "delivered")]
    Success = 0,
    /// Its attempts are spent
    #[value(alias = "failed")]
    Fail = 2,
    /// Was given up
    #[value(alias = "cancelled")]
    Canceled = 4,
}

impl Status {
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    /// Returns the word of the API.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Success => "success",
            Self::Fail => "fail",
            Self::Canceled => "canceled",
        }
    }
}

/// A word of a query, before the colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Channel,
    Code,
    Endpoint,
    Since,
    Status,
    Tag,
    Type,
    Until,
}

/// The words, with an example each.
const WORDS: [(Word, &str, &str); 8] = [
    (Word::Status, "status", "failed"),
    (Word::Endpoint, "endpoint", "crm"),
    (Word::Type, "type", "invoice.*"),
    (Word::Code, "code", "503"),
    (Word::Since, "since", "2h"),
    (Word::Until, "until", "10m"),
    (Word::Channel, "channel", "eu"),
    (Word::Tag, "tag", "import"),
];

/// The words for deliveries.
pub(crate) const OF_DELIVERIES: [Word; 8] = [
    Word::Status,
    Word::Endpoint,
    Word::Type,
    Word::Code,
    Word::Since,
    Word::Until,
    Word::Channel,
    Word::Tag,
];

/// The words for attempts, which have neither channels nor tags and come until somebody ends them.
pub(crate) const OF_ATTEMPTS: [Word; 5] =
    [Word::Status, Word::Endpoint, Word::Type, Word::Code, Word::Since];

/// The words for events.
pub(crate) const OF_EVENTS: [Word; 5] =
    [Word::Type, Word::Since, Word::Until, Word::Channel, Word::Tag];

/// A query. A word that is given several times, or has several values, is met by any of them; all words must be met.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    pub(crate) statuses: Vec<Status>,
    /// Whether deliveries that are due, but held back with their endpoint, are chosen beside those of `statuses`.
    pub(crate) or_held: bool,
    pub(crate) endpoints: Vec<String>,
    pub(crate) types: Vec<Subscription>,
    /// The codes of the last response; 0 stands for none.
    pub(crate) codes: Vec<RangeInclusive<u16>>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) channel: Option<String>,
    pub(crate) tag: Option<String>,
}

impl Query {
    /// Reads a query that may have these words.
    pub(crate) fn read(text: &str, allowed: &[Word]) -> Result<Self, Failure> {
        let mut query = Self::default();
        for (at, part) in parts(text) {
            query.add(part, allowed).map_err(|(behind, reason)| {
                let at = text.get(..at + behind).map_or(0, |before| before.chars().count()) + 1;
                Failure::usage(format!("the query is wrong at character {at}: {reason}"))
                    .hint(format!("words of a query: {}", examples(allowed)))
            })?;
        }
        Ok(query)
    }

    /// Adds a word. The error has its place in the word, in bytes.
    fn add(&mut self, part: &str, allowed: &[Word]) -> Result<(), (usize, String)> {
        let Some((name, values)) = part.split_once(':') else {
            return Err((0, without_colon(part, allowed)));
        };
        let found = WORDS.iter().find(|(_, known, _)| *known == name);
        let Some((word, ..)) = found else {
            let known = allowed.iter().map(|word| name_of(*word));
            return Err((0, format!("there is no word {name:?}{}", suggestion(name, known))));
        };
        if !allowed.contains(word) {
            return Err((0, format!("{name:?} cannot be asked for here")));
        }
        let mut at = name.len() + 1;
        for value in values.split(',') {
            self.set(*word, value).map_err(|reason| (at, reason))?;
            at += value.len() + 1;
        }
        Ok(())
    }

    fn set(&mut self, word: Word, value: &str) -> Result<(), String> {
        if value.is_empty() {
            return Err(format!("{:?} has no value", name_of(word)));
        }
        match word {
            Word::Status => {
                let status = status(value)?;
                self.statuses.extend(Some(status).filter(|status| !self.statuses.contains(status)));
            }
            Word::Endpoint => self.endpoints.push(value.to_owned()),
            Word::Type => {
                let one = Subscription::new(value);
                self.types.push(one.map_err(|error| format!("{value:?}: {error}"))?);
            }
            Word::Code => self.codes.push(code(value)?),
            Word::Since => once(&mut self.since, past(value)?, word)?,
            Word::Until => once(&mut self.until, past(value)?, word)?,
            Word::Channel => once(&mut self.channel, value.to_owned(), word)?,
            Word::Tag => once(&mut self.tag, value.to_owned(), word)?,
        }
        Ok(())
    }

    /// Returns whether the status, the type and the code of a delivery or an attempt are asked for.
    pub(crate) fn chooses(&self, row: &Value) -> bool {
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        let is_of_status = |one: &Status| one.word() == text("statusText");
        (self.statuses.is_empty() || self.statuses.iter().any(is_of_status))
            && self.has_type(text("eventType"))
            && self.has_code(row["responseStatusCode"].as_u64())
    }

    pub(crate) fn has_type(&self, event_type: &str) -> bool {
        let matches = |name: &EventType| self.types.iter().any(|one| one.matches(name));
        self.types.is_empty() || EventType::new(event_type).is_ok_and(|name| matches(&name))
    }

    /// Returns whether a status code is asked for: `None` if there was no attempt, and 0 if it got no response.
    fn has_code(&self, found: Option<u64>) -> bool {
        let is_in = |found: u16| self.codes.iter().any(|codes| codes.contains(&found));
        self.codes.is_empty() || found.and_then(|found| found.try_into().ok()).is_some_and(is_in)
    }
}

/// Returns the words of a text, with their places.
fn parts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split(char::is_whitespace).filter_map(move |part| {
        let start = at;
        // White space may have several bytes.
        let behind = text.get(start + part.len()..).and_then(|rest| rest.chars().next());
        at = start + part.len() + behind.map_or(0, char::len_utf8);
        (!part.is_empty()).then_some((start, part))
    })
}

fn name_of(word: Word) -> &'static str {
    WORDS.iter().find(|(known, ..)| *known == word).map_or("", |(_, name, _)| name)
}

/// Returns an example of each word, such as `status:failed`.
fn examples(allowed: &[Word]) -> String {
    let found = WORDS.iter().filter(|(word, ..)| allowed.contains(word));
    found.map(|(_, name, example)| format!("{name}:{example}")).collect::<Vec<_>>().join(" ")
}

/// Returns why a word without a colon is none, with the word that it may stand for.
fn without_colon(part: &str, allowed: &[Word]) -> String {
    let guess = if allowed.contains(&Word::Status) && status(part).is_ok() {
        Some(format!("status:{part}"))
    } else if allowed.contains(&Word::Code) && code(part).is_ok() {
        Some(format!("code:{part}"))
    } else if allowed.contains(&Word::Type) && part.contains('.') {
        Some(format!("type:{part}"))
    } else {
        None
    };
    let guess = guess.map(|guess| format!("; did you mean {guess}?")).unwrap_or_default();
    format!("{part:?} has no colon{guess}")
}

fn status(value: &str) -> Result<Status, String> {
    Status::from_str(value, false).map_err(|_shows_less| {
        let all = Status::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = all
            .flat_map(|one| one.get_name_and_aliases().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let names = names.iter().map(String::as_str);
        format!("there is no status {value:?}{}", suggestion(value, names))
    })
}

/// Reads `503`, `5xx`, `500-599`, or `none` for no response.
fn code(value: &str) -> Result<RangeInclusive<u16>, String> {
    let unreadable = || format!("{value:?} is no code: write 503, 5xx, 500-599 or none");
    // The API shows 0 where there was no response.
    if matches!(value, "none" | "0") {
        return Ok(0..=0);
    }
    let read = |text: &str| {
        let code: Option<u16> = text.parse().ok().filter(|code| (100..600).contains(code));
        code.filter(|code| code.to_string() == text).ok_or_else(unreadable)
    };
    if let Some(class) = value.strip_suffix("xx") {
        let first = read(&format!("{class}00"))?;
        return Ok(first..=first.saturating_add(99));
    }
    let (first, last) = value.split_once('-').unwrap_or((value, value));
    let (first, last) = (read(first)?, read(last)?);
    if first <= last { Ok(first..=last) } else { Err(unreadable()) }
}

fn once<T>(place: &mut Option<T>, value: T, word: Word) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{:?} is there twice", name_of(word))),
    }
}

/// Returns the question whether a word near this one is meant, if there is one.
fn suggestion<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> String {
    let near = names.map(|name| (distance(word, name), name)).min();
    match near {
        Some((found, name)) if found <= 2 && found < name.len() => {
            format!("; did you mean {name:?}?")
        }
        _ => String::new(),
    }
}

/// The longest word that is compared.
const MAX_COMPARED: usize = 40;

/// Returns the number of letters to add, take away or replace that make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    if one.len() > MAX_COMPARED {
        return usize::MAX;
    }
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (number, letter) in one.chars().enumerate() {
        let (mut before, mut next) = (number, vec![number + 1]);
        let mut last = number + 1;
        for (&found, &above) in other.iter().zip(row.iter().skip(1)) {
            last = (before + usize::from(found != letter)).min(above + 1).min(last + 1);
            before = above;
            next.push(last);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str, allowed: &[Word]) -> String {
        Query::read(text, allowed).unwrap_err().to_string()
    }

    #[test]
    fn all_words_are_read() {
        let text = " status:failed,cancelled  endpoint:crm type:invoice.*,user code:503 code:4xx,none,0 \
                    since:2h until:2026-01-01T00:00:00Z channel:eu\ttag:a ";
        let query = Query::read(text, &OF_DELIVERIES).unwrap();
        assert_eq!(query.statuses, [Status::Fail, Status::Canceled]);
        assert_eq!(query.endpoints, ["crm"]);
        assert_eq!(query.codes, [503..=503, 400..=499, 0..=0, 0..=0]);
        assert!(query.has_type("invoice.paid") && query.has_type("user"));
        assert!(!query.has_type("user.made") && !query.has_type("bad type"));
        assert!(query.has_code(Some(404)) && query.has_code(Some(0)));
        assert!(!query.has_code(Some(500)) && !query.has_code(None));
        assert!(query.since.is_some() && query.until.is_some());
        assert_eq!((query.channel.as_deref(), query.tag.as_deref()), (Some("eu"), Some("a")));
        let all = Query::read("", &OF_DELIVERIES).unwrap();
        assert!(all.has_type("x") && all.has_code(None));
    }

    #[test]
    fn a_mistake_is_told_with_its_place_and_a_suggestion() {
        for (text, says) in [
            (
                "code:503 stauts:failed",
                "character 10: there is no word \"stauts\"; did you mean \"status\"?",
            ),
            ("status:faild", "character 8: there is no status \"faild\"; did you mean \"fail\"?"),
            ("status:failed,x", "character 15: there is no status \"x\""),
            ("ü failed", "character 1: \"ü\" has no colon"),
            ("\u{2003}failed", "character 2: \"failed\" has no colon; did you mean status:failed?"),
            ("503", "did you mean code:503?"),
            ("invoice.*", "did you mean type:invoice.*?"),
            ("code:700", "character 6: \"700\" is no code: write 503, 5xx"),
            ("code:599-500", "no code"),
            ("code:+503", "no code"),
            ("type:a..b", "character 6"),
            ("since:soon", "2h for two hours ago"),
            ("since:1h since:2h", "character 16: \"since\" is there twice"),
            ("endpoint:", "character 10: \"endpoint\" has no value"),
            ("status:failed,", "character 15: \"status\" has no value"),
        ] {
            let told = error(text, &OF_DELIVERIES);
            assert!(told.contains(says), "{text}: {told}");
            assert!(told.contains("words of a query: status:failed endpoint:crm"), "{told}");
        }
        assert!(error("channel:eu", &OF_ATTEMPTS).contains("cannot be asked for here"));
    }

    proptest! {
        #[test]
        fn no_text_ends_the_program(text in "\\PC*") {
            let _read = Query::read(&text, &OF_DELIVERIES);
        }

        #[test]
        fn texts_like_queries_do_not_end_it_either(text in "((status|code|type|since):?[ a-z0-9,:.*-]{0,9} ?){0,4}") {
            let _read = Query::read(&text, &OF_DELIVERIES);
        }
    }
}
