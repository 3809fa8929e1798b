#![doc = include_str!("../README.md")]

mod callback;
mod clock;
mod decide;
mod direct;
mod flight;
mod headers;
mod transport;

// The public interface is:
pub use callback::{CallbackOutcome, FnTransport};
pub use clock::{Clock, SystemClock};
pub use decide::{Step, decide};
pub use direct::Dispatcher;
pub use flight::AttemptError;
pub use headers::{SigningError, signed_headers};
pub use transport::{ErrorClass, Request, Response, Transport, TransportError};
