//! The body of a request, and the part of a response body that is read.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use reqwest::Response;

/// The body of a request, which records whether the client has taken any of it.
#[derive(Debug)]
pub(crate) struct RequestBody {
    body: Full<Bytes>,
    was_read: Arc<AtomicBool>,
}

impl RequestBody {
    /// Returns a body and its record. An empty body counts as taken: the client may send its request
    /// without polling it.
    pub(crate) fn new(body: Bytes) -> (Self, Arc<AtomicBool>) {
        let was_read = Arc::new(AtomicBool::new(body.is_empty()));
        (Self { body: Full::new(body), was_read: Arc::clone(&was_read) }, was_read)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.was_read.store(true, Ordering::Release);
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads at most `max` bytes of a response's body into `kept`. The bytes that arrived stay there if the
/// body breaks off, or if this future is dropped. The rest is never read: dropping the response closes
/// the connection instead. Nothing is decompressed, so that a small body cannot become a large one.
pub(crate) async fn read(
    mut response: Response,
    max: usize,
    kept: &mut BytesMut,
) -> Result<(), reqwest::Error> {
    while kept.len() < max {
        let Some(chunk) = response.chunk().await? else { break };
        let room = max - kept.len();
        kept.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
    }
    Ok(())
}
