//! Endpoints: the destinations of deliveries, and their settings.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use webhooks_core::{Channel, EventType, RetryPolicy, TenantId, Timestamp};
use webhooks_sign::Algorithm;
use zeroize::Zeroizing;

use crate::auth::{ClientCredentials, EndpointTls};
use crate::custom_header;
use crate::error::{MAX_SECRETS, MAX_SUBSCRIPTIONS, check_ranges};
use crate::{
    BodyFormat, EndpointError, EndpointUrl, HeaderProfile, RateLimit, Secret, Subscription,
};

/// The default limit for the time of an attempt.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The default limit of attempts in flight: plenty for a receiver that answers within 100 ms, and no
/// flood for a small one.
const DEFAULT_MAX_IN_FLIGHT: NonZeroU32 = NonZeroU32::new(32).unwrap();

/// The default age at which a delivery expires: a week, which is more than the 75 hours of the longest
/// common retry schedule.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The longest time that an attempt may last: it uses a slot for which others of its tenant may wait.
const MAX_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The most attempts that an endpoint may have in flight.
const MAX_MAX_IN_FLIGHT: u32 = 1_024;

/// The highest age at which a delivery may expire: a year, leap years included.
const MAX_MAX_AGE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The longest name and description in bytes.
const MAX_NAME: usize = 256;
const MAX_DESCRIPTION: usize = 4 * 1024;

/// The most entries of metadata, and the bytes of all keys and values together.
const MAX_METADATA: (usize, usize) = (64, 16 * 1024);

/// A destination of events: its URL, the events that it gets, and how they are signed and tried again.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use webhooks_core::RetryPolicy;
/// use webhooks_registry::Endpoint;
///
/// let endpoint = Endpoint::new("https://example.com/webhook", "my-secret-key")?
///     .events(["created", "user.*"])?
///     .timeout(Duration::from_secs(10))
///     .retry(RetryPolicy::fixed(Duration::from_secs(5), 2));
/// assert!(endpoint.active);
/// # Ok::<(), webhooks_registry::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// The URL to which deliveries go.
    pub url: EndpointUrl,
    /// The tenant whose events it gets.
    pub tenant: TenantId,
    /// Its name for people, at most 256 bytes.
    pub name: Option<String>,
    /// Its description for people, at most 4 KiB.
    pub description: Option<String>,
    /// Its owner's notes for programs: at most 64 entries, of 16 KiB together.
    pub metadata: BTreeMap<String, String>,
    /// The events that it gets, at most 256 subscriptions; all events if empty.
    pub subscriptions: Vec<Subscription>,
    /// The channels of which it gets the events, at most 16; all events if empty.
    pub channels: Vec<Channel>,
    /// The algorithm of [`HeaderProfile::XWebhook`], an HMAC; the other profiles have their own.
    pub algorithm: Algorithm,
    /// The body that it gets.
    pub body: BodyFormat,
    /// The schedule by which a failed delivery is tried again. If `None`, direct dispatch retries 3
    /// times after 1 s each, and durable delivery follows the schedule of Standard Webhooks over 75
    /// hours, unless the engine has another default.
    pub retry: Option<RetryPolicy>,
    /// The limit for the time of an attempt, from resolving the name to the end of the response: 10
    /// minutes at most.
    pub timeout: Duration,
    /// Whether it was registered to get anything at all. In durable delivery its
    /// [state](crate::EndpointState) decides: it may have been disabled later.
    pub active: bool,
    /// Whether events arrive strictly in the order in which they were accepted: each waits until
    /// the one before has ended. For durable delivery; direct dispatch ignores it.
    pub ordered: bool,
    /// The limit of attempts in flight, in durable delivery: 1,024 at most.
    pub max_in_flight: NonZeroU32,
    /// The limit of calls per period, in durable delivery; no limit if `None`.
    pub rate_limit: Option<RateLimit>,
    /// The age, from acceptance, at which a delivery expires, in durable delivery: 366 days at most.
    pub max_age: Duration,
    /// The credentials for the token that it needs, if it needs one.
    pub client_credentials: Option<Arc<ClientCredentials>>,
    /// The TLS settings, if they differ from those of other endpoints.
    pub tls: Option<Arc<EndpointTls>>,
    secrets: Vec<Secret>,
    profiles: Vec<HeaderProfile>,
    headers: HeaderMap,
}

impl Endpoint {
    /// Returns an active endpoint of the default tenant that gets all events, has no retry policy of
    /// its own, limits an attempt to 30 s, and signs the event's JSON object with HMAC-SHA256.
    ///
    /// The secret is a [`Secret`] or its text. One that starts with `whsec_`, as those of
    /// [`Secret::generate`] do, signs by [`HeaderProfile::Standard`], which most receivers verify. Any
    /// other text signs by [`HeaderProfile::XWebhook`].
    ///
    /// # Errors
    /// [`EndpointError`] when the URL or the secret cannot be used.
    pub fn new(
        url: &str,
        secret: impl TryInto<Secret, Error: Into<EndpointError>>,
    ) -> Result<Self, EndpointError> {
        let (url, secret) = (EndpointUrl::new(url)?, secret.try_into().map_err(Into::into)?);
        let profile =
            if secret.is_standard() { HeaderProfile::Standard } else { HeaderProfile::XWebhook };
        Ok(Self {
            url,
            tenant: TenantId::default(),
            name: None,
            description: None,
            metadata: BTreeMap::new(),
            subscriptions: Vec::new(),
            channels: Vec::new(),
            algorithm: Algorithm::default(),
            body: BodyFormat::default(),
            retry: None,
            timeout: DEFAULT_TIMEOUT,
            active: true,
            ordered: false,
            max_in_flight: DEFAULT_MAX_IN_FLIGHT,
            rate_limit: None,
            max_age: DEFAULT_MAX_AGE,
            client_credentials: None,
            tls: None,
            secrets: vec![secret],
            profiles: vec![profile],
            headers: HeaderMap::new(),
        })
    }

    /// Sets the events that it gets: at most 256 types, subtrees (`user.*`) or `*`; all if empty.
    ///
    /// # Errors
    /// [`EndpointError::Subscription`] when one is malformed, and
    /// [`EndpointError::TooManySubscriptions`] when there are more than 256.
    pub fn events<S: AsRef<str>>(
        self,
        subscriptions: impl IntoIterator<Item = S>,
    ) -> Result<Self, EndpointError> {
        // One more than allowed shows that there are too many, however long the list is.
        let bounded = subscriptions.into_iter().take(MAX_SUBSCRIPTIONS + 1);
        let subscriptions = bounded.map(|text| Subscription::new(text.as_ref()));
        Self { subscriptions: subscriptions.collect::<Result<_, _>>()?, ..self }.checked()
    }

    /// Sets the channels of which it gets the events: at most 16; all events if empty.
    ///
    /// # Errors
    /// [`EndpointError::Channels`] when one is malformed, or there are too many.
    pub fn channels<S: AsRef<str>>(
        self,
        channels: impl IntoIterator<Item = S>,
    ) -> Result<Self, EndpointError> {
        Ok(Self { channels: Channel::list(channels)?, ..self })
    }

    /// Sets the name for people: at most 256 bytes.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Sets the description for people: at most 4 KiB.
    #[must_use]
    pub fn description(self, description: impl Into<String>) -> Self {
        Self { description: Some(description.into()), ..self }
    }

    /// Adds an entry to the metadata, or replaces the one of this key.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Sets the headers that carry id, timestamp and signature; several profiles help in a migration.
    ///
    /// # Errors
    /// [`EndpointError`] when there is no profile, or the endpoint has a secret without `whsec_` and a
    /// profile that needs it.
    pub fn profiles(
        self,
        profiles: impl IntoIterator<Item = HeaderProfile>,
    ) -> Result<Self, EndpointError> {
        Self { profiles: profiles.into_iter().collect(), ..self }.checked()
    }

    /// Puts a new secret before the others, which sign until `old_expire_at`, so that receivers can
    /// change over in between. Secrets that expire earlier keep their time; those that have expired at
    /// `now` are dropped.
    ///
    /// [`HeaderProfile::XWebhook`] has room for one signature and uses the new secret at once.
    ///
    /// # Errors
    /// [`EndpointError`] when the secret cannot be used with the endpoint's profiles, or 16 are
    /// live already.
    pub fn rotate(
        mut self,
        new: Secret,
        old_expire_at: Timestamp,
        now: Timestamp,
    ) -> Result<Self, EndpointError> {
        self.secrets.retain(|secret| secret.is_live(now));
        for secret in &mut self.secrets {
            secret.limit(old_expire_at);
        }
        self.secrets.insert(0, new);
        self.checked()
    }

    /// Adds a header to every delivery, or replaces the one of this name. Its value is stored like a
    /// secret. Names that the delivery or the connection sets are reserved: `host`, `content-length`,
    /// the hop-by-hop headers (RFC 9110 §7.6.1), `webhook-*`, `svix-*` and so on.
    ///
    /// # Errors
    /// [`EndpointError::Header`] when the header is malformed, reserved, too long, or one too many,
    /// and [`EndpointError::Authorization`] when it would be a second way to authorize.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, EndpointError> {
        let (name, value) = custom_header::parse(name, value)?;
        self.headers.insert(name, value);
        self.checked()
    }

    /// Removes all headers that it adds to deliveries.
    #[must_use]
    pub fn without_headers(self) -> Self {
        Self { headers: HeaderMap::new(), ..self }
    }

    /// Sends a user name and password with every delivery (RFC 7617).
    ///
    /// # Errors
    /// [`EndpointError::UserName`] when the user name has a colon, and [`EndpointError::Header`]
    /// when they are too long.
    pub fn basic_auth(self, user: &str, password: &str) -> Result<Self, EndpointError> {
        if user.contains(':') {
            return Err(EndpointError::UserName);
        }
        let pair = Zeroizing::new(format!("{user}:{password}"));
        let value = Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair)));
        self.header(header::AUTHORIZATION.as_str(), &value)
    }

    /// Sends a token with every delivery (RFC 6750 §2.1).
    ///
    /// # Errors
    /// [`EndpointError::Header`] when it is too long or has characters that no header may hold.
    pub fn bearer_auth(self, token: &str) -> Result<Self, EndpointError> {
        self.header(header::AUTHORIZATION.as_str(), &Zeroizing::new(format!("Bearer {token}")))
    }

    /// Sets the credentials with which the transport fetches a token; every delivery carries it
    /// (RFC 6749 §4.4).
    ///
    /// # Errors
    /// [`EndpointError::Authorization`] when there is an `authorization` header already, and
    /// [`EndpointError::TooLong`] when a text has more than 4 KiB.
    pub fn client_credentials(self, credentials: ClientCredentials) -> Result<Self, EndpointError> {
        Self { client_credentials: Some(Arc::new(credentials)), ..self }.checked()
    }

    /// Sets the authorities to trust and the client's certificate.
    ///
    /// # Errors
    /// [`EndpointError::TooLong`] when a text has more than 64 KiB, and
    /// [`EndpointError::TlsWithoutHttps`] when the URL is `http`.
    pub fn tls(self, tls: EndpointTls) -> Result<Self, EndpointError> {
        Self { tls: Some(Arc::new(tls)), ..self }.checked()
    }

    /// Sets the tenant whose events it gets.
    #[must_use]
    pub fn tenant(self, tenant: TenantId) -> Self {
        Self { tenant, ..self }
    }

    /// Sets the algorithm of [`HeaderProfile::XWebhook`]: HMAC-SHA256 or HMAC-SHA512. Deliveries
    /// fail unsigned with any other.
    #[must_use]
    pub fn algorithm(self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self }
    }

    /// Sets the body that it gets: the event's JSON object unless set.
    #[must_use]
    pub fn body(self, body: BodyFormat) -> Self {
        Self { body, ..self }
    }

    /// Sets the schedule by which a failed delivery is tried again.
    #[must_use]
    pub fn retry(self, retry: RetryPolicy) -> Self {
        Self { retry: Some(retry), ..self }
    }

    /// Sets the limit for the time of an attempt, from resolving the name to the end of the response: 30 s
    /// unless set, 10 minutes at most.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Makes it get nothing; it stays registered.
    #[must_use]
    pub fn inactive(self) -> Self {
        Self { active: false, ..self }
    }

    /// Makes events arrive strictly in the order in which they were accepted, one at a time.
    #[must_use]
    pub fn ordered(self) -> Self {
        Self { ordered: true, ..self }
    }

    /// Sets the limit of attempts in flight: 32 unless set, 1,024 at most.
    #[must_use]
    pub fn max_in_flight(self, max_in_flight: NonZeroU32) -> Self {
        Self { max_in_flight, ..self }
    }

    /// Sets the limit of calls per second; no limit unless set. For other periods see
    /// [`rate_limited`](Self::rate_limited).
    #[must_use]
    pub fn rate_limit(self, per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        self.rate_limited(RateLimit::per_second(per_second, burst))
    }

    /// Sets the limit of calls per period; no limit unless set.
    #[must_use]
    pub fn rate_limited(self, limit: RateLimit) -> Self {
        Self { rate_limit: Some(limit), ..self }
    }

    /// Sets the age at which a delivery expires: a week unless set, 366 days at most.
    #[must_use]
    pub fn max_age(self, max_age: Duration) -> Self {
        Self { max_age, ..self }
    }

    /// Returns whether it gets events of these channels, if it wants their type.
    pub fn listens_to(&self, channels: &[Channel]) -> bool {
        self.channels.is_empty() || self.channels.iter().any(|channel| channels.contains(channel))
    }

    /// Returns whether it gets events of this type, if they have a channel of its own.
    pub fn wants(&self, event_type: &EventType) -> bool {
        self.subscriptions.is_empty()
            || self.subscriptions.iter().any(|subscription| subscription.matches(event_type))
    }

    /// Returns the secrets that sign at this time, the newest first.
    pub fn live_secrets(&self, now: Timestamp) -> impl Iterator<Item = &Secret> {
        self.secrets.iter().filter(move |secret| secret.is_live(now))
    }

    /// Returns all secrets, expired ones included, the newest first.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.secrets.iter()
    }

    /// Returns whether another endpoint has the same secrets, with the same times at which they expire.
    pub fn has_same_secrets(&self, other: &Self) -> bool {
        self.secrets == other.secrets
    }

    /// Returns whether another endpoint has the same settings, apart from the secrets and `active`.
    pub fn has_same_settings(&self, other: &Self) -> bool {
        let secrets = self.secrets.clone();
        *self == Self { secrets, active: self.active, ..other.clone() }
    }

    /// Sets all secrets at once, the newest first.
    pub(crate) fn with_secrets(self, secrets: Vec<Secret>) -> Self {
        Self { secrets, ..self }
    }

    /// Borrows the profiles of the headers that carry id, timestamp and signature.
    pub fn header_profiles(&self) -> &[HeaderProfile] {
        &self.profiles
    }

    /// Borrows the headers that its deliveries carry beside those of the signature.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the endpoint if [`check`](Self::check) allows it.
    pub(crate) fn checked(self) -> Result<Self, EndpointError> {
        self.check()?;
        Ok(self)
    }

    /// Returns `Ok` if the endpoint is valid. Registries and stores call it, because the fields are
    /// public and may have been changed after they were set.
    ///
    /// # Errors
    /// [`EndpointError`] when it exceeds a bound, or a profile does not fit its secrets.
    pub fn check(&self) -> Result<(), EndpointError> {
        if self.profiles.is_empty() {
            return Err(EndpointError::NoProfile);
        }
        if self.secrets.len() > MAX_SECRETS {
            return Err(EndpointError::TooManySecrets);
        }
        if self.subscriptions.len() > MAX_SUBSCRIPTIONS {
            return Err(EndpointError::TooManySubscriptions);
        }
        Channel::check_count(&self.channels)?;
        let Self { timeout, max_in_flight, max_age, .. } = self;
        let texts = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let metadata = self.metadata.iter().map(|(key, value)| key.len() + value.len());
        check_ranges([
            (texts(&self.name) <= MAX_NAME, "name", "256 bytes long at most"),
            (texts(&self.description) <= MAX_DESCRIPTION, "description", "4 KiB long at most"),
            (self.metadata.len() <= MAX_METADATA.0, "number of metadata entries", "64 at most"),
            (metadata.sum::<usize>() <= MAX_METADATA.1, "metadata", "16 KiB long at most"),
            (is_within(*timeout, MAX_TIMEOUT), "timeout", "over 0 s and 10 minutes at most"),
            (max_in_flight.get() <= MAX_MAX_IN_FLIGHT, "max_in_flight", "from 1 to 1024"),
            (is_within(*max_age, MAX_MAX_AGE), "max_age", "over 0 s and 366 days at most"),
        ])?;
        self.rate_limit.map_or(Ok(()), RateLimit::check)?;
        custom_header::check_count(self.headers.len())?;
        if self.client_credentials.is_some() && self.headers.contains_key(header::AUTHORIZATION) {
            return Err(EndpointError::Authorization);
        }
        self.client_credentials.as_deref().map_or(Ok(()), ClientCredentials::check)?;
        self.tls.as_deref().map_or(Ok(()), EndpointTls::check)?;
        if self.tls.is_some() && self.url.as_url().scheme() != "https" {
            return Err(EndpointError::TlsWithoutHttps);
        }
        let strict = self.profiles.iter().find(|profile| **profile != HeaderProfile::XWebhook);
        match strict {
            Some(&profile) if !self.secrets.iter().all(Secret::is_standard) => {
                Err(EndpointError::ProfileNeedsStandardSecret { profile })
            }
            _ => Ok(()),
        }
    }
}

fn is_within(duration: Duration, max: Duration) -> bool {
    !duration.is_zero() && duration <= max
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HeaderError;

    const STANDARD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn endpoint(secret: &str) -> Endpoint {
        Endpoint::new("https://example.com/", secret).unwrap()
    }

    #[test]
    fn the_secret_says_which_headers_are_sent() {
        assert_eq!(endpoint(STANDARD).header_profiles(), [HeaderProfile::Standard]);
        assert_eq!(endpoint("plain").header_profiles(), [HeaderProfile::XWebhook]);
        let both = [HeaderProfile::XWebhook, HeaderProfile::Svix];
        assert_eq!(endpoint(STANDARD).profiles(both).unwrap().header_profiles(), both);
        let profile = HeaderProfile::Svix;
        assert_eq!(
            endpoint("plain").profiles(both),
            Err(EndpointError::ProfileNeedsStandardSecret { profile })
        );
        assert_eq!(endpoint("plain").profiles([]), Err(EndpointError::NoProfile));
    }

    #[test]
    fn no_setting_holds_a_slot_or_a_delivery_for_ever() {
        let max_in_flight = |n| endpoint("plain").max_in_flight(NonZeroU32::new(n).unwrap());
        let (timeout, max_age) =
            (|t| endpoint("plain").timeout(t), |age| endpoint("plain").max_age(age));
        let just_over = |max| max + Duration::from_nanos(1);
        let least = Duration::from_nanos(1);
        for fits in [timeout(least), timeout(MAX_TIMEOUT), max_age(least), max_age(MAX_MAX_AGE)] {
            assert_eq!(fits.check(), Ok(()));
        }
        assert_eq!(max_in_flight(MAX_MAX_IN_FLIGHT).check(), Ok(()));
        for (setting, out) in [
            ("timeout", timeout(Duration::ZERO)),
            ("timeout", timeout(just_over(MAX_TIMEOUT))),
            ("max_in_flight", max_in_flight(MAX_MAX_IN_FLIGHT + 1)),
            ("max_age", max_age(Duration::ZERO)),
            ("max_age", max_age(just_over(MAX_MAX_AGE))),
        ] {
            let error = out.check().unwrap_err();
            assert!(error.to_string().starts_with(&format!("the {setting} must be")), "{error}");
        }
    }

    #[test]
    fn old_secrets_sign_until_they_expire() {
        let at = Timestamp::from_unix_seconds;
        let endpoint = endpoint("first").rotate(Secret::new("second").unwrap(), at(100), at(0));
        let endpoint = endpoint.unwrap();
        assert_eq!(endpoint.live_secrets(at(99)).count(), 2);
        let live: Vec<&Secret> = endpoint.live_secrets(at(100)).collect();
        assert_eq!(live, [&Secret::new("second").unwrap()]);

        let endpoint = endpoint.rotate(Secret::new("third").unwrap(), at(300), at(50)).unwrap();
        assert_eq!(endpoint.live_secrets(at(99)).count(), 3);
        assert_eq!(endpoint.live_secrets(at(100)).count(), 2, "the first keeps its earlier end");
        assert_eq!(endpoint.live_secrets(at(300)).count(), 1);
    }

    #[test]
    fn secrets_are_bounded_and_fit_the_profiles() {
        let forever = Timestamp::from_unix_seconds(u64::MAX);
        let mut full = endpoint("0");
        for n in 1..16 {
            full = full
                .rotate(Secret::new(&n.to_string()).unwrap(), forever, Timestamp::UNIX_EPOCH)
                .unwrap();
        }
        let new = Secret::new("16").unwrap();
        let error = full.rotate(new.clone(), forever, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(error, EndpointError::TooManySecrets);
        let profile = HeaderProfile::Standard;
        assert_eq!(
            endpoint(STANDARD).rotate(new, forever, Timestamp::UNIX_EPOCH),
            Err(EndpointError::ProfileNeedsStandardSecret { profile })
        );
    }

    #[test]
    fn subscriptions_are_bounded() {
        let types = |count| (0..count).map(|n| format!("type-{n}"));
        assert_eq!(endpoint("0").events(types(256)).unwrap().subscriptions.len(), 256);
        let mut read = 0;
        let error = endpoint("0").events(types(1000).inspect(|_| read += 1)).unwrap_err();
        assert_eq!((error, read), (EndpointError::TooManySubscriptions, 257));
    }

    #[test]
    fn there_is_one_way_to_authorize() {
        let token_url = EndpointUrl::new("https://id.example.com/token").unwrap();
        let credentials = ClientCredentials::new(token_url, "acme", "hush");
        let basic = endpoint("0").basic_auth("Aladdin", "open sesame").unwrap();
        assert_eq!(endpoint("0").basic_auth("a:b", "c").unwrap_err(), EndpointError::UserName);
        // RFC 7617 §2.
        assert_eq!(basic.headers()["authorization"], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let error = basic.client_credentials(credentials.clone()).unwrap_err();
        assert_eq!(error, EndpointError::Authorization);
        let by_token = endpoint("0").client_credentials(credentials).unwrap();
        assert_eq!(by_token.bearer_auth("1").unwrap_err(), EndpointError::Authorization);
    }

    #[test]
    fn credentials_and_certificates_are_bounded() {
        let token_url = EndpointUrl::new("https://id.example.com/token").unwrap();
        let credentials = |secret: &str| ClientCredentials::new(token_url.clone(), "acme", secret);
        let fits = credentials(&"x".repeat(4096));
        assert!(endpoint("0").client_credentials(fits).is_ok());
        let error = endpoint("0").client_credentials(credentials(&"x".repeat(4097))).unwrap_err();
        assert_eq!(error.to_string(), "the client's secret may have 4096 bytes at most");
        let tls = EndpointTls::default().pinned_roots(&"x".repeat(64 * 1024 + 1));
        let error = endpoint("0").tls(tls).unwrap_err();
        assert_eq!(error.to_string(), "the pinned roots may have 65536 bytes at most");
    }

    #[test]
    fn tls_settings_need_tls() {
        let in_clear = Endpoint::new("http://example.com/", "plain").unwrap();
        let tls = EndpointTls::default().pinned_roots("ca");
        assert_eq!(in_clear.clone().tls(tls.clone()), Err(EndpointError::TlsWithoutHttps));
        let mut changed = endpoint("plain").tls(tls).unwrap();
        changed.url = in_clear.url;
        assert_eq!(changed.check(), Err(EndpointError::TlsWithoutHttps));
    }

    #[test]
    fn headers_are_bounded() {
        let mut full = endpoint("0");
        for n in 0..32 {
            full = full.header(&format!("x-{n}"), "1").unwrap();
        }
        let full = full.header("x-0", "another value").unwrap();
        assert_eq!(full.header("x-32", "1").unwrap_err(), HeaderError::TooMany.into());
    }

    #[test]
    fn another_body_is_another_setting() {
        let of = |body| endpoint("plain").body(body);
        assert_eq!(endpoint("plain").body, BodyFormat::Event);
        assert!(of(BodyFormat::Event).has_same_settings(&endpoint("other").inactive()));
        assert!(!of(BodyFormat::Payload).has_same_settings(&endpoint("plain")));
    }

    #[test]
    fn debug_shows_no_secret() {
        let plain = endpoint("hush-hush");
        let url = EndpointUrl::new("https://id.example.com/token").unwrap();
        let tls = EndpointTls::default().client_certificate("chain", "hush");
        let endpoint = endpoint("0").tls(tls).unwrap().header("x-key", "hush").unwrap();
        let shown = format!("{endpoint:?}");
        assert!(!shown.contains("hush"), "{shown}");
        let basic = endpoint.clone().basic_auth("hush", "hush").unwrap();
        let shown = format!("{basic:?}");
        assert!(!shown.contains("hush") && !shown.contains("aHVzaD"), "{shown}");
        let by_token = endpoint.client_credentials(ClientCredentials::new(url, "acme", "hush"));
        let shown = format!("{:?}", by_token.unwrap());
        assert!(!shown.contains("hush"), "{shown}");

        let shown = format!("{plain:?}");
        assert!(shown.contains("redacted") && !shown.contains("hush"), "{shown}");
    }
}
