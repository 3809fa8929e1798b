//! A request as a command that people copy.

use super::hidden::Hidden;
use crate::commands::listen::forward::end_to_end;
use crate::commands::listen::seen::Seen;
use crate::shell::quoted;

/// The largest body of a command that is a text: shells take words of 128 KiB.
const MAX_TEXT: usize = 64 * 1024;

/// The largest body of a command in which each byte may take four letters.
const MAX_BYTES: usize = 16 * 1024;

/// Returns the command that sends a request to `target`; `None` if its body is too large for one.
pub(super) fn command(seen: &Seen, target: &str, hidden: &Hidden) -> Option<String> {
    let body = hidden.hide(&seen.body);
    let text = str::from_utf8(&body).ok().filter(|text| !text.chars().any(is_obeyed));
    if body.len() > if text.is_some() { MAX_TEXT } else { MAX_BYTES } {
        return None;
    }
    // The target is a stranger's: without these options, curl takes brackets for many URLs, and removes dots.
    let mut words: Vec<String> =
        ["curl", "--globoff", "--path-as-is", "-X"].map(str::to_owned).into();
    words.push(quoted(seen.head.method.as_str()));
    for (name, value) in &end_to_end(&seen.head.headers) {
        let value = hidden.hide_text(value.as_bytes());
        // Without a value, curl takes a name with a semicolon.
        let header = if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") };
        words.extend(["-H".to_owned(), quoted(&header)]);
    }
    let mut start = String::new();
    match text {
        Some("") => {}
        // Unlike --data-binary, it takes a text that begins with @ as it is.
        Some(text) => words.extend(["--data-raw".to_owned(), quoted(text)]),
        None => {
            start = format!("printf '{}' | ", escaped(&body));
            words.extend(["--data-binary".to_owned(), "@-".to_owned()]);
        }
    }
    words.push(quoted(&format!("{target}{}", hidden.hide_text(seen.target().as_bytes()))));
    Some(format!("{start}{}", words.join(" ")))
}

/// Returns whether a terminal could take a letter of a pasted text for a key.
fn is_obeyed(letter: char) -> bool {
    letter.is_control() && !matches!(letter, '\n' | '\t')
}

/// Returns bytes as the format of `printf` within single quotes (POSIX, "printf").
fn escaped(bytes: &[u8]) -> String {
    let escape = |byte: &u8| match byte {
        b'%' => "%%".to_owned(),
        b'\\' => r"\\".to_owned(),
        b' '..=b'~' if *byte != b'\'' => char::from(*byte).to_string(),
        other => format!("\\{other:03o}"),
    };
    bytes.iter().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_so_that_no_shell_obeys_them() {
        assert_eq!(escaped(b"a'%\\\r\0\xff"), r"a\047%%\\\015\000\377");
        assert!(is_obeyed('\r') && is_obeyed('\u{1b}') && !is_obeyed('\n'));
    }
}
