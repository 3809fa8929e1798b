//! The one thread that writes: it takes all waiting commands, and commits them together.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use crate::command::BoxedCommand;
use crate::error::store_error;
use crate::inner::{SqliteInner, WriterEnd};
use crate::refill::{self, RefillRows, SharedEvents};
use crate::write_connection::WriteConnection;

/// The number of commands in one commit.
const MAX_GROUP: usize = 256;

/// The number of queues that are refilled before waiting commands are carried out.
const REFILL_BATCH: usize = 32;

/// Returns whether a command is the last one of its group.
type IsLast = Box<dyn Fn(&BoxedCommand) -> bool + Send>;

/// The writer of a store.
///
/// Fields are dropped from top to bottom: the lock ends when the connection has closed the file.
pub(crate) struct Writer {
    pub(crate) connection: WriteConnection,
    inner: Arc<SqliteInner>,
    pub(crate) queue: Receiver<BoxedCommand>,
    events: SharedEvents,
    /// A field, so that tests can plant a bug: groups that go on behind such a command.
    pub(crate) is_last: IsLast,
    #[cfg(feature = "sabotage")]
    pub(crate) faults: faults::Faults,
    _lock: File,
}

impl Writer {
    pub(crate) fn new(
        connection: WriteConnection,
        inner: Arc<SqliteInner>,
        queue: Receiver<BoxedCommand>,
        lock: File,
    ) -> Self {
        Self {
            connection,
            inner,
            queue,
            events: SharedEvents::default(),
            is_last: Box::new(|command: &BoxedCommand| command.ends_group()),
            #[cfg(feature = "sabotage")]
            faults: faults::Faults::default(),
            _lock: lock,
        }
    }

    /// Writes until the last caller is gone, or the store is closed.
    pub(crate) fn run(mut self) {
        // It is dropped before `self`, and the lock with `self`: callers are refused before another
        // process can own the file.
        let _ended = EndGuard(Arc::clone(&self.inner));
        loop {
            let first = match self.queue.try_recv() {
                Ok(command) => Some(command),
                Err(TryRecvError::Disconnected) => None,
                Err(TryRecvError::Empty) if self.refill() => continue,
                // Deliveries of closed endpoints are cancelled in batches while no command waits. If that
                // fails, it is tried again after the next command, or when the store is opened again.
                Err(TryRecvError::Empty) if self.drain() => continue,
                Err(TryRecvError::Empty) => self.queue.blocking_recv(),
            };
            let Some(first) = first else { return };
            self.carry_out(first);
            if self.inner.is_closing.load(Ordering::Acquire) {
                // Commands that are in the queue already are still carried out.
                self.queue.close();
            }
        }
    }

    /// Carries out a command, in one group with those that wait behind it and may follow it.
    pub(crate) fn carry_out(&mut self, first: BoxedCommand) {
        let mut is_last = (self.is_last)(&first);
        let mut group = vec![first];
        while !is_last
            && group.len() < MAX_GROUP
            && let Ok(command) = self.queue.try_recv()
        {
            is_last = (self.is_last)(&command);
            group.push(command);
        }
        self.inner.writes.is_writing.store(true, Ordering::Relaxed);
        self.commit(group);
        self.inner.writes.is_writing.store(false, Ordering::Relaxed);
        self.refill();
    }

    /// Commits a group at once. If that fails, commits each command alone and in the same order, so that
    /// one bad command does no harm to others.
    fn commit(&mut self, mut group: Vec<BoxedCommand>) {
        let mut outcome = self.transact(&mut group);
        let is_alone = group.len() == 1;
        let is_committed = outcome.is_ok();
        for mut command in group {
            if !is_committed {
                if !is_alone {
                    outcome = self.transact(std::slice::from_mut(&mut command));
                }
                while let Err(error) = &outcome
                    && command.reduce(error)
                {
                    outcome = self.transact(std::slice::from_mut(&mut command));
                }
            }
            // Each command is followed in memory before the next one is written alone: `write` decides by
            // memory.
            let outcome = std::mem::replace(&mut outcome, Ok(()));
            self.answer(command, outcome);
        }
        self.inner.notifier.notify();
    }

    fn transact(&mut self, group: &mut [BoxedCommand]) -> rusqlite::Result<()> {
        let began_at = SystemClock.monotonic();
        let outcome = self.write_group(group);
        if outcome.is_ok() {
            let writes = &self.inner.writes;
            writes.commits.record(SystemClock.monotonic().saturating_since(began_at));
            writes.calls.fetch_add(group.len() as u64, Ordering::Relaxed);
        }
        outcome
    }

    fn write_group(&mut self, group: &mut [BoxedCommand]) -> rusqlite::Result<()> {
        self.connection.begin()?;
        let (connection, inner) = (&mut self.connection, &*self.inner);
        // A panic here is a bug. The transaction is rolled back, so it costs the command alone. A panic
        // in `after_commit` ends the writer: memory would no longer follow the file.
        let written = catch_unwind(AssertUnwindSafe(|| {
            group.iter_mut().try_for_each(|command| command.write(connection, inner))
        }));
        let written = written.unwrap_or(Err(rusqlite::Error::InvalidQuery));
        #[cfg(feature = "sabotage")]
        let written = written.and_then(|()| self.faults.take_commit());
        let outcome = written.and_then(|()| self.connection.commit());
        if outcome.is_err() {
            self.connection.roll_back();
            for command in group {
                command.undo(&self.inner);
            }
        }
        outcome
    }

    fn answer(&mut self, command: BoxedCommand, outcome: rusqlite::Result<()>) {
        match outcome {
            Ok(()) => command.after_commit(&mut self.connection, &self.inner),
            Err(error) => command.after_rollback(store_error(error)),
        }
    }

    /// Refills some of the queues of the backlog that run low; returns whether there were any. One that
    /// cannot be read now asks again later.
    ///
    /// Waiting commands come in between: when a store is opened, all queues run low.
    pub(crate) fn refill(&mut self) -> bool {
        let refills = self.inner.backlog().refills(REFILL_BATCH);
        if refills.is_empty() {
            return false;
        }
        for refill in refills {
            let found = refill::read(self.connection.sqlite(), &refill, &mut self.events);
            #[cfg(feature = "sabotage")]
            let found = self.faults.take_refill().and(found);
            let mut backlog = self.inner.backlog();
            match found {
                Ok(RefillRows { waiting, next, unreadable, .. }) => {
                    backlog.refill(&refill, waiting, next);
                    for why in unreadable {
                        self.inner.deferred_errors.add(why);
                    }
                }
                Err(error) => {
                    backlog.retry_refill(&refill);
                    self.inner.deferred_errors.add(store_error(error));
                }
            }
        }
        self.inner.notifier.notify();
        true
    }

    /// Cancels a batch of deliveries that wait for closed endpoints; returns whether there may be more.
    pub(crate) fn drain(&mut self) -> bool {
        self.connection.drain().unwrap_or_else(|_again_later| {
            self.connection.roll_back();
            false
        })
    }
}

/// Notes when it is dropped that the writer has ended, and how.
struct EndGuard(Arc<SqliteInner>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        let is_panic = std::thread::panicking();
        let end = if is_panic { WriterEnd::Panicked } else { WriterEnd::Closed };
        let _first = self.0.ended.set(end);
        self.0.readers.close();
        // Workers that wait for a change claim now, and get the error.
        self.0.notifier.notify();
    }
}

#[cfg(feature = "sabotage")]
pub(crate) mod faults;
#[cfg(test)]
pub(crate) mod tests;
