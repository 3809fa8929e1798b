#![doc = include_str!("../README.md")]
#![no_std]
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::std_instead_of_core)]

#[cfg(any(feature = "std", test))]
extern crate std;

// Each file uses only files above it, so read from top to bottom.

// The values that schemes are made of.
mod algorithm;
mod encoding;
mod grammar;
mod tag;

// How a request is read.
mod error;

pub mod headers;
mod timestamp;
mod tolerance;

// Ways to sign, as data.
mod signature;

pub mod scheme;

// Keys.
#[cfg(feature = "ed25519")]
mod ed25519;
mod mac;
#[cfg(feature = "p256")]
mod p256;

mod key;

mod fingerprint;
mod key_ring;
mod key_text;

// Verifying.
mod key_match;
mod signature_list;

mod key_check;

mod envelope;
mod verified;
mod verifier;

mod checked_headers;

mod pending;

mod verifying;

// Signing.
mod signing;

mod forms_and_tokens;

// Ready-made schemes.
pub mod standard;
pub mod x_webhook;

pub mod providers;

// The public interface is:
pub use algorithm::Algorithm;
pub use envelope::Envelope;
pub use error::{Error, Expected, KeyError, SignError};
pub use fingerprint::Fingerprint;
#[doc(inline)]
pub use headers::{Headers, from_fn};
pub use key::Key;
pub use key_ring::KeyRing;
pub use pending::Pending;
pub use signature::Signature;
pub use tolerance::Tolerance;
pub use verified::Verified;
pub use verifier::Verifier;
