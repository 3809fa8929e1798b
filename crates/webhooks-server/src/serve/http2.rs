//! A connection of HTTP/2, on which nobody may rest for long.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
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
                Ok::<_, Infallible>(response.map(|body| WatchedBody { body, activity }))
            }
        }
    });
    let mut http = http2::Builder::new(Streams::default());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(settings.max_header_bytes.try_into().unwrap_or(u32::MAX));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut is_closing = false;
    loop {
        let longest = if is_closing { settings.write_timeout } else { settings.header_timeout };
        tokio::select! {
            ended = connection.as_mut() => return ended,
            // The client did not take what there was for it, or does not answer to the end of the connection.
            () = activity.rest(longest) => if is_closing { return Ok(()) },
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

/// The body of an answer, which notes that it is taken. It is asked for a frame only if the client has room for one.
struct WatchedBody {
    body: Body,
    activity: Arc<Activity>,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.activity.note();
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
