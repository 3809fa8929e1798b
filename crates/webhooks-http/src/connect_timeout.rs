//! A connector with one deadline for the whole connection: proxy, TCP and TLS.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use tower_service::Service;

/// Connects within `timeout`, TLS included, and otherwise closes the unfinished connection. The client
/// continues to connect after the request that needed the connection has ended, so the deadline of the
/// request does not suffice.
#[derive(Debug, Clone)]
pub(crate) struct ConnectTimeout<C> {
    connector: C,
    timeout: Duration,
}

impl<C> ConnectTimeout<C> {
    pub(crate) fn new(connector: C, timeout: Duration) -> Self {
        Self { connector, timeout }
    }
}

impl<C> Service<Uri> for ConnectTimeout<C>
where
    C: Service<Uri, Error: Into<Box<dyn Error + Send + Sync>>>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connector.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.timeout, self.connector.call(target));
        Box::pin(async move {
            let connected =
                connecting.await.map_err(|late| io::Error::new(ErrorKind::TimedOut, late))?;
            connected.map_err(Into::into)
        })
    }
}
