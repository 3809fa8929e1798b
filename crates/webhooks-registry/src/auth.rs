//! Access to endpoints that need more than a signature: tokens by OAuth 2.0, and certificates.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::secret_string::SecretString;
use crate::{EndpointError, EndpointUrl};

/// The longest text of credentials, in bytes.
const MAX_TEXT: usize = 4096;

/// The longest PEM of certificates or a key, in bytes.
const MAX_PEM: usize = 64 * 1024;

/// The credentials for the token that an endpoint needs: OAuth 2.0, client credentials (RFC 6749 §4.4).
///
/// The transport fetches the token, caches it while it is valid, and sends it as
/// `Authorization: Bearer …` (RFC 6750 §2.1).
///
/// # Example
/// ```
/// use webhooks_registry::{EndpointUrl, auth::ClientCredentials};
///
/// let token_url = EndpointUrl::new("https://id.example.com/oauth2/token")?;
/// let credentials = ClientCredentials::new(token_url, "acme", "hush").scope("webhooks.write");
/// assert!(!format!("{credentials:?}").contains("hush"));
/// # Ok::<(), webhooks_registry::EndpointUrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientCredentials {
    /// The URL at which tokens are issued.
    pub token_url: EndpointUrl,
    /// The client's id.
    pub client_id: String,
    /// The scope of the token, in the words of the endpoint's owner (RFC 6749 §3.3).
    pub scope: Option<String>,
    /// The audience of the token; some providers require it.
    pub audience: Option<String>,
    /// The place of the client's secret in the request for a token.
    pub secret_in: SecretIn,
    client_secret: SecretString,
}

/// The place of the client's secret in the request for a token (RFC 6749 §2.3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "RFC 6749 has no third place")]
pub enum SecretIn {
    /// Its body, beside the client's id; some servers require it (`client_secret_post`).
    Body,
    /// Its `Authorization` header, which all servers must accept (`client_secret_basic`).
    #[default]
    Header,
}

impl ClientCredentials {
    /// Returns credentials without scope and audience, with the secret in a header.
    pub fn new(token_url: EndpointUrl, client_id: &str, client_secret: &str) -> Self {
        Self {
            token_url,
            client_id: client_id.to_owned(),
            scope: None,
            audience: None,
            secret_in: SecretIn::Header,
            client_secret: SecretString::new(client_secret),
        }
    }

    /// Sets the scope of the token, in the words of the endpoint's owner: names separated by spaces.
    #[must_use]
    pub fn scope(self, scope: &str) -> Self {
        Self { scope: Some(scope.to_owned()), ..self }
    }

    /// Sets the audience of the token.
    #[must_use]
    pub fn audience(self, audience: &str) -> Self {
        Self { audience: Some(audience.to_owned()), ..self }
    }

    /// Puts the client's secret into the body of the request for a token, for servers that only accept
    /// it there.
    #[must_use]
    pub fn secret_in_body(self) -> Self {
        Self { secret_in: SecretIn::Body, ..self }
    }

    /// Borrows the client's secret, for transports and stores.
    pub fn dangerous_client_secret(&self) -> &str {
        self.client_secret.dangerous_text()
    }
}

impl ClientCredentials {
    /// Returns `Ok` if the texts are short enough.
    pub(crate) fn check(&self) -> Result<(), EndpointError> {
        within("client's id", MAX_TEXT, Some(&self.client_id))?;
        within("client's secret", MAX_TEXT, Some(self.dangerous_client_secret()))?;
        within("scope", MAX_TEXT, self.scope.as_deref())?;
        within("audience", MAX_TEXT, self.audience.as_deref())
    }
}

fn within(what: &'static str, max: usize, text: Option<&str>) -> Result<(), EndpointError> {
    let is_too_long = text.is_some_and(|text| text.len() > max);
    if is_too_long { Err(EndpointError::TooLong { what, max }) } else { Ok(()) }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("token_url", &self.token_url)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// The TLS settings of one endpoint: the authorities to trust, and the client's certificate.
///
/// Certificates and keys are PEM texts (RFC 7468). The transport reads them when the endpoint is
/// registered.
///
/// # Example
/// ```
/// use webhooks_registry::auth::EndpointTls;
///
/// # let (ca, certificates, key) = ("", "", "");
/// let tls = EndpointTls::default().pinned_roots(ca).client_certificate(certificates, key);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct EndpointTls {
    /// The only authorities that are trusted for the endpoint; those of the transport if `None`.
    pub roots: Option<String>,
    certificate: Option<ClientCertificate>,
}

/// A chain of certificates, the client's own first, and the key of that one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ClientCertificate {
    chain: String,
    key: SecretString,
}

impl EndpointTls {
    /// Trusts only these authorities for the endpoint, in PEM.
    #[must_use]
    pub fn pinned_roots(self, pem: &str) -> Self {
        Self { roots: Some(pem.to_owned()), ..self }
    }

    /// Presents a certificate if the endpoint asks for one (mutual TLS): the chain, the client's own
    /// first, and its key, in PEM.
    #[must_use]
    pub fn client_certificate(self, chain_pem: &str, key_pem: &str) -> Self {
        let certificate =
            ClientCertificate { chain: chain_pem.to_owned(), key: SecretString::new(key_pem) };
        Self { certificate: Some(certificate), ..self }
    }

    /// Returns `Ok` if the PEM texts are short enough.
    pub(crate) fn check(&self) -> Result<(), EndpointError> {
        within("pinned roots", MAX_PEM, self.roots.as_deref())?;
        let (chain, key) = self.dangerous_client_certificate().unzip();
        within("client certificates", MAX_PEM, chain)?;
        within("client's key", MAX_PEM, key)
    }

    /// Borrows the client's chain and its key, for transports and stores.
    pub fn dangerous_client_certificate(&self) -> Option<(&str, &str)> {
        let ClientCertificate { chain, key } = self.certificate.as_ref()?;
        Some((chain, key.dangerous_text()))
    }
}
