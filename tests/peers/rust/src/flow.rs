//! The client, the receiver and the checks that all topics use.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use svix::api::{MessageAttemptListAttemptedMessagesOptions, Svix, SvixOptions};
use svix::models::{
    ApplicationIn, EndpointIn, EndpointMessageOut, EndpointOut, MessageIn, MessageOut,
};
use svix::{Error, Webhook};

use crate::receiver::{Received, Receiver};

const DEADLINE: Duration = Duration::from_secs(30);

/// More failures than there are requests.
pub const ALWAYS: usize = usize::MAX;

pub struct Flow {
    pub client: Svix,
    pub receiver: Receiver,
    url: String,
    /// A word that no other run has.
    pub run: String,
}

impl Flow {
    pub async fn new(url: String, token: String) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let run = format!("flow-{}", since.as_nanos());
        let (client, receiver) = (client(&url, token), Receiver::start().await);
        Self { client, receiver, url, run }
    }

    pub fn client_with(&self, token: &str) -> Svix {
        client(&self.url, token.to_owned())
    }

    pub async fn application(&self, name: &str) -> String {
        let new = ApplicationIn::new(format!("{} {name}", self.run));
        self.client.application().create(new, None).await.unwrap().id
    }

    pub fn endpoint_in(&self, path: &str) -> EndpointIn {
        EndpointIn::new(self.receiver.url(path))
    }

    pub async fn endpoint(&self, app: &str, new: EndpointIn) -> EndpointOut {
        self.client.endpoint().create(app.to_owned(), new, None).await.unwrap()
    }

    pub async fn send(&self, app: &str, new: MessageIn) -> MessageOut {
        self.client.message().create(app.to_owned(), new, None).await.unwrap()
    }

    /// Waits until a path has got a message this often; returns the last of the requests.
    pub async fn received(&self, path: &str, message: &MessageOut, times: usize) -> Received {
        eventually(&format!("{path} receives it, {times} in all"), async || {
            let requests = self.receiver.requests(path);
            requests.into_iter().filter(|request| request.message() == message.id).nth(times - 1)
        })
        .await
    }

    /// Returns a message, if the endpoint has attempted it.
    pub async fn attempted(
        &self,
        app: &str,
        endpoint: &str,
        message: &MessageOut,
        options: MessageAttemptListAttemptedMessagesOptions,
    ) -> Option<EndpointMessageOut> {
        let api = self.client.message_attempt();
        let page =
            api.list_attempted_messages(app.to_owned(), endpoint.to_owned(), Some(options)).await;
        page.unwrap().data.into_iter().find(|found| found.id == message.id)
    }
}

/// Returns a client without retries: they would hide a 5xx of the server.
fn client(url: &str, token: String) -> Svix {
    let (server_url, retry_schedule) = (Some(url.to_owned()), Some(Vec::new()));
    let options = SvixOptions { server_url, retry_schedule, ..SvixOptions::default() };
    Svix::new(token, Some(options))
}

/// Returns a message of no special kind.
pub fn message_in() -> MessageIn {
    MessageIn::new("a.created".to_owned(), json!({ "a": 1 }))
}

pub fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// Returns a secret that no other call returns.
pub fn new_secret() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    format!("whsec_{now:032}")
}

/// Returns those of the secrets that verify a request.
pub fn verifying(request: &Received, secrets: &[String]) -> Vec<String> {
    let verifies = |secret: &&String| {
        Webhook::new(secret).unwrap().verify(&request.body, &request.headers).is_ok()
    };
    secrets.iter().filter(verifies).cloned().collect()
}

/// Checks for the error of a status: with this code, or if it is 422, about this field.
pub fn refused<T: Debug>(result: Result<T, Error>, status: u16, code: &str) {
    let holds = match &result {
        Err(Error::Http(error)) => {
            let told = error.payload.as_ref();
            error.status.as_u16() == status
                && told.is_some_and(|told| told.code == code && !told.detail.is_empty())
        }
        Err(Error::Validation(error)) => {
            let told = error.payload.as_ref().and_then(|told| told.detail.first());
            let told = told.filter(|told| !told.msg.is_empty() && !told.r#type.is_empty());
            status == 422 && told.is_some_and(|told| told.loc == ["body", code])
        }
        _ => false,
    };
    assert!(holds, "expected {status} {code}, found {result:?}");
}

/// Returns the first value of `probe`, or fails at the deadline.
pub async fn eventually<T>(what: &str, probe: impl AsyncFn() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A page of a list: its items, its iterator, and whether it is the last.
pub type Page<T> = (Vec<T>, Option<String>, bool);

/// Follows the iterator until the list is done; returns all items.
pub async fn pages<T>(size: u64, list: impl AsyncFn(u64, Option<String>) -> Page<T>) -> Vec<T> {
    let (mut all, mut iterator) = (Vec::new(), None);
    loop {
        let (data, next, done) = list(size, iterator).await;
        assert!(done || data.len() as u64 == size, "a page with more to come is full");
        assert!(all.len() < 10_000, "the list ends");
        all.extend(data);
        if done {
            return all;
        }
        iterator = Some(next.expect("a page with more to come has an iterator"));
    }
}

/// Returns whether a payload is empty, or says that it was deleted.
pub fn is_gone(payload: &Value) -> bool {
    [json!({}), json!({ "expired": true })].contains(payload)
}
