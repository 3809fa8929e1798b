//! The one thread that writes: it takes all commands that wait, and commits them at once.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::oneshot;
use webhooks_dispatch::store::StoreError;

use crate::error::store_error;
use crate::refill::Found;
use crate::store::{Shared, WriterEnd};
use crate::tables::Tables;

/// How many commands are committed together at most.
const MAX_GROUP: usize = 256;

/// How many lanes are refilled at a time.
const REFILLS: usize = 32;

/// A command, before it is known what it answers.
pub(crate) type Job = Box<dyn AnyCommand>;

/// What the writer does for somebody.
///
/// The writer calls `write` for each command of a group, commits, and then calls `finish` for each.
/// So `write` sees the rows of the commands before it in its group, and memory (endpoints, backlog,
/// row numbers) as it was before all of them.
pub(crate) trait Write: Send + 'static {
    /// What the caller gets.
    type Answer: Send + 'static;

    /// Whether no command may come after this one in its group.
    ///
    /// It must be `true` if `finish` changes any memory by which the `write` of another command
    /// decides. Only a command that states why others may follow it sets it to `false`.
    const ENDS_GROUP: bool = true;

    /// Writes within a transaction. It may be called again if that was rolled back.
    fn write(&mut self, tables: &mut Tables, shared: &Shared) -> rusqlite::Result<()>;

    /// Follows in memory, once it is committed, and returns the answer.
    fn finish(self, tables: &mut Tables, shared: &Shared) -> Self::Answer;

    /// Undoes in memory what [`write`](Self::write) did there: the transaction was rolled back.
    fn undo(&mut self, _shared: &Shared) {}

    /// After it failed alone, makes it do with less; returns whether it could, and is tried again.
    fn reduce(&mut self, _error: &rusqlite::Error) -> bool {
        false
    }
}

/// The same with its types hidden, and with the sender of its answer.
pub(crate) trait AnyCommand: Send {
    fn ends_group(&self) -> bool;
    /// The name of its type.
    #[cfg(feature = "sabotage")]
    fn kind(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
    fn write(&mut self, tables: &mut Tables, shared: &Shared) -> rusqlite::Result<()>;
    fn finish(self: Box<Self>, tables: &mut Tables, shared: &Shared);
    fn undo(&mut self, shared: &Shared);
    fn reduce(&mut self, error: &rusqlite::Error) -> bool;
    fn give_up(self: Box<Self>, error: StoreError);
}

pub(crate) struct Command<W: Write> {
    write: W,
    reply: oneshot::Sender<Result<W::Answer, StoreError>>,
}

impl<W: Write> Command<W> {
    pub(crate) fn new(write: W, reply: oneshot::Sender<Result<W::Answer, StoreError>>) -> Self {
        Self { write, reply }
    }
}

impl<W: Write> AnyCommand for Command<W> {
    fn ends_group(&self) -> bool {
        W::ENDS_GROUP
    }

    fn write(&mut self, tables: &mut Tables, shared: &Shared) -> rusqlite::Result<()> {
        self.write.write(tables, shared)
    }

    fn finish(self: Box<Self>, tables: &mut Tables, shared: &Shared) {
        let Self { write, reply } = *self;
        // Whoever stopped waiting does not want the answer.
        let _unheard = reply.send(Ok(write.finish(tables, shared)));
    }

    fn undo(&mut self, shared: &Shared) {
        self.write.undo(shared);
    }

    fn reduce(&mut self, error: &rusqlite::Error) -> bool {
        self.write.reduce(error)
    }

    fn give_up(self: Box<Self>, error: StoreError) {
        let _unheard = self.reply.send(Err(error));
    }
}

/// Makes the writer look at what runs low in memory.
pub(crate) struct Nudge;

impl AnyCommand for Nudge {
    // It changes nothing.
    fn ends_group(&self) -> bool {
        false
    }

    fn write(&mut self, _: &mut Tables, _: &Shared) -> rusqlite::Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>, _: &mut Tables, _: &Shared) {}

    fn undo(&mut self, _: &Shared) {}

    fn reduce(&mut self, _: &rusqlite::Error) -> bool {
        false
    }

    fn give_up(self: Box<Self>, _: StoreError) {}
}

/// Tells, when it goes, that the writer has ended, and how.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let is_panic = std::thread::panicking();
        let end = if is_panic { WriterEnd::Panicked } else { WriterEnd::Closed };
        let _first = self.0.ended.set(end);
        self.0.notifier.notify();
    }
}

/// Returns whether a command is the last one of its group.
type IsLast = Box<dyn Fn(&Job) -> bool + Send>;

pub(crate) struct Writer {
    tables: Tables,
    shared: Arc<Shared>,
    queue: Receiver<Job>,
    /// Returns whether a command is the last one of its group.
    is_last: IsLast,
    #[cfg(feature = "sabotage")]
    faults: manual::Faults,
    _lock: File,
}

impl Writer {
    pub(crate) fn new(
        tables: Tables,
        shared: Arc<Shared>,
        queue: Receiver<Job>,
        lock: File,
    ) -> Self {
        Self {
            tables,
            shared,
            queue,
            is_last: Box::new(|job: &Job| job.ends_group()),
            #[cfg(feature = "sabotage")]
            faults: manual::Faults::default(),
            _lock: lock,
        }
    }

    /// Writes until the last caller is gone, or the store is closed.
    pub(crate) fn run(mut self) {
        let _ended = Ending(Arc::clone(&self.shared));
        self.refill();
        loop {
            let first = match self.queue.try_recv() {
                Ok(job) => Some(job),
                Err(TryRecvError::Disconnected) => None,
                // What is left to cancel is done bit by bit, whenever nobody waits; if that fails,
                // again after the next command, and the rest when the store is opened again.
                Err(TryRecvError::Empty) if self.drain() => continue,
                Err(TryRecvError::Empty) => self.queue.blocking_recv(),
            };
            let Some(first) = first else { return };
            self.carry_out(first);
            if self.shared.is_closing.load(Ordering::Acquire) {
                // What waits is still carried out.
                self.queue.close();
            }
        }
    }

    /// Carries out a command, together with those that wait behind it and may follow it.
    fn carry_out(&mut self, first: Job) {
        let mut is_last = (self.is_last)(&first);
        let mut group = vec![first];
        while !is_last
            && group.len() < MAX_GROUP
            && let Ok(job) = self.queue.try_recv()
        {
            is_last = (self.is_last)(&job);
            group.push(job);
        }
        self.commit(group);
        self.refill();
    }

    /// Commits a group at once; if that fails, each of it alone and in the same order, so that one
    /// bad command does no harm to others.
    fn commit(&mut self, mut group: Vec<Job>) {
        let mut outcome = self.transact(&mut group);
        let is_alone = group.len() == 1;
        let is_committed = outcome.is_ok();
        for mut job in group {
            if !is_committed {
                if !is_alone {
                    outcome = self.transact(std::slice::from_mut(&mut job));
                }
                while let Err(error) = &outcome
                    && job.reduce(error)
                {
                    outcome = self.transact(std::slice::from_mut(&mut job));
                }
            }
            let outcome = std::mem::replace(&mut outcome, Ok(()));
            self.answer(job, outcome);
        }
        self.shared.notifier.notify();
    }

    fn transact(&mut self, group: &mut [Job]) -> rusqlite::Result<()> {
        self.tables.begin()?;
        let (tables, shared) = (&mut self.tables, &*self.shared);
        // A panic here is a bug; it costs the command and not the store.
        let written = catch_unwind(AssertUnwindSafe(|| {
            group.iter_mut().try_for_each(|job| job.write(tables, shared))
        }));
        let written = written.unwrap_or(Err(rusqlite::Error::InvalidQuery));
        #[cfg(feature = "sabotage")]
        let written = written.and_then(|()| self.faults.take_commit());
        let outcome = written.and_then(|()| self.tables.commit());
        if outcome.is_err() {
            self.tables.roll_back();
            for job in group {
                job.undo(&self.shared);
            }
        }
        outcome
    }

    fn answer(&mut self, job: Job, outcome: rusqlite::Result<()>) {
        match outcome {
            Ok(()) => job.finish(&mut self.tables, &self.shared),
            Err(error) => job.give_up(store_error(error)),
        }
    }

    /// Reads into memory what runs low there. What cannot be read now is asked for again later.
    fn refill(&mut self) {
        loop {
            let refills = self.shared.backlog().refills(REFILLS);
            if refills.is_empty() {
                return;
            }
            for refill in refills {
                let found = self.tables.waiting(&refill);
                #[cfg(feature = "sabotage")]
                let found = self.faults.take_refill().and(found);
                let mut backlog = self.shared.backlog();
                match found {
                    Ok(Found { waiting, next, unreadable }) => {
                        backlog.refill(&refill, waiting, next);
                        for why in unreadable {
                            self.shared.troubles.add(why);
                        }
                    }
                    Err(error) => {
                        backlog.retry_refill(&refill);
                        self.shared.troubles.add(store_error(error));
                    }
                }
            }
            self.shared.notifier.notify();
        }
    }

    /// Cancels some of what waits for endpoints that are gone; returns whether there is more.
    fn drain(&mut self) -> bool {
        self.tables.drain().unwrap_or_else(|_again_later| {
            self.tables.roll_back();
            false
        })
    }
}

#[cfg(feature = "sabotage")]
pub(crate) mod manual;
#[cfg(test)]
pub(crate) mod tests;
