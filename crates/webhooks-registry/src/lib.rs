#![doc = include_str!("../README.md")]

mod access;
mod custom_header;
mod endpoint;
mod endpoint_url;
mod hidden;
mod index;
mod key;
mod rate_limit;
mod registry;
#[cfg(feature = "seal")]
mod seal;
mod secret;
mod state;
mod store;
mod stored;
mod subscription;

// The public interface is:
pub use access::{ClientCredentials, EndpointTls, SecretIn};
pub use custom_header::HeaderError;
pub use endpoint::{Endpoint, EndpointError, HeaderProfile};
pub use endpoint_url::{EndpointUrl, EndpointUrlError};
pub use key::{EndpointKey, EndpointNumber};
pub use rate_limit::RateLimit;
pub use registry::{RegisterError, Registration, Registry, UnknownEndpoint};
#[cfg(feature = "seal")]
pub use seal::{SealError, SealingKey, SealingKeyError, SealingKeys};
pub use secret::{Secret, SecretError};
pub use state::{DisableReason, EndpointState, IsDisabled, StateChange};
pub use store::{EndpointStore, EndpointStoreError, Registered};
pub use stored::{StoredEndpoint, StoredEndpointError};
pub use subscription::{Subscription, SubscriptionError};
