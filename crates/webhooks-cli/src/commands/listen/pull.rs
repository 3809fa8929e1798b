//! Pulling: a temporary poller of the service brings the events here, without an address that others reach.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use webhooks_core::Timestamp;
use webhooks_dispatch::clock::{Clock as _, MonotonicTime, SystemClock};
use webhooks_sign::standard::STANDARD;
use webhooks_sign::{Envelope, Key};

use super::inbox::Inbox;
use super::report::Attempt;
use super::seen::Names;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::outage::outlast;
use crate::output::Output;
use crate::saved_request::head;
use crate::signed_request::{sign, time_for};

/// The pause before the next look when nothing came.
const PAUSE: Duration = Duration::from_millis(500);

/// The time after which the service forgets the poller if nobody renews it: this process may be killed.
const EXPIRY: Duration = Duration::from_hours(1);

/// The time after which the poller is renewed.
const RENEWAL: Duration = Duration::from_mins(20);

/// A temporary poller.
#[derive(Debug)]
pub(crate) struct Poller {
    pub(crate) client: Client,
    pub(crate) app: String,
    /// The id at the service. Another one takes its place when the poller has expired.
    id: Mutex<String>,
    /// The time, by the service's clock, from which messages are pulled.
    since: Timestamp,
    pub(crate) secret: SigningSecret,
    key: Key,
    /// Its settings, with which it is renewed.
    settings: Value,
    made_at: MonotonicTime,
}

/// The secret by which forwarded requests are signed.
#[derive(Debug)]
pub(crate) enum SigningSecret {
    /// One that the user gave.
    Given(String),
    /// One that was made for this run.
    Made(String),
}

impl SigningSecret {
    fn text(&self) -> &str {
        match self {
            Self::Given(text) | Self::Made(text) => text,
        }
    }

    /// Returns the secret if it may be shown: nobody knows a new one otherwise.
    pub(crate) fn made(&self) -> Option<&str> {
        match self {
            Self::Given(_) => None,
            Self::Made(text) => Some(text),
        }
    }
}

/// The events that are pulled.
#[derive(Debug)]
pub(crate) enum Wanted<'a> {
    /// Those of these types and patterns; all if there are none.
    Types(&'a [String]),
    /// Those that an endpoint gets.
    Endpoint(&'a str),
}

impl Wanted<'_> {
    /// Returns the settings of a poller that gets these events.
    async fn settings(&self, client: &Client, app: &str) -> Result<Value, Failure> {
        let (types, channels) = match self {
            Self::Types(types) => (json!(types), Value::Null),
            Self::Endpoint(id) => {
                let mut found = client.get(&["app", app, "endpoint", id], &[]).await?;
                (found["eventTypes"].take(), found["channels"].take())
            }
        };
        let description = "temporary: webhooks listen";
        let mut settings = json!({ "description": description, "expirySecs": EXPIRY.as_secs() });
        for (name, list) in [("eventTypes", types), ("channels", channels)] {
            if list.as_array().is_some_and(|list| !list.is_empty()) {
                settings[name] = list;
            }
        }
        Ok(settings)
    }
}

/// A part of the messages.
#[derive(Deserialize)]
struct Page {
    data: Vec<Message>,
    iterator: String,
    done: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    id: String,
    event_type: String,
    payload: Box<RawValue>,
    timestamp: Timestamp,
}

impl Poller {
    /// Makes a poller for the events that are wanted.
    pub(crate) async fn make(
        client: Client,
        app: String,
        wanted: &Wanted<'_>,
        secret: SigningSecret,
    ) -> Result<Self, Failure> {
        let key = Key::standard(secret.text()).map_err(|error| {
            Failure::usage("--secret must be a secret of Standard Webhooks, such as whsec_…")
                .because(error)
        })?;
        let settings = wanted.settings(&client, &app).await?;
        let made_at = SystemClock.monotonic();
        let (id, since) = post(&client, &app, &settings).await?;
        Ok(Self { client, app, id: Mutex::new(id), since, secret, key, settings, made_at })
    }

    /// Returns the id at the service.
    pub(crate) fn id(&self) -> String {
        self.id.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the poller again, which has expired: this machine may have slept.
    async fn make_again(&self) -> Result<(), Failure> {
        let (id, _) = post(&self.client, &self.app, &self.settings).await?;
        let old = self.id();
        Output::warn(format!(
            "the temporary poller {old} is gone from the service; {id} goes on in its place"
        ));
        *self.id.lock().unwrap_or_else(PoisonError::into_inner) = id;
        Ok(())
    }

    /// Pulls messages into the inbox, until the service refuses it.
    pub(crate) async fn run(&self, inbox: &Arc<Inbox>, output: Output) -> Failure {
        let mut place = ("after", self.since.to_string());
        let (mut renewed_at, mut has_pulled) = (self.made_at, false);
        loop {
            let pull = async || self.pull(&place, &mut renewed_at).await;
            let mut pulled = outlast(output, pull).await;
            // Once after each pull: a service that has no poller for long must not get ever more of them.
            if has_pulled && matches!(&pulled, Err(failure) if failure.exit == Exit::NotFound) {
                let now = SystemClock.monotonic();
                pulled = match outlast(output, async || self.make_again().await).await {
                    Ok(()) => {
                        (renewed_at, has_pulled) = (now, false);
                        continue;
                    }
                    Err(failure) => Err(failure),
                };
            }
            match pulled {
                Ok(page) => {
                    has_pulled = true;
                    // The first page may begin before the time that was asked for.
                    let new = page.data.into_iter().filter(|one| one.timestamp >= self.since);
                    for message in new {
                        if let Err(failure) = self.take(inbox, message).await {
                            return failure;
                        }
                    }
                    place = ("iterator", page.iterator);
                    if page.done {
                        SystemClock.sleep(PAUSE).await;
                    }
                }
                Err(failure) => return failure,
            }
        }
    }

    async fn pull(
        &self,
        (name, place): &(&str, String),
        renewed_at: &mut MonotonicTime,
    ) -> Result<Page, Failure> {
        let (now, id) = (SystemClock.monotonic(), self.id());
        if now.saturating_since(*renewed_at) >= RENEWAL {
            let path = ["app", &self.app, "polling-endpoint", &id];
            self.client.put(&path, &self.settings).await?;
            *renewed_at = now;
        }
        let path = ["app", &self.app, "poller", &id];
        self.client.get_as(&path, &[(name, place.clone())]).await
    }

    /// Passes a message on as the request that an endpoint would get, and reports the answer.
    async fn take(&self, inbox: &Inbox, message: Message) -> Result<(), Failure> {
        let Message { id, event_type, payload, .. } = message;
        let body = Bytes::from(String::from(Box::<str>::from(payload)));
        let timestamp = time_for(&STANDARD, Timestamp::now());
        let envelope = Envelope { id: &id, timestamp: &timestamp, ..Envelope::default() };
        let signed = sign(&STANDARD, self.secret.text(), &self.key, &envelope, &body)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in signed {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        let head = head("POST", "/", headers).map_err(|error| Failure::new(Exit::Failed, error))?;
        let names = Names { event_type: Some(event_type), id: Some(id.clone()) };
        let attempt = Attempt::begin();
        let taken = inbox.take(head, body, Some(names)).await;
        SystemClock.sleep(taken.answer.delay).await;
        let poller = self.id();
        let place = (self.app.as_str(), poller.as_str(), id.as_str());
        if let Err(failure) = attempt.report(&self.client, place, &taken).await {
            Output::warn(format!("the answer to {id} was not recorded: {failure}"));
        }
        inbox.tell(taken.seen).await;
        Ok(())
    }

    /// Removes the poller from the service.
    pub(crate) async fn remove(&self) {
        let id = self.id();
        let removed = self.client.delete(&["app", &self.app, "polling-endpoint", &id]).await;
        // One that is gone already needs no removal.
        if let Err(failure) = removed
            && failure.exit != Exit::NotFound
        {
            Output::warn(format!("the temporary poller {id} was not removed: {failure}"));
        }
    }
}

/// Makes a poller at the service; returns its id, and the time at which it was made.
async fn post(
    client: &Client,
    app: &str,
    settings: &Value,
) -> Result<(String, Timestamp), Failure> {
    let made = client.post(&["app", app, "polling-endpoint"], settings).await?;
    let text = |name: &str| made[name].as_str().unwrap_or_default();
    let (id, since) = (text("id"), text("createdAt").parse().ok());
    let since = since.filter(|_| !id.is_empty()).ok_or_else(|| {
        Failure::new(Exit::Failed, "the service did not tell the poller's id and time")
    })?;
    Ok((id.to_owned(), since))
}
