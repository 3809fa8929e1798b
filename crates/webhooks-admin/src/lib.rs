#![doc = include_str!("../README.md")]

// Each file uses only files above it, so read from top to bottom.

mod grant;
mod public_id;

mod api_key;

// The public interface is:
pub use api_key::{ApiKey, ApiKeyHash, ApiKeyText, ApiKeyTextError, KeyRefusal};
pub use grant::{Action, Denial, Grant, Role};
pub use public_id::{IdKind, PublicIdError};
