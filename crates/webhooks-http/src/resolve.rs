//! From names to addresses, past the address policy.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use tokio::net::lookup_host;

use crate::{AddressPolicy, Blocked};

/// The system's resolver, whose answers are used only if the policy allows each of them.
#[derive(Debug)]
pub(crate) struct PolicedResolver {
    pub(crate) policy: Arc<dyn AddressPolicy>,
}

/// Says why a name gave no addresses.
#[derive(Debug, Error)]
pub(crate) enum ResolveError {
    #[error(transparent)]
    Blocked(#[from] Blocked),
    #[error("{source}")]
    Lookup {
        #[from]
        source: io::Error,
    },
}

impl Resolve for PolicedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.policy);
        Box::pin(async move { Ok(resolve(&*policy, name.as_str()).await?) })
    }
}

async fn resolve(policy: &dyn AddressPolicy, name: &str) -> Result<Addrs, ResolveError> {
    // The port is set by whoever connects.
    let addresses: Vec<SocketAddr> = lookup_host((name, 0)).await?.collect();
    for address in &addresses {
        policy.check(address.ip().to_canonical())?;
    }
    Ok(Box::new(addresses.into_iter()))
}
