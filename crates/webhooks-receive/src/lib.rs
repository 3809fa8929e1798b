#![doc = include_str!("../README.md")]

// Each file uses only files above it, so read from top to bottom.

// The ground of all others.
pub mod clock;
mod content_type;
mod error;
mod json_text;
pub mod provider;
pub mod recognition;

pub mod body_change;

// Stores of ids, and the answers to senders.
pub mod seen;

mod rejection;

// Verification.
mod keys;
pub mod whole;

mod verification;

mod explanation;

mod settings;

// Receiving.
mod body;
mod webhook;

mod receiver;

mod handshake;

mod replay_guard;

// Frameworks.
mod receive_layer;
#[cfg(feature = "axum")]
mod verified_webhook;

// The public interface is, beside the modules above, at the root what an application uses:
pub use error::{BoxError, SetupError};
pub use explanation::Explanation;
pub use handshake::{CloudEvents, Handshake};
pub use keys::{KeyLookup, Keys, MAX_KEYS, TenantKeys};
pub use receive_layer::ReceiveLayer;
pub use receiver::Receiver;
pub use rejection::{JsonError, MisuseError, Rejection};
pub use replay_guard::{HandlerResult, ReplayGuard, RunOutcome};
#[cfg(feature = "memory")]
pub use seen::memory::MemorySeenStore;
#[cfg(feature = "postgres")]
pub use seen::postgres::PostgresSeenStore;
#[cfg(feature = "sqlite")]
pub use seen::sqlite::SqliteSeenStore;
#[cfg(feature = "axum")]
pub use verified_webhook::VerifiedWebhook;
pub use webhook::Webhook;

/// The service that [`ReceiveLayer`] makes, for code that must name its type.
pub mod layer {
    pub use crate::receive_layer::{Receive, Unguarded};
}

/// For implementors: the types that [`VerifiedWebhook`] makes of a verified body.
#[cfg(feature = "axum")]
pub mod extract {
    pub use crate::verified_webhook::FromWebhook;
}
