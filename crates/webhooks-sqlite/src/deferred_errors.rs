//! Errors of the writer's own work: no caller waits for their answer, so that later claims report
//! them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use webhooks_dispatch::store::StoreError;

/// How many errors wait to be reported. Later ones are dropped.
const MAX_ERRORS: usize = 16;

/// Errors that the next claims report.
#[derive(Debug, Default)]
pub(crate) struct DeferredErrors(Mutex<VecDeque<StoreError>>);

impl DeferredErrors {
    pub(crate) fn add(&self, error: StoreError) {
        let mut errors = self.errors();
        if errors.len() < MAX_ERRORS {
            errors.push_back(error);
        }
    }

    /// Removes the oldest error, so that it is reported once.
    pub(crate) fn take(&self) -> Option<StoreError> {
        self.errors().pop_front()
    }

    fn errors(&self) -> MutexGuard<'_, VecDeque<StoreError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
