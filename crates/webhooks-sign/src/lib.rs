#![doc = include_str!("../README.md")]
#![no_std]
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::std_instead_of_core)]

#[cfg(any(feature = "std", test))]
extern crate std;

mod algorithm;
mod check;
mod content;
mod custom;
mod describe;
#[cfg(feature = "ed25519")]
mod ed25519;
mod encoding;
mod envelope;
mod error;
mod headers;
mod key;
mod key_ring;
mod key_text;
mod listed;
mod mac;
mod matched;
#[cfg(feature = "p256")]
mod p256;
mod pending;
pub mod providers;
mod scheme;
mod signature;
mod signing;
pub mod standard;
mod timestamp;
mod tolerance;
mod verified;
mod verifier;
pub mod x_webhook;

// The public interface is:
pub use algorithm::Algorithm;
pub use content::Content;
pub use custom::{SchemeBuilder, SchemeError};
pub use describe::Fingerprint;
pub use encoding::Encoding;
pub use envelope::Envelope;
pub use error::{Error, Expected, KeyError, SignError};
pub use headers::{FromFn, Headers, from_fn};
pub use key::{Key, KeyFormat};
pub use key_ring::KeyRing;
pub use pending::Pending;
pub use scheme::{Grammar, Part, Scheme, TimestampFormat, TimestampSource};
pub use signature::Signature;
pub use tolerance::Tolerance;
pub use verified::Verified;
pub use verifier::Verifier;
