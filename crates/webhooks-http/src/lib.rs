#![doc = include_str!("../README.md")]

// Each file uses only files above it, so read from top to bottom.

// Bodies, limits and names.
mod body;
mod connect_timeout;
mod credentials;
mod host_limits;
mod internal_names;
mod public_addresses;

// Where requests may go, and how they get there.
mod policy;

mod resolve;

mod proxy;

mod outcome;
mod tls;

mod client;

// The transport.
mod transport;

mod builder;

// The public interface is:
pub use builder::{HttpTransportBuilder, HttpTransportError};
pub use policy::{AddressPolicy, HostPatternError, Refusal};
pub use proxy::{Proxy, ProxyError};
pub use tls::Roots;
pub use transport::HttpTransport;
