//! The stored form of an endpoint: its settings as JSON, and its secrets apart.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use webhooks_core::{Channel, RetryPolicy, TenantId};
use webhooks_sign::Algorithm;
use zeroize::Zeroizing;

use self::secrets::Secrets;
use crate::{BodyFormat, Endpoint, EndpointError, HeaderProfile, RateLimit};

mod secrets;

/// An endpoint in the form in which stores write it.
///
/// # Example
/// ```
/// use webhooks_registry::{Endpoint, store::StoredEndpoint};
///
/// let endpoint = Endpoint::new("https://example.com/", "my-secret-key")?.events(["user.*"])?;
/// let stored = StoredEndpoint::new(&endpoint);
/// assert!(!stored.settings.contains("my-secret-key"));
/// assert_eq!(stored.to_endpoint()?, endpoint);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[expect(clippy::exhaustive_structs, reason = "stores build it of two columns")]
pub struct StoredEndpoint {
    /// Everything except the secrets, as a JSON object that people can read. It holds the URL, with any
    /// token in its path or query.
    pub settings: String,
    /// The secrets, as JSON: signing secrets, the values of headers, clients' secrets, certificates and
    /// keys. Store them apart, and encrypted if possible. Wiped when dropped.
    pub secrets: Zeroizing<Vec<u8>>,
}

/// The reason why a stored endpoint cannot be read. It shows nothing of the secrets.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoredEndpointError {
    /// Each part is valid, but together they are no valid endpoint.
    #[error("the stored endpoint is not valid")]
    Endpoint(#[from] EndpointError),
    /// The secrets cannot be parsed. The parser's error is left out: it could show a part of them.
    #[error("the stored secrets of the endpoint cannot be read")]
    Secrets,
    /// The settings cannot be parsed.
    #[error("the stored settings of the endpoint cannot be read")]
    Settings(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Settings {
    url: String,
    tenant: TenantId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    subscriptions: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    channels: Vec<Channel>,
    algorithm: String,
    profiles: Vec<HeaderProfile>,
    #[serde(default, skip_serializing_if = "is_default")]
    body: BodyFormat,
    retry: Option<RetryPolicy>,
    timeout: Duration,
    active: bool,
    ordered: bool,
    max_in_flight: NonZeroU32,
    rate_limit: Option<RateLimit>,
    max_age: Duration,
}

impl StoredEndpoint {
    /// Returns the stored form of an endpoint.
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "texts, numbers and lists of them all have a JSON form"
    )]
    pub fn new(endpoint: &Endpoint) -> Self {
        let settings = Settings {
            url: endpoint.url.to_string(),
            tenant: endpoint.tenant.clone(),
            name: endpoint.name.clone(),
            description: endpoint.description.clone(),
            metadata: endpoint.metadata.clone(),
            channels: endpoint.channels.clone(),
            subscriptions: endpoint.subscriptions.iter().map(ToString::to_string).collect(),
            algorithm: endpoint.algorithm.to_string(),
            profiles: endpoint.header_profiles().to_vec(),
            body: endpoint.body,
            retry: endpoint.retry.clone(),
            timeout: endpoint.timeout,
            active: endpoint.active,
            ordered: endpoint.ordered,
            max_in_flight: endpoint.max_in_flight,
            rate_limit: endpoint.rate_limit,
            max_age: endpoint.max_age,
        };
        Self {
            settings: serde_json::to_string(&settings).expect("settings have a JSON form"),
            secrets: Secrets::of(endpoint).to_json().expect("texts have a JSON form"),
        }
    }

    /// Returns the endpoint that was stored.
    ///
    /// # Errors
    /// [`StoredEndpointError`] when settings or secrets were changed and are no longer valid.
    pub fn to_endpoint(&self) -> Result<Endpoint, StoredEndpointError> {
        let settings: Settings = serde_json::from_str(&self.settings)?;
        let stored = Secrets::read(&self.secrets).ok_or(StoredEndpointError::Secrets)?;
        let secrets = stored.signing_secrets()?;
        let newest = secrets.first().ok_or(StoredEndpointError::Secrets)?;
        let mut endpoint = Endpoint::new(&settings.url, newest.dangerous_text())?
            .with_secrets(secrets)
            .profiles(settings.profiles)?
            .events(settings.subscriptions)?
            .tenant(settings.tenant)
            .algorithm(algorithm(&settings.algorithm))
            .body(settings.body)
            .timeout(settings.timeout)
            .max_in_flight(settings.max_in_flight)
            .max_age(settings.max_age);
        endpoint.name = settings.name;
        endpoint.description = settings.description;
        endpoint.metadata = settings.metadata;
        endpoint.channels = settings.channels;
        endpoint.retry = settings.retry;
        endpoint.active = settings.active;
        endpoint.ordered = settings.ordered;
        endpoint.rate_limit = settings.rate_limit;
        Ok(stored.add_access(endpoint)?)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Returns the algorithm of this name. For a name with which endpoints cannot sign it is
/// [`Algorithm::Token`], which signs nothing: the delivery fails, and its error says why.
fn algorithm(name: &str) -> Algorithm {
    let hmacs = [Algorithm::HmacSha256, Algorithm::HmacSha512];
    hmacs.into_iter().find(|algorithm| algorithm.as_str() == name).unwrap_or(Algorithm::Token)
}

impl fmt::Debug for StoredEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // URLs often carry tokens, and the settings hold the URL.
        f.debug_struct("StoredEndpoint").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use webhooks_core::Timestamp;

    use super::*;
    use crate::auth::{ClientCredentials, EndpointTls};
    use crate::{EndpointUrl, Secret};

    #[test]
    fn every_setting_survives() {
        let two = NonZeroU32::new(2).unwrap();
        let at = Timestamp::from_unix_seconds(100);
        let secret = |byte: &str| format!("whsec_{}", byte.repeat(32));
        let endpoint = Endpoint::new("https://example.com/hook?a=1", &secret("A"))
            .unwrap()
            .rotate(Secret::new(&secret("B")).unwrap(), at, Timestamp::UNIX_EPOCH)
            .unwrap()
            .profiles([HeaderProfile::Svix, HeaderProfile::XWebhook])
            .unwrap()
            .events(["a", "b.*"])
            .unwrap()
            .tenant(TenantId::new("acme").unwrap())
            .algorithm(Algorithm::HmacSha512)
            .body(BodyFormat::Payload)
            .retry(RetryPolicy::standard().without_jitter())
            .timeout(Duration::from_millis(1_500))
            .inactive()
            .ordered()
            .max_in_flight(two)
            .rate_limited(RateLimit { calls: two, per: Duration::from_secs(60), burst: two })
            .max_age(Duration::from_secs(60))
            .header("x-key", "clé")
            .unwrap()
            .tls(EndpointTls::default().pinned_roots("ca").client_certificate("chain", "key"))
            .unwrap();
        assert_eq!(StoredEndpoint::new(&endpoint).to_endpoint().unwrap(), endpoint);
        let plain = Endpoint::new("https://example.com/", "plain").unwrap();
        let token_url = EndpointUrl::new("https://id.example.com/").unwrap();
        let credentials =
            ClientCredentials::new(token_url, "id", "secret").scope("a").audience("b");
        let by_token = plain.clone().client_credentials(credentials).unwrap();
        assert_eq!(StoredEndpoint::new(&by_token).to_endpoint().unwrap(), by_token);
        assert_eq!(StoredEndpoint::new(&plain).to_endpoint().unwrap(), plain);
    }

    fn duration() -> impl Strategy<Value = Duration> {
        let small = (0..100_u64, 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n));
        prop_oneof![small, any::<u64>().prop_map(Duration::from_secs), Just(Duration::MAX)]
    }

    fn retry() -> impl Strategy<Value = RetryPolicy> {
        prop_oneof![
            (duration(), any::<u32>()).prop_map(|(delay, n)| RetryPolicy::fixed(delay, n)),
            (duration(), duration(), any::<u32>())
                .prop_map(|(initial, cap, n)| RetryPolicy::exponential(initial, cap, n)),
            vec(duration(), 0..5).prop_map(RetryPolicy::schedule),
            duration().prop_map(|cap| RetryPolicy::standard().retry_after_cap(cap)),
        ]
    }

    const MINUTE: Duration = Duration::from_secs(60);

    /// Returns an endpoint with generated settings; `None` if they are refused.
    fn endpoint() -> impl Strategy<Value = Option<Endpoint>> {
        let url = "https://(e\\.example|é)/[ !$-~é\u{10000}]{0,200}";
        let texts = (url, "[ -~é]{1,40}", vec("[a-z]{1,8}(\\.\\*)?", 0..4), "[a-z0-9_-]{1,20}");
        let up_to = |most: Duration| {
            (0..most.as_secs(), 1..=999_999_999_u32)
                .prop_map(|(secs, nanos)| Duration::new(secs, nanos))
        };
        let (timeout, max_age) = (up_to(MINUTE * 10), up_to(MINUTE * 60 * 24 * 366));
        let times = (timeout, max_age, retry(), option::of(any::<u64>()));
        let numbers =
            (any::<(bool, bool, bool, bool)>(), 1..=1_024_u32, option::of(1..=100_000_u32));
        let access = (option::of("[ -~é]{0,30}"), option::of((url, "[ -~é]{0,30}")), any::<bool>());
        (texts, times, numbers, access).prop_map(|(texts, times, numbers, access)| {
            let ((url, secret, events, tenant), (timeout, max_age, retry, expiry)) = (texts, times);
            let ((active, ordered, is_512, is_payload), in_flight, rate) = numbers;
            let (header, credentials, has_tls) = access;
            let in_flight = NonZeroU32::new(in_flight)?;
            let mut endpoint = Endpoint::new(&url, "first").ok()?.events(events).ok()?;
            if let Some(expiry) = expiry {
                let (at, now) = (Timestamp::from_unix_microseconds(expiry), Timestamp::UNIX_EPOCH);
                endpoint = endpoint.rotate(Secret::new(&secret).ok()?, at, now).ok()?;
            }
            endpoint = endpoint
                .tenant(TenantId::new(&tenant).ok()?)
                .timeout(timeout)
                .max_age(max_age)
                .retry(retry)
                .max_in_flight(in_flight);
            (endpoint.active, endpoint.ordered) = (active, ordered);
            let per = Duration::from_secs(1) + timeout;
            endpoint.rate_limit =
                rate.and_then(NonZeroU32::new).map(|n| RateLimit { calls: n, per, burst: n });
            if is_512 {
                endpoint = endpoint.algorithm(Algorithm::HmacSha512);
            }
            if is_payload {
                endpoint = endpoint.body(BodyFormat::Payload);
            }
            if let Some(value) = header {
                endpoint = endpoint.header("x-key", &value).ok()?;
            }
            if let Some((url, text)) = credentials {
                let mut credentials =
                    ClientCredentials::new(EndpointUrl::new(&url).ok()?, &text, &text);
                credentials.scope = has_tls.then_some(text);
                if is_512 {
                    credentials = credentials.secret_in_body();
                }
                endpoint = endpoint.client_credentials(credentials).ok()?;
            }
            if has_tls {
                endpoint = endpoint.tls(EndpointTls::default().pinned_roots(&secret)).ok()?;
            }
            Some(endpoint)
        })
    }

    proptest! {
        #[test]
        fn what_is_stored_is_read_back(endpoint in endpoint()) {
            if let Some(endpoint) = endpoint {
                prop_assert!(endpoint.check().is_ok());
                prop_assert_eq!(StoredEndpoint::new(&endpoint).to_endpoint().unwrap(), endpoint);
            }
        }
    }

    #[test]
    fn the_secrets_have_a_buffer_that_never_grew() {
        let secret = format!("x{}x", "\"é\u{1}".repeat(100));
        let endpoint = Endpoint::new("https://example.com/", &secret).unwrap();
        let secrets = StoredEndpoint::new(&endpoint).secrets;
        assert_eq!(secrets.capacity(), secrets.len());
    }

    #[test]
    fn settings_from_before_bodies_could_be_chosen_are_read() {
        let endpoint = Endpoint::new("https://example.com/", "plain").unwrap();
        let stored = StoredEndpoint::new(&endpoint);
        let settings = r#"{"url":"https://example.com/","tenant":"default","subscriptions":[],"algorithm":"hmac_sha256","profiles":["x-webhook"],"retry":null,"timeout":{"secs":30,"nanos":0},"active":true,"ordered":false,"max_in_flight":32,"rate_limit":null,"max_age":{"secs":604800,"nanos":0}}"#;
        assert_eq!(stored.settings, settings, "the default is not stored");
        assert_eq!(stored.to_endpoint().unwrap().body, BodyFormat::Event);
        let payload = StoredEndpoint::new(&endpoint.body(BodyFormat::Payload)).settings;
        assert_eq!(payload, settings.replace(r#","retry""#, r#","body":"payload","retry""#));
    }

    #[test]
    fn secrets_as_they_were_first_stored_are_read() {
        let plain = Endpoint::new("https://example.com/", "plain").unwrap();
        let secrets = Zeroizing::new(br#"[{"text":"plain","expires_at":null}]"#.to_vec());
        let stored = StoredEndpoint { secrets, ..StoredEndpoint::new(&plain) };
        assert_eq!(stored.to_endpoint().unwrap(), plain);
    }

    #[test]
    fn what_was_damaged_is_refused_without_showing_a_secret() {
        let good = StoredEndpoint::new(&Endpoint::new("https://example.com/", "hush").unwrap());
        for secrets in [
            "",
            "{}",
            r#"{"signing":[]}"#,
            r#"{"signing":[{"text":"hush""#,
            r#"{"signing":[{"text":"","expires_at":null}]}"#,
            r#"{"signing":[{"text":"k","expires_at":null}],"headers":[["host","hush"]]}"#,
        ] {
            let secrets = Zeroizing::new(secrets.as_bytes().to_vec());
            let error = StoredEndpoint { secrets, ..good.clone() }.to_endpoint().unwrap_err();
            assert!(!format!("{error:?} {error}").contains("hush"));
        }
        let settings = "{}".to_owned();
        let error = StoredEndpoint { settings, ..good.clone() }.to_endpoint().unwrap_err();
        assert!(matches!(error, StoredEndpointError::Settings(_)), "{error:?}");
        assert!(!format!("{good:?}").contains("hush"));
    }
}
