//! The view of an endpoint that may be shown and serialized: it holds no secret.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;
use webhooks_core::{Channel, EndpointId, RetryPolicy, TenantId, Timestamp};

use crate::{BodyFormat, DisableReason, HeaderProfile, RateLimit, Registration, Subscription};

/// An endpoint without its secrets, for lists and pages.
///
/// [`Endpoint`](crate::Endpoint) itself cannot be serialized, so a secret is shown only if it is
/// asked for by [`Secret::dangerous_text`](crate::Secret::dangerous_text). The URL may hold a token of
/// its owner in its path or query: show it to nobody else.
///
/// # Example
/// ```
/// use webhooks_core::EndpointId;
/// use webhooks_registry::{Endpoint, EndpointNumber, Registration};
///
/// let endpoint = Endpoint::new("https://example.com/", "my-secret-key")?.name("billing");
/// let id = EndpointId::new("crm")?;
/// let view = Registration::new(EndpointNumber::from_u64(1), id, endpoint).view();
/// let json = serde_json::to_string(&view)?;
/// assert!(json.contains("billing") && !json.contains("my-secret-key"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EndpointView {
    /// The number by which reports of workers name it.
    pub number: u64,
    /// The tenant whose events it gets.
    pub tenant: TenantId,
    /// Its id.
    pub id: EndpointId,
    /// The URL to which deliveries go.
    pub url: String,
    /// Its name for people.
    pub name: Option<String>,
    /// Its description for people.
    pub description: Option<String>,
    /// Its owner's notes for programs.
    pub metadata: BTreeMap<String, String>,
    /// The events that it gets; all if empty.
    pub subscriptions: Vec<String>,
    /// The channels of which it gets the events; all events if empty.
    pub channels: Vec<Channel>,
    /// Its state: active, paused or disabled.
    pub state: &'static str,
    /// The reason why it is disabled, if it is.
    pub disabled: Option<DisableReason>,
    /// The time at which it entered its state.
    pub state_since: Timestamp,
    /// The time at which it was registered for the first time.
    pub created_at: Timestamp,
    /// The time of the last change.
    pub updated_at: Timestamp,
    /// Its version, which grows with each change.
    pub version: u64,
    /// The headers that carry id, timestamp and signature.
    pub profiles: Vec<HeaderProfile>,
    /// The body that it gets.
    pub body: BodyFormat,
    /// The schedule by which a failed delivery is tried again; the engine's if `None`.
    pub retry: Option<RetryPolicy>,
    /// The limit for the time of an attempt.
    pub timeout: Duration,
    /// The age at which a delivery expires.
    pub max_age: Duration,
    /// The limit of attempts in flight.
    pub max_in_flight: NonZeroU32,
    /// The limit of calls per period.
    pub rate_limit: Option<RateLimit>,
    /// Whether events arrive in the order in which they were accepted.
    pub ordered: bool,
    /// The signing secrets, expired ones included, the newest first.
    pub secrets: Vec<SecretView>,
    /// The names of the headers that its deliveries carry beside those of the signature.
    pub headers: Vec<String>,
    /// The token server that it needs, and the client's id there.
    pub client_credentials: Option<ClientCredentialsView>,
    /// Whether it has TLS settings of its own.
    pub has_tls: bool,
}

impl fmt::Debug for EndpointView {
    /// Leaves out the URL, whose path or query may hold a token, and most settings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, id, state, version, .. } = self;
        f.debug_struct("EndpointView")
            .field("tenant", tenant)
            .field("id", id)
            .field("state", state)
            .field("version", version)
            .finish_non_exhaustive()
    }
}

/// The part of a signing secret that may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SecretView {
    /// Four bytes to compare it with the receiver's, in hexadecimal.
    pub fingerprint: String,
    /// The time until which it signs; without end if `None`.
    pub expires_at: Option<Timestamp>,
}

/// The part of client credentials that may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClientCredentialsView {
    /// The URL at which tokens are issued.
    pub token_url: String,
    /// The client's id.
    pub client_id: String,
}

impl Registration {
    /// Returns the view of the endpoint that may be shown.
    pub fn view(&self) -> EndpointView {
        let Self { number, id, endpoint, state, revision, .. } = self;
        let secrets = endpoint.secrets().map(|secret| SecretView {
            fingerprint: secret.fingerprint().to_string(),
            expires_at: secret.expiry(),
        });
        let credentials = endpoint.client_credentials.as_deref();
        EndpointView {
            number: number.as_u64(),
            tenant: endpoint.tenant.clone(),
            id: id.clone(),
            url: endpoint.url.to_string(),
            name: endpoint.name.clone(),
            description: endpoint.description.clone(),
            metadata: endpoint.metadata.clone(),
            subscriptions: endpoint.subscriptions.iter().map(Subscription::to_string).collect(),
            channels: endpoint.channels.clone(),
            state: state.as_str(),
            disabled: state.disabled(),
            state_since: revision.state_since,
            created_at: revision.created_at,
            updated_at: revision.updated_at,
            version: revision.version,
            profiles: endpoint.header_profiles().to_vec(),
            body: endpoint.body,
            retry: endpoint.retry.clone(),
            timeout: endpoint.timeout,
            max_age: endpoint.max_age,
            max_in_flight: endpoint.max_in_flight,
            rate_limit: endpoint.rate_limit,
            ordered: endpoint.ordered,
            secrets: secrets.collect(),
            headers: endpoint.headers().keys().map(ToString::to_string).collect(),
            client_credentials: credentials.map(|credentials| ClientCredentialsView {
                token_url: credentials.token_url.to_string(),
                client_id: credentials.client_id.clone(),
            }),
            has_tls: endpoint.tls.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Endpoint, EndpointNumber};

    use super::*;

    #[test]
    fn the_body_is_shown_by_its_word() {
        for (body, word) in [
            (BodyFormat::Event, "event"),
            (BodyFormat::Payload, "payload"),
            (BodyFormat::CloudEvent, "cloud-event"),
            (BodyFormat::CloudEventBinary, "cloud-event-binary"),
        ] {
            let endpoint = Endpoint::new("https://example.com/", "plain").unwrap().body(body);
            let id = EndpointId::new("crm").unwrap();
            let view = Registration::new(EndpointNumber::from_u64(1), id, endpoint).view();
            assert_eq!(serde_json::to_value(&view).unwrap()["body"], word);
        }
    }

    #[test]
    fn a_log_shows_no_token_of_a_url() {
        let endpoint = Endpoint::new("https://example.com/hush?token=hush", "plain").unwrap();
        let id = EndpointId::new("crm").unwrap();
        let view = Registration::new(EndpointNumber::from_u64(1), id, endpoint).view();
        assert!(view.url.contains("hush") && !format!("{view:?}").contains("hush"));
    }
}
