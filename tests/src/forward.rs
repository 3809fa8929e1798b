//! Stores around a store, which change some calls and pass the others on.

/// Implements `HistoryStore` for a store that has another as its field `inner`, which remembers.
#[macro_export]
macro_rules! forward_history {
    ($store:ty) => {
        impl webhooks_dispatch::HistoryStore for $store {
            async fn event(
                &self,
                tenant: webhooks_core::TenantId,
                id: webhooks_core::EventId,
            ) -> Result<Option<webhooks_dispatch::EventRecord>, webhooks_dispatch::StoreError> {
                self.inner.event(tenant, id).await
            }

            async fn events(
                &self,
                query: webhooks_dispatch::Query,
            ) -> Result<
                webhooks_dispatch::Page<webhooks_dispatch::EventRecord>,
                webhooks_dispatch::StoreError,
            > {
                self.inner.events(query).await
            }

            async fn deliveries(
                &self,
                query: webhooks_dispatch::Query,
            ) -> Result<
                webhooks_dispatch::Page<webhooks_dispatch::DeliveryRecord>,
                webhooks_dispatch::StoreError,
            > {
                self.inner.deliveries(query).await
            }

            async fn attempts(
                &self,
                query: webhooks_dispatch::Query,
            ) -> Result<
                webhooks_dispatch::Page<webhooks_dispatch::AttemptRecord>,
                webhooks_dispatch::StoreError,
            > {
                self.inner.attempts(query).await
            }

            async fn statistics(
                &self,
                endpoint: webhooks_core::EndpointId,
                since: webhooks_core::Timestamp,
            ) -> Result<webhooks_dispatch::Statistics, webhooks_dispatch::StoreError> {
                self.inner.statistics(endpoint, since).await
            }

            async fn prune(
                &self,
                before: webhooks_core::Timestamp,
                limit: usize,
            ) -> Result<usize, webhooks_dispatch::StoreError> {
                self.inner.prune(before, limit).await
            }
        }
    };
}
