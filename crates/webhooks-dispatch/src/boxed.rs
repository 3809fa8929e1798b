//! A store whose type is chosen at run time.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crate::forward::types;
use crate::store::ChangeListener;
use crate::store_ports::Store;

/// A store whose type is chosen at run time, so that what stands above it need not be generic over
/// stores. Cheap to clone; all clones are one store.
///
/// Each call costs one allocation for its future. Calls of workers are made for many deliveries at
/// once, so that is little for each.
///
/// # Example
/// ```
/// use webhooks_dispatch::{BoxedStore, Engine, FnTransport, MemoryStore};
///
/// # let is_test = true;
/// let store = if is_test { BoxedStore::new(MemoryStore::new()) } else { todo!("open a database") };
/// let engine = Engine::new(store, FnTransport::new(|_, _, _, _| async { (200, "") }));
/// ```
#[derive(Clone)]
pub struct BoxedStore(Arc<dyn DynStore>);

impl BoxedStore {
    /// Returns a store in a box.
    pub fn new(store: impl Store) -> Self {
        Self(Arc::new(store))
    }
}

impl fmt::Debug for BoxedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxedStore").finish_non_exhaustive()
    }
}

type BoxedFuture<'s, T> = Pin<Box<dyn Future<Output = T> + Send + 's>>;

/// All ports of a store as object-safe traits.
trait DynStore:
    DynEndpointStore
    + DynDeliveryStore
    + DynOperationStore
    + DynHistoryStore
    + DynMonitorStore
    + DynJobStore
{
}

impl<S: Store> DynStore for S {}

/// Makes the object-safe form of a port, implements it for every store, and implements the port for
/// the box by it. `$sync` are methods that return no future.
#[doc(hidden)]
#[macro_export]
macro_rules! __boxed {
    (
        ($dyn:ident { $($sync:ident -> $sync_out:ty;)* }) $port:ident
        $($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*
    ) => {
        trait $dyn: Send + Sync + 'static {
            $(fn $name(&self, $($arg: $type),*) -> BoxedFuture<'_, $out>;)*
            $(fn $sync(&self) -> $sync_out;)*
        }

        impl<S: types::$port> $dyn for S {
            $(fn $name(&self, $($arg: $type),*) -> BoxedFuture<'_, $out> {
                Box::pin(types::$port::$name(self, $($arg),*))
            })*
            $(fn $sync(&self) -> $sync_out {
                types::$port::$sync(self)
            })*
        }

        impl types::$port for BoxedStore {
            $(fn $name(&self, $($arg: $type),*) -> impl Future<Output = $out> + Send {
                $dyn::$name(&*self.0, $($arg),*)
            })*
            $(fn $sync(&self) -> $sync_out {
                $dyn::$sync(&*self.0)
            })*
        }
    };
}

__methods! { EndpointStore => __boxed (DynEndpointStore {}) }
__methods! { DeliveryStore => __boxed (DynDeliveryStore { changes -> ChangeListener; }) }
__methods! { OperationStore => __boxed (DynOperationStore {}) }
__methods! { HistoryStore => __boxed (DynHistoryStore {}) }
__methods! { MonitorStore => __boxed (DynMonitorStore {}) }
__methods! { JobStore => __boxed (DynJobStore {}) }
