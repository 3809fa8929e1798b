//! An observer that counts, and panics now and then.

use std::sync::Arc;

use webhooks_dispatch::observer::{Observer, Occurrence};

use super::record::World;

/// Watches an engine.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) world: Arc<World>,
}

impl Observer for Watcher {
    fn observe(&self, occurrence: &Occurrence<'_>) {
        let mut record = self.world.record();
        record.checker.note(self.world.now(), format_args!("observed: {occurrence:?}"));
        if record.rng.u8(..50) == 0 {
            record.checker.counters.observer_panics += 1;
            drop(record);
            std::panic::resume_unwind(Box::new("a planned panic"));
        }
    }
}
