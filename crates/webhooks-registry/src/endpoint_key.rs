//! The two identities of an endpoint: the key that its owner chose, and a store's number.

use std::fmt;

use serde::{Deserialize, Serialize};
use webhooks_core::{EndpointId, TenantId};

/// Identifies an endpoint: ids are unique within a tenant, so a tenant and an id together identify one.
///
/// # Example
/// ```
/// use webhooks_core::{EndpointId, TenantId};
/// use webhooks_registry::EndpointKey;
///
/// let key = EndpointKey::new(TenantId::new("acme")?, EndpointId::new("crm")?);
/// assert_eq!(key.to_string(), "acme/crm");
/// # Ok::<(), webhooks_core::IdError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a tenant and an id, and nothing else, name one")]
pub struct EndpointKey {
    /// The tenant to which the endpoint belongs.
    pub tenant: TenantId,
    /// Its id.
    pub id: EndpointId,
}

impl EndpointKey {
    /// Returns the key of a tenant's endpoint.
    pub fn new(tenant: TenantId, id: EndpointId) -> Self {
        Self { tenant, id }
    }

    /// Returns the key of an endpoint of the default tenant.
    pub fn of_default_tenant(id: EndpointId) -> Self {
        Self { tenant: TenantId::default(), id }
    }
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.id)
    }
}

/// The number by which a store and its workers know an endpoint that gets deliveries.
///
/// An endpoint that is enabled after it was disabled gets a new one, so that deliveries from before
/// are never mistaken for those that wait now. A store never uses a number twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointNumber(u64);

impl EndpointNumber {
    /// Returns the number of a row of a store.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number in the form of a store's row.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}
