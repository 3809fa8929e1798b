//! Schemes and keys, described for whoever finds out why a webhook was refused.

use core::fmt;
use core::iter::once;

#[cfg(feature = "ed25519")]
use sha2::{Digest as _, Sha256};

use crate::key::Kind;
use crate::{Algorithm, Key, Part, Scheme, TimestampSource};

impl Scheme {
    /// Returns a text that says what is signed and where the signature stands.
    ///
    /// # Example
    /// ```
    /// use webhooks_sign::standard::STANDARD;
    ///
    /// assert_eq!(
    ///     STANDARD.describe().to_string(),
    ///     "webhook-signature: \"v1,<padded base64>\", hmac_sha256 of \
    ///      {webhook-id}.{webhook-timestamp}.{body}"
    /// );
    /// ```
    pub fn describe(&self) -> impl fmt::Display {
        Description(*self)
    }
}

struct Description(Scheme);

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(scheme) = self;
        let header = scheme.signature;
        if scheme.algorithm == Algorithm::Token {
            return write!(f, "{header}: the secret itself");
        }
        write!(f, "{header}: {}, {} of ", scheme.expected(), scheme.algorithm)?;
        for part in scheme.parts {
            match part {
                Part::Body => f.write_str("{body}"),
                Part::Form => f.write_str("{sorted fields of the form}"),
                Part::Id => write!(f, "{{{}}}", scheme.id.unwrap_or_default()),
                Part::Literal(text) => f.write_str(text),
                Part::Method => f.write_str("{method}"),
                Part::Timestamp => match scheme.timestamp {
                    Some(TimestampSource::Header(name, _)) => write!(f, "{{{name}}}"),
                    Some(TimestampSource::Field(name, _)) => write!(f, "{{{name}…}}"),
                    None => Ok(()),
                },
                Part::Token => f.write_str("{token}"),
                Part::Url => f.write_str("{url}"),
            }?;
        }
        Ok(())
    }
}

impl Key {
    /// Returns four bytes by which the keys of sender and receiver are compared without being shown:
    /// equal keys have equal ones.
    ///
    /// Of an HMAC key they are the start of the HMAC of the text `webhooks-sign fingerprint`, so that
    /// any sender can compute them:
    /// `printf %s 'webhooks-sign fingerprint' | openssl dgst -sha256 -hmac "$SECRET"` where the text
    /// of the secret is the key, with `-mac HMAC -macopt hexkey:…` where it is encoded.
    ///
    /// It is for development. Who knows it can tell a right guess of a weak secret from most wrong
    /// ones, as from any signature.
    ///
    /// # Example
    /// ```
    /// use webhooks_sign::Key;
    ///
    /// let key = Key::standard(concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))?;
    /// assert_eq!(key.fingerprint().to_string(), "d05ebde6");
    /// # Ok::<(), webhooks_sign::KeyError>(())
    /// ```
    pub fn fingerprint(&self) -> Fingerprint {
        let of = |bytes: &[u8]| Fingerprint(bytes.first_chunk().copied().unwrap_or_default());
        match &self.kind {
            Kind::Mac(mac) => mac.of(once(&b"webhooks-sign fingerprint"[..]), of),
            // A MAC of the token already.
            Kind::Token(token) => of(token.as_bytes()),
            #[cfg(feature = "ed25519")]
            Kind::Ed25519(pair) => of(&Sha256::digest(pair.public_bytes())),
            #[cfg(feature = "p256")]
            Kind::EcdsaP256(key) => of(key.hash().as_ref()),
        }
    }
}

/// Four bytes that stand for a key, shown as hexadecimal; from [`Key::fingerprint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 4]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
