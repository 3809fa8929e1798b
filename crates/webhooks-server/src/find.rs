//! Applications, endpoints and messages by their ids and the owner's ids.

use std::sync::Arc;

use webhooks_admin::{Action, Application, Entry, IdKind};
use webhooks_core::{EndpointId, EventId, TenantId};
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::{BoxedStore, Endpoints};
use webhooks_http::HttpTransport;
use webhooks_registry::Registration;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::hint::operational_tenant;
use crate::service::Service;

/// An application, or the service as the owner of operational endpoints, and its id in the engine.
pub(crate) struct App {
    pub(crate) tenant: TenantId,
    /// Its entry; the service has none.
    pub(crate) entry: Option<Entry<Application>>,
}

/// An endpoint of an application.
pub(crate) struct AppEndpoint {
    pub(crate) app: App,
    pub(crate) uid: Option<String>,
    pub(crate) registration: Arc<Registration>,
}

impl Service {
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
        let entry = match caller.own() {
            Some(own) if own.id == name || own.value.uid.as_deref() == Some(name) => own.clone(),
            // Another's, or none.
            Some(_) => return Err(ApiError::unknown("application")),
            None => self.admin().applications().get(name, Self::now()).await?,
        };
        let tenant = TenantId::new(&entry.id);
        let tenant = tenant.map_err(|_unreadable| ApiError::unknown("application"))?;
        caller.check(action, Some(&tenant))?;
        Ok(App { tenant, entry: Some(entry) })
    }

    /// Returns the owner of the operational endpoints, for an administrator. To a key of one application,
    /// they are another's.
    pub(crate) fn operational(caller: &Caller) -> Result<App, ApiError> {
        let tenant = operational_tenant();
        caller.check(Action::ChangeSettings, Some(&tenant))?;
        Ok(App { tenant, entry: None })
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
        let entry = self.admin().endpoints(&app.tenant).get(name, Self::now()).await?;
        let registration = self.endpoints(&app).get(&entry.id).await?;
        let registration = registration.ok_or_else(|| ApiError::unknown("endpoint"))?;
        Ok(AppEndpoint { app, uid: entry.value.uid, registration })
    }

    /// Lets an application publish a message, unless it is too fast.
    pub(crate) fn pass(&self, app: &App) -> Result<(), ApiError> {
        self.pass_all(app, 1)
    }

    /// Lets an application publish messages together, unless it is too fast.
    pub(crate) fn pass_all(&self, app: &App, messages: usize) -> Result<(), ApiError> {
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        let rate = app.entry.as_ref().and_then(|entry| entry.value.throttle_rate);
        let Some(rate) = rate else { return Ok(()) };
        let passed = self.throttle().pass(&app.tenant, (rate, messages), SystemClock.monotonic());
        passed.map_err(ApiError::too_many)
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

impl AppEndpoint {
    pub(crate) fn id(&self) -> &EndpointId {
        &self.registration.id
    }
}
