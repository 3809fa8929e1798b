#![doc = include_str!("../README.md")]

mod address;
mod body;
mod outcome;
mod resolve;
mod transport;

// The public interface is:
pub use address::{AddressPolicy, AllowAll, Blocked};
pub use transport::{Builder, HttpTransport, HttpTransportError};
