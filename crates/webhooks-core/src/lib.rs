#![doc = include_str!("../README.md")]

// Each file uses only files above it, so read from top to bottom.

mod text;

// The values that events and deliveries are made of.
mod event_type;
mod id;
mod payload;
mod retry;
mod timestamp;
mod trace_context;

mod label;

// Both as they travel.
mod delivery;
mod event;

// The public interface is:
pub use delivery::{DeliveryResult, DeliveryStatus, DeliveryStatusError};
pub use event::{Event, EventError};
pub use event_type::{EventType, EventTypeError};
pub use id::{DeliveryId, EndpointId, EventId, IdError, TenantId};
pub use label::{Channel, LabelError, Tag};
pub use payload::{Payload, PayloadError};
pub use retry::RetryPolicy;
pub use text::excerpt;
pub use timestamp::{Timestamp, TimestampError};
pub use trace_context::TraceContext;
