//! The settings of an endpoint, as requests bring them and answers show them.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_core::{Channel, Timestamp};
use webhooks_registry::{
    BodyFormat, Endpoint, EndpointError, EndpointState, EndpointUrl, HeaderProfile, RateLimit,
    Registration, Secret, Subscription,
};

use super::delivery_settings::{DeliveryIn, DeliveryOut};
use crate::error::ApiError;
use crate::extract::Patch;
use crate::schema::{Headers, Label, Metadata, Name, Pattern, SecretText, Time, Url};

/// An endpoint, as requests bring it.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointIn {
    /// The URL that messages go to.
    #[schema(value_type = Url)]
    url: String,
    /// The description for people, of 4 KiB at most; empty by default.
    #[serde(default)]
    #[schema(max_length = 4096)]
    description: String,
    /// The owner's id for the endpoint, unique in the application; paths take it in place of the id.
    #[schema(value_type = Option<Name>)]
    pub(crate) uid: Option<String>,
    /// Whether the endpoint gets no messages; `false` by default.
    #[serde(default)]
    pub(crate) disabled: bool,
    // `filterTypes` is the name of old client libraries.
    /// The event types that it wants, such as `user.created` or `user.*`; all if absent. At most 256.
    #[serde(alias = "filterTypes")]
    #[schema(value_type = Option<Vec<Pattern>>, min_items = 1, max_items = 256)]
    event_types: Option<Vec<String>>,
    /// The channels of which it wants messages; all messages if absent. At most 16.
    #[schema(value_type = Option<Vec<Label>>, min_items = 1, max_items = 16)]
    channels: Option<Vec<String>>,
    /// Notes of the caller for programs: at most 64 texts by name, of 16 KiB together.
    #[serde(default)]
    #[schema(value_type = Metadata)]
    metadata: BTreeMap<String, String>,
    /// The most deliveries per second, or per `delivery.throttlePeriodSecs`; no limit if absent. Others wait.
    #[serde(alias = "rateLimit")]
    #[schema(minimum = 1, maximum = 65535)]
    throttle_rate: Option<u16>,
    /// The way in which messages are delivered; defaults if absent.
    #[serde(default)]
    #[schema(value_type = Option<DeliveryIn>)]
    pub(crate) delivery: DeliveryIn,
    // The last two are read when it is made, and not when it is replaced.
    /// The secret that signs deliveries; the service makes one if it is absent. A request that replaces the
    /// endpoint does not change it.
    #[schema(value_type = Option<SecretText>)]
    secret: Option<String>,
    /// The headers that each delivery gets, at most 32; none by default. A request that replaces the endpoint
    /// does not change them.
    #[serde(default)]
    #[schema(value_type = Headers)]
    headers: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointPatch {
    /// The new URL that messages go to.
    #[schema(value_type = Option<Url>)]
    url: Option<String>,
    /// The new description for people, of 4 KiB at most.
    #[schema(max_length = 4096)]
    description: Option<String>,
    /// The new id of the owner for the endpoint; `null` removes it.
    #[serde(default)]
    #[schema(value_type = Option<Name>)]
    pub(crate) uid: Patch<String>,
    /// Whether the endpoint gets no messages; `false` enables it again.
    pub(crate) disabled: Option<bool>,
    /// The event types that it wants, at most 256; `null` for all.
    #[serde(default, alias = "filterTypes")]
    #[schema(value_type = Option<Vec<Pattern>>, min_items = 1, max_items = 256)]
    event_types: Patch<Vec<String>>,
    /// The channels of which it wants messages, at most 16; `null` for all messages.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Label>>, min_items = 1, max_items = 16)]
    channels: Patch<Vec<String>>,
    /// The new notes, in place of all old ones: at most 64 texts by name, of 16 KiB together.
    #[schema(value_type = Option<Metadata>)]
    metadata: Option<BTreeMap<String, String>>,
    /// The most deliveries per second, or per `delivery.throttlePeriodSecs`; `null` or 0 removes the limit.
    #[serde(default, alias = "rateLimit")]
    #[schema(value_type = Option<u16>, maximum = 65535)]
    throttle_rate: Patch<u16>,
    /// The settings of delivery to change; others stay as they are.
    #[serde(default)]
    #[schema(value_type = Option<DeliveryIn>)]
    pub(crate) delivery: DeliveryIn,
}

/// The settings that answers show in every form of an endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointShown {
    /// The id of the endpoint, which the service made.
    id: String,
    /// The owner's id for the endpoint; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Name>)]
    uid: Option<String>,
    /// The URL that messages go to.
    #[schema(value_type = Url)]
    url: String,
    /// The description for people.
    description: String,
    /// Whether the endpoint gets no messages: somebody disabled it, its receiver answered 410, or it failed for
    /// too long.
    disabled: bool,
    /// The event types that it wants; absent if it wants all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Pattern>>)]
    event_types: Option<Vec<String>>,
    /// The channels of which it wants messages; absent if it wants all messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Label>>)]
    channels: Option<Vec<String>>,
    /// The most deliveries per second, or per `delivery.throttlePeriodSecs`; absent if there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    throttle_rate: Option<u32>,
    /// The time at which it was made.
    #[schema(value_type = Time)]
    created_at: Timestamp,
    /// The time of its last change.
    #[schema(value_type = Time)]
    updated_at: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointOut {
    #[serde(flatten)]
    shown: EndpointShown,
    /// Notes of the caller for programs: texts by name.
    #[schema(value_type = Metadata)]
    metadata: BTreeMap<String, String>,
    /// The way in which messages are delivered.
    delivery: DeliveryOut,
}

impl EndpointIn {
    /// Returns the endpoint, with a new secret unless the request brings one.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, ApiError> {
        let secret = match &self.secret {
            Some(text) => secret("secret", text)?,
            None => Secret::generate(),
        };
        let endpoint = Endpoint::new(&self.url, secret)?
            .profiles([HeaderProfile::Svix, HeaderProfile::Standard])?
            .body(BodyFormat::Payload);
        let endpoint = self.apply(endpoint)?;
        let mut headers = self.headers.iter();
        Ok(headers.try_fold(endpoint, |endpoint, (name, value)| endpoint.header(name, value))?)
    }

    /// Returns the endpoint with these settings in place of its own. Those that this form does not have
    /// stay.
    pub(crate) fn apply(&self, mut endpoint: Endpoint) -> Result<Endpoint, EndpointError> {
        endpoint.url = EndpointUrl::new(&self.url)?;
        endpoint.description = some(self.description.clone());
        endpoint.metadata.clone_from(&self.metadata);
        endpoint.rate_limit = with_period(self.throttle_rate.and_then(rate_limit), &endpoint);
        endpoint.active = !self.disabled;
        let endpoint = self.delivery.apply(endpoint);
        let endpoint = endpoint.events(self.event_types.iter().flatten())?;
        endpoint.channels(self.channels.iter().flatten())
    }

    /// Refuses channels: operational events have none, so the endpoint would get nothing.
    pub(crate) fn without_channels(&self) -> Result<(), ApiError> {
        match self.channels {
            None => Ok(()),
            Some(_) => Err(ApiError::value("channels", "operational events have none")),
        }
    }

    /// Checks what the engine would not refuse.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        check_rate(self.throttle_rate)?;
        check_paused(self.delivery.paused, self.disabled)?;
        self.delivery.check()?;
        check_types(self.event_types.as_deref())?;
        check_channels(self.channels.as_deref())
    }
}

impl EndpointPatch {
    pub(crate) fn apply(&self, mut endpoint: Endpoint) -> Result<Endpoint, EndpointError> {
        if let Some(url) = &self.url {
            endpoint.url = EndpointUrl::new(url)?;
        }
        if let Some(description) = &self.description {
            endpoint.description = some(description.clone());
        }
        if let Some(metadata) = &self.metadata {
            endpoint.metadata.clone_from(metadata);
        }
        match self.throttle_rate {
            Patch::Keep => {}
            Patch::Clear => endpoint.rate_limit = None,
            // 0 means no limit, as the reference has it.
            Patch::Set(rate) => {
                endpoint.rate_limit = with_period(rate_limit(rate), &endpoint);
            }
        }
        if let Some(disabled) = self.disabled {
            endpoint.active = !disabled;
        }
        endpoint = self.delivery.apply(endpoint);
        endpoint = match &self.event_types {
            Patch::Keep => endpoint,
            Patch::Clear => endpoint.events::<&str>([])?,
            Patch::Set(types) => endpoint.events(types)?,
        };
        match &self.channels {
            Patch::Keep => Ok(endpoint),
            Patch::Clear => endpoint.channels::<&str>([]),
            Patch::Set(channels) => endpoint.channels(channels),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ApiError> {
        self.delivery.check()?;
        check_types(self.event_types.apply(None).as_deref())?;
        check_channels(self.channels.apply(None).as_deref())
    }
}

impl EndpointShown {
    pub(crate) fn new(registration: &Registration, uid: Option<String>) -> Self {
        let Registration { id, endpoint, state, revision, .. } = registration;
        let types = endpoint.subscriptions.iter().map(Subscription::to_string);
        let channels = endpoint.channels.iter().map(Channel::to_string);
        Self {
            id: id.to_string(),
            uid,
            url: endpoint.url.to_string(),
            description: endpoint.description.clone().unwrap_or_default(),
            disabled: matches!(state, EndpointState::Disabled(_)),
            event_types: (!endpoint.subscriptions.is_empty()).then(|| types.collect()),
            channels: (!endpoint.channels.is_empty()).then(|| channels.collect()),
            throttle_rate: endpoint.rate_limit.map(|limit| limit.calls.get()),
            created_at: revision.created_at,
            updated_at: revision.updated_at,
        }
    }
}

impl EndpointOut {
    pub(crate) fn new(registration: &Registration, uid: Option<String>) -> Self {
        let metadata = registration.endpoint.metadata.clone();
        let delivery = DeliveryOut::new(registration);
        Self { shown: EndpointShown::new(registration, uid), metadata, delivery }
    }
}

/// Reads the secret in a field, which may lack its prefix.
pub(crate) fn secret(field: &str, text: &str) -> Result<Secret, ApiError> {
    const PREFIX: &str = "whsec_";
    let secret = if text.starts_with(PREFIX) {
        Secret::new(text)
    } else {
        Secret::new(&format!("{PREFIX}{text}"))
    };
    secret.map_err(|error| {
        let form = "it must be whsec_ and 24 to 64 bytes in base64; leave it out to get a new one";
        match error.source() {
            Some(cause) => ApiError::value(field, format!("{form}: {cause}")),
            None => ApiError::value(field, form),
        }
    })
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Returns the limit of a rate, with a second's calls as its burst; none for 0.
fn rate_limit(rate: u16) -> Option<RateLimit> {
    NonZeroU32::new(rate.into()).map(|calls| RateLimit::per_second(calls, calls))
}

/// Checks that what is to be paused is not disabled: nothing waits for it.
pub(crate) fn check_paused(paused: Option<bool>, is_disabled: bool) -> Result<(), ApiError> {
    if paused == Some(true) && is_disabled {
        return Err(ApiError::value("delivery", "a disabled endpoint cannot be paused; enable it"));
    }
    Ok(())
}

/// Returns a new limit with the period of the one before.
fn with_period(new: Option<RateLimit>, endpoint: &Endpoint) -> Option<RateLimit> {
    let per = endpoint.rate_limit.map(|old| old.per);
    new.map(|new| RateLimit { per: per.unwrap_or(new.per), ..new })
}

fn check_rate(rate: Option<u16>) -> Result<(), ApiError> {
    match rate {
        Some(0) => Err(ApiError::value("throttleRate", "it is 0; leave it out for no limit")),
        _ => Ok(()),
    }
}

fn check_types(types: Option<&[String]>) -> Result<(), ApiError> {
    check_some("eventTypes", types)
}

fn check_channels(channels: Option<&[String]>) -> Result<(), ApiError> {
    check_some("channels", channels)
}

/// An empty list would mean everything here, and nothing to most readers.
fn check_some(name: &str, list: Option<&[String]>) -> Result<(), ApiError> {
    match list {
        Some([]) => Err(ApiError::value(name, "it is empty; leave it out to get everything")),
        _ => Ok(()),
    }
}
