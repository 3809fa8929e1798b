//! How many requests the receiver has got.

use std::sync::LazyLock;

use super::receiver::Receiver;

/// One for all questions, because a new client costs milliseconds.
static CLIENT: LazyLock<reqwest::Client> =
    LazyLock::new(|| reqwest::Client::builder().no_proxy().build().unwrap());

impl Receiver {
    /// Waits until this many requests have come since the start; returns how many have.
    pub(crate) async fn arrived(&self, requests: usize) -> usize {
        let url = self.url(&format!("arrived/{requests}"));
        let arrived = CLIENT.get(url).send().await.unwrap().text().await.unwrap();
        arrived.parse().unwrap()
    }
}
