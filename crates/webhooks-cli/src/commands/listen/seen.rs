//! A request that came, as it is printed and stored.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use serde_json::{Map, Value, json};
use webhooks_core::Timestamp;

use super::forward::Forwarded;
use crate::failure::Failure;
use crate::private_file;
use crate::visible::visible;

/// The most bytes of a body in which the type and the id are looked for.
const MAX_READ: usize = 1024 * 1024;

/// The fields of a body, and the headers, that may name the event type.
const TYPES: ([&str; 4], [&str; 4]) = (
    ["type", "event_type", "eventType", "event"],
    ["x-webhook-event", "x-github-event", "x-gitlab-event", "x-shopify-topic"],
);

/// The fields of a body, and the headers, that may have the id.
const IDS: ([&str; 3], [&str; 5]) = (
    ["event_id", "eventId", "id"],
    ["webhook-id", "svix-id", "x-webhook-event-id", "x-github-delivery", "x-shopify-webhook-id"],
);

/// A request that came.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) at: Timestamp,
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
    pub(crate) names: Names,
    /// Whether it verifies, with the reason if it does not; `None` without a secret.
    pub(crate) verified: Option<Result<(), String>>,
    pub(crate) answer: String,
    pub(crate) status: Option<u16>,
    pub(crate) forwarded: Vec<Forwarded>,
}

/// The names of an event.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) event_type: Option<String>,
    pub(crate) id: Option<String>,
}

impl Names {
    /// Finds the names in the usual fields and headers.
    pub(crate) fn find(headers: &HeaderMap, body: &[u8]) -> Self {
        let body: Map<String, Value> = match body.len() {
            0..=MAX_READ => serde_json::from_slice(body).unwrap_or_default(),
            _ => Map::new(),
        };
        let field = |names: &[&str]| names.iter().find_map(|name| body.get(*name)?.as_str());
        let header =
            |names: &[&str]| names.iter().find_map(|name| headers.get(*name)?.to_str().ok());
        let event_type = header(&TYPES.1).or_else(|| field(&TYPES.0));
        let id = header(&IDS.1).or_else(|| field(&IDS.0));
        Self { event_type: event_type.map(visible), id: id.map(visible) }
    }
}

impl Seen {
    pub(crate) fn line(&self) -> String {
        let Names { event_type, id } = &self.names;
        let path = visible(&format!("{} {}", self.head.method, self.head.uri.path()));
        let mut words = vec![self.at.to_string()];
        words.push(event_type.clone().unwrap_or(path));
        words.extend(id.clone());
        words.push(format!("{} B", self.body.len()));
        words.extend(match &self.verified {
            None => None,
            Some(Ok(())) => Some("verified".to_owned()),
            Some(Err(reason)) => Some(format!("NOT VERIFIED ({reason})")),
        });
        words.push(format!("-> {}", self.answer));
        words.extend(self.forwarded.iter().map(Forwarded::to_string));
        words.join("  ")
    }

    /// Returns the headers and the body as lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("    {} {}", self.head.method, visible(self.target()))];
        for (name, value) in &self.head.headers {
            lines.push(format!(
                "    {name}: {}",
                visible(&String::from_utf8_lossy(value.as_bytes()))
            ));
        }
        lines.push(String::new());
        match str::from_utf8(&self.body) {
            Ok(text) => lines.extend(text.lines().map(|line| format!("    {}", visible(line)))),
            Err(_) => lines.push(format!("    ({} bytes that are not UTF-8)", self.body.len())),
        }
        lines
    }

    /// Returns it as JSON, with headers and body if it is full.
    pub(crate) fn json(&self, is_full: bool) -> Value {
        let reason = self.verified.as_ref().and_then(|verified| verified.as_ref().err());
        let mut found = json!({
            "at": self.at,
            "method": self.head.method.as_str(),
            "target": self.target(),
            "type": self.names.event_type,
            "id": self.names.id,
            "bytes": self.body.len(),
            "verified": self.verified.as_ref().map(Result::is_ok),
            "reason": reason,
            "status": self.status,
            "answer": self.answer,
            "forwarded": self.forwarded.iter().map(Forwarded::json).collect::<Vec<_>>(),
        });
        if is_full && let Value::Object(found) = &mut found {
            let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
            };
            found.insert("headers".to_owned(), self.head.headers.iter().map(pair).collect());
            let text = str::from_utf8(&self.body).ok();
            found.insert("body".to_owned(), json!(text));
            if text.is_none() {
                found.insert("bodyHex".to_owned(), json!(format!("{:x}", self.body)));
            }
        }
        found
    }

    /// Returns the path and the query.
    pub(crate) fn target(&self) -> &str {
        self.head.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    /// Returns the request as it was sent, with each value as `shown` shows it.
    pub(crate) fn request(&self, shown: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let target = shown(self.head.uri.to_string().as_bytes());
        let mut text = [self.head.method.as_str().as_bytes(), b" ", &target].concat();
        text.extend(b" HTTP/1.1\r\n");
        for (name, value) in &self.head.headers {
            text.extend(name.as_str().as_bytes());
            text.extend(b": ");
            text.extend(shown(value.as_bytes()));
            text.extend(b"\r\n");
        }
        text.extend(b"\r\n");
        text.extend(shown(&self.body));
        text
    }

    /// Stores the request as it came, in a form that `verify --request` reads.
    pub(crate) fn record(&self, folder: &Path, number: u64) -> Result<(), Failure> {
        fs::create_dir_all(folder)
            .map_err(|error| Failure::file("make", folder.display(), error))?;
        let id = self.names.id.as_deref().unwrap_or("request");
        let id: String = id.chars().filter(|letter| is_plain(*letter)).take(64).collect();
        let stamp = self.at.as_unix_microseconds();
        let path = folder.join(format!("{stamp}-{number:04}-{id}.http"));
        let text = self.request(<[u8]>::to_vec);
        // Some schemes have the secret in a header.
        private_file::write_new(&path, &text)
            .map_err(|error| Failure::file("write", path.display(), error))
    }
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_')
}
