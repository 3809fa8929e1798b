//! The response body, as far as it is kept.

use bytes::{Bytes, BytesMut};

/// How much of a response body is kept, in bytes: enough for an error page's message.
pub(crate) const MAX_BODY_LEN: usize = 16 * 1024;

/// Reads the body up to the limit. What follows is never read: dropping the response closes the
/// connection instead.
pub(crate) async fn read(mut response: reqwest::Response) -> Result<Bytes, reqwest::Error> {
    let mut body = BytesMut::new();
    while body.len() < MAX_BODY_LEN {
        let Some(chunk) = response.chunk().await? else { break };
        let room = MAX_BODY_LEN - body.len();
        body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
    }
    Ok(body.freeze())
}
