//! The search: it visits all states, breadth first, and checks that every run from each comes to
//! its end.

use std::collections::{BTreeMap, HashMap};

use super::act::act;
use super::state::{Left, State};
use super::steps::steps;
use super::{Command, Promise, Scope, Step};

/// The result of a search.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The number of states that can be reached.
    pub states: usize,
    /// The number of steps from one state to another.
    pub steps: usize,
    /// The promises that are broken, each with a shortest way to break it.
    pub broken: BTreeMap<Promise, Vec<Step>>,
}

/// Every state by its number, and the step by which the search reached it first.
#[derive(Default)]
struct Known {
    numbers: HashMap<State, u32>,
    reached: Vec<(u32, Step)>,
}

impl Known {
    fn trace(&self, mut state: u32) -> Vec<Step> {
        let mut trace = Vec::new();
        while state > 0 {
            let (before, step) = self.reached[index(state) - 1];
            trace.push(step);
            state = before;
        }
        trace.reverse();
        trace
    }
}

/// Explores all states. A step that breaks a promise is noted, and the search does not go beyond
/// it.
///
/// # Panics
/// If there are more than four thousand million states.
pub fn explore(scope: &Scope) -> Report {
    let left = Left {
        faults: scope.faults,
        cancels: scope.allows(Command::Cancel),
        replays: scope.allows(Command::Replay),
        disables: scope.allows(Command::Disable),
        prunes: scope.allows(Command::Prune),
        tries: scope.allows(Command::TryNow),
    };
    let mut report = Report::default();
    let mut known = Known::default();
    // The steps that happen by themselves: from, to.
    let mut fair: Vec<(u32, u32)> = Vec::new();
    let mut is_settled: Vec<bool> = Vec::new();
    let first = State::new(left);
    known.numbers.insert(first.clone(), 0);
    let mut layer = vec![(0, first)];
    while !layer.is_empty() {
        let mut next = Vec::new();
        for (number, state) in layer {
            let mut is_end = state.is_settled();
            for step in steps(scope, &state) {
                report.steps += 1;
                let (after, broken) = act(scope, &state, step);
                if let Some(promise) = broken {
                    report.broken.entry(promise).or_insert_with(|| {
                        let mut trace = known.trace(number);
                        trace.push(step);
                        trace
                    });
                    // The state that it would have led to is unknown.
                    is_end = true;
                    continue;
                }
                let fresh = u32::try_from(known.numbers.len()).expect("states can be numbered");
                let to = *known.numbers.entry(after).or_insert_with_key(|after| {
                    next.push((fresh, after.clone()));
                    known.reached.push((number, step));
                    fresh
                });
                if step.is_fair() {
                    fair.push((number, to));
                }
            }
            is_settled.push(is_end);
        }
        layer = next;
    }
    report.states = known.numbers.len();
    if let Some(stuck) = stuck(&is_settled, &fair) {
        report.broken.insert(Promise::EverythingEnds, known.trace(stuck));
    }
    report
}

/// Returns a state from which a run of fair steps does not end, or ends with something unsettled.
///
/// It removes settled states that no fair step leads on from, and then the states that lead to
/// removed states only. The states that are left lead to a circle, or to an end that is not
/// settled.
fn stuck(is_settled: &[bool], fair: &[(u32, u32)]) -> Option<u32> {
    let mut open = vec![0_u32; is_settled.len()];
    let mut starts = vec![0_usize; is_settled.len() + 1];
    for (from, to) in fair {
        open[index(*from)] += 1;
        starts[index(*to) + 1] += 1;
    }
    for place in 1..starts.len() {
        starts[place] += starts[place - 1];
    }
    let mut befores = vec![0_u32; fair.len()];
    let mut filled = starts.clone();
    for (from, to) in fair {
        befores[filled[index(*to)]] = *from;
        filled[index(*to)] += 1;
    }
    let mut ends: Vec<usize> =
        (0..open.len()).filter(|state| open[*state] == 0 && is_settled[*state]).collect();
    let mut ended = vec![false; open.len()];
    while let Some(state) = ends.pop() {
        ended[state] = true;
        for before in &befores[starts[state]..starts[state + 1]] {
            let left = &mut open[index(*before)];
            *left -= 1;
            if *left == 0 {
                ends.push(index(*before));
            }
        }
    }
    let stuck = ended.iter().position(|ended| !ended);
    stuck.and_then(|state| u32::try_from(state).ok())
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
