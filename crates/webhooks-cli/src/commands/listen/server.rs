//! The receiver on this machine: its answers, some of which misbehave.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use tokio::sync::oneshot;
use tokio::time::{Interval, interval};
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use super::inbox::Inbox;
use super::plan::Manner;
use crate::loopback::{Loopback, NoAnswer};

/// The size in bytes of a huge body.
const HUGE: u64 = 1024 * 1024 * 1024;

/// The pause between the bytes of a slow body.
const SLOW: Duration = Duration::from_secs(1);

/// The receiver.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) loopback: Loopback,
    pub(crate) inbox: Arc<Inbox>,
    /// The target of redirects.
    pub(crate) redirect: Option<HeaderValue>,
}

impl Server {
    /// Receives until `stop` is ready; then requests under way have a short time to end.
    pub(crate) async fn run(self, stop: oneshot::Receiver<()>) {
        let Self { loopback, inbox, redirect } = self;
        let handler = move |head, body| answer(Arc::clone(&inbox), redirect.clone(), (head, body));
        let stop = async {
            let _stopped = stop.await;
        };
        loopback.run(handler, stop).await;
    }
}

async fn answer(
    inbox: Arc<Inbox>,
    redirect: Option<HeaderValue>,
    (head, body): (Parts, Bytes),
) -> Result<Response<AnswerBody>, NoAnswer> {
    let taken = inbox.take(head, body, None).await;
    let (answer, status) = (taken.answer, taken.status);
    inbox.tell(taken.seen).await;
    SystemClock.sleep(answer.delay).await;
    let body = match answer.manner {
        Manner::Reset => return Err(NoAnswer),
        Manner::Hang => std::future::pending().await,
        Manner::HugeBody => AnswerBody::Huge(HUGE),
        Manner::SlowBody => AnswerBody::Slow(interval(SLOW)),
        _ => AnswerBody::Empty,
    };
    let mut response = response(status, body);
    if answer.manner == Manner::Redirect
        && let Some(target) = redirect
    {
        response.headers_mut().insert(LOCATION, target);
    }
    Ok(response)
}

fn response(status: StatusCode, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if !matches!(response.body(), AnswerBody::Empty) {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    response
}

/// The body of an answer.
#[derive(Debug, Default)]
enum AnswerBody {
    #[default]
    Empty,
    /// So many bytes follow.
    Huge(u64),
    /// A byte follows at each tick, without an end.
    Slow(Interval),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const CHUNK: &[u8] = &[b'.'; 64 * 1024];
        let bytes = match &mut *self {
            Self::Empty | Self::Huge(0) => return Poll::Ready(None),
            Self::Huge(left) => {
                *left = left.saturating_sub(64 * 1024);
                CHUNK
            }
            Self::Slow(interval) => {
                let _time = ready!(interval.poll_tick(context));
                b"."
            }
        };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }
}
