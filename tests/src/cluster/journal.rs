//! The journal of a run: the actions of its processes, one line for each, in the order in which
//! they happened.
//!
//! All processes append to one local file, each line by one write, so the kernel orders the lines:
//! a line that was written because of another comes after it, whichever process wrote them. A
//! written line survives a kill. A line that a kill cut short does not count, and the action that
//! it would have recorded was not done.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use webhooks_core::{DeliveryId, EndpointId, EventId, Timestamp};
use webhooks_dispatch::store::Outcome;

/// A process's end of the journal. All clones are one.
#[derive(Debug, Clone)]
pub struct Journal {
    file: Arc<File>,
    process: Arc<str>,
    calls: Arc<AtomicU64>,
}

/// One action of one process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Line {
    /// The time, by the clock that decides when leases end.
    pub(super) at: Timestamp,
    /// The process that did it, or to which it was done.
    pub(super) process: String,
    pub(super) happening: Happening,
}

/// The kinds of actions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Happening {
    /// The process calls the store. The number is unique within the process.
    Asked { call: u64, question: Question },
    /// The store answered, or failed.
    Answered { call: u64, answer: Option<Answer> },
    /// A request is sent. The number is unique within the process.
    Sent { exchange: u64, event: EventId, endpoint: EndpointId },
    /// An attempt ended.
    Ended { exchange: u64, response: Response },
    /// The process is gone.
    Killed,
    /// The server crashed, and has not started again.
    Crashed,
}

/// The calls of the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Question {
    Publish {
        events: Vec<EventId>,
    },
    Claim {
        now: Timestamp,
        until: Timestamp,
    },
    Extend {
        claims: Vec<Claim>,
        until: Timestamp,
    },
    Settle {
        settlements: Vec<Settlement>,
    },
    /// The time at which something is due.
    NextDue,
}

/// The answers of the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The number of endpoints that get each event; `None` if its id belongs to another event.
    Published {
        deliveries: Vec<Option<usize>>,
    },
    Claimed {
        claimed: Vec<Claimed>,
    },
    Extended {
        lost: Vec<Claim>,
    },
    /// Whether each settlement was recorded.
    Settled {
        kept: Vec<bool>,
    },
    Due,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "webhooks_dispatch::store::Claim")]
struct ClaimParts {
    delivery: DeliveryId,
    token: u64,
}

/// A claim, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim(#[serde(with = "ClaimParts")] pub(super) webhooks_dispatch::store::Claim);

/// A claimed delivery.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Claimed {
    pub(super) claim: Claim,
    pub(super) event: EventId,
    pub(super) endpoint: EndpointId,
    /// The number of the next attempt.
    pub(super) attempt: u32,
    pub(super) since: Timestamp,
}

/// The outcome of a claimed delivery.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Settlement {
    pub(super) claim: Claim,
    #[serde(with = "OutcomeNames")]
    pub(super) outcome: Outcome,
    /// Whether an attempt was made.
    pub(super) is_tried: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Outcome")]
enum OutcomeNames {
    Delivered,
    Retrying { due_at: Timestamp },
    Failed,
    Expired,
    Released,
}

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Response {
    Status(u16),
    /// The transport failed.
    Broken,
    /// The engine stopped it.
    Dropped,
}

impl Journal {
    /// Opens the journal of a run, for the process with this unique name.
    pub fn open(path: &Path, process: &str) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = Arc::new(file.expect("the journal can be written"));
        Self { file, process: process.into(), calls: Arc::default() }
    }

    /// Notes that a process was killed, and is gone.
    pub fn note_kill(&self, process: &str) {
        self.write_for(process, Happening::Killed);
    }

    /// Notes that the server crashed, before it starts again.
    pub fn note_crash(&self) {
        self.write(Happening::Crashed);
    }

    /// Returns a number that no earlier call and no earlier attempt of the process had.
    pub(super) fn number(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn write(&self, happening: Happening) {
        self.write_for(&self.process, happening);
    }

    fn write_for(&self, process: &str, happening: Happening) {
        let line = Line { at: Timestamp::now(), process: process.to_owned(), happening };
        let line = serde_json::to_string(&line).expect("a line is JSON");
        // The line break comes first, because it ends a line that a kill cut short.
        let written = (&*self.file).write_all(format!("\n{line}").as_bytes());
        written.expect("the journal can be written");
    }
}

/// Reads the complete lines, and skips those that were cut short.
///
/// # Panics
/// If more lines were cut short than processes were killed.
pub(super) fn read(path: &Path) -> Vec<Line> {
    let text = std::fs::read(path).expect("the journal can be read");
    let texts = text.split(|byte| *byte == b'\n').filter(|text| !text.is_empty());
    let (mut lines, mut cut): (Vec<Line>, usize) = (Vec::new(), 0);
    for text in texts {
        match serde_json::from_slice(text) {
            Ok(line) => lines.push(line),
            Err(_) => cut += 1,
        }
    }
    let kills = lines.iter().filter(|line| matches!(line.happening, Happening::Killed)).count();
    assert!(cut <= kills, "{cut} lines cannot be read, and {kills} processes were killed");
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_processes_are_read_in_order_without_one_that_was_cut_short() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let [one, other] = ["one", "other"].map(|process| Journal::open(file.path(), process));
        let question = || Question::Publish { events: vec!["evt-1".parse().unwrap()] };
        one.write(Happening::Asked { call: 1, question: question() });
        other.write(Happening::Asked { call: 1, question: question() });
        (&*one.file).write_all(b"\n{\"at\":\"2026").unwrap();
        other.note_kill("one");
        let lines = read(file.path());
        let processes: Vec<&str> = lines.iter().map(|line| &*line.process).collect();
        assert_eq!(processes, ["one", "other", "one"]);
        assert!(matches!(lines[2].happening, Happening::Killed));
    }

    #[test]
    fn settlements_are_read_as_they_were_written() {
        let claim =
            webhooks_dispatch::store::Claim { delivery: DeliveryId::from_u64(7), token: u64::MAX };
        let outcome = Outcome::Retrying { due_at: Timestamp::from_unix_microseconds(1_234_567) };
        let settlement = Settlement { claim: Claim(claim), outcome, is_tried: true };
        let text = serde_json::to_string(&settlement).unwrap();
        let read: Settlement = serde_json::from_str(&text).unwrap();
        assert_eq!((read.claim.0, read.outcome), (claim, outcome), "{text}");
    }
}
