//! The handlers that run in this process: one per id, and the others wait for how it ends.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::run_outcome::RunOutcome;
use crate::rejection::Rejection;
use crate::seen::SeenId;

/// How long a duplicate waits in this process. Senders give up on an answer after 5 to 30 s, and
/// duplicates must not pile up behind a slow handler.
pub(super) const WAIT: Duration = Duration::from_secs(10);

/// How many handlers may outlive their connections at once. Those beyond end with their connections,
/// as all handlers do by default.
const MAX_DETACHED: usize = 1_000;

/// How a run ended, for the duplicates that wait for it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    Done,
    /// The handler failed, or the store failed before the handler could run.
    Failed {
        status: StatusCode,
    },
    /// Another process has the claim.
    Elsewhere {
        retry_after: Duration,
    },
}

/// The handlers in flight, one per id, and the number of tasks that outlive their requests. The map
/// never has more entries than there are requests.
#[derive(Default, Clone)]
pub(super) struct SingleFlight {
    in_flight: Arc<Mutex<HashMap<SeenId, watch::Receiver<Option<Ended>>>>>,
    tasks: watch::Sender<usize>,
}

/// The part of a request in the run of its id.
pub(super) enum Role {
    Runs(Run),
    Waits(EarlierRun),
}

impl SingleFlight {
    pub(super) fn join(&self, id: &SeenId) -> Role {
        let mut in_flight = locked(&self.in_flight);
        if let Some(ended) = in_flight.get(id) {
            return Role::Waits(EarlierRun(ended.clone()));
        }
        let (sender, ended) = watch::channel(None);
        in_flight.insert(id.clone(), ended);
        Role::Runs(Run { id: id.clone(), single_flight: self.clone(), sender })
    }

    /// Runs `settle` to its end although the future that should wait for it was dropped, and the last
    /// guard may be. The runtime owns the task, which is one call of the store.
    pub(super) fn settle_later(&self, settle: impl Future<Output = ()> + Send + 'static) {
        // Without a runtime the claim ends with its lease.
        let Ok(runtime) = Handle::try_current() else { return };
        let counted = self.count();
        runtime.spawn(async move {
            settle.await;
            drop(counted);
        });
    }

    /// Returns whether one more task may outlive its connection.
    pub(super) fn has_room(&self) -> bool {
        *self.tasks.borrow() < MAX_DETACHED
    }

    pub(super) fn count(&self) -> Counted {
        Counted::new(self.tasks.clone())
    }

    pub(super) async fn idle(&self) {
        // It fails only if the sender is gone, and `self` has the sender.
        let mut tasks = self.tasks.subscribe();
        let _none = tasks.wait_for(|count| *count == 0).await.is_ok();
    }
}

/// One counted task, until this is dropped.
pub(crate) struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(counter: watch::Sender<usize>) -> Self {
        counter.send_modify(|count| *count += 1);
        Self(counter)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// A poisoned lock is used on: no code under it can panic halfway through a change of the map.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one run of an id. The duplicates that wait are woken when it ends or is dropped.
pub(super) struct Run {
    id: SeenId,
    single_flight: SingleFlight,
    sender: watch::Sender<Option<Ended>>,
}

impl Run {
    /// Sends the result before `drop` removes the entry. A duplicate that joins in between sees how
    /// the run ended; in the other order it would start a second run.
    pub(super) fn end(self, ended: Ended) {
        self.sender.send_replace(Some(ended));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        locked(&self.single_flight.in_flight).remove(&self.id);
    }
}

/// The run that a duplicate waits for.
pub(super) struct EarlierRun(watch::Receiver<Option<Ended>>);

impl EarlierRun {
    /// Waits for the run until `over`. If it is still running then, the sender is told to try again
    /// after `left`, when the lease of the run has ended.
    pub(super) async fn wait<R>(
        mut self,
        over: Sleep,
        left: Duration,
    ) -> Result<RunOutcome<R>, Rejection> {
        let ended = async { self.0.wait_for(Option::is_some).await.map(|ended| *ended) };
        match within(ended, over).await {
            Some(Ok(Some(Ended::Done))) => Ok(RunOutcome::Duplicate),
            Some(Ok(Some(Ended::Failed { status }))) => Err(Rejection::EarlierRunFailed { status }),
            Some(Ok(Some(Ended::Elsewhere { retry_after }))) => {
                Err(Rejection::InProgress { retry_after })
            }
            // The run panicked or was dropped.
            Some(Ok(None) | Err(_)) => Err(Rejection::InProgress { retry_after: Duration::ZERO }),
            None => Err(Rejection::InProgress { retry_after: left }),
        }
    }
}

/// The future of [`Clock::sleep`](crate::clock::Clock::sleep).
type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a future until `over`, and then drops it.
pub(super) async fn within<T>(future: impl Future<Output = T>, mut over: Sleep) -> Option<T> {
    let mut future = pin!(future);
    let either = poll_fn(|context| {
        // `over` is polled first: a future that uses up the budget which tokio gives a task would
        // otherwise never end.
        if over.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        future.as_mut().poll(context).map(Some)
    });
    either.await
}
