//! TLS: the trusted roots, and the client certificate.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_platform_verifier::Verifier;
use thiserror::Error as ThisError;
use webhooks_registry::auth::EndpointTls;

/// The certificate authorities that are trusted for endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Roots {
    /// The roots of the operating system; on Linux, of the package `ca-certificates`.
    #[default]
    Platform,
    /// The roots of Mozilla, as of the time when this crate was built: for systems without roots.
    #[cfg(feature = "bundled-roots")]
    Bundled,
    /// Only the added roots, of which there must be at least one.
    None,
}

/// An error in the TLS settings of an endpoint. It shows nothing of the key.
#[derive(Debug, ThisError)]
pub(crate) enum TlsError {
    #[error("the client certificate and its key do not fit together, or cannot be used")]
    Identity { source: Error },
    #[error("{what}: no valid PEM block found")]
    Pem { what: &'static str },
    #[error("the client's key is not PEM")]
    Key,
    #[error("no version of TLS can be used")]
    Protocols { source: Error },
    #[error("a root certificate cannot be used")]
    Root { source: Error },
}

/// The server at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// The endpoint. If it has pinned roots, only these are trusted.
    Endpoint,
    /// The token server of the endpoint. Pinned roots are trusted as well as the others: it is as often
    /// in the network of the endpoint as at a provider on the internet.
    TokenServer,
}

/// The TLS settings of all connections.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl Tls {
    pub(crate) fn new(roots: Roots, extra: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        // Every builder below gets it: the default provider of the process may be another one, or none.
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match roots {
            Roots::Platform => Arc::new(Verifier::new_with_extra_roots(extra, provider.clone())?),
            #[cfg(feature = "bundled-roots")]
            Roots::Bundled => {
                let bundled = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
                trusting(bundled.collect(), extra, &provider)?
            }
            Roots::None => trusting(RootCertStore::empty(), extra, &provider)?,
        };
        Ok(Self { provider, verifier })
    }

    /// Returns the same settings, except that every certificate is trusted.
    pub(crate) fn dangerous_without_verification(self) -> Self {
        let verifier = Arc::new(TrustAll(Arc::clone(&self.provider)));
        Self { verifier, ..self }
    }

    /// Returns the settings for connections to an endpoint or its token server. The caller sets the
    /// protocols (ALPN).
    pub(crate) fn config(
        &self,
        endpoint: Option<&EndpointTls>,
        peer: Peer,
    ) -> Result<ClientConfig, TlsError> {
        let verifier = match endpoint.and_then(|tls| tls.roots.as_deref()) {
            Some(pem) => {
                let pinned = certificates(pem, "pinned roots")?;
                let pinned = trusting(RootCertStore::empty(), pinned, &self.provider)
                    .map_err(|source| TlsError::Root { source })?;
                match peer {
                    Peer::Endpoint => pinned,
                    Peer::TokenServer => Arc::new(Either(pinned, Arc::clone(&self.verifier))),
                }
            }
            None => Arc::clone(&self.verifier),
        };
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Protocols { source })?
            .dangerous() // rustls' word for a verifier of one's own
            .with_custom_certificate_verifier(verifier);
        let certificate = endpoint.and_then(EndpointTls::dangerous_client_certificate);
        let Some((chain, key)) = certificate else { return Ok(config.with_no_client_auth()) };
        let chain = certificates(chain, "client certificates")?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_shows| TlsError::Key)?;
        config.with_client_auth_cert(chain, key).map_err(|source| TlsError::Identity { source })
    }
}

fn trusting(
    mut store: RootCertStore,
    roots: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    for root in roots {
        store.add(root)?;
    }
    let builder = WebPkiServerVerifier::builder_with_provider(store.into(), Arc::clone(provider));
    let verifier = builder.build().map_err(|error| Error::Other(OtherError(Arc::new(error))))?;
    Ok(verifier)
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::Pem { what }),
    }
}

/// Trusts a certificate if one of two verifiers trusts it. Both have the same signature algorithms, so
/// the second checks all signatures.
#[derive(Debug)]
struct Either(Arc<dyn ServerCertVerifier>, Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for Either {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = |verifier: &dyn ServerCertVerifier| {
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        verified(&*self.0).or_else(|_other_may| verified(&*self.1))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.1.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.1.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.supported_verify_schemes()
    }
}

/// Trusts every certificate; the signatures of the handshake are still checked.
#[derive(Debug)]
struct TrustAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
