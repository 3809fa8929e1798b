//! The signals that end a command, and the one that makes it read files anew.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::failure::{Exit, Failure};
use crate::output::Output;

/// The meaning of a signal for the command that runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interruption(Arc<Mutex<Left>>);

/// The things that a command leaves when it is interrupted.
#[derive(Debug, Default)]
struct Left {
    advice: Option<String>,
    unfinished: Vec<PathBuf>,
    is_of_command: bool,
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
    pub(crate) fn take(&self) -> Result<Signals, Failure> {
        let signals = Signals::new()?;
        self.left().is_of_command = true;
        Ok(signals)
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the program at the first signal, wherever it is: it may wait for standard input, which nothing wakes.
    /// Signals that the command has taken are its own.
    pub(crate) async fn end(self, mut signals: Signals, output: Output) {
        signals.next().await;
        let mut left = self.left();
        if left.is_of_command {
            return;
        }
        output.end_progress();
        for path in std::mem::take(&mut left.unfinished) {
            // It may have got its name.
            let _gone = std::fs::remove_file(path);
        }
        let failure = Failure::new(Exit::Interrupted, "interrupted");
        let failure = match left.advice.take() {
            Some(advice) => failure.hint(advice),
            None => failure,
        };
        Output::failure(&failure, output.is_json());
        // The command may be in the middle of a call that blocks.
        std::process::exit(Exit::Interrupted as i32);
    }
}

/// Ctrl-C, and the signal by which a service manager ends a program.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
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
    pub(crate) async fn next(&mut self) {
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
