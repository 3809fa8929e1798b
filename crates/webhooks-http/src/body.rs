//! The response body, as far as it is kept.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt as _;

/// Reads the body up to a limit, in bytes, into `kept`, where what came stays if it breaks off or
/// nobody waits any longer. What follows is never read: dropping the response closes the connection
/// instead. Nothing is decompressed, so that few bytes stay few.
pub(crate) async fn read<B: Body<Data = Bytes>>(
    body: B,
    max: usize,
    kept: &mut BytesMut,
) -> Result<(), B::Error> {
    let mut body = pin!(body);
    while kept.len() < max {
        let Some(frame) = body.frame().await else { break };
        let Some(chunk) = frame?.data_ref().cloned() else { continue };
        let room = max - kept.len();
        kept.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
    }
    Ok(())
}
