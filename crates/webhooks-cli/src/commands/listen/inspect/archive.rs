//! A request as an HTTP archive (HAR 1.2).

use serde_json::{Value, json};

use super::entry::Entry;
use super::shelf::Shelf;

/// Returns the archive of a request and its answer.
pub(super) fn har(entry: &Entry, shelf: &Shelf) -> String {
    let (seen, hidden) = (&entry.seen, shelf.hidden());
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| json!({ "name": name.as_str(), "value": hidden.hide_text(value.as_bytes()) });
    let headers: Vec<Value> = seen.head.headers.iter().map(header).collect();
    let body = hidden.hide(&seen.body);
    let kind = seen.head.headers.get("content-type");
    let kind = kind.map_or_else(String::new, |kind| hidden.hide_text(kind.as_bytes()));
    let body = match str::from_utf8(&body) {
        Ok(text) => json!({ "mimeType": kind, "text": text }),
        // The format has no place for bytes in a request.
        Err(_) => {
            json!({ "mimeType": kind, "text": "", "comment": "not UTF-8: the .http file has it" })
        }
    };
    let target = format!("{}{}", shelf.target(), hidden.hide_text(seen.target().as_bytes()));
    let request = json!({
        "method": seen.head.method.as_str(),
        "url": target,
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": headers,
        "queryString": [],
        "postData": body,
        "headersSize": -1,
        "bodySize": seen.body.len(),
    });
    let response = json!({
        "status": seen.status.unwrap_or_default(),
        "statusText": "",
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": [],
        "content": { "size": 0, "mimeType": "" },
        "redirectURL": "",
        "headersSize": -1,
        "bodySize": -1,
        "comment": seen.answer,
    });
    let creator = json!({ "name": "webhooks listen", "version": env!("CARGO_PKG_VERSION") });
    let timings = json!({ "send": 0, "wait": 0, "receive": 0 });
    let entry = json!({
        "startedDateTime": seen.at,
        "time": 0,
        "request": request,
        "response": response,
        "cache": {},
        "timings": timings,
    });
    json!({ "log": { "version": "1.2", "creator": creator, "entries": [entry] } }).to_string()
}
