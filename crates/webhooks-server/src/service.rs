//! The service: an engine, what is kept beside it, and how requests are answered.

use std::sync::Arc;

use webhooks_admin::{Action, Admin, AdminError, Application, Entry, IdKind};
use webhooks_core::{EndpointId, EventId, TenantId, Timestamp};
use webhooks_dispatch::{BoxedStore, Endpoints, Engine};
use webhooks_http::HttpTransport;
use webhooks_registry::Registration;

use crate::auth::Caller;
use crate::error::ApiError;

/// The settings of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceSettings {
    /// The URL at which people reach the service, for links to its pages.
    pub public_url: String,
    /// The longest body of a request in bytes; 2 MiB by default.
    pub max_request: usize,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self { public_url: "http://127.0.0.1:8071".to_owned(), max_request: 2 * 1024 * 1024 }
    }
}

/// A webhook service over an engine. Clones share it.
#[derive(Debug, Clone)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine<BoxedStore, HttpTransport>,
    admin: Admin,
    settings: ServiceSettings,
}

/// An application, and its id in the engine.
pub(crate) struct App {
    pub(crate) tenant: TenantId,
    pub(crate) entry: Entry<Application>,
}

/// An endpoint of an application.
pub(crate) struct AppEndpoint {
    pub(crate) app: App,
    pub(crate) uid: Option<String>,
    pub(crate) registration: Arc<Registration>,
}

impl Service {
    /// Returns the service of an engine, whose workers its owner starts and stops, and of what `admin`
    /// keeps. Both should keep their rows in one database.
    pub fn new(
        engine: Engine<BoxedStore, HttpTransport>,
        admin: Admin,
        settings: ServiceSettings,
    ) -> Self {
        Self(Arc::new(Inner { engine, admin, settings }))
    }

    /// Borrows the engine.
    pub fn engine(&self) -> &Engine<BoxedStore, HttpTransport> {
        &self.0.engine
    }

    /// Borrows what is kept beside the engine.
    pub fn admin(&self) -> &Admin {
        &self.0.admin
    }

    pub(crate) fn settings(&self) -> &ServiceSettings {
        &self.0.settings
    }

    pub(crate) fn now() -> Timestamp {
        Timestamp::now()
    }

    /// Returns the endpoints of an application.
    pub(crate) fn endpoints(&self, app: &App) -> Endpoints<'_, BoxedStore, HttpTransport> {
        self.engine().endpoints().tenant(app.tenant.clone())
    }

    /// Finds an application by its id or uid, for an action. Another's is unknown to the caller.
    pub(crate) async fn app(
        &self,
        caller: &Caller,
        name: &str,
        action: Action,
    ) -> Result<App, ApiError> {
        let found = self.admin().applications().get(name, Self::now()).await;
        let entry = found.map_err(|error| unknown(error, "application"))?;
        let tenant = TenantId::new(&entry.id);
        let tenant = tenant.map_err(|_unreadable| ApiError::unknown("application"))?;
        caller.check(action, Some(&tenant))?;
        Ok(App { tenant, entry })
    }

    /// Finds an endpoint by the ids or uids of its application and itself, for an action.
    pub(crate) async fn endpoint(
        &self,
        caller: &Caller,
        (app, name): (&str, &str),
        action: Action,
    ) -> Result<AppEndpoint, ApiError> {
        let app = self.app(caller, app, action).await?;
        self.endpoint_of(app, name).await
    }

    pub(crate) async fn endpoint_of(&self, app: App, name: &str) -> Result<AppEndpoint, ApiError> {
        let found = self.admin().endpoints(&app.tenant).get(name, Self::now()).await;
        let entry = found.map_err(|error| unknown(error, "endpoint"))?;
        let registration = self.endpoints(&app).get(&entry.id).await?;
        let registration = registration.ok_or_else(|| ApiError::unknown("endpoint"))?;
        Ok(AppEndpoint { app, uid: entry.value.uid, registration })
    }

    /// Returns the id of an application's message from its id or eventId.
    pub(crate) fn message_id(app: &App, name: &str) -> Result<EventId, ApiError> {
        let id = match IdKind::Event.number(name) {
            Ok(_) => EventId::new(name),
            Err(_) => EventId::new(&own_message_id(&app.tenant, name)),
        };
        id.map_err(|_unreadable| ApiError::unknown("message"))
    }
}

/// Returns the id of the message with an eventId. It is a hash, so that the store knows at once that a
/// message was published before.
pub(crate) fn own_message_id(tenant: &TenantId, event_id: &str) -> String {
    IdKind::Event.id(webhooks_admin::number_of(&[tenant.as_str(), event_id]))
}

pub(crate) fn unknown(error: AdminError, thing: &str) -> ApiError {
    match error {
        AdminError::NotFound => ApiError::unknown(thing),
        error => error.into(),
    }
}

impl AppEndpoint {
    pub(crate) fn id(&self) -> &EndpointId {
        &self.registration.id
    }
}
