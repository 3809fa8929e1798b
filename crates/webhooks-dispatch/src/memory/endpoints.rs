//! The endpoints of the store in memory.

use std::sync::Arc;

use webhooks_core::Timestamp;
use webhooks_registry::{
    EndpointKey, EndpointNumber, EndpointPage, EndpointQuery, Registration, UnknownEndpoint,
    store::{EndpointStore, EndpointStoreError, RegisterRequest, Registered, StateChange},
};

use super::{MemoryStore, State};
use crate::store::CancelReason;

impl EndpointStore for MemoryStore {
    async fn register(&self, request: RegisterRequest) -> Result<Registered, EndpointStoreError> {
        let mut state = self.state();
        let before = state.registry.get_of(&request.key());
        let Some(after) = request.apply(before.as_deref())? else {
            return Ok(Registered::Unchanged);
        };
        if before.is_none() {
            request.check_count(|| state.registry.count_of(&request.endpoint.tenant))?;
        }
        state.replace(before.as_deref(), after, request.now)?;
        drop(state);
        self.wake();
        Ok(before.map_or(Registered::Added, |before| Registered::Changed { before }))
    }

    async fn unregister(
        &self,
        key: EndpointKey,
        now: Timestamp,
    ) -> Result<Arc<Registration>, EndpointStoreError> {
        let mut state = self.state();
        let removed = state.registry.unregister_of(&key)?;
        state.last_versions.insert(key, removed.revision.version);
        state.close(removed.number, CancelReason::Unregistered, now);
        drop(state);
        self.wake();
        Ok(removed)
    }

    async fn set_state(
        &self,
        key: EndpointKey,
        change: StateChange,
        now: Timestamp,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        let mut state = self.state();
        let before = state.registry.get_of(&key);
        let before = before.ok_or_else(|| UnknownEndpoint::new(&key))?;
        let Some(after) = before.after(change, now)? else { return Ok(None) };
        state.replace(Some(&before), after, now)?;
        drop(state);
        self.wake();
        Ok(Some(before))
    }

    async fn get(&self, key: EndpointKey) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        Ok(self.state().registry.get_of(&key))
    }

    async fn list(&self, query: EndpointQuery) -> Result<EndpointPage, EndpointStoreError> {
        Ok(query.page_in(&self.state().registry)?)
    }

    async fn count(&self, query: EndpointQuery, max: usize) -> Result<usize, EndpointStoreError> {
        Ok(query.count_in(&self.state().registry, max))
    }
}

impl State {
    /// Replaces an endpoint by a changed one.
    fn replace(
        &mut self,
        before: Option<&Registration>,
        mut after: Registration,
        now: Timestamp,
    ) -> Result<(), EndpointStoreError> {
        let was_open = before.is_some_and(|before| before.state.is_open());
        // A new number for each new start, so that claims from before a removal or disabling never
        // belong to the endpoint of now.
        if !was_open {
            after.number = EndpointNumber::from_u64(self.next_endpoint);
            self.next_endpoint += 1;
        }
        let key = after.key();
        if before.is_none()
            && let Some(last) = self.last_versions.remove(&key)
        {
            after.revision = after.revision.above(last);
        }
        self.keys_by_number.insert(after.number, key.clone());
        self.registry.restore(after)?;
        let Some(after) = self.registry.get_of(&key) else { return Ok(()) };
        if !after.state.is_open() {
            self.close(after.number, CancelReason::Disabled, now);
            return Ok(());
        }
        if after.endpoint.ordered {
            let open = self.deliveries.values_mut().filter(|entry| entry.is_open());
            for entry in open.filter(|entry| entry.number == after.number && !entry.is_scheduled) {
                entry.due_at = Timestamp::UNIX_EPOCH;
            }
        }
        self.backlog.open(&after, None, Timestamp::UNIX_EPOCH);
        Ok(())
    }
}
