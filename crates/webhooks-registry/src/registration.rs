//! An endpoint under its id.

use webhooks_core::EndpointId;

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
}

impl Registration {
    /// Returns an endpoint that is registered under an id for the first time.
    pub fn new(number: EndpointNumber, id: EndpointId, endpoint: Endpoint) -> Self {
        let manual = EndpointState::Disabled(DisableReason::Manual);
        let state = if endpoint.active { EndpointState::Active } else { manual };
        Self { number, id, endpoint, state }
    }

    /// Returns the same endpoint in another state.
    #[must_use]
    pub fn in_state(&self, state: EndpointState) -> Self {
        Self { state, ..self.clone() }
    }

    /// Returns the registration after another endpoint is registered under the same id; `None` if that
    /// changes nothing.
    ///
    /// Settings are replaced. The state changes only if `active` differs from the last
    /// registration: a change that an operator or the engine made to the state stays.
    ///
    /// # Example
    /// ```
    /// use webhooks_core::EndpointId;
    /// use webhooks_registry::{DisableReason, Endpoint, EndpointNumber, EndpointState, Registration};
    ///
    /// let endpoint = Endpoint::new("https://example.com/", "my-secret-key")?;
    /// let id = EndpointId::new("crm")?;
    /// let gone = EndpointState::Disabled(DisableReason::Gone);
    /// let seen = Registration::new(EndpointNumber::from_u64(1), id, endpoint.clone()).in_state(gone);
    /// assert_eq!(seen.again(endpoint.clone()), None);
    /// let moved = Endpoint::new("https://example.com/moved", "my-secret-key")?;
    /// assert_eq!(seen.again(moved).map(|after| after.state), Some(gone));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn again(&self, endpoint: Endpoint) -> Option<Self> {
        if self.endpoint == endpoint {
            return None;
        }
        let state = match (self.endpoint.active, endpoint.active) {
            (false, true) if !self.state.is_open() => EndpointState::Active,
            (true, false) if self.state.is_open() => EndpointState::Disabled(DisableReason::Manual),
            _ => self.state,
        };
        Some(Self { number: self.number, id: self.id.clone(), endpoint, state })
    }

    /// Returns the key of the endpoint.
    pub fn key(&self) -> EndpointKey {
        EndpointKey::new(self.endpoint.tenant.clone(), self.id.clone())
    }
}
