//! A connection of HTTP/2, on which nobody may rest for long.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use webhooks_dispatch::clock::{Clock as _, MonotonicTime, SystemClock};

use super::connection::{Server, answer};

/// The most requests of a connection at once.
const MAX_STREAMS: u32 = 128;

/// The most bytes of an answer that are passed on at once: the longest frame that every client takes (RFC 9113 §4.2).
/// A body that is passed on as a whole would not be asked again while its client takes it.
const MAX_FRAME: usize = 16 * 1024;

/// The most bytes of an answer that wait for the socket, for the same reason.
const MAX_BUFFERED: usize = 4 * MAX_FRAME;

/// The longest time in which a client that rests may answer to the end of the connection.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves a connection until it ends, its client rests for too long, or the server stops.
pub(super) async fn serve(
    server: &Server,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
) -> hyper::Result<()> {
    let settings = &server.settings;
    let activity = Arc::new(Activity::new());
    let (router, is_full) = (server.router.clone(), Arc::clone(&server.is_full));
    let service = service_fn({
        let activity = Arc::clone(&activity);
        move |request| {
            let answer = answer(&router, request, peer);
            let (running, is_full) = (Running::new(&activity), Arc::clone(&is_full));
            async move {
                let response = answer.await?;
                if is_full.load(Ordering::Relaxed) {
                    // Its place is for one that waits.
                    running.0.closing.notify_one();
                }
                let activity = Arc::clone(&running.0);
                Ok::<_, Infallible>(response.map(|body| WatchedBody::new(body, activity)))
            }
        }
    });
    let mut http = http2::Builder::new(Streams::default());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(MAX_BUFFERED)
        .max_header_list_size(settings.max_header_bytes.try_into().unwrap_or(u32::MAX));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut is_closing = false;
    loop {
        let rest = async {
            if is_closing {
                SystemClock.sleep(FAREWELL.min(settings.write_timeout)).await;
                activity.rest(settings.write_timeout).await;
            } else {
                activity.rest(settings.header_timeout).await;
            }
        };
        tokio::select! {
            // The connection first: it sends its end before the time for that is over.
            biased;
            ended = connection.as_mut() => return ended,
            // The client did not take what there was for it, or does not answer to the end of the connection.
            () = rest => if is_closing { return Ok(()) },
            () = activity.closing.notified(), if !is_closing => {}
            () = server.stop(), if !is_closing => {}
        }
        is_closing = true;
        connection.as_mut().graceful_shutdown();
    }
}

/// The activity on a connection.
struct Activity {
    /// The number of requests that are being answered.
    running: AtomicUsize,
    /// The last time at which a request began, or something of an answer was taken.
    last: Mutex<MonotonicTime>,
    /// Told when the connection is to end.
    closing: Notify,
}

impl Activity {
    fn new() -> Self {
        let last = Mutex::new(SystemClock.monotonic());
        Self { running: AtomicUsize::new(0), last, closing: Notify::new() }
    }

    fn note(&self) {
        *lock(&self.last) = SystemClock.monotonic();
    }

    /// Waits until nothing has happened for `longest`, and no request is being answered.
    async fn rest(&self, longest: Duration) {
        loop {
            let rested = SystemClock.monotonic().saturating_since(*lock(&self.last));
            let is_running = self.running.load(Ordering::Acquire) > 0;
            if rested >= longest && !is_running {
                return;
            }
            let left = longest.saturating_sub(rested);
            SystemClock.sleep(if left.is_zero() { longest } else { left }).await;
        }
    }
}

/// A request that is being answered.
struct Running(Arc<Activity>);

impl Running {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.note();
        activity.running.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(activity))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.note();
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of an answer, which notes that it is taken. It is asked for a frame only after the client had room for the
/// one before.
struct WatchedBody {
    body: Body,
    /// The part of the body's last frame that is not passed on yet.
    left: Bytes,
    activity: Arc<Activity>,
}

impl WatchedBody {
    fn new(body: Body, activity: Arc<Activity>) -> Self {
        Self { body, left: Bytes::new(), activity }
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.activity.note();
        if self.left.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            match frame.into_data() {
                Ok(data) => self.left = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let len = self.left.len().min(MAX_FRAME);
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, left) = (self.body.size_hint(), self.left.len() as u64);
        // The upper bound first: a lower one above it panics.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(left));
        }
        hint.set_lower(hint.lower().saturating_add(left));
        hint
    }
}

/// The tasks of a connection's requests. They end with the connection.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, request: F) {
        let mut tasks = lock(&self.0);
        // A panic is a bug of the router, and was reported.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(request);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    #[tokio::test]
    async fn a_body_is_passed_on_in_parts_with_its_trailers() {
        let whole: Vec<u8> = (0..=255).cycle().take(2 * MAX_FRAME + 5).collect();
        let mut trailers = HeaderMap::new();
        trailers.insert(http::header::ETAG, http::HeaderValue::from_static("x"));
        let sent = Full::new(Bytes::from(whole.clone()));
        let sent = sent.with_trailers(std::future::ready(Some(Ok(trailers.clone()))));
        let mut body = WatchedBody::new(Body::new(sent), Arc::new(Activity::new()));
        let (mut parts, mut lens) = (Vec::new(), Vec::new());
        while parts.len() < whole.len() {
            let part = body.frame().await.unwrap().unwrap().into_data().unwrap();
            lens.push(part.len());
            parts.extend_from_slice(&part);
            assert!(!body.is_end_stream());
        }
        assert_eq!((parts, lens), (whole, vec![MAX_FRAME, MAX_FRAME, 5]));
        let last = body.frame().await.unwrap().unwrap();
        assert_eq!(last.into_trailers().unwrap(), trailers);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn the_length_of_a_body_counts_the_part_that_is_left() {
        let len = MAX_FRAME + 5;
        let mut body = WatchedBody::new("x".repeat(len).into(), Arc::new(Activity::new()));
        assert_eq!(body.size_hint().exact(), Some(len as u64));
        let _first = body.frame().await.unwrap().unwrap();
        assert_eq!(body.size_hint().exact(), Some(5));
        assert!(!body.is_end_stream());
        let _second = body.frame().await.unwrap().unwrap();
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(body.is_end_stream());
    }
}
