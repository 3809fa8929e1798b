//! The signals that end a command, and the one that makes it read files anew.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use crate::failure::{Exit, Failure};
use crate::output::Output;

/// The time in which a command takes note of a signal that it has taken, and in which the last words are written.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most signals that a command has not taken note of.
const WAITING: usize = 8;

/// The meaning of a signal for the command that runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interruption(Arc<Mutex<Left>>);

/// The things that a command leaves when it is interrupted.
#[derive(Debug, Default)]
struct Left {
    advice: Option<String>,
    unfinished: Vec<PathBuf>,
    /// The way of signals to a command that has taken them.
    command: Option<mpsc::Sender<()>>,
}

impl Interruption {
    /// Says from now on how to go on after a signal.
    pub(crate) fn advise(&self, advice: impl Into<String>) {
        self.left().advice = Some(advice.into());
    }

    /// Removes these files at a signal, if they are there: nobody needs them any longer.
    pub(crate) fn remove(&self, unfinished: Vec<PathBuf>) {
        self.left().unfinished = unfinished;
    }

    /// Returns the signals for a command that ends by itself, since it has something to end.
    pub(crate) fn take(&self) -> Signals {
        let (command, signals) = mpsc::channel(WAITING);
        self.left().command = Some(command);
        Signals(signals)
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the program at the first signal, wherever it is: it may wait for standard input, which nothing wakes.
    /// Signals that the command has taken are its own. It is ended if it takes no note of one: then it is in a call
    /// that blocks, such as a write into a pipe that nobody reads.
    pub(crate) async fn end(self, mut received: Received, output: Output) {
        loop {
            received.next().await;
            let command = self.left().command.clone();
            let Some(command) = command else { self.exit(output).await };
            if command.is_closed() {
                // The command has ended, and only its last words are left.
                self.exit(output).await;
            }
            // It has not taken note of the others if there is no room.
            let _full = command.try_send(());
            let this = self.clone();
            tokio::spawn(async move {
                SystemClock.sleep(PATIENCE).await;
                if !command.is_closed() && command.capacity() < command.max_capacity() {
                    this.exit(output).await;
                }
            });
        }
    }

    /// Ends the program. Its last words are not waited for longer than [`PATIENCE`]: they may have the same pipe.
    async fn exit(&self, output: Output) -> ! {
        let (advice, unfinished) = {
            let mut left = self.left();
            (left.advice.take(), std::mem::take(&mut left.unfinished))
        };
        for path in unfinished {
            // It may have got its name.
            let _gone = std::fs::remove_file(path);
        }
        let failure = Failure::new(Exit::Interrupted, "interrupted");
        let failure = match advice {
            Some(advice) => failure.hint(advice),
            None => failure,
        };
        let told = tokio::task::spawn_blocking(move || {
            output.end_progress();
            Output::failure(&failure, output.is_json());
        });
        tokio::select! {
            _told = told => {}
            () = SystemClock.sleep(PATIENCE) => {}
        }
        // The command may be in the middle of a call that blocks.
        std::process::exit(Exit::Interrupted as i32)
    }
}

/// The signals that a command has taken.
#[derive(Debug)]
pub(crate) struct Signals(mpsc::Receiver<()>);

impl Signals {
    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // Another part of the command has taken them since.
            std::future::pending::<()>().await;
        }
    }
}

/// Ctrl-C, and the signal by which a service manager ends a program.
#[derive(Debug)]
pub(crate) struct Received {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Received {
    pub(crate) fn new() -> Result<Self, Failure> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};

            let failed =
                |error| Failure::new(Exit::Failed, "cannot wait for signals").because(error);
            let terminate = signal(SignalKind::terminate()).map_err(failed)?;
            let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
            Ok(Self { terminate, interrupt })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _received = self.terminate.recv() => {}
            _received = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// SIGHUP, by which people ask a service to read its files anew.
#[derive(Debug)]
pub(crate) struct Hangups {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangups {
    /// Takes the signal, which would end the process otherwise.
    pub(crate) fn new() -> Result<Self, Failure> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};

            let signal = signal(SignalKind::hangup()).map_err(|error| {
                Failure::new(Exit::Failed, "cannot wait for SIGHUP").because(error)
            })?;
            Ok(Self { signal })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if self.signal.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}
