//! Commands to the writer: what they do within a transaction, and after it.

use tokio::sync::oneshot;
use webhooks_dispatch::store::StoreError;

use crate::inner::SqliteInner;
use crate::write_connection::WriteConnection;

/// A change of the store that a caller asks for.
///
/// The writer calls `write` for each command of a group, commits, and then calls `after_commit` for
/// each. So `write` sees the rows of the commands before it in its group, and memory (endpoints,
/// backlog, row numbers) as it was before all of them.
pub(crate) trait WriteCommand: Send + 'static {
    /// The result for the caller.
    type Answer: Send + 'static;

    /// Whether no command may come after this one in its group.
    ///
    /// It must be `true` if `after_commit` changes any memory by which the `write` of another
    /// command decides. Only a command that states why others may follow it sets it to `false`.
    const ENDS_GROUP: bool = true;

    /// Writes within a transaction. It is called again if that was rolled back and is tried anew.
    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()>;

    /// Brings memory up to date with what is committed now, and returns the answer.
    fn after_commit(self, connection: &mut WriteConnection, inner: &SqliteInner) -> Self::Answer;

    /// Undoes in memory what [`write`](Self::write) did there: the transaction was rolled back.
    fn undo(&mut self, _inner: &SqliteInner) {}

    /// Makes a command that failed alone do with less. Returns whether it could, and is tried again.
    fn reduce(&mut self, _error: &rusqlite::Error) -> bool {
        false
    }
}

/// A command in the writer's queue.
pub(crate) type BoxedCommand = Box<dyn QueuedCommand>;

/// A [`WriteCommand`] with its types hidden, and with the sender of its answer.
pub(crate) trait QueuedCommand: Send {
    fn ends_group(&self) -> bool;
    /// Returns the name of its type.
    #[cfg(feature = "sabotage")]
    fn kind(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()>;
    fn after_commit(self: Box<Self>, connection: &mut WriteConnection, inner: &SqliteInner);
    fn undo(&mut self, inner: &SqliteInner);
    fn reduce(&mut self, error: &rusqlite::Error) -> bool;
    /// Answers with the error of the last try, which was rolled back and undone.
    fn after_rollback(self: Box<Self>, error: StoreError);
}

pub(crate) struct Command<W: WriteCommand> {
    write: W,
    reply: oneshot::Sender<Result<W::Answer, StoreError>>,
}

impl<W: WriteCommand> Command<W> {
    pub(crate) fn new(write: W, reply: oneshot::Sender<Result<W::Answer, StoreError>>) -> Self {
        Self { write, reply }
    }
}

impl<W: WriteCommand> QueuedCommand for Command<W> {
    fn ends_group(&self) -> bool {
        W::ENDS_GROUP
    }

    fn write(
        &mut self,
        connection: &mut WriteConnection,
        inner: &SqliteInner,
    ) -> rusqlite::Result<()> {
        self.write.write(connection, inner)
    }

    fn after_commit(self: Box<Self>, connection: &mut WriteConnection, inner: &SqliteInner) {
        let Self { write, reply } = *self;
        // A caller that stopped waiting does not want the answer.
        let _unheard = reply.send(Ok(write.after_commit(connection, inner)));
    }

    fn undo(&mut self, inner: &SqliteInner) {
        self.write.undo(inner);
    }

    fn reduce(&mut self, error: &rusqlite::Error) -> bool {
        self.write.reduce(error)
    }

    fn after_rollback(self: Box<Self>, error: StoreError) {
        let _unheard = self.reply.send(Err(error));
    }
}

/// An empty command: after it, as after each, the writer refills the backlog and looks whether the
/// store is closing.
pub(crate) struct Wakeup;

impl QueuedCommand for Wakeup {
    // It changes nothing.
    fn ends_group(&self) -> bool {
        false
    }

    fn write(&mut self, _: &mut WriteConnection, _: &SqliteInner) -> rusqlite::Result<()> {
        Ok(())
    }

    fn after_commit(self: Box<Self>, _: &mut WriteConnection, _: &SqliteInner) {}

    fn undo(&mut self, _: &SqliteInner) {}

    fn reduce(&mut self, _: &rusqlite::Error) -> bool {
        false
    }

    fn after_rollback(self: Box<Self>, _: StoreError) {}
}
