//! A receiver of webhooks in this process, on loopback.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The largest body that is read: anybody on this machine can send one.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// Takes a free port of loopback; returns the URL for the receiver that listens there.
pub(crate) async fn listen() -> std::io::Result<(TcpListener, String)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}/hook", listener.local_addr()?);
    Ok((listener, url))
}

/// Answers each request with the status that `handler` returns for its headers and body.
///
/// # Cancellation
/// Dropping the future closes all connections.
pub(crate) async fn serve<H, F>(listener: TcpListener, handler: H)
where
    H: Fn(HeaderMap, Bytes) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = StatusCode> + Send,
{
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        // The sender gave up, or this process has no descriptor left: the next one may come through.
        let Ok((stream, _)) = accepted else {
            tokio::task::yield_now().await;
            continue;
        };
        let _slower = stream.set_nodelay(true);
        let handler = handler.clone();
        let service = service_fn(move |request| answer(request, handler.clone()));
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer<H, F>(
    request: Request<Incoming>,
    handler: H,
) -> Result<Response<Full<Bytes>>, Infallible>
where
    H: Fn(HeaderMap, Bytes) -> F,
    F: Future<Output = StatusCode>,
{
    let (head, body) = request.into_parts();
    let status = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => handler(head.headers, body.to_bytes()).await,
        Err(_broken_off) => StatusCode::BAD_REQUEST,
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    Ok(response)
}
