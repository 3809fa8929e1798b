//! Texts of strangers, as a terminal may show them.

use std::fmt::Write as _;

use url::Url;

/// Returns a text without characters that a terminal obeys or that change what people read: those that control, and
/// those that reverse the direction or have no width.
pub(crate) fn visible(text: &str) -> String {
    let shown = |letter: char| if is_hidden(letter) { '\u{fffd}' } else { letter };
    text.chars().map(shown).collect()
}

/// Returns a text of several lines as [`visible`] does, with its line breaks and tabs.
pub(crate) fn visible_lines(text: &str) -> String {
    let shown = |letter: char| match letter {
        '\n' | '\t' => letter,
        _ if is_hidden(letter) => '\u{fffd}',
        _ => letter,
    };
    text.chars().map(shown).collect()
}

/// Returns JSON that means the same and has none of the characters that [`visible`] replaces.
pub(crate) fn visible_json(json: String) -> String {
    if !json.contains(is_hidden) {
        return json;
    }
    let mut shown = String::with_capacity(json.len());
    for letter in json.chars() {
        // They stand in strings alone, and each of them is one unit of UTF-16.
        if is_hidden(letter) {
            let _infallible = write!(shown, "\\u{:04x}", u32::from(letter));
        } else {
            shown.push(letter);
        }
    }
    shown
}

fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
        )
}

/// Returns a text without the user and the query of a URL, which can hold secrets. Other texts stay as they are.
pub(crate) fn without_credentials(text: &str) -> String {
    const HIDDEN: &str = "(hidden)";
    let Ok(url) = Url::parse(text) else { return text.to_owned() };
    let has_user = !url.username().is_empty() || url.password().is_some();
    if !url.has_host() || (!has_user && url.query().is_none()) {
        return text.to_owned();
    }
    let user = if has_user { format!("{HIDDEN}@") } else { String::new() };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let query = if url.query().is_some() { format!("?{HIDDEN}") } else { String::new() };
    let (scheme, host, path) = (url.scheme(), url.host_str().unwrap_or_default(), url.path());
    format!("{scheme}://{user}{host}{port}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_a_terminal_obeys_are_replaced() {
        assert_eq!(
            visible("a\u{1b}[2J\u{202e}b\u{200b}\u{2028}é"),
            "a\u{fffd}[2J\u{fffd}b\u{fffd}\u{fffd}é"
        );
    }

    #[test]
    fn lines_and_tabs_stay() {
        assert_eq!(visible_lines("a\tb\nc\r\u{9b}d"), "a\tb\nc\u{fffd}\u{fffd}d");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let text = "a\u{9b}2J\u{202e}\u{7f}é\u{1b}";
        let json = visible_json(serde_json::to_string(text).unwrap());
        assert!(!json.contains(is_hidden) && json.contains("\\u009b2J"), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        for (text, shown) in [
            ("http://u:p@h:1/a?k=v", "http://(hidden)@h:1/a?(hidden)"),
            ("postgres://u@h/d", "postgres://(hidden)@h/d"),
            ("http://h:1/a", "http://h:1/a"),
            ("data.db", "data.db"),
            ("30s", "30s"),
            ("127.0.0.1:8071", "127.0.0.1:8071"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
    }
}
