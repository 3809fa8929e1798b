//! The receiver of the benchmark: a thread of its own, so that it takes turns with no delivery.

use http::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::failure::{Exit, Failure};
use crate::loopback;

/// A receiver, which ends when it is dropped.
pub(super) struct Receiver {
    pub(super) url: String,
    _stop: oneshot::Sender<()>,
}

impl Receiver {
    pub(super) fn start() -> Result<Self, Failure> {
        let failed = |error| Failure::new(Exit::Failed, "cannot start a receiver").because(error);
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
        let url = format!("http://{}/hook", listener.local_addr().map_err(failed)?);
        listener.set_nonblocking(true).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("receiver".to_owned());
        let running = thread.spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = loopback::serve(listener, |_headers, _body| async { StatusCode::OK }) => {}
                    _stopped = stopped => {}
                }
            });
        });
        // It ends with the channel.
        let _detached = running.map_err(failed)?;
        Ok(Self { url, _stop: stop })
    }
}
