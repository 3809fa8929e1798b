//! One attempt: sign, send, and wait no longer than the endpoint allows.

use std::future::ready;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, OptionFuture, select};
use thiserror::Error;
use webhooks_registry::Endpoint;

use crate::headers::{SigningError, signed_headers};
use crate::{Clock, ErrorClass, Request, Response, SerializedEvent, Transport, TransportError};

/// Says why an attempt brought no response.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// The delivery could not be signed, so nothing was sent.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The exchange failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// Signs the body for the endpoint, sends it once and returns what came back.
///
/// The deadline holds and a panic is contained whatever the transport does, even when its future
/// panics as it is dropped. An exchange that lasts longer than `slow_after` calls `on_slow` and goes
/// on.
pub(crate) async fn attempt(
    transport: &impl Transport,
    clock: &impl Clock,
    endpoint: &Endpoint,
    event: &SerializedEvent,
    slow_after: Duration,
    on_slow: impl FnOnce() + Send,
) -> Result<Response, AttemptError> {
    let headers = signed_headers(endpoint, event, clock.now())?;
    let request = Request::new(endpoint, headers, event.body.clone());
    let timeout = endpoint.timeout.saturating_add(transport.longest_wait());
    // The call itself may panic, not only the future that it returns.
    let exchange = ready(request).then(|request| transport.send(request));
    let exchange = AssertUnwindSafe(exchange).catch_unwind();
    let mut exchange = pin!(OptionFuture::from(Some(exchange)));
    let deadline = async {
        clock.sleep(slow_after.min(timeout)).await;
        if slow_after < timeout {
            on_slow();
            clock.sleep(timeout.saturating_sub(slow_after)).await;
        }
    };
    let outcome = match select(exchange.as_mut(), pin!(deadline)).await {
        Either::Left((Some(Ok(outcome)), _)) => outcome.map_err(AttemptError::from),
        Either::Left(_panic) => Err(TransportError::new(ErrorClass::Panic).into()),
        Either::Right(_) => Err(TransportError::new(ErrorClass::Timeout).into()),
    };
    // What is left of the exchange goes here, where a panic does not change the outcome.
    let _panic = catch_unwind(AssertUnwindSafe(|| exchange.set(None.into())));
    outcome
}
