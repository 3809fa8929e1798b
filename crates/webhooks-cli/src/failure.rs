//! The ways in which a command fails, each with the exit code of the program.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use serde_json::{Value, json};

/// The pause before a request is made again that failed for a time.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause, whatever the server asks for.
pub(crate) const MAX_PAUSE: Duration = Duration::from_mins(1);

/// The hint for a key that is missing or refused.
pub(crate) const NO_KEY: &str = "give a key with --key @FILE or WEBHOOKS_KEY; if all are lost, `webhooks key create \
                                 NAME --role admin --database FILE` makes one";

/// The exit codes beside 0. `webhooks help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something failed for which nobody who called is to blame.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The server did not answer.
    Unreachable = 3,
    /// The key is missing, or may not do this.
    NotAllowed = 4,
    /// The server has no such thing.
    NotFound = 5,
    /// The server refused it: it is not valid, is in conflict or exceeds a limit.
    Refused = 6,
    /// Some of it was done.
    Partly = 7,
    /// A check failed.
    CheckFailed = 8,
    /// Something did not happen within the time.
    TimedOut = 9,
    /// Ctrl-C.
    Interrupted = 130,
}

/// The texts for `webhooks help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    wrong usage or configuration
  3    the server cannot be reached
  4    not allowed: the key is missing or may not do this
  5    not found at the server
  6    refused: not valid, in conflict, or over a limit
  7    partly done
  8    a check failed
  9    timed out
  130  interrupted by Ctrl-C";

impl Exit {
    /// Returns the word for programs, and the text if nothing else is to be said.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Failed => ("failed", "it failed"),
            Self::Usage => ("usage", "wrong usage"),
            Self::Unreachable => ("unreachable", "the server cannot be reached"),
            Self::NotAllowed => ("not_allowed", "not allowed"),
            Self::NotFound => ("not_found", "not found"),
            Self::Refused => ("refused", "it was refused"),
            Self::Partly => ("partly_done", "it was done in part"),
            Self::CheckFailed => ("check_failed", "a check failed"),
            Self::TimedOut => ("timed_out", "it timed out"),
            Self::Interrupted => ("interrupted", "interrupted"),
        }
    }
}

/// A command's failure: what is wrong, why, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    text: String,
    hint: Option<String>,
    /// The time after which the server asks for another request.
    passes_after: Option<Duration>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), hint: None, passes_after: None, source: None }
    }

    /// Returns a failure of the command line or the configuration.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// Returns a failure about which everything was said.
    pub(crate) fn told(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    pub(crate) fn is_told(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns whether nobody reads the output any longer.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        let source =
            self.source.as_ref().and_then(|source| source.downcast_ref::<std::io::Error>());
        source.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    }

    /// Says what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says that the same request may succeed after this time.
    pub(crate) fn passes_after(mut self, wait: Duration) -> Self {
        self.passes_after = Some(wait);
        self
    }

    /// Returns the pause before the request that failed is made again, if the failure is one that passes: that of a
    /// service that restarts or has too many requests, or of a proxy before it.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let is_away = matches!(self.exit, Exit::Unreachable | Exit::TimedOut | Exit::Failed);
        let wait = self.passes_after.or_else(|| is_away.then_some(PAUSE));
        wait.map(|wait| wait.min(MAX_PAUSE))
    }

    /// Returns what is wrong and why, on one line.
    pub(crate) fn one_line(&self) -> String {
        match self.source.as_deref() {
            Some(source) => format!("{}: {}", self.text, with_causes(source)),
            None => self.text.clone(),
        }
    }

    /// Returns the failure as an object for programs.
    pub(crate) fn json(&self) -> Value {
        let (code, text) = self.exit.words();
        let detail = if self.is_told() { text.to_owned() } else { self.one_line() };
        let mut error = json!({ "code": code, "detail": detail, "exit": self.exit as u8 });
        if let Some(hint) = &self.hint {
            error["hint"] = json!(hint);
        }
        json!({ "error": error })
    }

    /// Returns what to do, if that is known.
    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the failure to read or write a file.
    pub(crate) fn file(verb: &str, path: impl fmt::Display, error: std::io::Error) -> Self {
        let exit = match error.kind() {
            // A thing that is not found is one of the server.
            ErrorKind::NotFound => Exit::Usage,
            ErrorKind::PermissionDenied => Exit::NotAllowed,
            _ => Exit::Failed,
        };
        Self::new(exit, format!("cannot {verb} {path}")).because(error)
    }
}

impl fmt::Display for Failure {
    /// Writes the failure, its causes and the hint, a line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        for error in self.source.as_deref().into_iter().flat_map(|source| causes(source)) {
            write!(f, "\n  because {error}")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Returns an error and its causes on one line.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Returns an error and its causes.
pub(crate) fn causes<'e>(
    error: &'e (dyn Error + 'static),
) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// Returns the failure of a server that answers in another way than a webhook service.
pub(crate) fn not_a_service(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Failed, text).hint("--server must be the URL of a webhook service")
}

/// The failure to write the output.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, "cannot write the output").because(error)
    }
}
