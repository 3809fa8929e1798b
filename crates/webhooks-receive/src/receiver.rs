//! Receiving: a request in, a verified webhook or a rejection out, in any framework.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request};
use http_body::Body;
use webhooks_sign::{Error, Tolerance, scheme::Scheme};

use crate::body;
use crate::clock::{Clock, SystemClock};
use crate::error::{BoxError, SetupError};
use crate::explanation::Explanation;
use crate::keys::{FoundKeys, Keys, decoy};
use crate::provider::{AnyScheme, Provider};
use crate::rejection::Rejection;
use crate::settings::Settings;
use crate::verification::Rules;
use crate::webhook::Webhook;

/// The default limit of a body in bytes, unless the provider documents larger bodies. It is fifty times
/// the size that Standard Webhooks calls usual, and 1,000 bodies of this size fit into memory.
const MAX_BODY: usize = 1024 * 1024;

/// How long a body may take to arrive by default. Senders give up on the whole request after 5 to
/// 30 s.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// Verifies requests by one scheme. Clones are cheap, and count as the same receiver.
///
/// `P` is the [`Provider`], or [`AnyScheme`] if the scheme is a value.
///
/// # Example
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use webhooks_receive::{provider::GitHub, Receiver};
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

/// The findings about a request before it was refused, for the [`Explanation`].
#[derive(Default)]
struct Findings {
    keys: Option<FoundKeys>,
    body: Option<Bytes>,
}

impl Receiver {
    /// Returns a receiver of webhooks that are signed by this scheme with these keys.
    ///
    /// # Errors
    /// [`SetupError::UnsuitableKeys`] when the keys are for another algorithm, or there are none, and
    /// [`SetupError::MissingUrl`] when the scheme signs the URL and the keys have none.
    pub fn new(scheme: Scheme, keys: impl Into<Keys>) -> Result<Self, SetupError> {
        Self::with(scheme, keys.into())
    }
}

impl<P: Provider> Receiver<P> {
    /// Returns a receiver of webhooks that the provider signs with these keys.
    ///
    /// # Errors
    /// [`SetupError::UnsuitableKeys`] when the keys are for another algorithm, or there are none, and
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
        let found = keys.fixed().unwrap_or_else(|| FoundKeys::nobody(&decoy));
        let tolerance = scheme.tolerance();
        let rules = Rules { scheme, tolerance, clock: Arc::new(SystemClock) };
        // A trial with an empty request. It always fails, as there are no headers; if the error is one
        // of misuse, the keys are wrong.
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = Method::POST;
        match rules.begin(&head, &found, 0).err() {
            Some(Error::MissingPart) => return Err(SetupError::MissingUrl { scheme: name }),
            Some(source) if source.is_misuse() => return Err(unsuitable(source)),
            _ => {}
        }
        let settings = Settings {
            origin: Arc::new(()),
            keys,
            decoy,
            max_body: rules.scheme.max_body().unwrap_or(MAX_BODY),
            read_deadline: READ_DEADLINE,
            methods: Arc::from([Method::POST]),
            takes_any_type: false,
            on_rejection: Arc::new(log),
            rules,
        };
        Ok(Self { settings: Arc::new(settings), provider: PhantomData })
    }

    /// Sets how far the timestamp may lie from the clock: by default as far as the scheme allows.
    #[must_use]
    pub fn tolerance(self, tolerance: Tolerance) -> Self {
        self.set(|settings| settings.rules.tolerance = tolerance)
    }

    /// Sets how many bytes a body may have: by default the limit that the provider documents, if the
    /// scheme has one (GitHub 25 MiB), and otherwise 1 MiB.
    #[must_use]
    pub fn max_body(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_body = bytes)
    }

    /// Sets how long a body may take to arrive: 10 s by default.
    #[must_use]
    pub fn read_deadline(self, deadline: Duration) -> Self {
        self.set(|settings| settings.read_deadline = deadline)
    }

    /// Sets the methods that requests may have: only POST by default.
    ///
    /// Few schemes sign the method. If more methods are allowed than the sender uses, an attacker who
    /// saw a webhook could send it with another method, so that other code handles it, and so use up
    /// its id.
    #[must_use]
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.set(|settings| settings.methods = methods.into_iter().collect())
    }

    /// Sets the clock: the system's by default.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        self.set(|settings| settings.rules.clock = Arc::new(clock))
    }

    /// Accepts JSON with any content type, or none: for senders that label it `text/plain`. Elsewhere,
    /// checking the content type protects against forms on other sites; here the signature does.
    #[must_use]
    pub fn json_of_any_type(self) -> Self {
        self.set(|settings| settings.takes_any_type = true)
    }

    /// Sets a callback that gets each refused request and the reason, for your log or metrics. By
    /// default the feature `tracing` logs them; without that feature nothing is reported.
    ///
    /// # Example
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use webhooks_receive::{provider::GitHub, Receiver};
    /// use webhooks_sign::providers::GITHUB;
    ///
    /// let receiver = Receiver::<GitHub>::from_keys(GITHUB.key("It's a Secret to Everybody")?)?
    ///     .on_rejection(|explanation| eprintln!("{explanation:#}"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn on_rejection(self, callback: impl Fn(&Explanation<'_>) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.on_rejection = Arc::new(callback))
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    /// Verifies a request while its body streams in. It can be any `http::Request`: from hyper, a
    /// Lambda, or made by you. The head and the extensions are returned unchanged.
    ///
    /// Headers are checked first, so that a malformed or stale request is refused before its body is
    /// read. With the system's clock it needs a tokio runtime with a timer.
    ///
    /// # Errors
    /// [`Rejection`] has the reason, and the answer to the sender.
    ///
    /// # Cancellation
    /// A dropped future leaves nothing behind.
    pub async fn receive<B>(&self, request: Request<B>) -> Result<Request<Webhook>, Rejection>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let (head, body) = request.into_parts();
        let mut findings = Findings::default();
        match self.verify(&head, body, &mut findings).await {
            Ok(webhook) => Ok(Request::from_parts(head, webhook)),
            Err(rejection) => {
                let Findings { keys, body } = &findings;
                self.settings.report(&Explanation {
                    rejection: &rejection,
                    rules: &self.settings.rules,
                    head: Some(&head),
                    keys: keys.as_ref(),
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
        findings: &mut Findings,
    ) -> Result<Webhook, Rejection>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let settings = &*self.settings;
        let rules = &settings.rules;
        let (decoy, now) = (FoundKeys::nobody(&settings.decoy), rules.now());
        if !settings.methods.contains(&head.method) {
            return Err(Rejection::Method { allowed: Arc::clone(&settings.methods) });
        }
        body::check_declared(&head.headers, settings.max_body)?;
        if settings.keys.fixed().is_none() {
            // The decoy checks the headers first, so that malformed and stale requests cost no lookup.
            let _headers_are_fine = rules.begin(head, &decoy, now)?;
        }
        let found = settings.keys.find(head).await;
        findings.keys = found.map_err(|source| Rejection::KeyLookupFailed { source })?;
        // An error about the tenant waits until the body is hashed with the decoy. So an unknown
        // tenant, and one whose keys do not suit, takes as long as a wrong signature and gets the
        // same status.
        let (mut refusal, mut keys) = (None, findings.keys.as_ref().unwrap_or(&decoy));
        let mut verification = match (rules.begin(head, keys, now), &keys.tenant) {
            (Err(source), Some(tenant)) => {
                let tenant = Arc::clone(tenant);
                refusal = Some(if source.is_misuse() {
                    Rejection::TenantKeys { tenant, source }
                } else {
                    Rejection::Unauthentic { source }
                });
                keys = &decoy;
                rules.begin(head, keys, now)?
            }
            (begun, _) => begun?,
        };
        if findings.keys.is_none() {
            refusal = Some(Rejection::UnknownTenant);
        }
        let deadline = rules.clock.sleep(settings.read_deadline);
        let read =
            body::read(body, settings.max_body, deadline, |chunk| verification.update(chunk));
        let bytes = read.await?;
        findings.body = Some(bytes.clone());
        let verified = verification.finish(&bytes);
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let verified = verified?;
        let proof = (keys.clone(), Arc::clone(&self.settings));
        Ok(Webhook::new(&verified, bytes.clone(), proof, head))
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }
}

/// Logs a refusal if the feature `tracing` is on.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "there is no log"))]
fn log(explanation: &Explanation<'_>) {
    #[cfg(feature = "tracing")]
    explanation.log();
}

impl<P> Clone for Receiver<P> {
    fn clone(&self) -> Self {
        Self { settings: Arc::clone(&self.settings), provider: PhantomData }
    }
}

impl<P> fmt::Debug for Receiver<P> {
    /// Leaves out the URL, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { rules, keys, max_body, read_deadline, .. } = &*self.settings;
        let Rules { scheme, tolerance, .. } = rules;
        f.debug_struct("Receiver")
            .field("scheme", &scheme.name())
            .field("tolerance", tolerance)
            .field("keys", keys)
            .field("max_body", max_body)
            .field("read_deadline", read_deadline)
            .finish_non_exhaustive()
    }
}
