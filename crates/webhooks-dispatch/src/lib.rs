#![doc = include_str!("../README.md")]

// Each file uses only files above it: from bottom to top.
pub mod clock;

mod response_record;
mod serialized_event;

pub mod headers;
pub mod transport;

pub mod store;

pub mod backlog;
pub mod history;
pub mod observer;

// Decisions: pure functions and structures.
mod breaker;
pub mod decide;
mod rate;
mod steady;

mod scheduler;

// The effects around them.
mod attempt;
#[cfg(feature = "tracing")]
mod log;
mod memory;
mod replaying;
mod settings;
mod worker_registry;

mod parts;

mod worker;

mod endpoints;

mod engine;

mod builder;
mod dispatcher;
mod fn_transport;

// The public interface is: what an application uses here; ports and their values, for
// implementors and those who read the history, in the public modules.
pub use breaker::BreakerSettings;
pub use builder::EngineBuilder;
pub use dispatcher::Dispatcher;
pub use endpoints::Endpoints;
pub use engine::{Engine, PublishError};
pub use fn_transport::{CallbackOutcome, FnTransport};
#[cfg(feature = "tracing")]
pub use log::LogObserver;
pub use memory::MemoryStore;
pub use replaying::Replaying;
pub use settings::EngineSettings;
pub use store::{Conflict, OperationError, PublishStatus, Published, Replay, Undelivered};
pub use worker::{ShutdownReport, Worker};
