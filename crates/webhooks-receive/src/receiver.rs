//! Receiving: a request in, a verified webhook or a rejection out, whatever the framework.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request};
use http_body::Body;
use webhooks_sign::{Error, KeyRing, Tolerance, scheme::Scheme};

use crate::keys::{Found, decoy};
use crate::verification::Verification;
use crate::{
    AnyScheme, BoxError, Clock, Explanation, Keys, MAX_KEYS, Provider, Rejection, SetupError,
    SystemClock, Webhook, body,
};

/// How many bytes a body may have unless set, or the provider documents larger ones: fifty times what
/// Standard Webhooks calls usual, and little enough that a thousand at a time fit into memory.
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
/// let receiver = Receiver::<GitHub>::from_keys(GITHUB.key("It's a Secret to Everybody")?)?;
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
    /// What a receiver has in common with those that setters made of it, and with no other.
    origin: Arc<()>,
    keys: Keys,
    decoy: Arc<KeyRing<MAX_KEYS>>,
    max_body: usize,
    pub(crate) read_deadline: Duration,
    methods: Arc<[Method]>,
    pub(crate) takes_any_type: bool,
    on_rejection: Arc<dyn Fn(&Explanation<'_>) + Send + Sync>,
}

/// What was found out about a request before it was refused.
#[derive(Default)]
struct Looked {
    found: Option<Found>,
    body: Option<Bytes>,
}

impl Receiver {
    /// Returns a receiver of what is signed by this scheme with these keys.
    ///
    /// # Errors
    /// [`SetupError::UnsuitableKeys`] when the keys are for another algorithm, or there is none, and
    /// [`SetupError::MissingUrl`] when the scheme signs the URL and the keys have none.
    pub fn new(scheme: Scheme, keys: impl Into<Keys>) -> Result<Self, SetupError> {
        Self::with(scheme, keys.into())
    }
}

impl<P: Provider> Receiver<P> {
    /// Returns a receiver of what the provider signs with these keys.
    ///
    /// # Errors
    /// [`SetupError::UnsuitableKeys`] when the keys are for another algorithm, or there is none, and
    /// [`SetupError::MissingUrl`] when the scheme signs the URL and the keys have none.
    pub fn from_keys(keys: impl Into<Keys>) -> Result<Self, SetupError> {
        Self::with(P::SCHEME, keys.into())
    }
}

impl<P> Receiver<P> {
    fn with(scheme: Scheme, keys: Keys) -> Result<Self, SetupError> {
        let name = scheme.name();
        let unsuitable = |source| SetupError::UnsuitableKeys { scheme: name, source };
        let decoy = Arc::new(decoy(&scheme).map_err(unsuitable)?);
        let found = keys.fixed().unwrap_or_else(|| Found::nobody(&decoy));
        // Without headers verification fails in any case; by misuse, it is the keys that are wrong.
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = Method::POST;
        match Verification::begin(&scheme, scheme.tolerance(), &head, &found, 0).err() {
            Some(Error::MissingPart) => return Err(SetupError::MissingUrl { scheme: name }),
            Some(source) if source.is_misuse() => return Err(unsuitable(source)),
            _ => {}
        }
        let settings = Settings {
            scheme,
            tolerance: scheme.tolerance(),
            clock: Arc::new(SystemClock),
            origin: Arc::new(()),
            keys,
            decoy,
            max_body: scheme.max_body().unwrap_or(MAX_BODY),
            read_deadline: READ_DEADLINE,
            methods: Arc::from([Method::POST]),
            takes_any_type: false,
            on_rejection: Arc::new(log),
        };
        Ok(Self { settings: Arc::new(settings), provider: PhantomData })
    }

    /// Sets how far the timestamp may lie from the clock; what the scheme says unless set.
    #[must_use]
    pub fn tolerance(self, tolerance: Tolerance) -> Self {
        self.set(|settings| settings.tolerance = tolerance)
    }

    /// Sets how many bytes a body may have; unless set, as many as the scheme says that the provider
    /// documents (GitHub 25 MiB), and otherwise 1 MiB.
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

    /// Takes JSON under any content type, or none: for senders that label it `text/plain`. What is
    /// signed cannot come from a form on another site, which the content type guards against
    /// elsewhere.
    #[must_use]
    pub fn json_of_any_type(self) -> Self {
        self.set(|settings| settings.takes_any_type = true)
    }

    /// Sets who is told of each refused request, and why: your log, or your metrics. Unless set, the
    /// feature `tracing` logs it, and without that nobody is told.
    ///
    /// # Example
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use webhooks_receive::{GitHub, Receiver};
    /// use webhooks_sign::providers::GITHUB;
    ///
    /// let receiver = Receiver::<GitHub>::from_keys(GITHUB.key("It's a Secret to Everybody")?)?
    ///     .on_rejection(|explanation| eprintln!("{explanation:#}"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn on_rejection(self, tell: impl Fn(&Explanation<'_>) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.on_rejection = Arc::new(tell))
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
        let mut looked = Looked::default();
        match self.verify(&head, body, &mut looked).await {
            Ok(webhook) => Ok(Request::from_parts(head, webhook)),
            Err(rejection) => {
                let Looked { found, body } = &looked;
                self.settings.tell(&Explanation {
                    rejection: &rejection,
                    settings: &self.settings,
                    head: Some(&head),
                    found: found.as_ref(),
                    body: body.as_ref(),
                });
                Err(rejection)
            }
        }
    }

    async fn verify<B>(
        &self,
        head: &Parts,
        body: B,
        looked: &mut Looked,
    ) -> Result<Webhook, Rejection>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let settings = &*self.settings;
        let (decoy, now) = (Found::nobody(&settings.decoy), self.now());
        if !settings.methods.contains(&head.method) {
            return Err(Rejection::Method { allowed: Arc::clone(&settings.methods) });
        }
        body::check_declared(&head.headers, settings.max_body)?;
        if settings.keys.fixed().is_none() {
            // A lookup is spared what is malformed or stale.
            let _headers_are_fine = settings.begin(head, &decoy, now)?;
        }
        let found = settings.keys.find(head).await;
        looked.found = found.map_err(|source| Rejection::KeyLookupFailed { source })?;
        // What is wrong with a tenant shows only at the end, so that one that there is not, or whose
        // keys don't suit, takes as long as a wrong signature, and is told no other status.
        let (mut wrong, mut by) = (None, looked.found.as_ref().unwrap_or(&decoy));
        let mut begun = match (settings.begin(head, by, now), &by.tenant) {
            (Err(source), Some(tenant)) => {
                let tenant = Arc::clone(tenant);
                wrong = Some(if source.is_misuse() {
                    Rejection::TenantKeys { tenant, source }
                } else {
                    Rejection::Unauthentic { source }
                });
                by = &decoy;
                settings.begin(head, by, now)?
            }
            (begun, _) => begun?,
        };
        if looked.found.is_none() {
            wrong = Some(Rejection::UnknownTenant);
        }
        let deadline = settings.clock.sleep(settings.read_deadline);
        let read = body::read(body, settings.max_body, deadline, |chunk| begun.update(chunk));
        let bytes = read.await?;
        looked.body = Some(bytes.clone());
        let verified = begun.finish(&bytes);
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        let verified = verified?;
        let by = (by.clone(), Arc::clone(&self.settings));
        Ok(Webhook::new(&verified, bytes.clone(), by, head))
    }

    fn now(&self) -> u64 {
        self.settings.clock.now().as_unix_seconds()
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }
}

/// Tells the log of a refusal, if there is one.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "there is no log"))]
fn log(explanation: &Explanation<'_>) {
    #[cfg(feature = "tracing")]
    explanation.log();
}

impl Settings {
    fn begin<'s>(
        &'s self,
        head: &'s Parts,
        by: &'s Found,
        now: u64,
    ) -> Result<Verification<'s>, Error> {
        Verification::begin(&self.scheme, self.tolerance, head, by, now)
    }

    /// Returns whether a request would pass with another body.
    pub(crate) fn would_pass(&self, head: &Parts, by: &Found, body: &[u8]) -> bool {
        let now = self.clock.now().as_unix_seconds();
        let Ok(mut begun) = self.begin(head, by, now) else { return false };
        begun.update(body);
        begun.finish(body).is_ok()
    }

    /// Tells whoever wants to know that a request was refused.
    pub(crate) fn tell(&self, explanation: &Explanation<'_>) {
        (self.on_rejection)(explanation);
    }

    /// Tells of a refusal without a request at hand.
    pub(crate) fn tell_of(&self, rejection: &Rejection) {
        let (head, found, body) = (None, None, None);
        self.tell(&Explanation { rejection, settings: self, head, found, body });
    }

    /// Returns whether these are the settings of the same receiver, whatever was set since.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.origin, &other.origin)
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
