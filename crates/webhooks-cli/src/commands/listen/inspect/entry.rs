//! A request on the page.

use std::sync::Arc;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::curl;
use super::hidden::Hidden;
use crate::commands::listen::seen::Seen;
use crate::pretty::pretty;
use crate::visible::visible;

/// The most bytes of a body on the page; the files have the whole one.
const MAX_SHOWN: usize = 128 * 1024;

/// The memory that a request takes beside its texts, about.
const OVERHEAD: usize = 1024;

/// A request, by its number.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) seen: Arc<Seen>,
}

impl Entry {
    /// Returns the bytes of memory that it takes, about.
    pub(super) fn size(&self) -> usize {
        let headers = self.seen.head.headers.iter();
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + 64);
        OVERHEAD + self.seen.target().len() + self.seen.body.len() + headers.sum::<usize>()
    }

    /// Returns the request as it was sent, without secrets.
    pub(super) fn request(&self, hidden: &Hidden) -> Vec<u8> {
        self.seen.request(|text| hidden.hide(text).into_owned())
    }

    /// Returns what the page shows. Characters that change what people read are replaced.
    pub(super) fn json(&self, target: &str, hidden: &Hidden) -> Value {
        let seen = &self.seen;
        let mut found = seen.json(false);
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            json!([name.as_str(), visible(&hidden.hide_text(value.as_bytes()))])
        };
        let (kind, body, is_cut) = shown_body(&hidden.hide(&seen.body));
        found["number"] = self.number.into();
        found["target"] = visible(&hidden.hide_text(seen.target().as_bytes())).into();
        found["headers"] = seen.head.headers.iter().map(header).collect();
        found["bodyKind"] = kind.into();
        found["body"] = body.into();
        found["isCut"] = is_cut.into();
        found["curl"] = curl::command(seen, target, hidden).into();
        for name in ["type", "id"] {
            if let Some(text) = found[name].as_str() {
                found[name] = hidden.hide_text(text.as_bytes()).into();
            }
        }
        found
    }
}

/// Returns the kind of a body, its text, and whether it is only the start.
fn shown_body(body: &[u8]) -> (&'static str, String, bool) {
    let Ok(text) = str::from_utf8(body) else {
        let start = body.get(..MAX_SHOWN / 64).unwrap_or(body);
        let lines = start.chunks(16).map(|line| {
            line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
        });
        return ("bytes", lines.collect::<Vec<_>>().join("\n"), start.len() < body.len());
    };
    let start = text.get(..text.floor_char_boundary(MAX_SHOWN)).unwrap_or(text);
    let is_cut = start.len() < text.len();
    if !is_cut && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        return ("JSON", visible_lines(&pretty(text)), false);
    }
    ("text", visible_lines(start), is_cut)
}

fn visible_lines(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(visible).collect::<Vec<_>>().join("\t");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
