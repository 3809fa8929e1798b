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
                endpoint: webhooks_registry::EndpointKey,
                since: webhooks_core::Timestamp,
            ) -> Result<webhooks_dispatch::Statistics, webhooks_dispatch::StoreError> {
                self.inner.statistics(endpoint, since).await
            }

            async fn waiting(&self, limit: u64) -> Result<u64, webhooks_dispatch::StoreError> {
                self.inner.waiting(limit).await
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

/// Implements `EndpointStore` for a store that has another as its field `inner`, which keeps endpoints.
#[macro_export]
macro_rules! forward_endpoints {
    ($store:ty) => {
        impl webhooks_registry::store::EndpointStore for $store {
            async fn register(
                &self,
                id: webhooks_core::EndpointId,
                endpoint: webhooks_registry::Endpoint,
            ) -> Result<
                webhooks_registry::store::Registered,
                webhooks_registry::store::EndpointStoreError,
            > {
                self.inner.register(id, endpoint).await
            }

            async fn unregister(
                &self,
                key: webhooks_registry::EndpointKey,
            ) -> Result<
                std::sync::Arc<webhooks_registry::Registration>,
                webhooks_registry::store::EndpointStoreError,
            > {
                self.inner.unregister(key).await
            }

            async fn set_state(
                &self,
                key: webhooks_registry::EndpointKey,
                change: webhooks_registry::store::StateChange,
            ) -> Result<
                Option<std::sync::Arc<webhooks_registry::Registration>>,
                webhooks_registry::store::EndpointStoreError,
            > {
                self.inner.set_state(key, change).await
            }

            async fn get(
                &self,
                key: webhooks_registry::EndpointKey,
            ) -> Result<
                Option<std::sync::Arc<webhooks_registry::Registration>>,
                webhooks_registry::store::EndpointStoreError,
            > {
                self.inner.get(key).await
            }

            async fn list(
                &self,
                tenant: Option<webhooks_core::TenantId>,
                after: Option<webhooks_registry::EndpointKey>,
                limit: usize,
            ) -> Result<
                Vec<std::sync::Arc<webhooks_registry::Registration>>,
                webhooks_registry::store::EndpointStoreError,
            > {
                self.inner.list(tenant, after, limit).await
            }
        }
    };
}
