#![doc = include_str!("../README.md")]

mod delivery;
mod event;
mod event_type;
mod id;
mod payload;
mod retry;
mod text;
mod timestamp;

// The public interface is:
pub use delivery::{DeliveryResult, DeliveryStatus, DeliveryStatusError};
pub use event::{Event, EventError};
pub use event_type::{EventType, EventTypeError};
pub use id::{DeliveryId, EndpointId, EventId, IdError, TenantId};
pub use payload::{Payload, PayloadError};
pub use retry::RetryPolicy;
pub use text::excerpt;
pub use timestamp::{Timestamp, TimestampError};
