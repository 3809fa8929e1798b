//! Bounds for endpoints that strangers register, such as the customers of a service.

use std::time::Duration;

use crate::error::check_ranges;
use crate::{Endpoint, EndpointError};

/// Bounds that an application sets for endpoints, within those that [`Endpoint::check`] knows.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use webhooks_registry::{Endpoint, EndpointLimits};
///
/// let limits = EndpointLimits { timeout: Duration::from_secs(20), ..EndpointLimits::default() };
/// let endpoint = Endpoint::new("https://example.com/", "my-secret-key")?;
/// assert!(limits.check(&endpoint).is_err(), "30 s is the default");
/// assert!(limits.check(&endpoint.timeout(Duration::from_secs(20))).is_ok());
/// # Ok::<(), webhooks_registry::EndpointError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "applications build it")]
pub struct EndpointLimits {
    /// The most endpoints of a tenant; no limit if `None`.
    pub endpoints_per_tenant: Option<usize>,
    /// The longest time of an attempt.
    pub timeout: Duration,
    /// The most attempts in flight.
    pub max_in_flight: u32,
    /// The highest age at which a delivery expires.
    pub max_age: Duration,
    /// The most subscriptions.
    pub subscriptions: usize,
    /// The most headers of an endpoint's own.
    pub headers: usize,
}

impl EndpointLimits {
    /// Returns `Ok` if an endpoint is within the bounds, the number of endpoints aside.
    ///
    /// # Errors
    /// [`EndpointError::OutOfRange`] when it is not.
    pub fn check(&self, endpoint: &Endpoint) -> Result<(), EndpointError> {
        const RANGE: &str = "within the bounds that this service sets";
        let Self { timeout, max_in_flight, max_age, .. } = *self;
        check_ranges([
            (endpoint.timeout <= timeout, "timeout", RANGE),
            (endpoint.max_in_flight.get() <= max_in_flight, "max_in_flight", RANGE),
            (endpoint.max_age <= max_age, "max_age", RANGE),
            (endpoint.subscriptions.len() <= self.subscriptions, "number of subscriptions", RANGE),
            (endpoint.headers().len() <= self.headers, "number of headers", RANGE),
        ])
    }
}

impl Default for EndpointLimits {
    /// Returns no bounds beyond those that every endpoint has.
    fn default() -> Self {
        Self {
            endpoints_per_tenant: None,
            timeout: Duration::MAX,
            max_in_flight: u32::MAX,
            max_age: Duration::MAX,
            subscriptions: usize::MAX,
            headers: usize::MAX,
        }
    }
}
