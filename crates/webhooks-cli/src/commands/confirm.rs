//! The question before what cannot be undone.

use std::io::{self, BufRead as _, IsTerminal as _};

use clap::Args;

use crate::context::Context;
use crate::failure::{Exit, Failure};

/// The consent to what cannot be undone.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Confirm {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Confirm {
    /// Asks at a terminal; fails without one, unless there is consent already.
    pub(crate) fn ask(self, context: &Context, question: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if context.global.no_input || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Failure::usage(format!("not confirmed: {question}")).hint("give --yes"));
        }
        context.output.ask(format!("{question} [y/N]"));
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::new(Exit::Failed, "nothing was changed")),
        }
    }
}
