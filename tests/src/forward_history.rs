//! Stores around another store, which change some calls and pass the rest on.

/// Implements `HistoryStore` for a store whose field `inner` is a store with history.
#[macro_export]
macro_rules! forward_history {
    ($store:ty) => {
        impl webhooks_dispatch::history::HistoryStore for $store {
            async fn event(
                &self,
                tenant: webhooks_core::TenantId,
                id: webhooks_core::EventId,
            ) -> Result<Option<webhooks_dispatch::history::EventRecord>, webhooks_dispatch::store::StoreError> {
                self.inner.event(tenant, id).await
            }

            async fn events(
                &self,
                query: webhooks_dispatch::history::Query,
            ) -> Result<
                webhooks_dispatch::history::Page<webhooks_dispatch::history::EventRecord>,
                webhooks_dispatch::store::StoreError,
            > {
                self.inner.events(query).await
            }

            async fn deliveries(
                &self,
                query: webhooks_dispatch::history::Query,
            ) -> Result<
                webhooks_dispatch::history::Page<webhooks_dispatch::history::DeliveryRecord>,
                webhooks_dispatch::store::StoreError,
            > {
                self.inner.deliveries(query).await
            }

            async fn attempts(
                &self,
                query: webhooks_dispatch::history::Query,
            ) -> Result<
                webhooks_dispatch::history::Page<webhooks_dispatch::history::AttemptRecord>,
                webhooks_dispatch::store::StoreError,
            > {
                self.inner.attempts(query).await
            }

            async fn statistics(
                &self,
                endpoint: webhooks_registry::EndpointKey,
                since: webhooks_core::Timestamp,
            ) -> Result<webhooks_dispatch::history::Statistics, webhooks_dispatch::store::StoreError> {
                self.inner.statistics(endpoint, since).await
            }

            async fn waiting(&self, limit: u64) -> Result<u64, webhooks_dispatch::store::StoreError> {
                self.inner.waiting(limit).await
            }

            async fn prune(
                &self,
                before: webhooks_core::Timestamp,
                limit: usize,
            ) -> Result<usize, webhooks_dispatch::store::StoreError> {
                self.inner.prune(before, limit).await
            }
        }
    };
}

/// Implements `EndpointStore` for a store whose field `inner` is a store of endpoints.
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
