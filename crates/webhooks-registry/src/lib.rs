#![doc = include_str!("../README.md")]

// Each file uses only files above it, so read from top to bottom.

// The values that an endpoint is made of.
mod body_format;
mod custom_header;
mod endpoint_key;
mod endpoint_url;
mod header_profile;
mod revision;
mod secret;
mod secret_string;
mod state;
mod subscription;

mod error;

pub mod auth;
mod rate_limit;

mod endpoint;

mod limits;

// Endpoints under their ids.
mod registration;

mod index;

pub mod view;

mod registry;

// How stores keep them.
#[cfg(feature = "seal")]
pub mod seal;
pub mod store;

// The public interface is:
pub use body_format::BodyFormat;
pub use custom_header::HeaderError;
pub use endpoint::Endpoint;
pub use endpoint_key::{EndpointKey, EndpointNumber};
pub use endpoint_url::{EndpointUrl, EndpointUrlError};
pub use error::EndpointError;
pub use header_profile::HeaderProfile;
pub use limits::EndpointLimits;
pub use rate_limit::RateLimit;
pub use registration::Registration;
pub use registry::{RegisterError, Registry, UnknownEndpoint};
pub use revision::Revision;
pub use secret::{Secret, SecretError};
pub use state::{DisableReason, EndpointState};
pub use store::{EndpointPage, EndpointQuery, EndpointStoreError, Expected, Registered};
pub use subscription::{Subscription, SubscriptionError};
pub use view::EndpointView;
