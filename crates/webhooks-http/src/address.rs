//! Which addresses deliveries may go to.

use std::fmt::Debug;
use std::net::IpAddr;

use thiserror::Error;
use url::Host;
use webhooks_registry::EndpointUrl;

/// Says which addresses deliveries may go to.
///
/// It is asked for each address, written in the URL or resolved from its name, that a connection
/// would be made to; there is no second look-up in between. IPv4 addresses that are written as
/// IPv6 (`::ffff:127.0.0.1`) come as IPv4.
pub trait AddressPolicy: Debug + Send + Sync + 'static {
    /// Allows the address by returning `Ok`.
    ///
    /// # Errors
    /// [`Blocked`] when nothing may be sent there.
    fn check(&self, address: IpAddr) -> Result<(), Blocked>;
}

/// Says that nothing may be sent to an address.
///
/// Its text leaves the address out: the owner of the endpoint reads it, who must not learn what
/// names resolve to on the inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the address is not an allowed destination")]
pub struct Blocked {
    /// The address.
    pub address: IpAddr,
}

/// Allows every address, internal ones included.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl AddressPolicy for AllowAll {
    fn check(&self, _: IpAddr) -> Result<(), Blocked> {
        Ok(())
    }
}

/// Checks an address that is written in the URL. Names are checked when they are resolved.
pub(crate) fn check_literal(policy: &dyn AddressPolicy, url: &EndpointUrl) -> Result<(), Blocked> {
    match url.as_url().host() {
        Some(Host::Ipv4(address)) => policy.check(address.into()),
        Some(Host::Ipv6(address)) => policy.check(address.to_canonical()),
        Some(Host::Domain(_)) | None => Ok(()),
    }
}
