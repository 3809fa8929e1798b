//! The certificate of a server that speaks TLS, and its exchange while the server runs.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, InconsistentKeys, RootCertStore, ServerConfig};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use webhooks_core::Timestamp;

/// The name of HTTP/2 in handshakes (RFC 9113 §3.1).
pub(crate) const HTTP2: &[u8] = b"h2";

/// The name of HTTP/1.1 in handshakes (RFC 7301 §6).
const HTTP1: &[u8] = b"http/1.1";

/// The reason for which a certificate or its key cannot be used. It never shows any of their content.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The text of the chain is not PEM, or has no certificate.
    #[error("there is no certificate in PEM")]
    NoCertificate,
    /// The text of the key is not PEM, or has no key.
    #[error("there is no private key in PEM")]
    NoKey,
    /// The key needs a password.
    #[error("the private key is encrypted with a password")]
    EncryptedKey,
    /// The key is damaged, or of a kind that is not known.
    #[error("the private key cannot be used")]
    Key(#[source] rustls::Error),
    /// The certificate is damaged.
    #[error("the certificate cannot be used")]
    Certificate(#[source] rustls::Error),
    /// The key is that of another certificate. The server's own certificate must be the first of the chain.
    #[error("the private key is not that of the first certificate")]
    Mismatch,
    /// The time of the certificate has not begun.
    #[error("the certificate is not valid before {from}")]
    NotYetValid {
        /// The start of its time.
        from: Timestamp,
    },
    /// The time of the certificate is over.
    #[error("the certificate expired at {at}")]
    Expired {
        /// The end of its time.
        at: Timestamp,
    },
}

impl TlsError {
    /// Returns whether the key alone is at fault.
    pub fn is_of_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::EncryptedKey | Self::Key(_))
    }
}

/// A certificate with its chain and its private key, which fit together.
#[derive(Clone)]
pub struct TlsCertificate {
    config: Arc<ServerConfig>,
    /// The first certificate of the chain.
    own: Arc<CertificateDer<'static>>,
    from: Timestamp,
    until: Timestamp,
}

/// Shows nothing of the key.
impl fmt::Debug for TlsCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, until, .. } = self;
        f.debug_struct("TlsCertificate").field("from", from).field("until", until).finish()
    }
}

impl TlsCertificate {
    /// Reads a chain, which starts with the certificate of the server, and the private key of that certificate.
    /// Clients may choose TLS 1.2 or 1.3, and HTTP/1.1 or HTTP/2.
    ///
    /// # Errors
    /// If one of the two cannot be used, or if they don't fit together. The time is not looked at:
    /// [`check_time`](Self::check_time) does.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        // Errors of PEM show the line at fault.
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(TlsError::NoCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_shows_it| {
            let text = String::from_utf8_lossy(key);
            if text.contains("ENCRYPTED") { TlsError::EncryptedKey } else { TlsError::NoKey }
        })?;
        let provider = Arc::new(ring::default_provider());
        let signer = provider.key_provider.load_private_key(key).map_err(TlsError::Key)?;
        let own = Arc::new(chain.first().cloned().ok_or(TlsError::NoCertificate)?);
        let (from, until) = validity(&own)?;
        let certified = CertifiedKey::new(chain, signer);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(TlsError::Mismatch),
            Err(error) => return Err(TlsError::Certificate(error)),
        }
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Certificate)?;
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        let mut config = config.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Ok(Self { config: Arc::new(config), own, from, until })
    }

    /// Checks that the certificate is valid at a time.
    ///
    /// # Errors
    /// If it is not valid yet, or expired.
    pub fn check_time(&self, now: Timestamp) -> Result<(), TlsError> {
        if now < self.from {
            return Err(TlsError::NotYetValid { from: self.from });
        }
        if now > self.until { Err(TlsError::Expired { at: self.until }) } else { Ok(()) }
    }

    /// Returns whether a name of the certificate is that of a host: a domain, or an IP address without brackets.
    pub fn is_for(&self, host: &str) -> bool {
        let Ok(name) = ServerName::try_from(host) else { return false };
        ParsedCertificate::try_from(&*self.own)
            .is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
    }

    /// Returns the last time at which the certificate is valid.
    pub fn valid_until(&self) -> Timestamp {
        self.until
    }
}

/// Returns the first and the last time at which a certificate is valid.
fn validity(certificate: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp), TlsError> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(TlsError::Certificate)?;
    // rustls tells the two times only to those who ask at a time outside of them. It looks at the time before it
    // looks for an issuer, so it needs no roots.
    let refusal = |seconds| {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let roots = RootCertStore::empty();
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], at, &[])
    };
    let time = |time: UnixTime| Timestamp::from_unix_seconds(time.as_secs());
    let from = match refusal(0) {
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before,
            ..
        })) => time(not_before),
        _ => Timestamp::UNIX_EPOCH,
    };
    match refusal(u64::MAX) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after,
            ..
        })) => Ok((from, time(not_after))),
        Err(error) => Err(TlsError::Certificate(error)),
        Ok(()) => Ok((from, Timestamp::from_unix_seconds(u64::MAX))),
    }
}

/// The certificate that a server uses. Clones share it.
///
/// # Example
/// ```no_run
/// # fn read() -> Result<(), Box<dyn std::error::Error>> {
/// use webhooks_server::{Tls, TlsCertificate};
///
/// let read = || -> Result<_, Box<dyn std::error::Error>> {
///     let (chain, key) = (std::fs::read("chain.pem")?, std::fs::read("key.pem")?);
///     Ok(TlsCertificate::from_pem(&chain, &key)?)
/// };
/// let tls = Tls::new(read()?);
/// // Later, when the files have changed:
/// tls.replace(read()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Tls(Arc<RwLock<TlsCertificate>>);

impl Tls {
    /// Returns a handle with a first certificate.
    pub fn new(certificate: TlsCertificate) -> Self {
        Self(Arc::new(RwLock::new(certificate)))
    }

    /// Uses another certificate for all handshakes from now on. Connections that are open go on.
    pub fn replace(&self, certificate: TlsCertificate) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
    }

    /// Returns the certificate in use.
    pub fn certificate(&self) -> TlsCertificate {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns what makes the next handshake.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.certificate().config.into()
    }
}
