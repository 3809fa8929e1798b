//! The part of a stored endpoint that is stored apart.

use std::io;

use serde::{Deserialize, Serialize};
use webhooks_core::Timestamp;
use zeroize::Zeroizing;

use crate::auth::{ClientCredentials, EndpointTls, SecretIn};
use crate::secret_string::SecretString;
use crate::{Endpoint, EndpointError, EndpointUrl, Secret};

/// The secrets of an endpoint: for signing, and for access to the endpoint.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Secrets {
    signing: Vec<StoredSecret>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, SecretString)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_credentials: Option<StoredCredentials>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<StoredTls>,
}

#[derive(Serialize, Deserialize)]
struct StoredSecret {
    text: SecretString,
    expires_at: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct StoredCredentials {
    token_url: String,
    client_id: String,
    client_secret: SecretString,
    scope: Option<String>,
    audience: Option<String>,
    #[serde(default)]
    secret_in: SecretIn,
}

#[derive(Serialize, Deserialize)]
struct StoredTls {
    roots: Option<String>,
    client_certificate: Option<(String, SecretString)>,
}

impl Secrets {
    /// Returns the secrets that were written. The oldest form is a list of signing secrets only.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        let whole = serde_json::from_slice(json).ok();
        whole.or_else(|| {
            Some(Self { signing: serde_json::from_slice(json).ok()?, ..Self::default() })
        })
    }

    /// Returns the JSON, in a buffer of its final length: one that grew would leave copies behind.
    pub(super) fn to_json(&self) -> serde_json::Result<Zeroizing<Vec<u8>>> {
        let mut len = Length(0);
        serde_json::to_writer(&mut len, self)?;
        let mut json = Zeroizing::new(Vec::with_capacity(len.0));
        serde_json::to_writer(&mut *json, self)?;
        Ok(json)
    }

    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let signing = endpoint.secrets().map(|secret| StoredSecret {
            text: SecretString::new(secret.dangerous_text()),
            expires_at: secret.expiry(),
        });
        // Values come from texts, so they are texts.
        let headers = endpoint.headers().iter().filter_map(|(name, value)| {
            let value = std::str::from_utf8(value.as_bytes()).ok()?;
            Some((name.to_string(), SecretString::new(value)))
        });
        let credentials = endpoint.client_credentials.as_deref();
        Self {
            signing: signing.collect(),
            headers: headers.collect(),
            client_credentials: credentials.map(StoredCredentials::of),
            tls: endpoint.tls.as_deref().map(StoredTls::of),
        }
    }

    pub(super) fn signing_secrets(&self) -> Result<Vec<Secret>, EndpointError> {
        let secret = |StoredSecret { text, expires_at }: &StoredSecret| {
            let secret = Secret::new(text.dangerous_text())?;
            Ok(match expires_at {
                Some(expires_at) => secret.expires_at(*expires_at),
                None => secret,
            })
        };
        self.signing.iter().map(secret).collect()
    }

    /// Returns the endpoint with its headers, credentials and certificates.
    pub(super) fn add_access(self, mut endpoint: Endpoint) -> Result<Endpoint, EndpointError> {
        for (name, value) in self.headers {
            endpoint = endpoint.header(&name, value.dangerous_text())?;
        }
        if let Some(credentials) = self.client_credentials {
            endpoint = endpoint.client_credentials(credentials.restored()?)?;
        }
        Ok(match self.tls {
            Some(tls) => endpoint.tls(tls.restored())?,
            None => endpoint,
        })
    }
}

/// Counts the bytes that are written.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl StoredCredentials {
    fn of(credentials: &ClientCredentials) -> Self {
        Self {
            token_url: credentials.token_url.to_string(),
            client_id: credentials.client_id.clone(),
            client_secret: SecretString::new(credentials.dangerous_client_secret()),
            scope: credentials.scope.clone(),
            audience: credentials.audience.clone(),
            secret_in: credentials.secret_in,
        }
    }

    fn restored(self) -> Result<ClientCredentials, EndpointError> {
        let (url, secret) = (EndpointUrl::new(&self.token_url)?, self.client_secret);
        let mut credentials = ClientCredentials::new(url, &self.client_id, secret.dangerous_text());
        credentials.scope = self.scope;
        credentials.audience = self.audience;
        credentials.secret_in = self.secret_in;
        Ok(credentials)
    }
}

impl StoredTls {
    fn of(tls: &EndpointTls) -> Self {
        let client_certificate = (tls.dangerous_client_certificate())
            .map(|(chain, key)| (chain.to_owned(), SecretString::new(key)));
        Self { roots: tls.roots.clone(), client_certificate }
    }

    fn restored(self) -> EndpointTls {
        let mut tls = EndpointTls::default();
        tls.roots = self.roots;
        match self.client_certificate {
            Some((chain, key)) => tls.client_certificate(&chain, key.dangerous_text()),
            None => tls,
        }
    }
}
