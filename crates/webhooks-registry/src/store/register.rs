//! A request to register an endpoint, and what it makes of the endpoint that is there.

use webhooks_core::{EndpointId, Timestamp};

use super::EndpointStoreError;
use crate::{
    Endpoint, EndpointKey, EndpointNumber, RegisterError, Registration, Revision, UnknownEndpoint,
};

/// A request to register an endpoint of its tenant under an id.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "the engine and tests build it")]
pub struct RegisterRequest {
    /// The id.
    pub id: EndpointId,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The condition under which it is registered.
    pub expected: Expected,
    /// The most endpoints that its tenant may have, in any state; no limit if `None`. A change of an
    /// endpoint that exists is not limited.
    pub max_endpoints: Option<usize>,
    /// The present time.
    pub now: Timestamp,
}

/// The condition under which an endpoint is registered: the state of its id before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no fifth way")]
pub enum Expected {
    /// No condition: it is added, or replaces the one that is there.
    #[default]
    Any,
    /// There is no endpoint under the id.
    Absent,
    /// There is an endpoint under the id.
    Present,
    /// There is an endpoint under the id, in this version.
    Version(u64),
}

impl RegisterRequest {
    /// Returns the request to register an endpoint without conditions.
    pub fn new(id: EndpointId, endpoint: Endpoint, now: Timestamp) -> Self {
        Self { id, endpoint, expected: Expected::Any, max_endpoints: None, now }
    }

    /// Returns the key of the endpoint.
    pub fn key(&self) -> EndpointKey {
        EndpointKey::new(self.endpoint.tenant.clone(), self.id.clone())
    }

    /// Returns the registration after this request, where `before` is the one that is there; `None`
    /// if nothing changes. A new one has no number yet, and its version is 1: the store numbers it,
    /// and sets a version [above](Revision::above) that of an earlier endpoint of this id.
    ///
    /// The store checks [`max_endpoints`](Self::max_endpoints) itself, by
    /// [`check_count`](Self::check_count).
    ///
    /// # Errors
    /// [`EndpointStoreError`] when the endpoint exceeds a bound, or the condition does not hold.
    pub fn apply(
        &self,
        before: Option<&Registration>,
    ) -> Result<Option<Registration>, EndpointStoreError> {
        self.endpoint.check().map_err(RegisterError::Endpoint)?;
        let unknown = || UnknownEndpoint::new(&self.key()).into();
        match (self.expected, before) {
            (Expected::Any, _) | (Expected::Absent, None) | (Expected::Present, Some(_)) => {}
            (Expected::Absent, Some(_)) => {
                return Err(EndpointStoreError::AlreadyRegistered { endpoint: self.key() });
            }
            (Expected::Present | Expected::Version(_), None) => return Err(unknown()),
            (Expected::Version(expected), Some(before)) => {
                let found = before.revision.version;
                if expected != found {
                    let endpoint = self.key();
                    return Err(EndpointStoreError::Changed { endpoint, expected, found });
                }
            }
        }
        let Some(before) = before else {
            let (number, id) = (EndpointNumber::default(), self.id.clone());
            let added = Registration::new(number, id, self.endpoint.clone());
            return Ok(Some(Registration { revision: Revision::first(self.now), ..added }));
        };
        Ok(before.again(self.endpoint.clone(), self.now))
    }

    /// Returns an error if a tenant that has `count` endpoints may have no further one. They are counted
    /// only if their number is limited.
    ///
    /// # Errors
    /// [`EndpointStoreError::TooMany`] then.
    pub fn check_count(&self, count: impl FnOnce() -> usize) -> Result<(), EndpointStoreError> {
        match self.max_endpoints {
            Some(max) if count() >= max => Err(EndpointStoreError::TooMany { max }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EndpointError;

    #[test]
    fn a_condition_holds_or_nothing_changes() {
        let at = Timestamp::from_unix_seconds;
        let endpoint = |name: &str| Endpoint::new("https://example.com/", "k").unwrap().name(name);
        let request = |name: &str, expected| {
            let id = EndpointId::new("crm").unwrap();
            RegisterRequest { expected, ..RegisterRequest::new(id, endpoint(name), at(9)) }
        };
        let before = request("a", Expected::Absent).apply(None).unwrap().unwrap();
        assert_eq!(before.revision, Revision::first(at(9)));
        let apply = |name: &str, expected| request(name, expected).apply(Some(&before));
        for expected in [Expected::Any, Expected::Present, Expected::Version(1)] {
            assert_eq!(apply("a", expected).unwrap(), None, "{expected:?}: it is equal");
            assert_eq!(apply("b", expected).unwrap().unwrap().revision.version, 2);
        }
        let error = apply("b", Expected::Absent).unwrap_err();
        assert_eq!(error.to_string(), "endpoint default/crm is registered already");
        // Also if nothing would change: the caller has read another endpoint.
        let error = apply("a", Expected::Version(2)).unwrap_err();
        assert_eq!(error.to_string(), "endpoint default/crm is in version 1, not 2; read it again");
        for expected in [Expected::Present, Expected::Version(1)] {
            let error = request("a", expected).apply(None).unwrap_err();
            assert!(matches!(error, EndpointStoreError::Unknown(_)), "{error:?}");
        }
        let mut bad = request("a", Expected::Any);
        bad.endpoint.name = Some("x".repeat(257));
        let error = bad.apply(None).unwrap_err();
        let range = EndpointError::OutOfRange { setting: "name", range: "256 bytes long at most" };
        assert_eq!(error.to_string(), range.to_string());
    }
}
