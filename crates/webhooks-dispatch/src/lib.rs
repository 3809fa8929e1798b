#![doc = include_str!("../README.md")]

pub mod backlog;
mod breaker;
mod callback;
mod clock;
mod decide;
mod direct;
mod engine;
mod excerpt;
mod explain;
mod flight;
mod headers;
mod history;
mod memory;
mod observe;
mod rate;
mod scheduler;
mod serialized;
mod store;
mod transport;
mod worker;

// The public interface is:
pub use breaker::BreakerSettings;
pub use callback::{CallbackOutcome, FnTransport};
pub use clock::{Clock, SystemClock};
pub use decide::{Step, decide};
pub use direct::Dispatcher;
pub use engine::{Endpoints, Engine, EngineSettings, PublishError};
pub use excerpt::Excerpt;
pub use flight::AttemptError;
pub use headers::{SigningError, signed_headers};
pub use history::{
    AttemptRecord, Cursor, DeliveryRecord, EventRecord, HistoryStore, Page, Query, Statistics,
};
pub use memory::MemoryStore;
pub use observe::{Observer, Occurrence, Subject};
pub use serialized::SerializedEvent;
pub use store::{
    Attempt, Claim, ClaimRequest, Claimed, Conflict, DeliveryStore, Health, Novelty,
    OperationError, Outcome, Progress, Published, Replay, ReplayRequest, Replayed, Settled,
    Settlement, StoreError, Waker, Wakeups,
};
pub use transport::{ErrorClass, Request, Response, Transport, TransportError};
pub use worker::{ShutdownReport, Worker};
