//! A connector with a deadline, over all that connecting takes.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use tower_service::Service;

/// Connects within a time, TLS included, or gives up and closes what it has. The client goes on with
/// connections that nobody waits for any more, so that they need an end of their own.
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
