//! The bundle: one file for whoever helps, without a secret.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use crate::failure::{Exit, Failure};
use crate::private_file;

/// The text in place of a secret.
const HIDDEN: &str = "(hidden)";

/// The beginnings of texts that are secrets wherever they stand.
const PREFIXES: [&str; 5] = ["whkey_", "whsec_", "whsk_", "Bearer ", "Basic "];

/// Shorter texts stand in too many others.
const SHORTEST: usize = 4;

/// Writes the bundle into a file that did not exist, and that others cannot read.
pub(super) fn write(path: &Path, bundle: Value, secrets: &[String]) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&scrubbed(bundle, secrets));
    let mut text =
        text.map_err(|error| Failure::new(Exit::Failed, "cannot write JSON").because(error))?;
    text.push('\n');
    private_file::write_new(path, text.as_bytes()).map_err(|error| {
        let is_there = error.kind() == ErrorKind::AlreadyExists;
        let failure = Failure::file("write", path.display(), error);
        if is_there { failure.hint("remove it, or name another file") } else { failure }
    })
}

/// Returns a value without these secrets, and without texts that look like one.
pub(super) fn scrubbed(value: Value, secrets: &[String]) -> Value {
    match value {
        Value::String(text) => Value::String(scrub(text, secrets)),
        Value::Array(items) => {
            items.into_iter().map(|item| scrubbed(item, secrets)).collect::<Vec<_>>().into()
        }
        Value::Object(fields) => {
            let fields = fields.into_iter();
            fields.map(|(name, field)| (name, scrubbed(field, secrets))).collect()
        }
        other => other,
    }
}

fn scrub(mut text: String, secrets: &[String]) -> String {
    for secret in secrets.iter().filter(|secret| secret.len() >= SHORTEST) {
        text = text.replace(secret.as_str(), HIDDEN);
    }
    for prefix in PREFIXES {
        text = without_tokens(&text, prefix);
    }
    without_users(&text)
}

/// Hides each word that follows `prefix`.
fn without_tokens(text: &str, prefix: &str) -> String {
    let mut parts = text.split(prefix);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_of_token =
            |letter: char| letter.is_ascii_alphanumeric() || "_-+/=.~".contains(letter);
        out.push_str(prefix);
        out.push_str(HIDDEN);
        out.push_str(part.trim_start_matches(is_of_token));
    }
    out
}

/// Hides user and password in each URL.
fn without_users(text: &str) -> String {
    let mut parts = text.split("://");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("://");
        let ends = |letter: char| letter.is_whitespace() || "/?#\"'".contains(letter);
        let (authority, rest) = part.split_at(part.find(ends).unwrap_or(part.len()));
        match authority.rsplit_once('@') {
            Some((_user, host)) => out.extend([HIDDEN, "@", host]),
            None => out.push_str(authority),
        }
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let secrets = ["topsecret".to_owned(), "x".to_owned()];
        assert_eq!(scrubbed(json!([{ "a": text }]), &secrets), json!([{ "a": expected }]));
    }

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        check("x is not topsecret", "x is not (hidden)");
        check("got whkey_aB9-_z, whsec_q+/=", "got whkey_(hidden), whsec_(hidden)");
        check("Authorization: Bearer abc.def;", "Authorization: Bearer (hidden);");
    }

    #[test]
    fn urls_lose_their_users() {
        check("at http://u:p%40@host:1/a@b and", "at http://(hidden)@host:1/a@b and");
        check("postgres://user:a@b@h/d", "postgres://(hidden)@h/d");
        check("http://host/", "http://host/");
    }
}
