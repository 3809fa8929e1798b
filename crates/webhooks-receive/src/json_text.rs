//! JSON as texts: one value is written in many ways, and only one of them was signed.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The most levels of JSON that is written anew. Senders stay far below, and each level costs another pass.
const MAX_DEPTH: usize = 64;

/// The white space between the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    AsItIs,
    /// None.
    Compact,
    /// A space after each comma and colon, as Python writes it.
    Spaced,
    /// A line for each value, indented by this.
    Indented(&'static str),
}

/// The spelling of characters in texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    AsItIs,
    /// All characters beyond ASCII as `\uXXXX`.
    Escaped,
    /// `<`, `>` and `&` as `\uXXXX`, as Go writes them.
    ForHtml,
    /// Nothing as `\uXXXX` that need not be.
    Plain,
}

/// The spelling of slashes in texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slashes {
    AsTheyAre,
    /// `\/`, as PHP writes them.
    Escaped,
    Plain,
}

/// Returns whether a text is JSON that can be written anew.
pub(crate) fn is_json(text: &str) -> bool {
    depth(text) <= MAX_DEPTH && serde_json::from_str::<&RawValue>(text).is_ok()
}

/// Returns JSON without white space between its tokens.
pub(crate) fn without_spaces(json: &[u8]) -> Vec<u8> {
    let mut texts = Texts::default();
    let mut keep = |byte: &u8| texts.holds(*byte) || !byte.is_ascii_whitespace();
    json.iter().copied().filter(|byte| keep(byte)).collect()
}

/// Returns JSON in another layout.
pub(crate) fn laid_out(json: &[u8], layout: Layout) -> Vec<u8> {
    let (after_colon, indent) = match layout {
        Layout::AsItIs => return json.to_vec(),
        Layout::Compact => return without_spaces(json),
        Layout::Spaced => (&b": "[..], None),
        Layout::Indented(indent) => (&b": "[..], Some(indent)),
    };
    let compact = without_spaces(json);
    let (mut texts, mut out, mut depth) = (Texts::default(), Vec::new(), 0_usize);
    let new_line = |out: &mut Vec<u8>, depth: usize| {
        if let Some(indent) = indent {
            out.push(b'\n');
            out.extend(indent.as_bytes().repeat(depth));
        }
    };
    let nexts = compact.iter().copied().skip(1).map(Some).chain([None]);
    let mut last = 0;
    for (byte, next) in compact.iter().copied().zip(nexts) {
        let is_text = texts.holds(byte);
        match byte {
            _ if is_text => out.push(byte),
            b'{' | b'[' => {
                out.push(byte);
                depth = depth.saturating_add(1);
                if !matches!(next, Some(b'}' | b']')) {
                    new_line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !matches!(last, b'{' | b'[') {
                    new_line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' if indent.is_none() => out.extend(b", "),
            b',' => {
                out.push(byte);
                new_line(&mut out, depth);
            }
            b':' => out.extend(after_colon),
            _ => out.push(byte),
        }
        last = byte;
    }
    out
}

/// Returns JSON with its texts spelt otherwise.
pub(crate) fn spelt(json: &str, spelling: Spelling, slashes: Slashes) -> String {
    let (mut out, mut is_text) = (String::with_capacity(json.len()), false);
    let mut rest = json.chars();
    while let Some(character) = rest.next() {
        match character {
            '"' => {
                is_text = !is_text;
                out.push('"');
            }
            '/' if is_text && slashes == Slashes::Escaped => out.push_str("\\/"),
            '\\' if is_text => escape(&mut rest, &mut out, spelling, slashes),
            _ if is_text && must_escape(character, spelling) => push_escaped(character, &mut out),
            _ => out.push(character),
        }
    }
    out
}

/// Returns JSON, in which each object has its keys in order, without white space.
pub(crate) fn sorted(json: &str) -> Option<String> {
    let json = json.trim();
    if json.starts_with('{') {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(json).ok()?;
        let fields = fields.iter().map(|(name, value)| {
            let value = sorted(value.get())?;
            serde_json::to_string(name).ok().map(|name| format!("{name}:{value}"))
        });
        return Some(format!("{{{}}}", fields.collect::<Option<Vec<_>>>()?.join(",")));
    }
    if json.starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
        let items = items.iter().map(|item| sorted(item.get())).collect::<Option<Vec<_>>>()?;
        return Some(format!("[{}]", items.join(",")));
    }
    Some(json.to_owned())
}

/// Follows where texts begin and end.
#[derive(Default)]
struct Texts {
    is_text: bool,
    is_escaped: bool,
}

impl Texts {
    /// Takes the next byte, and returns whether it belongs to a text, its quotes included.
    fn holds(&mut self, byte: u8) -> bool {
        let was_text = self.is_text;
        if !self.is_escaped && byte == b'"' {
            self.is_text = !self.is_text;
        }
        self.is_escaped = was_text && !self.is_escaped && byte == b'\\';
        was_text || self.is_text
    }
}

fn depth(json: &str) -> usize {
    let (mut texts, mut depth, mut most) = (Texts::default(), 0_usize, 0);
    for byte in json.bytes() {
        match byte {
            _ if texts.holds(byte) => {}
            b'{' | b'[' => depth = depth.saturating_add(1),
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        most = most.max(depth);
    }
    most
}

/// Writes what follows a backslash.
fn escape(rest: &mut std::str::Chars<'_>, out: &mut String, spelling: Spelling, slashes: Slashes) {
    match rest.next() {
        Some('/') if slashes == Slashes::Plain => out.push('/'),
        Some('u') if spelling == Spelling::Plain => {
            let mut ahead = rest.clone();
            match unescaped(&mut ahead) {
                Some(character) if !matches!(character, '"' | '\\' | '\0'..='\u{1f}') => {
                    out.push(character);
                    *rest = ahead;
                }
                _ => out.push_str("\\u"),
            }
        }
        Some(character) => out.extend(['\\', character]),
        None => out.push('\\'),
    }
}

/// Reads the digits of `\uXXXX`, and a second one for characters that need two.
fn unescaped(rest: &mut std::str::Chars<'_>) -> Option<char> {
    let first = unit(rest)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first.into());
    }
    (rest.next()? == '\\' && rest.next()? == 'u').then_some(())?;
    let second = unit(rest)?;
    char::decode_utf16([first, second]).next()?.ok()
}

fn unit(rest: &mut std::str::Chars<'_>) -> Option<u16> {
    let digits: String = rest.by_ref().take(4).collect();
    (digits.len() == 4).then(|| u16::from_str_radix(&digits, 16).ok()).flatten()
}

fn must_escape(character: char, spelling: Spelling) -> bool {
    match spelling {
        Spelling::AsItIs | Spelling::Plain => false,
        Spelling::Escaped => !character.is_ascii(),
        Spelling::ForHtml => matches!(character, '<' | '>' | '&' | '\u{2028}' | '\u{2029}'),
    }
}

fn push_escaped(character: char, out: &mut String) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        out.extend(format!("\\u{unit:04x}").chars());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_in_texts_are_kept() {
        let json = br#" { "a b" : [ 1 , "\" \\" , " " ] } "#;
        assert_eq!(without_spaces(json), br#"{"a b":[1,"\" \\"," "]}"#);
    }

    #[test]
    fn layouts_are_those_of_usual_writers() {
        let check = |layout, expected: &str| {
            let found = laid_out(br#"{"a":[1,{}],"b,:":[]}"#, layout);
            assert_eq!(String::from_utf8(found).unwrap(), expected);
        };
        check(Layout::Spaced, r#"{"a": [1, {}], "b,:": []}"#);
        check(Layout::Indented("  "), "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b,:\": []\n}");
    }

    #[test]
    fn spellings_change_texts_alone() {
        let check = |json, spelling, slashes, expected: &str| {
            assert_eq!(spelt(json, spelling, slashes), expected);
        };
        let as_is = Slashes::AsTheyAre;
        check(r#"["é😀\n"]"#, Spelling::Escaped, as_is, r#"["\u00e9\ud83d\ude00\n"]"#);
        check(
            r#"["\u00e9\ud83d\ude00\u0022\u000a\u"]"#,
            Spelling::Plain,
            as_is,
            r#"["é😀\u0022\u000a\u"]"#,
        );
        check(r#"["<&>"]"#, Spelling::ForHtml, as_is, r#"["\u003c\u0026\u003e"]"#);
        check(r#"["a/b\/c"]"#, Spelling::AsItIs, Slashes::Escaped, r#"["a\/b\/c"]"#);
        check(r#"["a/b\/c\\/"]"#, Spelling::AsItIs, Slashes::Plain, r#"["a/b/c\\/"]"#);
    }

    #[test]
    fn keys_are_sorted_on_all_levels_and_numbers_stay() {
        let found = sorted(r#" {"b": [{"d": 1.0, "c": 1e3}], "a": "\u00e9"} "#);
        assert_eq!(found.unwrap(), r#"{"a":"\u00e9","b":[{"c":1e3,"d":1.0}]}"#);
    }

    #[test]
    fn deep_json_is_left_alone() {
        assert!(is_json(&format!("{}{}", "[".repeat(64), "]".repeat(64))));
        assert!(!is_json(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))));
        assert!(!is_json("{"));
    }
}
