#![doc = include_str!("../README.md")]

pub mod backlog;
mod breaker;
mod builder;
mod callback;
mod clock;
mod decide;
mod direct;
mod engine;
mod excerpt;
mod explain;
mod flight;
mod headers;
mod health;
mod history;
#[cfg(feature = "tracing")]
mod log;
mod memory;
mod observe;
mod rate;
mod replay;
mod replaying;
mod scheduler;
mod serialized;
mod steady;
mod store;
mod transport;
mod worker;
mod workers;

// The public interface is:
pub use breaker::BreakerSettings;
pub use builder::EngineBuilder;
pub use callback::{CallbackOutcome, FnTransport};
pub use clock::{Clock, MonotonicTime, Now, SystemClock};
pub use decide::{Decision, decide};
pub use direct::Dispatcher;
pub use engine::{Endpoints, Engine, EngineSettings, PublishError};
pub use excerpt::Excerpt;
pub use flight::AttemptError;
pub use headers::{SigningError, signed_headers};
pub use health::{Failing, Health};
pub use history::{
    AttemptRecord, Cursor, CursorError, DeliveryRecord, EventRecord, HistoryStore, Page, Query,
    Statistics,
};
#[cfg(feature = "tracing")]
pub use log::LogObserver;
pub use memory::MemoryStore;
pub use observe::{DeliveryRef, Failure, Observer, Occurrence, WorkerPart};
pub use replay::{
    Replay, ReplayCursor, ReplayCursorError, ReplayMode, ReplayRequest, Replayed, Undelivered,
};
pub use replaying::Replaying;
pub use serialized::SerializedEvent;
pub use store::{
    Attempt, CancelReason, ChangeListener, ChangeNotifier, Claim, ClaimRequest, Claimed, Conflict,
    DeliveryStore, OperationError, Outcome, Progress, PublishStatus, Published, Settled,
    Settlement, StoreError,
};
pub use transport::{ErrorClass, Request, Response, Transport, TransportError};
pub use worker::{ShutdownReport, Worker};
