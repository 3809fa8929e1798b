//! The engine under a simulated clock, over a store and a transport that fail: one seed, one run.
//!
//! A seed draws everything: endpoints, settings, what is published when, what fails when. The run
//! watches what the store answered and what the receivers got, and stops at the first thing that
//! breaks a promise.

mod committer;
mod faulty_store;
mod faulty_transport;
mod finale;
mod kept;
mod moods;
mod operator;
mod oracle;
mod plan;
mod record;
mod script;
mod watcher;

// The public interface is:
pub use crate::invariants::Tally;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use self::plan::Plan;
use self::record::World;
use crate::SimulatedClock;

/// A bug planted on purpose: the simulation must find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each has its test")]
pub enum Sabotage {
    /// The writer lets its groups go on behind commands of this kind.
    GroupsGoOn {
        /// A part of the name of the command's type.
        behind: &'static str,
    },
    /// The store hands out a delivery that is leased already.
    LeaseIgnored,
    /// A failed exchange never gives its slot back.
    PermitLeaked,
    /// The store says that it kept what became of deliveries, and did not.
    SettleLost,
}

/// Which store to run over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each has its test")]
pub enum Store {
    /// The one in memory.
    #[default]
    Memory,
    /// The one in a file, whose groups of commands are drawn from the seed, and which can crash.
    Sqlite,
}

impl FromStr for Store {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "memory" => Ok(Self::Memory),
            "sqlite" => Ok(Self::Sqlite),
            _ => Err(format!("{text:?} is no store: memory or sqlite")),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
        })
    }
}

/// How to run a seed.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct Options {
    /// Which store to run over.
    pub store: Store,
    /// Which bug to plant.
    pub sabotage: Option<Sabotage>,
    /// Whether to keep the trace as text.
    pub verbose: bool,
}

/// How a run went.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "callers read it")]
pub struct Run {
    /// What was broken, if anything was.
    pub violation: Option<String>,
    /// A hash of all that happened, in order, with its time.
    pub hash: u64,
    /// What was exercised.
    pub tally: Tally,
    /// What happened, one line each, if asked for.
    pub trace: Vec<String>,
}

/// Runs a seed, in a runtime of its own with a paused clock.
pub fn run(seed: u64, options: Options) -> Run {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    let world = runtime.block_on(async {
        let world = Arc::new(World::new(seed, options, SimulatedClock::start()));
        script::play(Plan::draw(seed), &world).await;
        world
    });
    drop(runtime);
    world.finish()
}
