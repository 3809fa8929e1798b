#![doc = include_str!("../README.md")]

mod body;
mod clock;
mod content_type;
mod error;
mod explanation;
#[cfg(feature = "axum")]
mod extract;
mod handshake;
mod keys;
mod layer;
mod provider;
mod receiver;
mod rejection;
mod replay;
mod verification;
mod webhook;
mod whole;

// The public interface is:
pub use clock::{Clock, SystemClock};
pub use error::{BoxError, SetupError};
pub use explanation::Explanation;
#[cfg(feature = "axum")]
pub use extract::{FromWebhook, VerifiedWebhook};
pub use handshake::{CloudEvents, Handshake};
pub use keys::{KeyLookup, Keys, MAX_KEYS, TenantKeys};
pub use layer::{Receive, ReceiveLayer, Unguarded};
pub use provider::{
    AnyScheme, GitHub, Meta, Provider, Shopify, Slack, Standard, Stripe, Svix, Twitch, Zoom,
};
pub use receiver::Receiver;
pub use rejection::{JsonError, MisuseError, Rejection};
#[cfg(feature = "memory")]
pub use replay::MemorySeenStore;
#[cfg(feature = "postgres")]
pub use replay::PostgresSeenStore;
#[cfg(feature = "sqlite")]
pub use replay::SqliteSeenStore;
pub use replay::{
    BeginOutcome, HandlerResult, ReplayGuard, RunOutcome, SeenClaim, SeenError, SeenId, SeenStore,
};
pub use webhook::Webhook;
