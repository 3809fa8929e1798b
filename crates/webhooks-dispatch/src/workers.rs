//! The workers of an engine, to tell them of changes of endpoints.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use webhooks_registry::EndpointNumber;

use crate::worker::Desk;

/// The workers of an engine, as far as they must hear of changes of endpoints.
#[derive(Debug, Default)]
pub(crate) struct Workers(Mutex<Vec<Weak<Desk>>>);

impl Workers {
    pub(crate) fn add(&self, desk: &Arc<Desk>) {
        let mut desks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        desks.retain(|desk| desk.strong_count() > 0);
        desks.push(Arc::downgrade(desk));
    }

    /// Has all workers start nothing more for an endpoint as it was: what they hold is handed
    /// back, and claimed again if it is still wanted.
    pub(crate) fn recall(&self, endpoint: EndpointNumber) {
        self.tell(|desk| desk.recall(endpoint));
    }

    /// Has all workers start nothing more for an endpoint that is gone or disabled, and forget it.
    pub(crate) fn forget(&self, endpoint: EndpointNumber) {
        self.tell(|desk| desk.forget(endpoint));
    }

    /// Has all workers forget what they learned of an endpoint.
    pub(crate) fn forgive(&self, endpoint: EndpointNumber) {
        self.tell(|desk| desk.scheduler().forgive(endpoint));
    }

    fn tell(&self, change: impl Fn(&Desk)) {
        let desks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for desk in desks.iter().filter_map(Weak::upgrade) {
            change(&desk);
            desk.work.notify_one();
        }
    }
}
