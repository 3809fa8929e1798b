//! Deleting applications, to the end.

use webhooks_admin::{Actor, AdminError, ApiKey, Entry, ListQuery};
use webhooks_core::TenantId;
use webhooks_dispatch::store::OperationError;
use webhooks_registry::{EndpointQuery, EndpointStoreError};

use crate::service::Service;

/// The endpoints, or applications, of one step.
const STEP: usize = 100;

impl Service {
    /// Unregisters the endpoints of an application, with their entries.
    pub(crate) async fn delete_endpoints(&self, tenant: &TenantId) -> Result<(), Failure> {
        let endpoints = self.engine().endpoints().tenant(tenant.clone());
        loop {
            let query = EndpointQuery { limit: STEP, ..EndpointQuery::default() };
            let page = endpoints.list(query).await?;
            if page.items.is_empty() {
                break;
            }
            for found in page.items {
                // Before it is gone: if the process dies in between, this is done again.
                self.tell_change(tenant, (Some(&found), None)).await;
                match endpoints.unregister(found.id.as_str()).await {
                    Ok(_) | Err(EndpointStoreError::Unknown(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let limits = self.admin().limits();
        limits.delete_any(tenant.as_str(), &Actor::service(), Self::now()).await?;
        self.set_limits(tenant, None);
        self.admin().pollers(tenant).delete_all(&Actor::service(), Self::now()).await?;
        self.admin().delete_poller_attempts(tenant, Self::now()).await?;
        Ok(self.admin().endpoints(tenant).delete_all(&Actor::service(), Self::now()).await?)
    }

    /// Deletes the keys of an application, which are refused since it is gone.
    async fn delete_keys(&self, tenant: &TenantId) -> Result<(), AdminError> {
        let (keys, mut walk) = (self.admin().keys(), self.admin().keys().walk(STEP));
        while let Some(page) = walk.next(Self::now()).await? {
            let is_of = |key: &&Entry<ApiKey>| key.value.grant.application() == Some(tenant);
            for key in page.iter().filter(is_of) {
                keys.delete_any(&key.id, &Actor::service(), Self::now()).await?;
            }
        }
        Ok(())
    }

    /// Carries out the deletions that are left, in a task of its own. One task of a process does so at a time:
    /// each looks at all of them.
    pub(crate) fn finish_deletions(&self) {
        let service = self.clone();
        tokio::spawn(async move {
            let _turn = service.deletions().lock().await;
            if let Err(error) = service.delete_all().await {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "deleted applications are not gone yet; the next start goes on"
                );
            }
        });
    }

    async fn delete_all(&self) -> Result<(), Failure> {
        let deletions = self.admin().deletions();
        loop {
            let query = ListQuery { limit: STEP, ..ListQuery::default() };
            let page = deletions.list(query, Self::now()).await?;
            let is_last = page.is_last;
            for deletion in page.items {
                if let Ok(tenant) = TenantId::new(&deletion.id) {
                    self.delete_endpoints(&tenant).await?;
                    self.delete_keys(&tenant).await?;
                    self.engine().expunge_tenant(tenant).await?;
                }
                // Another process may be faster.
                deletions.delete_any(&deletion.id, &Actor::service(), Self::now()).await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// The reason why a deletion did not end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Endpoints(#[from] EndpointStoreError),
    #[error(transparent)]
    Operation(#[from] OperationError),
}
