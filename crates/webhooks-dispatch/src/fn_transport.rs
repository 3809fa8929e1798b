//! A transport made of a closure.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use crate::transport::{ErrorClass, Request, Response, Transport, TransportError};

/// A transport in process: it calls a closure with URL, body, headers and timeout.
///
/// The closure returns a future of `(status, body)`, or of a `Result` of that with any error. The
/// text of the error is part of the delivery's result.
///
/// # Example
/// ```
/// use webhooks_dispatch::FnTransport;
///
/// let always_busy = FnTransport::new(|_url, _body, _headers, _timeout| async { (503, "busy") });
/// let broken = FnTransport::new(|url, _body, _headers, _timeout| async move {
///     Err::<(u16, &str), String>(format!("no route to {url}"))
/// });
/// # let _ = (always_busy, broken);
/// ```
pub struct FnTransport<F> {
    callback: F,
}

impl<F, Fut> FnTransport<F>
where
    F: Fn(String, Bytes, HeaderMap, Duration) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: CallbackOutcome> + Send,
{
    /// Returns a transport that calls the closure for each attempt.
    pub fn new(callback: F) -> Self {
        Self { callback }
    }
}

impl<F> fmt::Debug for FnTransport<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnTransport").finish_non_exhaustive()
    }
}

impl<F, Fut> Transport for FnTransport<F>
where
    F: Fn(String, Bytes, HeaderMap, Duration) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: CallbackOutcome> + Send,
{
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let Request { url, headers, body, timeout, .. } = request;
        (self.callback)(url.to_string(), body, headers, timeout).await.into_response()
    }
}

/// An answer of the closure of an [`FnTransport`]: `(status, body)`, or a `Result` of it.
#[diagnostic::on_unimplemented(message = "a callback returns `(u16, body)` or a `Result` of that")]
pub trait CallbackOutcome {
    /// Converts to the result of a transport.
    ///
    /// # Errors
    /// [`TransportError`] of class [`ErrorClass::Other`] when the closure returned an error.
    fn into_response(self) -> Result<Response, TransportError>;
}

impl<B: Into<Bytes>> CallbackOutcome for (u16, B) {
    fn into_response(self) -> Result<Response, TransportError> {
        let (status, body) = self;
        Ok(Response { status, headers: HeaderMap::new(), body: body.into() })
    }
}

impl<B, E> CallbackOutcome for Result<(u16, B), E>
where
    B: Into<Bytes>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    fn into_response(self) -> Result<Response, TransportError> {
        match self {
            Ok(answer) => answer.into_response(),
            Err(error) => Err(TransportError::new(ErrorClass::Other).caused_by(error)),
        }
    }
}
