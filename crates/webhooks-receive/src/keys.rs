//! Whose keys verify a request: fixed ones, or looked up by its head.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http::request::Parts;
use webhooks_sign::{Error, Key, KeyFormat, KeyRing, Scheme};

use crate::error::BoxError;

/// How many keys a sender may have at a time. Two are enough for a rotation; each costs a hash of
/// every body.
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
///     let key = key.clone(); // in earnest from a database, with the id
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

    /// Sets the URL that the sender was given, which some schemes sign. Take it from your settings,
    /// not from the request. Keys that are looked up bring it themselves: [`TenantKeys::url`].
    #[must_use]
    pub fn url(self, url: &str) -> Self {
        Self { url: Arc::from(url), ..self }
    }

    /// Returns the keys that are the same for all requests, if they are.
    pub(crate) fn fixed(&self) -> Option<FoundKeys> {
        match &self.source {
            Source::Fixed(ring) => {
                let (ring, url) = (Arc::clone(ring), Arc::clone(&self.url));
                Some(FoundKeys { tenant: None, ring, url, is_decoy: false })
            }
            Source::Lookup(_) => None,
        }
    }

    /// Returns whose keys verify a request; `None` for a tenant that there is not.
    pub(crate) async fn find(&self, head: &Parts) -> Result<Option<FoundKeys>, BoxError> {
        let Source::Lookup(lookup) = &self.source else { return Ok(self.fixed()) };
        // Who has no key cannot have signed anything.
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

/// Finds the keys of whoever a request says that it is from.
///
/// It is implemented for closures whose future borrows nothing of the request's head.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not look up keys: implement `KeyLookup`, or give a closure \
               `Fn(&http::request::Parts) -> impl Future<Output = Result<Option<TenantKeys>, _>>`"
)]
pub trait KeyLookup: Send + Sync + 'static {
    /// Returns the tenant's keys. A tenant that there is not, `None`, or that has no key, is
    /// refused like a wrong signature, and after hashing the body once, as for a tenant with one
    /// key; more keys take longer.
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

/// The keys of one tenant. Ids are remembered by tenant, so that none can use up another's.
#[derive(Clone)]
pub struct TenantKeys {
    tenant: Arc<str>,
    ring: Arc<KeyRing<MAX_KEYS>>,
    url: Arc<str>,
}

impl TenantKeys {
    /// Returns the keys, at most [`MAX_KEYS`], of this tenant: the stored row's own id, not the
    /// request's text, for ids are remembered under it and no two spellings may be two tenants.
    pub fn new<const N: usize>(tenant: impl Into<Arc<str>>, ring: &KeyRing<N>) -> Self {
        Self { tenant: tenant.into(), ring: Arc::new(widen(ring)), url: no_url() }
    }

    /// Sets the URL that the sender was given for this tenant, which some schemes sign.
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

/// The keys that verify a request, and whose they are.
#[derive(Clone)]
pub(crate) struct FoundKeys {
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) ring: Arc<KeyRing<MAX_KEYS>>,
    /// The URL that the sender was given, or nothing.
    pub(crate) url: Arc<str>,
    /// Whether the keys stand for those of nobody.
    pub(crate) is_decoy: bool,
}

impl FoundKeys {
    /// Returns the keys that stand for those of nobody.
    pub(crate) fn nobody(decoy: &Arc<KeyRing<MAX_KEYS>>) -> Self {
        // No sender was given this URL, but there is one.
        let url = Arc::from("https://decoy.invalid/");
        Self { tenant: None, ring: Arc::clone(decoy), url, is_decoy: true }
    }
}

fn widen<const N: usize>(ring: &KeyRing<N>) -> KeyRing<MAX_KEYS> {
    const { assert!(N <= MAX_KEYS, "a receiver takes at most MAX_KEYS keys") };
    let mut wide = KeyRing::new();
    for key in ring.iter() {
        if wide.push(key.clone()).is_err() {
            break; // more than MAX_KEYS do not compile
        }
    }
    wide
}

/// Texts of which one is a key for each algorithm: HMAC and token, ed25519 (RFC 8032 §7.1, test 1),
/// P-256 (RFC 6979 §A.2.5).
const DECOYS: [(KeyFormat, &str); 3] = [
    (KeyFormat::Text, "decoy"),
    (KeyFormat::Standard, "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="),
    (
        KeyFormat::Base64,
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Z5A/4QCLi8maQa6elWKLxk8vGyDC1+n1F3o8KU1EYimQ==",
    ),
];

/// Returns the keys by which requests to nobody are verified, for the time that it takes. They are
/// known to all, so what they say must never count. They suit the algorithm, however the scheme
/// writes its own keys.
pub(crate) fn decoy(scheme: &Scheme) -> Result<KeyRing<MAX_KEYS>, Error> {
    let decoy = |algorithm| {
        let written_as = |format| {
            Scheme::custom("decoy", "decoy").algorithm(algorithm).key_format(format).build()
        };
        DECOYS.iter().find_map(|(format, text)| written_as(*format).ok()?.key(text).ok())
    };
    let key = decoy(scheme.algorithm()).ok_or(Error::UnsuitableKey)?;
    let mut ring = widen(&KeyRing::from(key));
    // A header may list signatures for the keys of the other algorithm alone.
    if let Some(key) = scheme.other_algorithm().and_then(decoy) {
        let _there_is_room = ring.push(key).is_ok();
    }
    Ok(ring)
}

/// [`KeyLookup`] behind a pointer, so that a receiver has one type whatever finds its keys.
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

    /// Method: each algorithm that there is, with each format, whether or not it has keys so.
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
