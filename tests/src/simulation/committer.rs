//! The writers: with the store in memory every caller writes at once; with the store on disk one
//! writer commits groups, which are drawn from the seed.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use webhooks_dispatch::clock::Clock as _;
use webhooks_sqlite::ManualWriter;

use super::record::World;

/// A call of the store, and the notes of the run about it.
type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Carries out the calls that change a store.
pub(super) struct Committer {
    disk: Option<Disk>,
}

struct Disk {
    writer: Mutex<ManualWriter>,
    calls: Mutex<VecDeque<Call>>,
    wake: Notify,
}

impl Committer {
    /// Returns a committer that carries out each call at once.
    pub(super) fn in_memory() -> Arc<Self> {
        Arc::new(Self { disk: None })
    }

    /// Returns a committer that carries out calls in groups.
    pub(super) fn on_disk(writer: ManualWriter) -> Arc<Self> {
        let disk =
            Disk { writer: Mutex::new(writer), calls: Mutex::default(), wake: Notify::new() };
        Arc::new(Self { disk: Some(disk) })
    }

    /// Carries out a call, and returns its answer; never returns if the store crashes first. After
    /// the store has answered, the call makes its notes before anything else happens.
    pub(super) async fn carry_out<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let Some(disk) = &self.disk else { return call.await };
        let (reply, answer) = oneshot::channel();
        let call = async move {
            let _unheard = reply.send(call.await);
        };
        disk.calls().push_back(Box::pin(call));
        disk.wake.notify_one();
        match answer.await {
            Ok(answer) => answer,
            Err(_crashed) => pending().await,
        }
    }

    /// Makes the writer check whether there is work.
    pub(super) fn look(&self) {
        if let Some(disk) = self.disk.as_ref().filter(|disk| disk.writer().has_work()) {
            disk.wake.notify_one();
        }
    }

    /// Changes the faults of the writer.
    pub(super) fn with_writer(&self, change: impl FnOnce(&mut ManualWriter)) {
        if let Some(disk) = &self.disk {
            change(&mut disk.writer());
        }
    }

    /// Commits group after group, until it is dropped.
    pub(super) async fn run(self: Arc<Self>, world: Arc<World>) {
        let Some(disk) = &self.disk else { return };
        loop {
            disk.wake.notified().await;
            while disk.has_work() {
                let (pause, failures) = draw(&world);
                if pause.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    world.clock.sleep(pause).await;
                }
                if failures > 0 {
                    disk.writer().fail_commits(failures);
                }
                disk.step();
                disk.writer().fail_commits(0);
            }
        }
    }

    /// Commits the next `groups` groups, whose callers are gone.
    pub(super) fn commit(&self, groups: usize) {
        if let Some(disk) = &self.disk {
            (0..groups).for_each(|_| disk.step());
        }
    }
}

/// Draws the time that the writer takes, and the number of its transactions that fail.
fn draw(world: &World) -> (Duration, u32) {
    let mut record = world.record();
    let milliseconds = match record.rng.u8(..16) {
        0..6 => 0,
        6..15 => record.rng.u64(1..6),
        _ => record.rng.u64(1..150),
    };
    let has_faults = record.store_faults.is_some() && !record.is_healed;
    // A command that fails with its group is carried out again, alone.
    let failures = if has_faults && record.rng.u8(..12) == 0 { record.rng.u32(1..4) } else { 0 };
    record.checker.counters.groups_failed += u64::from(failures > 0);
    (Duration::from_millis(milliseconds), failures)
}

impl Disk {
    fn writer(&self) -> MutexGuard<'_, ManualWriter> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn calls(&self) -> MutexGuard<'_, VecDeque<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_work(&self) -> bool {
        !self.calls().is_empty() || self.writer().has_work()
    }

    /// Commits a group, and lets its callers make their notes, in the order of their calls.
    fn step(&self) {
        // Each call is polled at least once, which gives it its place in the writer's queue.
        self.poll_calls();
        let _idle = self.writer().step();
        self.poll_calls();
    }

    fn poll_calls(&self) {
        let mut context = Context::from_waker(Waker::noop());
        let mut calls = std::mem::take(&mut *self.calls());
        calls.retain_mut(|call| call.as_mut().poll(&mut context) == Poll::Pending);
        // Calls that arrived during the polling come after these.
        let came = std::mem::replace(&mut *self.calls(), calls);
        self.calls().extend(came);
    }
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committer").finish_non_exhaustive()
    }
}
