//! The caller of a request, and its rights.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use http::header::AUTHORIZATION;
use http::request::Parts;
use webhooks_admin::{Action, Actor, ApiKey, ApiKeyText, Entry, Grant};
use webhooks_core::TenantId;

use crate::error::ApiError;
use crate::service::Service;

/// The one who makes a request: the holder of an API key or of a portal session.
#[derive(Clone)]
pub(crate) struct Caller {
    key: Entry<ApiKey>,
    from: Option<IpAddr>,
}

impl Caller {
    /// Checks that the caller may do this: in one application, or in all if it is `None`.
    pub(crate) fn check(
        &self,
        action: Action,
        application: Option<&TenantId>,
    ) -> Result<(), ApiError> {
        Ok(self.key.value.grant.check(action, application)?)
    }

    /// Returns whether the caller may do this.
    pub(crate) fn may(&self, action: Action, application: &TenantId) -> bool {
        self.check(action, Some(application)).is_ok()
    }

    /// Returns the application, if the caller may act in one alone.
    pub(crate) fn application(&self) -> Option<&TenantId> {
        self.key.value.grant.application()
    }

    /// Returns the rights of the caller.
    pub(crate) fn grant(&self) -> &Grant {
        &self.key.value.grant
    }

    /// Returns the id of the key, if it is that of a session.
    pub(crate) fn session(&self) -> Option<&str> {
        self.key.value.is_session.then_some(self.key.id.as_str())
    }

    /// Returns the name under which the caller's changes are logged.
    pub(crate) fn actor(&self) -> Actor {
        Actor { who: self.key.id.clone(), from: self.from }
    }
}

impl FromRequestParts<Service> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, ApiError> {
        if let Some(caller) = parts.extensions.get::<Self>() {
            return Ok(caller.clone());
        }
        let missing = || {
            ApiError::unauthenticated(
                "A key is missing: send the header Authorization: Bearer KEY.",
            )
        };
        let header = parts.headers.get(AUTHORIZATION).ok_or_else(missing)?;
        let text = header.to_str().ok().and_then(bearer).ok_or_else(missing)?;
        let text = ApiKeyText::parse(text)
            .map_err(|error| ApiError::unauthenticated(format!("Not accepted: {error}.")))?;
        let now = Service::now();
        let found = service.admin().use_key(&text.hash(), now).await?;
        let key = found.ok_or_else(|| ApiError::unauthenticated("The API key is not known."))?;
        key.value
            .check(now)
            .map_err(|error| ApiError::unauthenticated(format!("Not accepted: {error}.")))?;
        let from = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let caller = Self { key, from: from.map(|ConnectInfo(address)| address.ip()) };
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}

/// Returns the token of a header, whose scheme has any case (RFC 9110 §11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
