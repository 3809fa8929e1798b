//! The life of a worker: observers hear when it begins, and when it ends in any way.

use std::sync::Arc;

use super::WorkerShared;
use crate::observer::Occurrence;
use crate::shutdown_report::ShutdownReport;

/// The life of a worker. It ends when this is dropped.
pub(super) struct Life<S, T, C> {
    shared: Arc<WorkerShared<S, T, C>>,
    /// Its number in this engine, from 1.
    pub(super) worker: u64,
    /// The report; `None` until the worker has ended as it was told.
    pub(super) report: Option<ShutdownReport>,
}

impl<S, T, C> Life<S, T, C> {
    pub(super) fn begin(shared: Arc<WorkerShared<S, T, C>>, worker: u64) -> Self {
        shared.engine.observers.notify(&Occurrence::WorkerStarted { worker });
        Self { shared, worker, report: None }
    }
}

impl<S, T, C> Drop for Life<S, T, C> {
    fn drop(&mut self) {
        let ended = Occurrence::WorkerEnded { worker: self.worker, report: self.report };
        self.shared.engine.observers.notify(&ended);
    }
}
