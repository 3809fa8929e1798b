//! The ports of a store, all in one.

use webhooks_registry::store::EndpointStore;

use crate::history::HistoryStore;
use crate::jobs::JobStore;
use crate::monitor::MonitorStore;
use crate::store::{DeliveryStore, OperationStore};

/// A store that implements all ports, as an [`Engine`](crate::Engine) needs it. Every type that
/// implements them is one.
///
/// The engine calls [`DeliveryStore`] and [`EndpointStore`]; people call the others. A port may grow:
/// a method that is added later has a default, so that stores of other crates still build.
pub trait Store:
    EndpointStore + DeliveryStore + OperationStore + HistoryStore + MonitorStore + JobStore
{
}

impl<S> Store for S where
    S: EndpointStore + DeliveryStore + OperationStore + HistoryStore + MonitorStore + JobStore
{
}
