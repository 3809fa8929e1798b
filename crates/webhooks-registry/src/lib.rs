#![doc = include_str!("../README.md")]

mod endpoint;
mod endpoint_url;
mod index;
mod registry;
mod secret;
mod subscription;

// The public interface is:
pub use endpoint::{Endpoint, EndpointError, HeaderProfile};
pub use endpoint_url::{EndpointUrl, EndpointUrlError};
pub use registry::{RegisterError, Registration, Registry, UnknownEndpoint};
pub use secret::{Secret, SecretError};
pub use subscription::{Subscription, SubscriptionError};
