//! Requests that were stored: as they were sent, or in an HTTP archive of a browser or a proxy.

use std::path::Path;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use serde::Deserialize;
use webhooks_core::Timestamp;
use webhooks_receive::recognition;

use crate::failure::Failure;
use crate::text_source;

/// The byte order mark that some editors add.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// A request that was stored.
#[derive(Debug)]
pub(crate) struct SavedRequest {
    pub(crate) head: Parts,
    pub(crate) body: Vec<u8>,
    /// The URL with its host, if it is known.
    pub(crate) url: Option<String>,
    /// The time at which it was sent, if it is known.
    pub(crate) at: Option<Timestamp>,
}

impl SavedRequest {
    /// Reads a file; `entry` is the number of the request in an archive, from 1.
    pub(crate) fn read(path: &Path, entry: Option<usize>) -> Result<Self, Failure> {
        let bytes = text_source::bytes(path)?;
        let is_archive =
            bytes.strip_prefix(MARK).unwrap_or(&bytes).trim_ascii_start().starts_with(b"{");
        let found = if is_archive { from_archive(&bytes, entry) } else { from_text(&bytes) };
        found.map_err(|reason| {
            Failure::usage(format!("{}: {reason}", path.display()))
                .hint("give a request as it was sent (METHOD TARGET, headers, an empty line, the body), or an HTTP archive (HAR)")
        })
    }
}

/// Reads `NAME: VALUE`.
pub(crate) fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    header_line(text.as_bytes())
}

/// Returns the head of a request.
pub(crate) fn head(method: &str, target: &str, headers: HeaderMap) -> Result<Parts, String> {
    let request = Request::builder().method(method).uri(target).body(());
    let (mut head, ()) = request.map_err(|error| error.to_string())?.into_parts();
    head.headers = headers;
    Ok(head)
}

/// Reads a request as it was sent.
fn from_text(bytes: &[u8]) -> Result<SavedRequest, String> {
    let mut rest = bytes.strip_prefix(MARK).unwrap_or(bytes);
    let mut next = || {
        let (line, behind) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(at) => (rest.get(..at)?, rest.get(at + 1..)?),
            None if rest.is_empty() => return None,
            None => (rest, &b""[..]),
        };
        rest = behind;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    };
    let first = loop {
        let line = next().ok_or("it holds no request")?;
        // Comments of editors.
        if !(line.is_empty() || line.starts_with(b"#") || line.starts_with(b"//")) {
            break line;
        }
    };
    let first = str::from_utf8(first).map_err(|_no_text| "its first line is not UTF-8")?;
    let mut words = first.split_ascii_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err("its first line is not METHOD TARGET".to_owned());
    };
    let mut headers = HeaderMap::new();
    let mut number = 1;
    while let Some(line) = next().filter(|line| !line.is_empty()) {
        number += 1;
        let (name, value) = header_line(line)
            .map_err(|reason| format!("line {number} of the request: {reason}"))?;
        headers.try_append(name, value).map_err(|error| error.to_string())?;
    }
    let head = head(method, target, headers)?;
    let url = head.uri.host().is_some().then(|| head.uri.to_string());
    let body = whole_body(&head.headers, rest).to_vec();
    Ok(SavedRequest { head, body, url, at: None })
}

/// Cuts off the line break that an editor put behind the body.
fn whole_body<'b>(headers: &HeaderMap, rest: &'b [u8]) -> &'b [u8] {
    let declared =
        headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
    match declared.and_then(|len: usize| rest.split_at_checked(len)) {
        Some((body, behind)) if behind.trim_ascii().is_empty() => body,
        _ => rest,
    }
}

fn header_line(line: &[u8]) -> Result<(HeaderName, HeaderValue), String> {
    let at = line.iter().position(|byte| *byte == b':');
    let (name, value) = at
        .and_then(|at| Some((line.get(..at)?, line.get(at + 1..)?)))
        .ok_or("a header is written as NAME: VALUE")?;
    let name = HeaderName::from_bytes(name)
        .map_err(|_shows_nothing| "the name of a header has characters that none has")?;
    let value = HeaderValue::from_bytes(value.trim_ascii())
        .map_err(|_shows_nothing| format!("the value of {name} has a control character"))?;
    Ok((name, value))
}

/// An HTTP archive, as far as it is needed.
#[derive(Deserialize)]
struct Archive {
    log: Log,
}

#[derive(Deserialize)]
struct Log {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    started_date_time: Option<String>,
    request: ArchivedRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchivedRequest {
    method: String,
    url: String,
    headers: Vec<ArchivedHeader>,
    post_data: Option<PostData>,
}

#[derive(Deserialize)]
struct ArchivedHeader {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct PostData {
    #[serde(default)]
    text: String,
}

fn from_archive(bytes: &[u8], number: Option<usize>) -> Result<SavedRequest, String> {
    let bytes = bytes.strip_prefix(MARK).unwrap_or(bytes);
    let archive: Archive =
        serde_json::from_slice(bytes).map_err(|error| format!("it is no HTTP archive: {error}"))?;
    let mut entries = archive.log.entries;
    let count = entries.len();
    let at = match number {
        Some(number) => number.checked_sub(1).filter(|at| *at < count),
        None if count == 1 => Some(0),
        None => only_signed(&entries)?,
    };
    let at = at.ok_or_else(|| format!("it has {count} requests: name one with --entry NUMBER"))?;
    let Entry { started_date_time, request } = entries.swap_remove(at);
    let headers = headers_of(&request)?;
    let head = head(&request.method, &request.url, headers)?;
    let body = request.post_data.map(|data| data.text.into_bytes()).unwrap_or_default();
    let at = started_date_time.and_then(|time| time.parse().ok());
    Ok(SavedRequest { head, body, url: Some(request.url), at })
}

fn headers_of(request: &ArchivedRequest) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    // HTTP/2 has the method and the target in headers that begin with a colon.
    for ArchivedHeader { name, value } in
        request.headers.iter().filter(|one| !one.name.starts_with(':'))
    {
        let (name, value) = header(&format!("{name}: {value}"))?;
        headers.try_append(name, value).map_err(|error| error.to_string())?;
    }
    Ok(headers)
}

/// Returns the place of the one request that has a signature.
fn only_signed(entries: &[Entry]) -> Result<Option<usize>, String> {
    let mut found = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        if !recognition::schemes_of(&headers_of(&entry.request)?).is_empty() {
            found.push(at);
        }
    }
    Ok(match found[..] {
        [at] => Some(at),
        _ => None,
    })
}
