//! The client of the API.

mod answer;
mod unreachable;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, Method, RequestBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use url::Url;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

pub(crate) use self::answer::Answer;
use self::unreachable::unreachable;
use crate::failure::{Exit, Failure, MAX_PAUSE, not_a_service};
use crate::global::Global;
use crate::output::Output;

/// The most things that the API returns in a page.
const PAGE: usize = 250;

/// The most tries of a request that a server puts off because it has too many, before the last one.
const TRIES: usize = 5;

/// The longest pause of which nobody is told.
const SILENT_PAUSE: Duration = Duration::from_secs(2);

/// The most bytes of an id or a name: more than any of a service has.
const MAX_PART: usize = 4_096;

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
        Self::named(("--server", server), key, global)
    }

    /// Returns such a client. The first text is the name of the server's setting, for errors.
    pub(crate) fn named(
        server: (&str, &str),
        key: Option<&str>,
        global: &Global,
    ) -> Result<Self, Failure> {
        let mut http = reqwest::Client::builder().timeout(global.timeout);
        if let Some(path) = &global.ca {
            http = http.tls_certs_merge(authorities(path)?);
        }
        Self::build(server, key, http)
    }

    /// Returns a client of a service on this machine, to which no proxy leads.
    pub(crate) fn direct(server: &str, key: &str, timeout: Duration) -> Result<Self, Failure> {
        let http = reqwest::Client::builder().timeout(timeout).no_proxy();
        Self::build(("--server", server), Some(key), http)
    }

    fn build(
        (name, server): (&str, &str),
        key: Option<&str>,
        http: reqwest::ClientBuilder,
    ) -> Result<Self, Failure> {
        let base = Url::parse(server).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let base = base.filter(|url| url.username().is_empty() && url.password().is_none());
        let base = base.ok_or_else(|| {
            Failure::usage(format!("{name} is not an http or https URL without a user"))
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
        self.send(self.request(Method::GET, path)?.query(query)).await
    }

    /// Reads the answer as a type of its own, for payloads that must stay as they are written.
    pub(crate) async fn get_as<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, Failure> {
        self.answer(self.request(Method::GET, path)?.query(query)).await?.parsed()
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
        self.answer(request).await
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
        self.first_answer(self.http.get(self.url(path))).await
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
        self.answer(request).await?.value()
    }

    /// Returns the answer to a request. One that the server puts off was not begun, so it is made again, as long as the
    /// pauses together are no longer than [`MAX_PAUSE`].
    async fn answer(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let mut waited = Duration::ZERO;
        for _try in 0..TRIES {
            let Some(copy) = request.try_clone() else { break };
            let answer = self.first_answer(copy).await?;
            let Some(pause) = answer.pause() else { return Ok(answer) };
            waited += pause;
            if waited > MAX_PAUSE {
                return Ok(answer);
            }
            if pause > SILENT_PAUSE {
                let seconds = pause.as_secs();
                Output::warn(format!("the server is busy; trying again after {seconds} s"));
            }
            SystemClock.sleep(pause).await;
        }
        self.first_answer(request).await
    }

    async fn first_answer(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let response = request.send().await.map_err(|error| unreachable(&self.base, error))?;
        Answer::read(self.base.clone(), response).await
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
