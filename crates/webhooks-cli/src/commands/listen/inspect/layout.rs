//! JSON with a line for each value, and each value as it was written.

use serde::de::IgnoredAny;

/// The deepest level that is moved to the right.
const MAX_INDENT: usize = 16;

/// Returns a JSON text with line breaks and spaces of our own; `None` if it is none. Numbers, escapes and doubled
/// keys stay as they are.
pub(super) fn laid_out(text: &str) -> Option<String> {
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let (mut out, mut depth, mut in_string, mut is_escaped) =
        (String::with_capacity(text.len() * 2), 0_usize, false, false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if in_string {
            out.push(letter);
            in_string = is_escaped || letter != '"';
            is_escaped = !is_escaped && letter == '\\';
            continue;
        }
        match letter {
            ' ' | '\t' | '\n' | '\r' => {}
            '"' => {
                out.push(letter);
                in_string = true;
            }
            '{' | '[' => {
                out.push(letter);
                while letters.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(letter);
            }
            ',' => {
                out.push(letter);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => out.push(other),
        }
    }
    Some(out)
}

fn break_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth.min(MAX_INDENT)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_as_they_were_written() {
        let text = r#" {"a" : [1.0, 18446744073709551616 ,{ }], "a":"\"{,}\\" ,"b":[ ]}"#;
        let laid_out = laid_out(text).unwrap();
        assert_eq!(
            laid_out,
            "{\n  \"a\": [\n    1.0,\n    18446744073709551616,\n    {}\n  ],\n  \"a\": \"\\\"{,}\\\\\",\n  \"b\": []\n}"
        );
    }

    #[test]
    fn what_is_not_json_has_no_layout() {
        for text in ["", "{", "{}{}", "a", "[1,]", &"[".repeat(10_000)] {
            assert_eq!(laid_out(text), None, "{text:?}");
        }
    }
}
