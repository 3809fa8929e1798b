#![doc = include_str!("../README.md")]

mod body;
mod builder;
mod client;
mod credentials;
mod global;
mod hosts;
mod in_time;
mod names;
mod outcome;
mod policy;
mod proxy;
mod resolve;
mod tls;
mod transport;

// The public interface is:
pub use builder::HttpTransportBuilder;
pub use policy::{AddressPolicy, HostPatternError, Refusal};
pub use proxy::{Proxy, ProxyError};
pub use tls::Roots;
pub use transport::{HttpTransport, HttpTransportError};
