//! The counts of a run of `listen`.

use std::collections::BTreeMap;

use super::seen::Seen;
use crate::failure::{Exit, Failure};

/// The counts of a run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    verified: u64,
    refused: u64,
    answers: BTreeMap<Option<u16>, u64>,
}

impl Tally {
    pub(crate) fn add(&mut self, seen: &Seen) {
        self.received += 1;
        match &seen.verified {
            Some(Ok(())) => self.verified += 1,
            Some(Err(_)) => self.refused += 1,
            None => {}
        }
        *self.answers.entry(seen.status).or_default() += 1;
    }

    /// Returns whether all verified that had to.
    pub(crate) fn checked(&self) -> Result<(), Failure> {
        match self.refused {
            0 => Ok(()),
            refused => Err(Failure::new(
                Exit::CheckFailed,
                format!("{refused} of {} did not verify", self.received),
            )),
        }
    }

    pub(crate) fn summary(&self) -> String {
        let Self { received, verified, refused, answers } = self;
        let answers = answers.iter().map(|(status, count)| match status {
            Some(status) => format!("{status} x {count}"),
            None => format!("none x {count}"),
        });
        let answers = answers.collect::<Vec<_>>().join(", ");
        let verified = match verified + refused {
            0 => String::new(),
            _ => format!(": {verified} verified, {refused} did not"),
        };
        let answers = if answers.is_empty() { answers } else { format!("; answers: {answers}") };
        format!("received {received}{verified}{answers}")
    }
}
