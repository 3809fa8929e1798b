//! Ed25519 (RFC 8032): `v1a` of Standard Webhooks, Discord.

use core::fmt;

use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign_byupdate};
use ed25519_dalek::{Signature, SigningKey, StreamVerifier, VerifyingKey};
use hmac::digest::Update as _;
use sha2::Sha512;
use subtle::Choice;
use zeroize::Zeroizing;

use crate::algorithm::MAX_CURVE_SIGNATURES;
use crate::tag::Tag;
use crate::{KeyError, SignError};

/// The length of a signature in bytes.
pub(crate) const SIGNATURE_LEN: usize = 64;

/// A public key, and the secret one if it is ours.
#[derive(Clone)]
pub(crate) struct KeyPair {
    public: VerifyingKey,
    secret: Option<SigningKey>,
}

impl KeyPair {
    /// Reads a public key. It refuses weak ones, for which a signature may fit many messages.
    pub(crate) fn from_public(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes = bytes.try_into().or(Err(KeyError::Length { min: 32, max: 32 }))?;
        let public = VerifyingKey::from_bytes(bytes).or(Err(KeyError::Curve))?;
        if public.is_weak() { Err(KeyError::Curve) } else { Ok(Self { public, secret: None }) }
    }

    /// Reads a secret key: 32 bytes of seed and the 32 bytes of the public key that belongs to it.
    pub(crate) fn from_secret(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: &[u8; 64] = bytes.try_into().or(Err(KeyError::Length { min: 64, max: 64 }))?;
        let secret = SigningKey::from_keypair_bytes(bytes).or(Err(KeyError::Curve))?;
        Ok(Self { public: secret.verifying_key(), secret: Some(secret) })
    }

    /// Returns the pair that a seed stands for.
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        let secret = SigningKey::from_bytes(seed);
        Self { public: secret.verifying_key(), secret: Some(secret) }
    }

    pub(crate) fn public_bytes(&self) -> &[u8; 32] {
        self.public.as_bytes()
    }

    /// Signs the pieces together. It iterates over them twice.
    pub(crate) fn sign<'p>(
        &self,
        pieces: &(impl Iterator<Item = &'p [u8]> + Clone),
    ) -> Result<Tag, SignError> {
        let secret = self.secret.as_ref().ok_or(SignError::UnsuitableKey)?;
        let seed = Zeroizing::new(secret.to_bytes());
        let expanded = ExpandedSecretKey::from(&*seed);
        let hash = |hasher: &mut Sha512| {
            pieces.clone().for_each(|piece| hasher.update(piece));
            Ok(())
        };
        let signature = raw_sign_byupdate::<Sha512, _>(&expanded, hash, &self.public);
        let signature = signature.or(Err(SignError::UnsuitableKey))?;
        let write = |room: &mut [u8]| {
            room.get_mut(..SIGNATURE_LEN)?.copy_from_slice(&signature.to_bytes());
            Some(SIGNATURE_LEN)
        };
        let mut tag = Tag::EMPTY;
        tag.write(write).ok_or(SignError::Write)?;
        Ok(tag)
    }

    /// Starts to verify a message. Each signature needs a hash of its own, because it is part of the
    /// hashed bytes.
    pub(crate) fn check(&self, tags: impl Iterator<Item = Tag>) -> Ed25519Check {
        // `zip` would ignore a fifth signature silently, and a message that only this one fits would be
        // refused. `SignatureList` refuses such a header before: see its `check_limit`.
        let mut streams = [const { None }; MAX_CURVE_SIGNATURES];
        for (slot, tag) in streams.iter_mut().zip(tags) {
            let signature = Signature::from_slice(tag.as_bytes());
            *slot = signature.and_then(|signature| self.public.verify_stream(&signature)).ok();
        }
        Ed25519Check { streams }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(redacted)")
    }
}

/// A message that is being hashed, once for each signature.
pub(crate) struct Ed25519Check {
    streams: [Option<StreamVerifier>; MAX_CURVE_SIGNATURES],
}

impl Ed25519Check {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for stream in self.streams.iter_mut().flatten() {
            stream.update(bytes);
        }
    }

    /// Returns whether a signature fits. The time may vary: key and signatures are public.
    pub(crate) fn finish(self) -> Choice {
        self.streams.into_iter().flatten().fold(Choice::from(0), |found, stream| {
            found | Choice::from(u8::from(stream.finalize_and_verify().is_ok()))
        })
    }
}
