//! A bare loop of requests, which does nothing but send.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use tokio::task::JoinSet;
use url::Url;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use crate::failure::{Exit, Failure};

/// Sends `requests` requests with this body; returns the time that it took.
///
/// The client is that of the project's own benchmark of deliveries (`tests/benches/deliver`), so the ratios compare.
pub(super) async fn measure(
    url: &str,
    body: impl Into<Bytes>,
    requests: usize,
    concurrency: usize,
) -> Result<Duration, Failure> {
    let client = reqwest::Client::builder().no_proxy().build().map_err(failed)?;
    let url = Url::parse(url).map_err(|error| {
        Failure::new(Exit::Failed, "the receiver has no valid URL").because(error)
    })?;
    let (body, left) = (body.into(), Arc::new(AtomicUsize::new(requests)));
    let mut loops = JoinSet::new();
    let start = SystemClock.monotonic();
    for _ in 0..concurrency {
        let (client, url, body) = (client.clone(), url.clone(), body.clone());
        let left = Arc::clone(&left);
        loops.spawn(async move {
            let next = |left: usize| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok() {
                let request = client.post(url.clone()).header(CONTENT_TYPE, "application/json");
                let response = request.body(body.clone()).send().await?.error_for_status()?;
                response.bytes().await?;
            }
            Ok(())
        });
    }
    while let Some(ended) = loops.join_next().await {
        ended
            .map_err(|error| Failure::new(Exit::Failed, "a loop ended early").because(error))?
            .map_err(failed)?;
    }
    Ok(SystemClock.monotonic().saturating_since(start))
}

fn failed(error: reqwest::Error) -> Failure {
    Failure::new(Exit::Failed, "a request to the receiver on loopback failed").because(error)
}
