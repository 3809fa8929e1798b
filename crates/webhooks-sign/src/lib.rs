#![doc = include_str!("../README.md")]
#![no_std]
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::std_instead_of_core)]

#[cfg(test)]
extern crate std;

mod algorithm;
mod encoding;
mod error;
mod headers;
mod key;
mod mac;
mod pending;
mod scheme;
mod signature;
pub mod standard;
mod tolerance;
mod verified;
pub mod x_webhook;

// The public interface is:
pub use algorithm::Algorithm;
pub use error::{Error, KeyError, SignError};
pub use headers::{FromFn, Headers, from_fn};
pub use key::{Key, KeyRing};
pub use pending::Pending;
pub use signature::Signature;
pub use tolerance::Tolerance;
pub use verified::Verified;
