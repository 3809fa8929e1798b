//! The check of one key: it hashes the message, and then compares the listed signatures.

use subtle::Choice;
use zeroize::Zeroizing;

#[cfg(feature = "ed25519")]
use crate::ed25519::Ed25519Check;
use crate::key::{Key, Kind};
use crate::mac::Mac;
#[cfg(feature = "p256")]
use crate::p256::P256Check;
use crate::signature_list::SignatureList;
use crate::tag::Tag;

/// The check of one message with one key.
#[cfg_attr(
    feature = "ed25519",
    expect(clippy::large_enum_variant, reason = "there is no allocator to box with")
)]
pub(crate) enum KeyCheck {
    Mac(Mac),
    Token(Zeroizing<Tag>),
    #[cfg(feature = "ed25519")]
    Ed25519(Ed25519Check),
    #[cfg(feature = "p256")]
    EcdsaP256(P256Check),
}

impl KeyCheck {
    #[cfg_attr(
        not(feature = "ed25519"),
        expect(unused_variables, reason = "only ed25519 hashes the signature")
    )]
    #[inline]
    pub(crate) fn new(key: &Key, signatures: &SignatureList<'_, '_>) -> Self {
        match &key.kind {
            Kind::Mac(mac) => Self::Mac(mac.clone()),
            Kind::Token(token) => Self::Token(token.clone()),
            #[cfg(feature = "ed25519")]
            Kind::Ed25519(key) => Self::Ed25519(key.check(signatures.iter())),
            #[cfg(feature = "p256")]
            Kind::EcdsaP256(key) => Self::EcdsaP256(key.check()),
        }
    }

    #[inline]
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Mac(mac) => mac.update(bytes),
            // A token does not depend on the message.
            Self::Token(_) => {}
            #[cfg(feature = "ed25519")]
            Self::Ed25519(check) => check.update(bytes),
            #[cfg(feature = "p256")]
            Self::EcdsaP256(check) => check.update(bytes),
        }
    }

    /// Compares every listed signature, whether or not one matched before.
    #[inline]
    pub(crate) fn finish(self, signatures: &SignatureList<'_, '_>) -> Choice {
        match self {
            Self::Mac(mac) => signatures.contains(mac.finish().as_bytes()),
            Self::Token(token) => signatures.contains(token.as_bytes()),
            #[cfg(feature = "ed25519")]
            Self::Ed25519(check) => check.finish(),
            #[cfg(feature = "p256")]
            Self::EcdsaP256(check) => check.finish(signatures.iter()),
        }
    }
}
