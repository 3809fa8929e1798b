//! Trace contexts: the place of an event in a distributed trace.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The length of a `traceparent` of version 00.
const PARENT_LEN: usize = 55;

/// The most bytes of a `tracestate`, and of an entry that is not the first to be left out.
const MAX_STATE: usize = 512;
const MAX_ENTRY: usize = 128;

/// The most entries of a `tracestate`, and the most bytes of a key and of a value.
const MAX_ENTRIES: usize = 32;
const MAX_PART: usize = 256;

/// The place of an event in a distributed trace: the values of the headers `traceparent` and
/// `tracestate` (W3C Trace Context). It is passed on as it came, and cheap to clone.
///
/// # Example
/// ```
/// use webhooks_core::TraceContext;
///
/// let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let trace = TraceContext::parse(parent, ["congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7"]).unwrap();
/// assert_eq!(trace.parent(), parent);
/// assert_eq!(trace.state(), Some("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"));
/// assert_eq!(TraceContext::parse("00-0-0-0", []), None);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The parent and, behind a space, the state if there is one.
    text: Arc<str>,
}

impl TraceContext {
    /// Returns the trace context of the header `traceparent` and the headers `tracestate`, in their
    /// order. `None` if the parent is not valid: W3C Trace Context, "A traceparent is invalid", asks to
    /// go on without one then.
    ///
    /// A state that is not valid is left out, and the parent is kept. A state of more than 512 bytes
    /// loses entries: first those of more than 128 bytes, then the last ones. A parent of a later
    /// version becomes one of version 00.
    pub fn parse<'s>(parent: &str, state: impl IntoIterator<Item = &'s str>) -> Option<Self> {
        let mut text = read_parent(parent)?;
        if let Some(state) = read_state(state).filter(|state| !state.is_empty()) {
            text.push(' ');
            text.push_str(&state);
        }
        Some(Self { text: text.into() })
    }

    /// Returns the trace context of a text, as [`Display`](fmt::Display) writes it; `None` if it is
    /// none.
    pub fn from_stored(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            Some((parent, state)) => Self::parse(parent, [state]),
            None => Self::parse(text, []),
        }
    }

    /// Returns the value of `traceparent`.
    pub fn parent(&self) -> &str {
        self.text.split_once(' ').map_or(&*self.text, |(parent, _)| parent)
    }

    /// Returns the id of the trace, 32 hex digits.
    pub fn trace_id(&self) -> &str {
        self.parent().get(3..35).unwrap_or_default()
    }

    /// Returns the id of the span that is the parent, 16 hex digits.
    pub fn parent_id(&self) -> &str {
        self.parent().get(36..52).unwrap_or_default()
    }

    /// Returns whether the flag `sampled` is set: the caller may have recorded the trace.
    pub fn is_sampled(&self) -> bool {
        let flags = self.parent().get(53..).and_then(|flags| u8::from_str_radix(flags, 16).ok());
        flags.is_some_and(|flags| flags & 1 == 1)
    }

    /// Returns the value of `tracestate`, if there is one.
    pub fn state(&self) -> Option<&str> {
        self.text.split_once(' ').map(|(_, state)| state)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TraceContext").field(&&*self.text).finish()
    }
}

/// Reads a `traceparent`; returns it in version 00.
fn read_parent(text: &str) -> Option<String> {
    let mut parts = text.split('-');
    let mut part = |len: usize| {
        let part = parts.next().filter(|part| part.len() == len)?;
        part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(part)
    };
    let (version, trace, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    // "Version ff is invalid"; "all bytes as zero is considered an invalid value".
    if version == "ff" || is_zero(trace) || is_zero(parent) {
        return None;
    }
    if version == "00" {
        return (text.len() == PARENT_LEN).then(|| text.to_owned());
    }
    // Of a later version only the flag `sampled` is known, and what may follow it is not.
    let is_sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
    Some(format!("00-{trace}-{parent}-0{}", u8::from(is_sampled)))
}

/// Reads the values of `tracestate` headers; returns them as one, within the limits.
fn read_state<'s>(values: impl IntoIterator<Item = &'s str>) -> Option<String> {
    let members = values.into_iter().flat_map(|value| value.split(','));
    // "Empty list members are allowed."
    let members = members.map(|member| member.trim_matches([' ', '\t']));
    let mut entries: Vec<&str> = Vec::new();
    let mut keys = BTreeSet::new();
    for entry in members.filter(|member| !member.is_empty()) {
        let (key, value) = entry.split_once('=')?;
        if entries.len() == MAX_ENTRIES || !is_key(key) || !is_value(value) || !keys.insert(key) {
            return None;
        }
        entries.push(entry);
    }
    let len = |entries: &[&str]| entries.iter().map(|entry| entry.len() + 1).sum::<usize>();
    // Each entry counts with a comma, which the last one has not.
    while len(&entries) > MAX_STATE + 1 {
        let large = entries.iter().rposition(|entry| entry.len() > MAX_ENTRY);
        entries.remove(large.unwrap_or(entries.len() - 1));
    }
    Some(entries.join(","))
}

fn is_key(key: &str) -> bool {
    let is_start = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_fit = |byte: u8| is_start(&byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@');
    key.len() <= MAX_PART && key.as_bytes().first().is_some_and(is_start) && key.bytes().all(is_fit)
}

fn is_value(value: &str) -> bool {
    // A space within it is allowed; those around the entry are gone.
    let is_fit = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'=' && byte != b',';
    (1..=MAX_PART).contains(&value.len()) && value.bytes().all(is_fit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parent(text: &str) -> Option<String> {
        TraceContext::parse(text, []).map(|trace| trace.to_string())
    }

    fn state(values: &[&str]) -> Option<String> {
        let trace = TraceContext::parse(PARENT, values.iter().copied()).unwrap();
        assert_eq!(trace.parent(), PARENT, "whatever the state is");
        assert_eq!(TraceContext::from_stored(&trace.to_string()), Some(trace.clone()));
        trace.state().map(str::to_owned)
    }

    #[test]
    fn a_parent_of_the_specification_is_passed_on_as_it_is() {
        for text in [PARENT, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"] {
            assert_eq!(parent(text).as_deref(), Some(text));
            let trace = TraceContext::parse(text, ["a=1"]).unwrap();
            assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
            assert_eq!(trace.parent_id(), "00f067aa0ba902b7");
            assert_eq!(trace.is_sampled(), text.ends_with('1'));
        }
    }

    #[test]
    fn a_parent_of_a_later_version_becomes_one_of_version_00() {
        for text in [
            "cc-12345678901234567890123456789012-1234567890123456-01",
            "cc-12345678901234567890123456789012-1234567890123456-ff-what-the-future-is",
        ] {
            let expected = "00-12345678901234567890123456789012-1234567890123456-01";
            assert_eq!(parent(text).as_deref(), Some(expected), "{text}");
        }
    }

    /// The cases of the test suite of the specification, <https://github.com/w3c/trace-context>.
    #[test]
    fn a_parent_that_is_not_valid_is_dropped() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-.1",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ".0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-12345678901234567890123456789012-1234567890123456-01.what-the-future",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parent(text), None, "{text}");
        }
    }

    #[test]
    fn states_are_joined_in_their_order() {
        assert_eq!(state(&["foo=1,bar=2", "rojo=1", " , baz = 3 "]), None, "a space in a key");
        let joined = Some("foo=1,bar=2,fw529a3039@dt=a b".to_owned());
        assert_eq!(state(&["foo=1 , \tbar=2", "", ",fw529a3039@dt=a b\t"]), joined);
    }

    #[test]
    fn a_state_that_is_not_valid_is_dropped_alone() {
        let many = (0..33).map(|n| format!("k{n}=1")).collect::<Vec<_>>().join(",");
        let (key, value) = (format!("{}=1", "k".repeat(257)), format!("k={}", "1".repeat(257)));
        for text in
            ["foo", "foo=", "=1", "FOO=1", "foo=1=2", "foo=1,foo=2", "foo=\u{e9}", "f\no=1", &many]
        {
            assert_eq!(state(&[text]), None, "{text}");
        }
        assert_eq!((state(&[&key]), state(&[&value])), (None, None));
        assert_eq!(state(&["", " , "]), None);
    }

    #[test]
    fn a_long_state_loses_large_entries_and_then_the_last_ones() {
        let large = format!("large={}", "x".repeat(250));
        let small: Vec<String> = (0..10).map(|n| format!("k{n}={}", "y".repeat(40))).collect();
        let all = [&small[..5], &[large], &small[5..]].concat().join(",");
        assert_eq!(state(&[&all]), Some(small.join(",")));
        let many: Vec<String> = (0..20).map(|n| format!("key{n:02}={}", "y".repeat(40))).collect();
        assert_eq!(state(&[&many.join(",")]), Some(many[..10].join(",")));
    }

    proptest! {
        #[test]
        fn what_is_passed_on_is_short_visible_and_stays_the_same(text in "[ -~\t]{0,80}", states in
            proptest::collection::vec("([a-c@=, \t]|[ -~]{1,200}){0,8}", 0..4)
        ) {
            for parent in [&*text, PARENT] {
                let states = states.iter().map(String::as_str);
                if let Some(trace) = TraceContext::parse(parent, states) {
                    let stored = trace.to_string();
                    prop_assert!(stored.len() <= PARENT_LEN + 1 + MAX_STATE);
                    prop_assert!(stored.bytes().all(|byte| matches!(byte, b' '..=b'~')));
                    prop_assert_eq!(TraceContext::from_stored(&stored), Some(trace));
                }
            }
        }
    }
}
