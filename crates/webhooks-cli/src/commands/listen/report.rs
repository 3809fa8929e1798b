//! The report of an event that was pulled: the answer that it got here.

use std::time::Duration;

use serde_json::{Map, Value, json};
use webhooks_core::{EventId, Timestamp};
use webhooks_dispatch::clock::{Clock as _, MonotonicTime, SystemClock};
use webhooks_dispatch::history::Excerpt;

use super::inbox::Taken;
use crate::client::Client;
use crate::failure::Failure;

/// The most bytes of a response in a report.
const MAX_RESPONSE: usize = 1024;

/// The most bytes of a response that is no text: in base64 they are 1,024.
const MAX_BINARY: usize = 768;

/// The longest duration that the service takes, in milliseconds.
const MAX_DURATION: u64 = 60 * 60 * 1_000;

/// The tries of a report, before the last one, while the service does not answer.
const TRIES: u32 = 2;

/// An attempt that has begun. Its id is the same in each try of the report, so that the service records it once.
#[derive(Debug)]
pub(crate) struct Attempt {
    id: String,
    started_at: Timestamp,
    start: MonotonicTime,
}

impl Attempt {
    pub(crate) fn begin() -> Self {
        let id = EventId::random().to_string();
        Self { id, started_at: Timestamp::now(), start: SystemClock.monotonic() }
    }

    /// Tells the service how the attempt at an event ended.
    pub(crate) async fn report(
        &self,
        client: &Client,
        (app, poller, event): (&str, &str, &str),
        taken: &Taken,
    ) -> Result<(), Failure> {
        let took = SystemClock.monotonic().saturating_since(self.start);
        let body = self.body(taken, took);
        let path = ["app", app, "poller", poller, "msg", event, "attempt", &self.id];
        for _ in 0..TRIES {
            let put = client.put(&path, &body).await;
            match put.as_ref().err().and_then(Failure::pause) {
                Some(pause) => SystemClock.sleep(pause).await,
                None => return put.map(drop),
            }
        }
        client.put(&path, &body).await.map(drop)
    }

    fn body(&self, taken: &Taken, took: Duration) -> Map<String, Value> {
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).min(MAX_DURATION);
        let (status, response) = match taken.behind() {
            // Without an answer, the reason is in its place.
            Some(behind) => match &behind.status {
                Ok(status) => (Some(status.as_u16()), response(&behind.response)),
                Err(error) => (None, cut(&format!("{}: {error}", behind.place)).to_owned()),
            },
            None => (Some(taken.status.as_u16()), String::new()),
        };
        let mut body = Map::new();
        body.insert("timestamp".to_owned(), json!(self.started_at));
        body.insert("responseDurationMs".to_owned(), json!(took));
        body.extend(status.map(|status| ("responseStatusCode".to_owned(), json!(status))));
        body.insert("response".to_owned(), json!(response));
        body
    }
}

/// Returns a response as a report has it: a text, or base64.
fn response(bytes: &[u8]) -> String {
    let text = match str::from_utf8(bytes) {
        // Without a length, the error is a last character that was cut off.
        Err(error) if error.error_len().is_none() => bytes.get(..error.valid_up_to()),
        _ => None,
    };
    match Excerpt::of(text.unwrap_or(bytes)) {
        Excerpt::Text(text) => cut(text).to_owned(),
        Excerpt::Base64(_) => match Excerpt::of(bytes.get(..MAX_BINARY).unwrap_or(bytes)) {
            Excerpt::Text(text) => text.to_owned(),
            Excerpt::Base64(text) => text,
        },
    }
}

/// Cuts a text at the end of a character.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_RESPONSE)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_a_text_or_base64_and_fits() {
        assert_eq!(response(b"no such user"), "no such user");
        assert_eq!(response(&[0xff, 0]), "/wA=");
        let cut_off = "é".repeat(600);
        let cut_off = cut_off.as_bytes().get(..1023).unwrap();
        assert_eq!(response(cut_off), "é".repeat(511));
        for bytes in [vec![0xff; 1024], vec![b'a'; 1024], vec![0; 1024]] {
            assert!(response(&bytes).len() <= MAX_RESPONSE);
        }
    }
}
