//! A sender of Standard Webhooks, and a clock that stands still.

use std::pin::Pin;
use std::sync::LazyLock;
use std::time::Duration;

use http::{Request, request};
use tokio::sync::watch;
use webhooks_core::Timestamp;
use webhooks_receive::Receiver;
use webhooks_receive::clock::Clock;
use webhooks_receive::provider::Standard;
use webhooks_sign::{Key, standard};

/// When all of this happens, in Unix seconds.
pub(crate) const NOW: u64 = 1_767_225_600;

/// A clock that stands at [`NOW`], or where it is set, and whose deadlines come when the test says so.
#[derive(Debug, Clone)]
pub(crate) struct StoppedClock {
    /// Whether all deadlines have come.
    pub(crate) is_over: watch::Sender<bool>,
    second: u64,
}

impl StoppedClock {
    pub(crate) fn new() -> Self {
        Self::at(NOW)
    }

    pub(crate) fn at(second: u64) -> Self {
        Self { is_over: watch::Sender::new(false), second }
    }
}

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.second)
    }

    fn sleep(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut is_over = self.is_over.subscribe();
        Box::pin(async move {
            is_over.wait_for(|is_over| *is_over).await.unwrap();
        })
    }
}

pub(crate) fn key() -> Key {
    Key::standard(concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap()
}

/// Returns a receiver that is one and the same in all of a test.
pub(crate) fn receiver() -> Receiver<Standard> {
    static RECEIVER: LazyLock<Receiver<Standard>> =
        LazyLock::new(|| Receiver::from_keys(key()).unwrap().clock(StoppedClock::new()));
    RECEIVER.clone()
}

/// Returns a JSON request with the headers of a webhook that is signed for this body.
pub(crate) fn signed(id: &str, at: u64, body: &[u8]) -> request::Builder {
    let signature = standard::sign(&key(), id, at, body).unwrap();
    Request::post("/hook")
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", at)
        .header("webhook-signature", signature.as_str())
}
