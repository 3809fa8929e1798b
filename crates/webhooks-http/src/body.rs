//! The response body, as far as it is kept.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt as _;

/// Reads the body up to a limit, in bytes. What follows is never read: dropping the response closes
/// the connection instead. Nothing is decompressed, so that few bytes stay few.
pub(crate) async fn read<B: Body<Data = Bytes>>(body: B, max: usize) -> Result<Bytes, B::Error> {
    let mut body = pin!(body);
    let mut kept = BytesMut::new();
    while kept.len() < max {
        let Some(frame) = body.frame().await else { break };
        let Some(chunk) = frame?.data_ref().cloned() else { continue };
        let room = max - kept.len();
        kept.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
    }
    Ok(kept.freeze())
}
