//! The deletion of the content of messages, with what readers of pollers reported of it.

use webhooks_admin::AdminError;
use webhooks_core::{EventId, TenantId};
use webhooks_dispatch::history::HistoryStore as _;
use webhooks_dispatch::store::{OperationError, StoreError};

use crate::service::Service;

impl Service {
    /// Deletes the content of a message, and the responses to it; returns whether there is such a message.
    pub(crate) async fn expunge_message<E>(
        &self,
        tenant: &TenantId,
        id: &EventId,
    ) -> Result<bool, E>
    where
        E: From<AdminError> + From<OperationError> + From<StoreError>,
    {
        // First the message: a report that comes later is stored without its response.
        match self.engine().expunge(tenant.clone(), id.clone()).await {
            Ok(_) => {}
            Err(OperationError::UnknownEvent { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let found = self.engine().history().event(tenant.clone(), id.clone()).await?;
        if let Some(accepted_at) = found.map(|found| found.summary.accepted_at) {
            let message = (accepted_at, &*id.to_string());
            self.admin().forget_poller_responses(tenant, message, Self::now()).await?;
        }
        Ok(true)
    }
}
