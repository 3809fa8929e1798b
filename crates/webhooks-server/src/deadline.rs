//! A deadline for the bodies of requests.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use thiserror::Error;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

/// A body that fails when it has not arrived as a whole in time.
struct TimedBody {
    body: Body,
    /// Ready when the time is over.
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// The error of a body that took too long.
#[derive(Debug, Error)]
#[error("the body of the request took too long")]
pub(crate) struct BodyTooSlow;

/// Returns a body that fails after `timeout`. Its whole length has this time: a client that sends a byte now
/// and then gets no more of it.
pub(crate) fn timed(body: Body, timeout: Duration) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(TimedBody { body, end: Box::pin(SystemClock.sleep(timeout)) })
}

/// Returns whether a body took too long, from the error of whoever read it.
pub(crate) fn is_too_slow(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(<dyn std::error::Error + 'static>::is::<BodyTooSlow>)
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new(BodyTooSlow))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
