//! Receiving: a request in, a verified webhook or a rejection out, whatever the framework.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method, Request};
use http_body::Body;
use webhooks_sign::{KeyRing, Scheme, Tolerance, Verifier};

use crate::keys::{Found, decoy};
use crate::{
    AnyScheme, BoxError, Clock, Keys, MAX_KEYS, Provider, Rejection, SetupError, SystemClock,
    Webhook, body,
};

/// How many bytes a body may have unless set: fifty times what Standard Webhooks calls usual, and
/// little enough that a thousand at a time fit into memory.
const MAX_BODY: usize = 1024 * 1024;

/// How long a body may take to come unless set. Senders give up on the whole exchange after 5 to
/// 30 s.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// Verifies requests by one scheme. Clones are cheap and one and the same receiver.
///
/// `P` is the [`Provider`], or [`AnyScheme`] where the scheme is a value.
///
/// # Example
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use webhooks_receive::{GitHub, Receiver};
/// use webhooks_sign::providers::GITHUB;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let receiver = Receiver::<GitHub>::of(GITHUB.key("It's a Secret to Everybody")?)?;
///
/// let digest = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
/// let request = Request::post("/hook").header("x-hub-signature-256", digest);
/// let body = Full::new(Bytes::from("Hello, World!"));
/// let received = receiver.receive(request.body(body)?).await?;
/// assert_eq!(received.body().body(), "Hello, World!");
/// # Ok(())
/// # }
/// ```
pub struct Receiver<P = AnyScheme> {
    settings: Arc<Settings>,
    provider: PhantomData<fn() -> P>,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) scheme: Scheme,
    pub(crate) tolerance: Tolerance,
    pub(crate) clock: Arc<dyn Clock>,
    url: Arc<str>,
    keys: Keys,
    decoy: Arc<KeyRing<MAX_KEYS>>,
    max_body: usize,
    pub(crate) read_deadline: Duration,
    methods: Arc<[Method]>,
}

impl Receiver {
    /// Returns a receiver of what is signed by this scheme with these keys.
    ///
    /// # Errors
    /// [`SetupError::UnsuitableKeys`] when the keys are for another algorithm, or there is none.
    pub fn new(scheme: Scheme, keys: impl Into<Keys>) -> Result<Self, SetupError> {
        Self::with(scheme, keys.into())
    }
}

impl<P: Provider> Receiver<P> {
    /// Returns a receiver of what the provider signs with these keys.
    ///
    /// # Errors
    /// [`SetupError::UnsuitableKeys`] when the keys are for another algorithm, or there is none.
    pub fn of(keys: impl Into<Keys>) -> Result<Self, SetupError> {
        Self::with(P::SCHEME, keys.into())
    }
}

impl<P> Receiver<P> {
    fn with(scheme: Scheme, keys: Keys) -> Result<Self, SetupError> {
        let unsuitable = |source| SetupError::UnsuitableKeys { scheme: scheme.name(), source };
        let decoy = Arc::new(decoy(&scheme).map_err(unsuitable)?);
        let ring = keys.fixed().unwrap_or(&decoy);
        // Without headers verification fails in any case; by misuse, it is the keys that are wrong.
        let none = HeaderMap::new();
        let tried = scheme.verifier().method("POST").url("/").begin(ring, &none, 0);
        if let Err(source) = tried
            && source.is_misuse()
        {
            return Err(unsuitable(source));
        }
        let settings = Settings {
            scheme,
            tolerance: scheme.tolerance(),
            clock: Arc::new(SystemClock),
            url: Arc::from(""),
            keys,
            decoy,
            max_body: MAX_BODY,
            read_deadline: READ_DEADLINE,
            methods: Arc::from([Method::POST]),
        };
        Ok(Self { settings: Arc::new(settings), provider: PhantomData })
    }

    /// Sets the URL that the sender was given, which some schemes sign. Take it from your settings,
    /// not from the request.
    #[must_use]
    pub fn url(self, url: &str) -> Self {
        self.set(|settings| settings.url = Arc::from(url))
    }

    /// Sets how far the timestamp may lie from the clock; what the scheme says unless set.
    #[must_use]
    pub fn tolerance(self, tolerance: Tolerance) -> Self {
        self.set(|settings| settings.tolerance = tolerance)
    }

    /// Sets how many bytes a body may have; 1 MiB unless set.
    #[must_use]
    pub fn max_body(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_body = bytes)
    }

    /// Sets how long a body may take to come; 10 s unless set.
    #[must_use]
    pub fn read_deadline(self, deadline: Duration) -> Self {
        self.set(|settings| settings.read_deadline = deadline)
    }

    /// Sets the methods by which webhooks may come; POST alone unless set.
    ///
    /// Few schemes sign the method: by another one, whoever saw a webhook could have it handled
    /// by something else, and use up its id.
    #[must_use]
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.set(|settings| settings.methods = methods.into_iter().collect())
    }

    /// Sets the clock; the system's unless set.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        self.set(|settings| settings.clock = Arc::new(clock))
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    /// Verifies a request while its body streams in: any `http::Request`, be it from hyper, a
    /// Lambda or your own. Head and extensions come back as they were.
    ///
    /// Headers are looked at first, so that what is malformed or stale is refused before a byte is
    /// read. With the system's clock it must run in a tokio runtime with a timer.
    ///
    /// # Errors
    /// [`Rejection`] says why, and what to answer.
    ///
    /// # Cancellation
    /// A dropped future leaves nothing behind.
    pub async fn receive<B>(&self, request: Request<B>) -> Result<Request<Webhook>, Rejection>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let (head, body) = request.into_parts();
        let Settings { max_body, read_deadline, ref methods, .. } = *self.settings;
        if !methods.contains(&head.method) {
            return Err(Rejection::Method { allowed: Arc::clone(methods) });
        }
        body::check_declared(&head.headers, max_body)?;
        let found = self.find(&head).await?;
        let ring = found.as_ref().map_or(&self.settings.decoy, |found| &found.ring);
        let pending = self.verifier(&head).begin(ring, &head.headers, self.now())?;
        // With curves it takes 8 KiB, which all futures around this one would have to carry.
        let mut pending = Box::new(pending);
        let deadline = self.settings.clock.sleep(read_deadline);
        let bytes = body::read(body, max_body, deadline, |chunk| pending.update(chunk)).await?;
        let verified = pending.finish();
        // Only now, so that a tenant that there is not takes as long as a wrong signature.
        let Some(found) = found else { return Err(Rejection::UnknownTenant) };
        let by = Arc::clone(&self.settings);
        let webhook = Webhook::new(&verified?, bytes, found, &head.headers, by);
        Ok(Request::from_parts(head, webhook))
    }

    /// Returns whose keys verify a request. A lookup is spared what is malformed or stale.
    async fn find(&self, head: &Parts) -> Result<Option<Found>, Rejection> {
        let Settings { keys, decoy, .. } = &*self.settings;
        if keys.fixed().is_none() {
            let _headers_are_fine = self.verifier(head).begin(decoy, &head.headers, self.now())?;
        }
        keys.find(head).await.map_err(|source| Rejection::Lookup { source })
    }

    fn verifier<'s>(&'s self, head: &'s Parts) -> Verifier<'s> {
        let Settings { scheme, tolerance, url, .. } = &*self.settings;
        scheme.verifier().tolerance(*tolerance).method(head.method.as_str()).url(url)
    }

    fn now(&self) -> u64 {
        self.settings.clock.now().as_unix_seconds()
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }
}

impl<P> Clone for Receiver<P> {
    fn clone(&self) -> Self {
        Self { settings: Arc::clone(&self.settings), provider: PhantomData }
    }
}

impl<P> fmt::Debug for Receiver<P> {
    /// Leaves out the URL, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { scheme, tolerance, keys, max_body, read_deadline, .. } = &*self.settings;
        f.debug_struct("Receiver")
            .field("scheme", &scheme.name())
            .field("tolerance", tolerance)
            .field("keys", keys)
            .field("max_body", max_body)
            .field("read_deadline", read_deadline)
            .finish_non_exhaustive()
    }
}
