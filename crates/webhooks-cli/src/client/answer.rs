//! An answer of a server: its status and its body, and the failure that they tell.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{DATE, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::unreachable::unreachable;
use crate::failure::{Exit, Failure, MAX_PAUSE, NO_KEY, PAUSE, not_a_service};
use crate::visible::visible;

/// The most bytes of an answer: more than a page of the largest events has.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// The beginning of a service's answer for a path that it does not have.
const NO_PATH: &str = "There is no such path";

/// A part of the reasons for which an [`AddressPolicy`](webhooks_http::AddressPolicy) refuses an address or a host.
const REFUSED_ADDRESS: &str = " is not an allowed ";

/// The path of the API, which a client adds to the URL of a server.
const API: &str = "/api/v1";

/// The most characters of an error's text that are shown.
const SHOWN: usize = 2_000;

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The server that was asked.
    server: Url,
    /// The URL of the request.
    url: Url,
    pub(crate) status: StatusCode,
    /// The header that says when it was sent.
    pub(crate) date: Option<String>,
    /// The time after which the server asks for another request.
    retry_after: Option<Duration>,
    body: Bytes,
}

impl Answer {
    /// Reads the answer of a server to its end.
    pub(super) async fn read(server: Url, response: Response) -> Result<Self, Failure> {
        let (status, url) = (response.status(), response.url().clone());
        let header = |name| response.headers().get(name)?.to_str().ok();
        let date = header(DATE).map(str::to_owned);
        let retry_after = header(RETRY_AFTER).and_then(|text| text.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        let body = whole(&server, response).await;
        // The status of a failure says enough if the text is cut off.
        let body = if status.is_success() { body? } else { body.unwrap_or_default() };
        Ok(Self { server, url, status, date, retry_after, body })
    }

    /// Returns the pause before the same request if the server puts it off because it has too many.
    pub(super) fn pause(&self) -> Option<Duration> {
        let is_put_off = self.status == StatusCode::TOO_MANY_REQUESTS;
        // A longer wait is the limit of a day, which does not pass while somebody waits.
        Some(self.wait()).filter(|wait| is_put_off && *wait <= MAX_PAUSE)
    }

    /// Returns the time before another request.
    fn wait(&self) -> Duration {
        self.retry_after.unwrap_or(PAUSE)
    }

    /// Returns the body as a text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the JSON of the body, whatever the status; null if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Returns the JSON of the answer, or the failure that it tells. No body is null.
    pub(crate) fn value(&self) -> Result<Value, Failure> {
        if self.status.is_success() && self.body.is_empty() {
            return Ok(Value::Null);
        }
        self.parsed()
    }

    /// Returns the JSON of the answer as a type of its own, or the failure that it tells.
    pub(crate) fn parsed<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        if !self.status.is_success() {
            return Err(self.refused());
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            not_a_service(format!("{} did not answer with JSON", self.server)).because(error)
        })
    }

    /// Returns the failure that it tells, if its status is none of success.
    pub(crate) fn refused(&self) -> Failure {
        let status = self.status;
        if let Some(hint) = self.foreign() {
            let text = format!("{} is no webhook service: it answers {status}", self.server);
            return Failure::new(Exit::Unreachable, text).hint(hint);
        }
        let detail = self.detail();
        let exit = match status.as_u16() {
            401 | 403 => Exit::NotAllowed,
            404 => Exit::NotFound,
            400..500 => Exit::Refused,
            _ => Exit::Failed,
        };
        let text = if detail.is_empty() {
            status.to_string()
        } else {
            format!("{detail} ({})", status.as_u16())
        };
        let failure = Failure::new(exit, visible(&text));
        match status {
            StatusCode::UNAUTHORIZED => failure.hint(NO_KEY),
            StatusCode::UNPROCESSABLE_ENTITY if detail.contains(REFUSED_ADDRESS) => failure.hint(
                "`webhooks serve --dev` allows this machine, and `webhooks serve --allow-network CIDR` a network of \
                 yours",
            ),
            _ if status.is_server_error() => failure.passes_after(self.wait()),
            _ => match self.pause() {
                Some(pause) => failure.passes_after(pause),
                None => failure,
            },
        }
    }

    /// Returns the hint for an answer that is not that of a webhook service at this URL, if it is one.
    pub(crate) fn foreign(&self) -> Option<&'static str> {
        let hint = foreign(self.status, &self.body)?;
        let has_api = self.server.path().trim_end_matches('/').ends_with(API);
        Some(if has_api { "leave out /api/v1: every request adds it" } else { hint })
    }

    /// Returns the reason that the server gives.
    fn detail(&self) -> String {
        let detail = match &self.json()["detail"] {
            Value::String(detail) => match missing(detail, &self.url) {
                Some(name) => format!("{}: {name}", detail.trim_end_matches('.')),
                None => detail.clone(),
            },
            Value::Array(details) => {
                details.iter().map(invalid_field).collect::<Vec<_>>().join("; ")
            }
            _ => self.text(),
        };
        detail.chars().take(SHOWN).collect()
    }
}

/// Reads an answer to its end, unless it is larger than any of a service.
async fn whole(server: &Url, mut response: Response) -> Result<Bytes, Failure> {
    let mut body = BytesMut::new();
    while let Some(part) = response.chunk().await.map_err(|error| unreachable(server, error))? {
        if body.len() + part.len() > MAX_ANSWER {
            let text = format!("{server} answers with more than {MAX_ANSWER} bytes");
            return Err(not_a_service(text));
        }
        body.extend_from_slice(&part);
    }
    Ok(body.freeze())
}

/// Returns the hint for an answer that is not that of a webhook service at this URL, if it is one.
fn foreign(status: StatusCode, body: &[u8]) -> Option<&'static str> {
    if !matches!(status.as_u16(), 400 | 404 | 405 | 501) {
        return None;
    }
    let body = String::from_utf8_lossy(body);
    let text = body.trim_start();
    if text.starts_with(['{', '[']) && !text.contains(NO_PATH) {
        return None;
    }
    if status == StatusCode::BAD_REQUEST && text.contains("HTTPS") {
        return Some("this port speaks TLS: use https://");
    }
    let is_page = text.is_empty() || text.starts_with(['<', '4']);
    (is_page || text.contains(NO_PATH))
        .then_some("is there a base path, as in http://127.0.0.1:8071/hooks?")
}

/// Returns the name in a path of the thing that a service does not have, unless it is written with escapes.
fn missing<'u>(detail: &str, url: &'u Url) -> Option<&'u str> {
    let thing = detail.strip_prefix("There is no such ")?.strip_suffix('.')?;
    let part = match thing {
        "application" => "app",
        "event type" => "event-type",
        "message" => "msg",
        other => other,
    };
    let mut parts = url.path_segments()?.skip_while(|found| *found != part);
    parts.nth(1).filter(|name| !name.contains('%'))
}

/// Returns the text for a field that was refused: its place, and why.
fn invalid_field(detail: &Value) -> String {
    let place = detail["loc"].as_array().map(|parts| {
        let parts = parts.iter().filter(|part| *part != "body");
        parts
            .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(".")
    });
    let text = detail["msg"].as_str().unwrap_or("not valid");
    match place {
        Some(place) if !place.is_empty() => format!("{place}: {text}"),
        _ => text.to_owned(),
    }
}
