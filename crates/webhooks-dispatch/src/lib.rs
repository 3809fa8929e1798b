#![doc = include_str!("../README.md")]
//!
//! ## For applications: the root
//!
//! * Direct delivery: [`Dispatcher`].
//! * Durable delivery: [`Engine`] with its [`EngineBuilder`], [`EngineSettings`] and
//!   [`BreakerSettings`]; [`Worker`] and its [`ShutdownReport`]; [`MemoryStore`]; [`BoxedStore`],
//!   whose type is chosen at run time; [`Publication`], an event that is to be delivered later or to
//!   some endpoints alone.
//! * Operations: [`Endpoints`] with their [`EndpointOverview`], [`Replay`] of [`Undelivered`] events,
//!   [`Replaying`] with its [`ReplayCursor`], [`Jobs`].
//! * Results and errors: [`Published`], [`PublishStatus`], [`PublishError`], [`Conflict`],
//!   [`OperationError`], [`StoreError`]; the [`CancelReason`] of a delivery.
//! * Delivery to a closure: [`FnTransport`], which returns a [`CallbackOutcome`].
//! * `LogObserver` (feature `tracing`) writes a log.
//!
//! ## For operators: history, figures and notices
//!
//! * [`history`]: queries for events, deliveries and attempts, and the requests that were sent.
//! * [`monitor`]: the depth of queues, the health of endpoints, workers, and [`figures`] over time.
//! * [`jobs`]: bulk replays and bulk cancellations, with progress.
//! * [`observer`]: notices of an engine, for metrics and logs; the present numbers of its workers,
//!   and their reports.
//!
//! ## For implementors
//!
//! * [`transport`]: the port that carries signed requests; [`headers`] says why one cannot be signed.
//! * [`store`]: the port to a durable store, with [`backlog`], a queue for stores that one process
//!   owns. A store also provides its [`history`], and so on: [`Store`] is the sum of all ports, and
//!   [`forward_store`] passes some of them on to another store.
//! * [`clock`]: the port to the time, for tests and simulations.
//! * [`decide`]: the decision after an attempt, as a pure function.

// Each file uses only files above it, so read from top to bottom.
pub mod clock;

mod cloud_event;
mod response_record;
mod serialized_event;

mod publication;

pub mod headers;
pub mod transport;

mod activity;
mod gauges;

mod report;

mod sending;

mod shutdown_report;

pub mod store;

pub mod backlog;
pub mod figures;
pub mod history;

pub mod jobs;
pub mod monitor;

pub mod observer;

mod store_ports;

#[macro_use]
mod forward;

mod boxed;

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
mod job_control;

mod engine;

mod builder;
mod dispatcher;
mod fn_transport;

// The public interface is: what an application uses here; ports and their values, for
// implementors and those who read the history, in the public modules.
pub use boxed::BoxedStore;
pub use breaker::BreakerSettings;
pub use builder::EngineBuilder;
pub use dispatcher::Dispatcher;
pub use endpoints::{EndpointOverview, Endpoints};
pub use engine::{Engine, PublishError};
pub use fn_transport::{CallbackOutcome, FnTransport};
pub use job_control::Jobs;
#[cfg(feature = "tracing")]
pub use log::LogObserver;
pub use memory::MemoryStore;
pub use publication::Publication;
pub use replaying::Replaying;
pub use settings::EngineSettings;
pub use shutdown_report::ShutdownReport;
pub use store::{
    CancelReason, Conflict, OperationError, PublishStatus, Published, Replay, ReplayCursor,
    StoreError, TryNow, Undelivered,
};
pub use store_ports::Store;
pub use worker::Worker;

#[doc(hidden)]
pub use forward::types as __types;
