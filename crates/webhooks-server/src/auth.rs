//! The caller of a request, and its rights.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Extensions, HeaderMap};
use webhooks_admin::{
    Action, Actor, ApiKeyHash, ApiKeyText, Application, Entry, Grant, JwtHolder, Role,
};
use webhooks_core::TenantId;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use crate::address::of_caller;
use crate::error::ApiError;
use crate::service::Service;

/// The one who makes a request: the holder of an API key, of a portal session or of a token.
#[derive(Clone)]
pub(crate) struct Caller {
    /// The id of the key; of a token, `jwt:` and its subject.
    who: String,
    grant: Grant,
    /// The application, if the caller may act in one alone. It is read here, since the key of one that was
    /// deleted is refused.
    own: Option<Arc<Entry<Application>>>,
    is_session: bool,
    from: Option<IpAddr>,
}

impl Caller {
    /// Checks that the caller may do this: in one application, or in all if it is `None`.
    pub(crate) fn check(
        &self,
        action: Action,
        application: Option<&TenantId>,
    ) -> Result<(), ApiError> {
        Ok(self.grant.check(action, application)?)
    }

    /// Returns whether the caller may do this.
    pub(crate) fn may(&self, action: Action, application: &TenantId) -> bool {
        self.check(action, Some(application)).is_ok()
    }

    /// Returns the id of the application, if the caller may act in one alone.
    pub(crate) fn application(&self) -> Option<&TenantId> {
        self.grant.application()
    }

    /// Returns the application, if the caller may act in one alone.
    pub(crate) fn own(&self) -> Option<&Entry<Application>> {
        self.own.as_deref()
    }

    /// Returns the rights of the caller.
    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Returns the id of the key, if it is that of a session.
    pub(crate) fn session(&self) -> Option<&str> {
        self.is_session.then_some(self.who.as_str())
    }

    /// Returns the name under which the caller's changes are logged.
    pub(crate) fn actor(&self) -> Actor {
        Actor { who: self.who.clone(), from: self.from }
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
        let from = service.address(&parts.extensions, &parts.headers);
        let caller = match service.of_token(text).await? {
            Some(caller) => caller,
            None => service.of_key(text, from).await?,
        };
        let caller = Self { from, ..caller };
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}

impl Service {
    /// Returns the address of the one who makes a request, if it is known.
    pub(crate) fn address(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = extensions.get::<ConnectInfo<SocketAddr>>();
        let proxies = &self.settings().proxies;
        peer.map(|ConnectInfo(peer)| of_caller(peer.ip(), headers, proxies))
    }

    /// Returns the caller of a token that Svix's server made, if such are accepted. Those that are not valid
    /// get the answer of a key that is not known.
    async fn of_token(&self, text: &str) -> Result<Option<Caller>, ApiError> {
        let Some(secret) = &self.settings().jwt_secret else { return Ok(None) };
        let Ok(holder) = secret.verify(text, Self::now()) else { return Ok(None) };
        let new = |who: String, grant, own| {
            let who = format!("jwt:{who}");
            Some(Caller { who, grant, own, is_session: false, from: None })
        };
        match holder {
            JwtHolder::Owner(id) => Ok(new(id, Grant::new(Role::Admin), None)),
            JwtHolder::Application(id) => {
                let Some((tenant, own)) = self.existing(&id).await? else { return Ok(None) };
                // As those of the portal, for which Svix makes them.
                let grant = Grant::new(Role::Customer).with_secrets().for_application(tenant);
                Ok(new(id, grant, Some(own)))
            }
        }
    }

    /// Returns the caller of a key, unless too many keys of its address were refused.
    async fn of_key(&self, text: &str, from: Option<IpAddr>) -> Result<Caller, ApiError> {
        self.guarded(text, from, async |hash| self.holder(hash).await).await
    }

    /// Looks for what a key or token leads to, unless too many of its address were refused.
    pub(crate) async fn guarded<T>(
        &self,
        text: &str,
        from: Option<IpAddr>,
        find: impl AsyncFnOnce(&ApiKeyHash) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let hash = ApiKeyText::parse(text).map(|text| text.hash());
        let (refused, known) = (self.refused_keys(), hash.as_ref().ok());
        if let Err(wait) = refused.check(from, known, SystemClock.monotonic()) {
            self.metrics().note_held_off();
            return Err(ApiError::too_many_refusals(wait));
        }
        let found = match &hash {
            Ok(hash) => find(hash).await,
            Err(error) => Err(not_accepted(error)),
        };
        match (&found, known) {
            (Ok(_), Some(hash)) => refused.note_accepted(hash),
            (Err(error), hash) if error.is_unauthenticated() => {
                refused.note_refused(from, hash, SystemClock.monotonic());
                self.metrics().note_refused_key();
            }
            // The store failed.
            _ => {}
        }
        found
    }

    /// Returns the holder of a key.
    async fn holder(&self, hash: &ApiKeyHash) -> Result<Caller, ApiError> {
        let now = Self::now();
        let found = self.admin().use_key(hash, now).await?;
        let key = found.ok_or_else(|| ApiError::unauthenticated("The API key is not known."))?;
        let grant = key.value.check(now).map_err(|error| not_accepted(&error))?.clone();
        let own = match grant.application() {
            None => None,
            Some(id) => {
                let own = self.existing(id.as_str()).await?;
                let own = own.ok_or_else(|| not_accepted(&"its application was deleted"))?;
                Some(own.1)
            }
        };
        let is_session = key.value.is_session;
        Ok(Caller { who: key.id, grant, own, is_session, from: None })
    }

    /// Returns an application by its id or uid, unless there is none.
    async fn existing(
        &self,
        name: &str,
    ) -> Result<Option<(TenantId, Arc<Entry<Application>>)>, ApiError> {
        let found = self.admin().applications().look_up(name, Self::now()).await?;
        Ok(found.and_then(|found| Some((TenantId::new(&found.id).ok()?, Arc::new(found)))))
    }
}

fn not_accepted(reason: &dyn fmt::Display) -> ApiError {
    ApiError::unauthenticated(format!("Not accepted: {reason}."))
}

/// Returns the token of a header, whose scheme has any case (RFC 9110 §11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
