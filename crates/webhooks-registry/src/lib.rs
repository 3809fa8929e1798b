#![doc = include_str!("../README.md")]

mod endpoint;
mod endpoint_url;
mod index;
mod registry;
mod secret;
mod store;
mod stored;
mod subscription;

// The public interface is:
pub use endpoint::{Endpoint, EndpointError, HeaderProfile, RateLimit};
pub use endpoint_url::{EndpointUrl, EndpointUrlError};
pub use registry::{DisableReason, RegisterError, Registration, Registry, UnknownEndpoint};
pub use secret::{Secret, SecretError};
pub use store::{EndpointStore, EndpointStoreError};
pub use stored::{StoredEndpoint, StoredEndpointError};
pub use subscription::{Subscription, SubscriptionError};
