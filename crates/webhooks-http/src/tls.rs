//! Whom to trust in TLS, and who we are.

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

/// Which authorities may vouch for endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Roots {
    /// Those of the operating system; on Linux, of the package `ca-certificates`.
    #[default]
    Platform,
    /// Those of Mozilla, as of the time when this crate was built: for systems that have none.
    #[cfg(feature = "bundled-roots")]
    Bundled,
    /// None but those that are added, of which there must be one.
    None,
}

/// Says what is wrong with an endpoint's TLS settings. It shows nothing of the key.
#[derive(Debug, ThisError)]
pub(crate) enum TlsError {
    #[error("the client certificate and its key do not fit together, or cannot be used")]
    Identity { source: Error },
    #[error("the {what} are not PEM, or there is none")]
    Pem { what: &'static str },
    #[error("the client's key is not PEM")]
    Key,
    #[error("no version of TLS can be used")]
    Protocols { source: Error },
    #[error("a root certificate cannot be used")]
    Root { source: Error },
}

/// Whom a connection is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// Pinned roots alone vouch for it.
    Endpoint,
    /// Pinned roots vouch for it too: it is as often within the endpoint's own network as it is a
    /// provider's on the internet.
    TokenServer,
}

/// What all connections have in common.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl Tls {
    pub(crate) fn new(roots: Roots, extra: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
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

    /// Returns the same, but for trusting every certificate.
    pub(crate) fn dangerous_without_verification(self) -> Self {
        let verifier = Arc::new(TrustAll(Arc::clone(&self.provider)));
        Self { verifier, ..self }
    }

    /// Returns the settings for connections to an endpoint, or to its token server, without protocols
    /// (ALPN).
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
        let identity = endpoint.and_then(EndpointTls::dangerous_client_certificate);
        let Some((chain, key)) = identity else { return Ok(config.with_no_client_auth()) };
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

/// Trusts what one of two trusts. Both check signatures by the same algorithms.
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

/// Trusts every certificate; the handshake itself is still checked.
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
