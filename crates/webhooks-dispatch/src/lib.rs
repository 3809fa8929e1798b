#![doc = include_str!("../README.md")]
//!
//! ## For applications: the root
//!
//! * Direct delivery: [`Dispatcher`].
//! * Durable delivery: [`Engine`] with its [`EngineBuilder`], [`EngineSettings`] and
//!   [`BreakerSettings`]; [`Worker`] and its [`ShutdownReport`]; [`MemoryStore`].
//! * Operations: [`Endpoints`], [`Replay`] of [`Undelivered`] events, [`Replaying`] with its
//!   [`ReplayCursor`].
//! * Results and errors: [`Published`], [`PublishStatus`], [`PublishError`], [`Conflict`],
//!   [`OperationError`], [`StoreError`]; the [`CancelReason`] of a delivery.
//! * Delivery to a closure: [`FnTransport`], which returns a [`CallbackOutcome`].
//! * `LogObserver` (feature `tracing`) writes a log.
//!
//! ## For operators: history and notices
//!
//! * [`history`]: queries for events, deliveries and attempts, and statistics.
//! * [`observer`]: notices of an engine, for metrics and logs.
//!
//! ## For implementors
//!
//! * [`transport`]: the port that carries requests, with [`headers`], which signs them.
//! * [`store`]: the port to a durable store, with [`backlog`], a queue for stores that one process
//!   owns. A store also provides its [`history`].
//! * [`clock`]: the port to the time, for tests and simulations.
//! * [`decide`]: the decision after an attempt, as a pure function.

// Each file uses only files above it, so read from top to bottom.
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

mod engine_shared;

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
pub use store::{
    CancelReason, Conflict, OperationError, PublishStatus, Published, Replay, ReplayCursor,
    StoreError, Undelivered,
};
pub use worker::{ShutdownReport, Worker};
