//! Texts of strangers, as a terminal may show them.

use url::Url;

/// Returns a text without characters that a terminal obeys or that change what people read: those that control, and
/// those that reverse the direction or have no width.
pub(crate) fn visible(text: &str) -> String {
    let shown = |letter: char| if is_hidden(letter) { '\u{fffd}' } else { letter };
    text.chars().map(shown).collect()
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
