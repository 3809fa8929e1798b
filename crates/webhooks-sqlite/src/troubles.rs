//! What went wrong in the writer's own work, where no caller waits for an answer.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use webhooks_dispatch::store::StoreError;

/// How many are kept until somebody is told. Those that come later are dropped.
const KEPT: usize = 16;

/// Errors that the next claims report.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<VecDeque<StoreError>>);

impl Troubles {
    pub(crate) fn add(&self, error: StoreError) {
        let mut kept = self.kept();
        if kept.len() < KEPT {
            kept.push_back(error);
        }
    }

    /// Returns the oldest one, which is told once.
    pub(crate) fn take(&self) -> Option<StoreError> {
        self.kept().pop_front()
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<StoreError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
