//! Reading a body: up to a limit, within a deadline, with a callback for every chunk.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Body;
use http_body_util::{LengthLimitError, Limited};

use crate::error::BoxError;
use crate::rejection::Rejection;

/// Refuses a body whose declared length is over the limit, before any of it is read.
pub(crate) fn check_declared(headers: &HeaderMap, max: usize) -> Result<(), Rejection> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    match declared.map(str::parse::<u64>) {
        Some(Ok(declared)) if declared > u64::try_from(max).unwrap_or(u64::MAX) => {
            Err(Rejection::TooLarge { max })
        }
        // The server should have refused a length that is no number. The limit while reading holds.
        _ => Ok(()),
    }
}

/// Reads at most `max` bytes until `deadline`, and calls `on_chunk` with each chunk.
///
/// Memory grows with the bytes that arrived, not with the declared length. A body of one chunk is not
/// copied.
pub(crate) async fn read<B>(
    body: B,
    max: usize,
    mut deadline: Pin<Box<dyn Future<Output = ()> + Send>>,
    mut on_chunk: impl FnMut(&[u8]),
) -> Result<Bytes, Rejection>
where
    B: Body<Error: Into<BoxError>>,
{
    let mut body = pin!(Limited::new(body, max));
    let mut collected = Collected::Nothing;
    loop {
        // A body that is always ready would otherwise never yield, and no timer could fire.
        tokio::task::consume_budget().await;
        let frame = poll_fn(|context| {
            // The deadline is polled first, so that it also ends a body that always has a frame ready.
            if deadline.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(Rejection::TimedOut));
            }
            body.as_mut().poll_frame(context).map(Ok)
        });
        match frame.await? {
            None => return Ok(collected.into_bytes()),
            Some(Err(source)) => return Err(interrupted(source, max)),
            Some(Ok(frame)) => {
                // Trailers are ignored: no scheme signs them.
                if let Ok(mut chunk) = frame.into_data() {
                    let chunk = chunk.copy_to_bytes(chunk.remaining());
                    on_chunk(&chunk);
                    collected = collected.with(chunk);
                }
            }
        }
    }
}

fn interrupted(source: BoxError, max: usize) -> Rejection {
    if source.is::<LengthLimitError>() {
        Rejection::TooLarge { max }
    } else {
        Rejection::Interrupted { source }
    }
}

/// The bytes of a body that have arrived.
enum Collected {
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

impl Collected {
    fn with(self, chunk: Bytes) -> Self {
        match self {
            Self::Nothing => Self::One(chunk),
            Self::One(first) => {
                let mut all = BytesMut::from(first);
                all.extend_from_slice(&chunk);
                Self::Many(all)
            }
            Self::Many(mut all) => {
                all.extend_from_slice(&chunk);
                Self::Many(all)
            }
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(chunk) => chunk,
            Self::Many(all) => all.freeze(),
        }
    }
}
