//! The client of the API.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use url::Url;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use crate::failure::{Exit, Failure, causes, not_a_service};
use crate::global::Global;
use crate::visible::visible;

/// The most things that the API returns in a page.
const PAGE: usize = 250;

/// The most tries of a read that a server puts off because it has too many requests, before the last one.
const TRIES: usize = 5;

/// The most bytes of an id or a name: more than any of a service has.
const MAX_PART: usize = 4_096;

/// The most bytes of an answer: more than a page of the largest events has.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// The beginning of a service's answer for a path that it does not have.
const NO_PATH: &str = "There is no such path";

/// The most characters of an error's text that are shown.
const SHOWN: usize = 2_000;

/// A server, and the key for it.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
}

/// Shows no header: one of them has the key.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Client {
    /// Returns the client of a server, with the time limit and the authorities of the options.
    pub(crate) fn new(server: &str, key: Option<&str>, global: &Global) -> Result<Self, Failure> {
        let mut http = reqwest::Client::builder().timeout(global.timeout);
        if let Some(path) = &global.ca {
            http = http.tls_certs_merge(authorities(path)?);
        }
        Self::build(server, key, http)
    }

    /// Returns a client of a service on this machine, to which no proxy leads.
    pub(crate) fn direct(server: &str, key: &str, timeout: Duration) -> Result<Self, Failure> {
        Self::build(server, Some(key), reqwest::Client::builder().timeout(timeout).no_proxy())
    }

    fn build(
        server: &str,
        key: Option<&str>,
        http: reqwest::ClientBuilder,
    ) -> Result<Self, Failure> {
        let base = Url::parse(server).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let base = base.filter(|url| url.username().is_empty() && url.password().is_none());
        let base = base.ok_or_else(|| {
            Failure::usage("--server is not an http or https URL without a user")
                .hint("write it as http://127.0.0.1:8071")
        })?;
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let value = HeaderValue::try_from(format!("Bearer {key}"));
            let mut value = value
                .map_err(|_shows_it| Failure::usage("the key has characters that no key has"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let agent = concat!("webhooks-cli/", env!("CARGO_PKG_VERSION"));
        let http = http.default_headers(headers).user_agent(agent);
        // A redirect would carry the key to another server.
        let http = http.redirect(reqwest::redirect::Policy::none()).build();
        let http =
            http.map_err(|error| Failure::new(Exit::Failed, "cannot set up HTTP").because(error))?;
        Ok(Self { http, base })
    }

    pub(crate) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Value, Failure> {
        for _try in 0..TRIES {
            let response = self.answer(self.request(Method::GET, path)?.query(query)).await?;
            let Some(pause) = pause(&response) else { return self.read(response).await };
            SystemClock.sleep(pause).await;
        }
        self.send(self.request(Method::GET, path)?.query(query)).await
    }

    /// Reads the answer as a type of its own, for payloads that must stay as they are written.
    pub(crate) async fn get_as<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, Failure> {
        let response = self.answer(self.request(Method::GET, path)?.query(query)).await?;
        self.parsed(&self.body(response).await?)
    }

    pub(crate) async fn post(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<Value, Failure> {
        self.send(self.request(Method::POST, path)?.json(body)).await
    }

    /// Returns the answer to a POST, whatever its status. A server does once what several with one idempotency key
    /// ask for.
    pub(crate) async fn post_for_answer(
        &self,
        path: &[&str],
        body: &impl Serialize,
        idempotency_key: Option<&str>,
    ) -> Result<Answer, Failure> {
        let mut request = self.request(Method::POST, path)?.json(body);
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let response = self.answer(request).await?;
        let status = response.status();
        let body = self.whole(response).await;
        // The status of a failure says enough if the text is cut off.
        let body = if status.is_success() { body? } else { body.unwrap_or_default() };
        Ok(Answer { status, date: None, text: String::from_utf8_lossy(&body).into_owned() })
    }

    pub(crate) async fn patch(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<Value, Failure> {
        self.send(self.request(Method::PATCH, path)?.json(body)).await
    }

    pub(crate) async fn put(&self, path: &[&str], body: &impl Serialize) -> Result<Value, Failure> {
        self.send(self.request(Method::PUT, path)?.json(body)).await
    }

    pub(crate) async fn delete(&self, path: &[&str]) -> Result<Value, Failure> {
        self.send(self.request(Method::DELETE, path)?).await
    }

    /// Returns a thing if it exists.
    pub(crate) async fn find(&self, path: &[&str]) -> Result<Option<Value>, Failure> {
        match self.get(path, &[]).await {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.exit == Exit::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Returns a page of a list, and the iterator of the next page.
    pub(crate) async fn page(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        iterator: Option<String>,
    ) -> Result<(Vec<Value>, Option<String>), Failure> {
        let (mut pages, mut query) = (Pages::new(PAGE), query.to_vec());
        query.push(("limit", PAGE.to_string()));
        query.extend(iterator.map(|text| ("iterator", text)));
        pages.add(self.get(path, &query).await?)?;
        let next = pages.iterator.filter(|_| !pages.is_done);
        Ok((pages.found, next))
    }

    /// Returns all things of a list, `limit` at most, page by page.
    pub(crate) async fn list(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        limit: usize,
    ) -> Result<Vec<Value>, Failure> {
        let mut pages = Pages::new(limit);
        while let Some(size) = pages.next_size() {
            let mut page = query.to_vec();
            page.push(("limit", size.to_string()));
            page.extend(pages.iterator.take().map(|text| ("iterator", text)));
            pages.add(self.get(path, &page).await?)?;
        }
        Ok(pages.found)
    }

    /// Returns all things that a search finds, `limit` at most, page by page.
    pub(crate) async fn search(
        &self,
        path: &[&str],
        mut query: Map<String, Value>,
        limit: usize,
    ) -> Result<Vec<Value>, Failure> {
        let mut pages = Pages::new(limit);
        while let Some(size) = pages.next_size() {
            query.insert("limit".to_owned(), size.into());
            query.extend(pages.iterator.take().map(|text| ("iterator".to_owned(), text.into())));
            pages.add(self.post(path, &query).await?)?;
        }
        Ok(pages.found)
    }

    /// Returns the answer to a request for any path, whatever its status.
    pub(crate) async fn look(&self, path: &[&str]) -> Result<Answer, Failure> {
        let response = self.answer(self.http.get(self.url(path))).await?;
        let (status, headers) = (response.status(), response.headers());
        let date = headers.get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
        let text = String::from_utf8_lossy(&self.whole(response).await?).into_owned();
        Ok(Answer { status, date, text })
    }

    /// Returns a request for a path under `/api/v1`, whose parts are encoded. A part that is empty or dots is
    /// refused: the path would name another thing.
    fn request(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, Failure> {
        if let Some(part) = path.iter().find(|part| matches!(**part, "" | "." | "..")) {
            return Err(Failure::usage(format!("\"{part}\" is no id and no name")));
        }
        if let Some(part) = path.iter().find(|part| part.len() > MAX_PART) {
            let text = format!("an id or a name of {} bytes is too long", part.len());
            return Err(Failure::usage(text));
        }
        Ok(self.http.request(method, self.url(&[&["api", "v1"], path].concat())))
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // An http URL always has a path to add to.
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        url
    }

    async fn send(&self, request: RequestBuilder) -> Result<Value, Failure> {
        self.read(self.answer(request).await?).await
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| self.unreachable(error))
    }

    async fn read(&self, response: Response) -> Result<Value, Failure> {
        let body = self.body(response).await?;
        if body.is_empty() { Ok(Value::Null) } else { self.parsed(&body) }
    }

    async fn body(&self, response: Response) -> Result<Bytes, Failure> {
        let status = response.status();
        if !status.is_success() {
            let url = response.url().clone();
            // The status says enough if the text is cut off.
            let body = self.whole(response).await.unwrap_or_default();
            if let Some(hint) = foreign(status, &body) {
                let text = format!("{} is no webhook service: it answers {status}", self.base);
                return Err(Failure::new(Exit::Unreachable, text).hint(hint));
            }
            return Err(refused(status, &body, Some(&url)));
        }
        self.whole(response).await
    }

    /// Reads an answer to its end, unless it is larger than any of a service.
    async fn whole(&self, mut response: Response) -> Result<Bytes, Failure> {
        let mut body = BytesMut::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if body.len() + part.len() > MAX_ANSWER {
                let text = format!("{} answers with more than {MAX_ANSWER} bytes", self.base);
                return Err(not_a_service(text));
            }
            body.extend_from_slice(&part);
        }
        Ok(body.freeze())
    }

    fn parsed<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(body).map_err(|error| {
            not_a_service(format!("{} did not answer with JSON", self.base)).because(error)
        })
    }

    fn unreachable(&self, error: reqwest::Error) -> Failure {
        let exit = if error.is_timeout() && !error.is_connect() {
            Exit::TimedOut
        } else {
            Exit::Unreachable
        };
        let hint = if is_of_authority(&error) {
            "the certificate of an authority cannot be that of a server: make one with \
             `-addext basicConstraints=critical,CA:FALSE`"
        } else if is_untrusted(&error) {
            "--ca FILE trusts the authority that issued the certificate, or a certificate itself"
        } else if self.base.scheme() == "https" && causes(&error).any(speaks_no_tls) {
            "this port speaks no TLS: use http://"
        } else {
            "is it running? `webhooks serve` starts it; --server names another one"
        };
        Failure::new(exit, format!("no answer from {}", self.base))
            .because(error.without_url())
            .hint(hint)
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// The header that says when it was sent.
    pub(crate) date: Option<String>,
    pub(crate) text: String,
}

impl Answer {
    /// Returns the JSON of the answer, or the failure that it tells.
    pub(crate) fn value(&self) -> Result<Value, Failure> {
        if !self.status.is_success() {
            return Err(self.refused());
        }
        if self.text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&self.text)
            .map_err(|error| not_a_service("the server did not answer with JSON").because(error))
    }

    /// Returns the failure that it tells, if its status is none of success.
    pub(crate) fn refused(&self) -> Failure {
        refused(self.status, self.text.as_bytes(), None)
    }
}

/// Reads the certificates of a file.
fn authorities(path: &Path) -> Result<Vec<Certificate>, Failure> {
    let text = std::fs::read(path).map_err(|error| Failure::file("read", path.display(), error))?;
    let found = Certificate::from_pem_bundle(&text).ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| {
        let text = format!("{}, which --ca names, has no certificate in PEM", path.display());
        Failure::usage(text)
    })
}

/// Returns whether a server shows the certificate of an authority as its own, as `openssl req -x509` makes it by
/// default. rustls has no variant for it, only the text of the crate below.
fn is_of_authority(error: &reqwest::Error) -> bool {
    is_untrusted(error) && format!("{error:?}").contains("CaUsedAsEndEntity")
}

/// Returns whether a server was reached and its certificate refused.
fn is_untrusted(error: &reqwest::Error) -> bool {
    causes(error).any(refuses_certificate)
}

fn refuses_certificate(error: &(dyn Error + 'static)) -> bool {
    // An I/O error passes over the error in it when it tells its source, and there may be another one in it.
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.is_some_and(|inner| refuses_certificate(inner))
        || matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
}

/// Returns whether an error, or the one in it, is that of an answer that is no TLS.
fn speaks_no_tls(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.is_some_and(|inner| speaks_no_tls(inner))
        || matches!(error.downcast_ref(), Some(rustls::Error::InvalidMessage(_)))
}

/// Returns the pause that a server asks for which has too many requests: a minute at most, and a second by default.
fn pause(response: &Response) -> Option<Duration> {
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = asked.and_then(|text| text.parse().ok()).unwrap_or(1_u64);
    Some(Duration::from_secs(seconds.min(60)))
}

/// The pages of a list that were read.
struct Pages {
    found: Vec<Value>,
    limit: usize,
    iterator: Option<String>,
    is_done: bool,
}

impl Pages {
    fn new(limit: usize) -> Self {
        Self { found: Vec::new(), limit, iterator: None, is_done: false }
    }

    /// Returns the size of the next page, if one is needed.
    fn next_size(&self) -> Option<usize> {
        let left = self.limit.saturating_sub(self.found.len());
        (left > 0 && !self.is_done).then(|| left.min(PAGE))
    }

    /// Adds a page. An answer of another kind is a failure: it must not pass for an empty list.
    fn add(&mut self, mut page: Value) -> Result<(), Failure> {
        let Some(Value::Array(items)) = page.get_mut("data") else {
            return Err(not_a_service("the server did not answer with a list"));
        };
        self.found.append(items);
        self.iterator = page["iterator"].as_str().map(str::to_owned);
        self.is_done = page["done"] != Value::Bool(false) || self.iterator.is_none();
        Ok(())
    }
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

/// Returns the failure that the server's answer tells. `url` is that of the request, if a thing in it can be missing.
fn refused(status: StatusCode, text: &[u8], url: Option<&Url>) -> Failure {
    let body: Value = serde_json::from_slice(text).unwrap_or_default();
    let detail = match &body["detail"] {
        Value::String(detail) => match url.and_then(|url| missing(detail, url)) {
            Some(name) => format!("{}: {name}", detail.trim_end_matches('.')),
            None => detail.clone(),
        },
        Value::Array(details) => details.iter().map(invalid_field).collect::<Vec<_>>().join("; "),
        _ => String::from_utf8_lossy(text).into_owned(),
    };
    let detail: String = detail.chars().take(SHOWN).collect();
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
        StatusCode::UNAUTHORIZED => failure.hint("give a key with --key @FILE or WEBHOOKS_KEY"),
        _ => failure,
    }
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
