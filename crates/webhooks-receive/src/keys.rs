//! The keys that verify a request: fixed, or looked up by its head.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http::request::Parts;
use webhooks_sign::{
    Error, Key, KeyRing,
    scheme::{KeyFormat, Scheme},
};

use crate::error::BoxError;

/// The maximum number of keys of a sender at a time. Two are enough for a rotation. Each key costs one
/// hash of every body.
pub const MAX_KEYS: usize = 4;

/// The keys of a receiver.
///
/// # Example
/// ```
/// use webhooks_receive::{Keys, TenantKeys};
/// use webhooks_sign::{Key, KeyRing};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = Key::standard(concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))?;
/// let fixed = Keys::from(key.clone());
///
/// // The last part of the path names the tenant, whose own id is 1.
/// let by_path = Keys::lookup(move |head: &http::request::Parts| {
///     let name = head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
///     let key = key.clone(); // in your program: from a database, with the id
///     async move {
///         Ok((name == "acme").then(|| TenantKeys::new("1", &KeyRing::from(key))))
///     }
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Keys {
    source: Source,
    url: Arc<str>,
}

#[derive(Clone)]
enum Source {
    Fixed(Arc<KeyRing<MAX_KEYS>>),
    Lookup(Arc<dyn DynLookup>),
}

impl Keys {
    /// Looks the keys up for each request.
    pub fn lookup(lookup: impl KeyLookup) -> Self {
        Self { source: Source::Lookup(Arc::new(lookup)), url: no_url() }
    }

    /// Sets the URL that was registered with the sender, which some schemes sign. Take it from your
    /// settings, not from the request. For keys that are looked up use [`TenantKeys::url`].
    #[must_use]
    pub fn url(self, url: &str) -> Self {
        Self { url: Arc::from(url), ..self }
    }

    /// Returns the keys if they are the same for all requests.
    pub(crate) fn fixed(&self) -> Option<FoundKeys> {
        match &self.source {
            Source::Fixed(ring) => {
                let (ring, url) = (Arc::clone(ring), Arc::clone(&self.url));
                Some(FoundKeys { tenant: None, ring, url, is_decoy: false })
            }
            Source::Lookup(_) => None,
        }
    }

    /// Returns the keys that verify a request; `None` if its tenant does not exist.
    pub(crate) async fn find(&self, head: &Parts) -> Result<Option<FoundKeys>, BoxError> {
        let Source::Lookup(lookup) = &self.source else { return Ok(self.fixed()) };
        // A tenant without a key cannot have signed the request, so it counts as unknown.
        let found = lookup.keys(head).await?.filter(|keys| keys.ring.iter().next().is_some());
        Ok(found.map(|TenantKeys { tenant, ring, url }| FoundKeys {
            tenant: Some(tenant),
            ring,
            url,
            is_decoy: false,
        }))
    }
}

impl From<Key> for Keys {
    fn from(key: Key) -> Self {
        Self::from(KeyRing::from(key))
    }
}

impl<const N: usize> From<KeyRing<N>> for Keys {
    /// Takes a ring of at most [`MAX_KEYS`] keys; a larger one does not compile.
    fn from(ring: KeyRing<N>) -> Self {
        Self { source: Source::Fixed(Arc::new(widen(&ring))), url: no_url() }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Source::Fixed(_) => "Keys(fixed)",
            Source::Lookup(_) => "Keys(lookup)",
        })
    }
}

/// Finds the keys of the tenant that a request names.
///
/// Closures implement it if their future borrows nothing from the head of the request.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not look up keys: implement `KeyLookup`, or give a closure \
               `Fn(&http::request::Parts) -> impl Future<Output = Result<Option<TenantKeys>, _>>`"
)]
pub trait KeyLookup: Send + Sync + 'static {
    /// Returns the keys of the tenant; `None` if it does not exist. An unknown tenant, or one without a
    /// key, is refused like a wrong signature, after the body is hashed once, as for a tenant with one
    /// key. More keys take longer.
    ///
    /// # Errors
    /// Any error is answered with 503, so that the sender tries again.
    fn keys(
        &self,
        head: &Parts,
    ) -> impl Future<Output = Result<Option<TenantKeys>, BoxError>> + Send;
}

impl<F, Fut> KeyLookup for F
where
    F: Fn(&Parts) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<TenantKeys>, BoxError>> + Send + 'static,
{
    fn keys(
        &self,
        head: &Parts,
    ) -> impl Future<Output = Result<Option<TenantKeys>, BoxError>> + Send {
        self(head)
    }
}

/// The keys of one tenant. Ids are remembered per tenant, so that no tenant can use up the ids of
/// another.
#[derive(Clone)]
pub struct TenantKeys {
    tenant: Arc<str>,
    ring: Arc<KeyRing<MAX_KEYS>>,
    url: Arc<str>,
}

impl TenantKeys {
    /// Returns the keys of this tenant, at most [`MAX_KEYS`]. `tenant` is the id of the stored row, not
    /// the text of the request: ids are remembered under it, and two spellings must not be two
    /// tenants.
    pub fn new<const N: usize>(tenant: impl Into<Arc<str>>, ring: &KeyRing<N>) -> Self {
        Self { tenant: tenant.into(), ring: Arc::new(widen(ring)), url: no_url() }
    }

    /// Sets the URL that was registered with the sender for this tenant, which some schemes sign.
    #[must_use]
    pub fn url(self, url: &str) -> Self {
        Self { url: Arc::from(url), ..self }
    }
}

impl fmt::Debug for TenantKeys {
    /// Leaves out the URL, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantKeys")
            .field("tenant", &self.tenant)
            .field("ring", &self.ring)
            .finish_non_exhaustive()
    }
}

fn no_url() -> Arc<str> {
    Arc::from("")
}

/// The keys that verify a request, and their tenant.
#[derive(Clone)]
pub(crate) struct FoundKeys {
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) ring: Arc<KeyRing<MAX_KEYS>>,
    /// The URL that was registered with the sender, or nothing.
    pub(crate) url: Arc<str>,
    /// Whether these are the keys for requests of unknown tenants.
    pub(crate) is_decoy: bool,
}

impl FoundKeys {
    /// Returns the keys for requests of unknown tenants.
    pub(crate) fn nobody(decoy: &Arc<KeyRing<MAX_KEYS>>) -> Self {
        // Schemes that sign the URL need one. This one is registered with no sender.
        let url = Arc::from("https://decoy.invalid/");
        Self { tenant: None, ring: Arc::clone(decoy), url, is_decoy: true }
    }
}

fn widen<const N: usize>(ring: &KeyRing<N>) -> KeyRing<MAX_KEYS> {
    const { assert!(N <= MAX_KEYS, "a receiver takes at most MAX_KEYS keys") };
    let mut wide = KeyRing::new();
    for key in ring.iter() {
        if wide.push(key.clone()).is_err() {
            break; // never: a larger ring does not compile
        }
    }
    wide
}

/// Texts of keys, for every algorithm one that suits it: HMAC and token, ed25519 (RFC 8032 §7.1,
/// test 1), P-256 (RFC 6979 §A.2.5).
const DECOYS: [(KeyFormat, &str); 3] = [
    (KeyFormat::Text, "decoy"),
    (KeyFormat::Standard, "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="),
    (
        KeyFormat::Base64,
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Z5A/4QCLi8maQa6elWKLxk8vGyDC1+n1F3o8KU1EYimQ==",
    ),
];

/// Returns the keys that verify requests of unknown tenants, so that these take as long as others. The
/// keys are public, so a request that they verify must still be refused. They suit the algorithm of
/// the scheme, in whatever format the scheme writes its own keys.
pub(crate) fn decoy(scheme: &Scheme) -> Result<KeyRing<MAX_KEYS>, Error> {
    let decoy = |algorithm| {
        let written_as = |format| {
            Scheme::custom("decoy", "decoy").algorithm(algorithm).key_format(format).build()
        };
        DECOYS.iter().find_map(|(format, text)| written_as(*format).ok()?.key(text).ok())
    };
    let key = decoy(scheme.algorithm()).ok_or(Error::UnsuitableKey)?;
    let mut ring = widen(&KeyRing::from(key));
    // A header may list only signatures of the scheme's other algorithm.
    if let Some(key) = scheme.other_algorithm().and_then(decoy) {
        let _there_is_room = ring.push(key).is_ok();
    }
    Ok(ring)
}

/// [`KeyLookup`] behind a pointer, so that the lookup is no type parameter of a receiver.
trait DynLookup: Send + Sync {
    fn keys<'a>(&'a self, head: &'a Parts) -> Lookup<'a>;
}

type Lookup<'a> = Pin<Box<dyn Future<Output = Result<Option<TenantKeys>, BoxError>> + Send + 'a>>;

impl<L: KeyLookup> DynLookup for L {
    fn keys<'a>(&'a self, head: &'a Parts) -> Lookup<'a> {
        Box::pin(KeyLookup::keys(self, head))
    }
}

#[cfg(test)]
mod tests {
    use webhooks_sign::Algorithm;

    use super::*;

    /// Method: every algorithm with every format, even if the algorithm has no keys in the format.
    #[test]
    fn every_algorithm_has_a_decoy_whatever_the_format_of_its_keys() {
        let algorithms = [
            Algorithm::EcdsaP256,
            Algorithm::Ed25519,
            Algorithm::HmacSha1,
            Algorithm::HmacSha256,
            Algorithm::HmacSha512,
            Algorithm::Token,
        ];
        let formats = [KeyFormat::Base64, KeyFormat::Hex, KeyFormat::Standard, KeyFormat::Text];
        for algorithm in algorithms {
            for format in formats {
                let scheme = Scheme::custom("acme", "acme-signature").algorithm(algorithm);
                let ring = decoy(&scheme.key_format(format).build().unwrap()).unwrap();
                assert_eq!(ring.iter().next().unwrap().algorithm(), algorithm, "{format:?}");
            }
        }
    }
}
