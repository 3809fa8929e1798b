//! The engine under a simulated clock, over a store and a transport that fail: one run per seed.
//!
//! A seed draws everything: endpoints, settings, and the times of publications and failures. The
//! run watches the store's answers and the receivers' requests, and stops at the first broken
//! promise.

mod committer;
mod faulty_store;
mod faulty_transport;
mod kept;
mod moods;
mod operator;
mod oracle;
mod plan;
mod record;
mod recovery;
mod script;
mod watcher;

// The public interface is:
pub use crate::invariants::Counters;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use self::plan::Plan;
use self::record::World;
use crate::SimulatedClock;

/// A bug that is planted on purpose: the simulation must find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each has its test")]
pub enum Sabotage {
    /// The writer lets its groups go on behind commands of this kind.
    GroupsGoOn {
        /// A substring of the name of the command's type.
        behind: &'static str,
    },
    /// A claim returns a delivery that is leased already.
    LeaseIgnored,
    /// A failed attempt never gives its slot back.
    PermitLeaked,
    /// The store answers that it recorded settlements, but did not.
    SettleLost,
}

/// The store of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each has its test")]
pub enum Store {
    /// The store in memory.
    #[default]
    Memory,
    /// The store in a file. Its groups of commands are drawn from the seed, and it can crash.
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

/// The options of a run.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "callers build it")]
pub struct Options {
    /// The store of the run.
    pub store: Store,
    /// The bug to plant.
    pub sabotage: Option<Sabotage>,
    /// Whether to record the trace as text.
    pub verbose: bool,
}

/// The result of a run.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "callers read it")]
pub struct Run {
    /// The first broken promise, if any.
    pub violation: Option<String>,
    /// A hash of all actions, in order, with their times.
    pub hash: u64,
    /// The counters of the run.
    pub counters: Counters,
    /// The trace, one line per action, if it was asked for.
    pub trace: Vec<String>,
}

/// Runs a seed, in its own runtime with a paused clock.
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
