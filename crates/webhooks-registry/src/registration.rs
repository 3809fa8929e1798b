//! An endpoint under its id.

use webhooks_core::{Channel, EndpointId, EventType, Timestamp};

use crate::revision::Revision;
use crate::state::{IsDisabled, StateChange};
use crate::{DisableReason, Endpoint, EndpointKey, EndpointNumber, EndpointState};

/// An endpoint under its id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registration {
    /// The number that its store gave it.
    pub number: EndpointNumber,
    /// The id that the endpoint was registered under.
    pub id: EndpointId,
    /// The endpoint, as it was registered.
    pub endpoint: Endpoint,
    /// Whether it gets deliveries.
    pub state: EndpointState,
    /// How often it was changed, and when.
    pub revision: Revision,
}

impl Registration {
    /// Returns an endpoint that is registered under an id for the first time.
    pub fn new(number: EndpointNumber, id: EndpointId, endpoint: Endpoint) -> Self {
        let manual = EndpointState::Disabled(DisableReason::Manual);
        let state = if endpoint.active { EndpointState::Active } else { manual };
        Self { number, id, endpoint, state, revision: Revision::default() }
    }

    /// Returns the same endpoint in the state and the revision that a store has for it.
    #[must_use]
    pub fn restored(self, state: EndpointState, revision: Revision) -> Self {
        Self { state, revision, ..self }
    }

    /// Returns the same endpoint after it entered another state.
    #[must_use]
    pub fn in_state(&self, state: EndpointState, now: Timestamp) -> Self {
        Self { state, revision: self.revision.entered(now), ..self.clone() }
    }

    /// Returns the endpoint after a change of its state; `None` if that changes nothing.
    ///
    /// # Errors
    /// [`IsDisabled`] when a disabled endpoint is to be paused or resumed.
    pub fn after(&self, change: StateChange, now: Timestamp) -> Result<Option<Self>, IsDisabled> {
        Ok(self.state.after(change)?.map(|state| self.in_state(state, now)))
    }

    /// Returns the registration after another endpoint is registered under the same id; `None` if that
    /// changes nothing.
    ///
    /// Settings are replaced. The state changes only if `active` differs from the last
    /// registration: a change that an operator or the engine made to the state stays.
    ///
    /// # Example
    /// ```
    /// use webhooks_core::{EndpointId, Timestamp};
    /// use webhooks_registry::{DisableReason, Endpoint, EndpointNumber, EndpointState, Registration};
    ///
    /// let endpoint = Endpoint::new("https://example.com/", "my-secret-key")?;
    /// let id = EndpointId::new("crm")?;
    /// let gone = EndpointState::Disabled(DisableReason::Gone);
    /// let now = Timestamp::from_unix_seconds(1_767_225_600);
    /// let added = Registration::new(EndpointNumber::from_u64(1), id, endpoint.clone());
    /// let seen = added.in_state(gone, now);
    /// assert_eq!(seen.again(endpoint.clone(), now), None);
    /// let moved = Endpoint::new("https://example.com/moved", "my-secret-key")?;
    /// assert_eq!(seen.again(moved, now).map(|after| after.state), Some(gone));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn again(&self, endpoint: Endpoint, now: Timestamp) -> Option<Self> {
        if self.endpoint == endpoint {
            return None;
        }
        let state = match (self.endpoint.active, endpoint.active) {
            (false, true) if !self.state.is_open() => EndpointState::Active,
            (true, false) if self.state.is_open() => EndpointState::Disabled(DisableReason::Manual),
            _ => self.state,
        };
        let revision = self.revision;
        let revision =
            if state == self.state { revision.changed(now) } else { revision.entered(now) };
        Some(Self { number: self.number, id: self.id.clone(), endpoint, state, revision })
    }

    /// Returns whether it is one of the recipients of an event: `only` names them, or they are those that
    /// want its type and channels. The state of the endpoint does not matter.
    pub fn is_recipient(
        &self,
        event_type: &EventType,
        channels: &[Channel],
        only: Option<&[EndpointId]>,
    ) -> bool {
        match only {
            Some(ids) => ids.contains(&self.id),
            None => self.endpoint.wants(event_type) && self.endpoint.listens_to(channels),
        }
    }

    /// Returns the key of the endpoint.
    pub fn key(&self) -> EndpointKey {
        EndpointKey::new(self.endpoint.tenant.clone(), self.id.clone())
    }
}
