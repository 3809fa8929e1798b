//! Handlers under way in this process: who waits for whom, and what is given back when one is
//! dropped.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use tokio::runtime::Handle;
use tokio::sync::watch;
use webhooks_core::Timestamp;

use super::RunOutcome;
use super::store::{SeenClaim, SeenError, SeenId, SeenStore};
use crate::Rejection;

/// How long a repetition waits in this process. Senders give up on an answer after 5 to 30 s, and
/// those that wait must not pile up behind a handler that takes its time.
pub(super) const WAIT: Duration = Duration::from_secs(10);

/// How many handlers may outlive their connections at once. Those beyond are bound to them, as all
/// are unless asked.
const MAX_DETACHED: usize = 1_000;

/// How a handler ended, for those that wait for it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    Done,
    /// The handler failed, or the store did before it.
    Failed {
        status: StatusCode,
    },
    /// Another process has it.
    Elsewhere {
        retry_after: Duration,
    },
}

/// The handlers under way, one an id, and how many tasks give back what was dropped. There are
/// never more than requests.
#[derive(Default, Clone)]
pub(super) struct Flights {
    under_way: Arc<Mutex<HashMap<SeenId, watch::Receiver<Option<Ended>>>>>,
    settling: watch::Sender<usize>,
}

/// What somebody who comes with an id is to do.
pub(super) enum Role {
    Runs(Flight),
    Waits(Outcome),
}

impl Flights {
    pub(super) fn join(&self, id: &SeenId) -> Role {
        let mut under_way = locked(&self.under_way);
        if let Some(outcome) = under_way.get(id) {
            return Role::Waits(Outcome(outcome.clone()));
        }
        let (sender, outcome) = watch::channel(None);
        under_way.insert(id.clone(), outcome);
        Role::Runs(Flight { id: id.clone(), flights: self.clone(), sender })
    }

    /// Lets `settle` run to its end although the one that should wait for it is gone, and the last
    /// guard may be: the runtime owns it, and each is one call of the store.
    fn settle_later(&self, settle: impl Future<Output = ()> + Send + 'static) {
        // Without a runtime the claim ends by itself.
        let Ok(runtime) = Handle::try_current() else { return };
        let counted = self.count();
        runtime.spawn(async move {
            settle.await;
            drop(counted);
        });
    }

    /// Returns whether one more may be counted that outlives its connection.
    pub(super) fn has_room(&self) -> bool {
        *self.settling.borrow() < MAX_DETACHED
    }

    pub(super) fn count(&self) -> Counted {
        Counted::new(self.settling.clone())
    }

    pub(super) async fn idle(&self) {
        // It fails when the counter is gone, which we have ourselves.
        let mut settling = self.settling.subscribe();
        let _none = settling.wait_for(|count| *count == 0).await.is_ok();
    }
}

/// One of those that are counted, until it is dropped.
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

/// Nothing that is done under these locks can leave a map half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one handler of an id. Those that wait see it end, also when it is dropped.
pub(super) struct Flight {
    id: SeenId,
    flights: Flights,
    sender: watch::Sender<Option<Ended>>,
}

impl Flight {
    pub(super) fn end(self, ended: Ended) {
        self.sender.send_replace(Some(ended));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        locked(&self.flights.under_way).remove(&self.id);
    }
}

/// How another's handler will have ended.
pub(super) struct Outcome(watch::Receiver<Option<Ended>>);

impl Outcome {
    /// Waits for it until `over`, and then says that it must have ended when so much is `left`.
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
            // It panicked or was dropped.
            Some(Ok(None) | Err(_)) => Err(Rejection::InProgress { retry_after: Duration::ZERO }),
            None => Err(Rejection::InProgress { retry_after: left }),
        }
    }
}

/// What [`Clock::sleep`](crate::Clock::sleep) returns.
type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a future until `over`, and then drops it.
pub(super) async fn within<T>(future: impl Future<Output = T>, mut over: Sleep) -> Option<T> {
    let mut future = pin!(future);
    let either = poll_fn(|context| {
        // The end first: a future that uses up what tokio lets a task do at a time must end too.
        if over.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        future.as_mut().poll(context).map(Some)
    });
    either.await
}

/// A claim that this process holds, or may hold. When it is dropped, it is settled all the same.
pub(super) struct Held<'g, S: SeenStore> {
    store: &'g Arc<S>,
    flights: &'g Flights,
    settlement: Option<Settlement>,
}

/// What is to become of a claim.
enum Settlement {
    Release(SeenClaim),
    Done(SeenId, Timestamp),
}

impl<'g, S: SeenStore> Held<'g, S> {
    pub(super) fn new(store: &'g Arc<S>, flights: &'g Flights, claim: SeenClaim) -> Self {
        Self { store, flights, settlement: Some(Settlement::Release(claim)) }
    }

    /// The store has not made the claim.
    pub(super) fn is_no_claim(&mut self) {
        self.settlement = None;
    }

    /// The handler succeeded.
    pub(super) fn is_done(&mut self, until: Timestamp) {
        if let Some(Settlement::Release(claim)) = self.settlement.take() {
            self.settlement = Some(Settlement::Done(claim.id, until));
        }
    }

    pub(super) async fn settle(mut self) -> Result<(), SeenError> {
        // Kept until the store has answered: dropped meanwhile, it is settled by a task.
        let settled = match &self.settlement {
            Some(settlement) => settlement.apply(self.store).await,
            None => Ok(()),
        };
        self.settlement = None;
        settled
    }
}

impl Settlement {
    async fn apply<S: SeenStore>(&self, store: &Arc<S>) -> Result<(), SeenError> {
        match self {
            Self::Release(claim) => store.release(claim.clone()).await,
            Self::Done(id, until) => store.done(id.clone(), *until).await,
        }
    }
}

impl<S: SeenStore> Drop for Held<'_, S> {
    fn drop(&mut self) {
        let Some(settlement) = self.settlement.take() else { return };
        let store = Arc::clone(self.store);
        self.flights.settle_later(async move {
            // Nobody is left to tell: if it fails, the claim ends by itself.
            let _failed = settlement.apply(&store).await;
        });
    }
}
