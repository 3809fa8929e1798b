//! The cost of a claim, of settling what it brought, and of asking for the next due time, by the
//! number of endpoints that something waits for.
//!
//! The cost is processor time. The time that a commit waits for the disk is the same for all, and
//! differs from one second to the next.

use std::time::{Duration, Instant};

use webhooks_dispatch::store::ClaimRequest;
use webhooks_tests::postgres::Cluster;

use super::crowd::{Crowd, Kind, STEP};
use super::figures::{Figures, float, median, note, only};
use super::request::{claim, settle};

/// The size that the others are compared with.
const FEW: usize = 100;

const QUICK_ROUNDS: usize = 5;

/// The time after which a round ends before it has made all its turns: a claim may take thousands of
/// times as long as another.
const BUDGET: Duration = Duration::from_millis(300);

/// The part of the turns that fills the caches first.
const WARM_UP_PART: usize = 10;

/// The number of deliveries that a turn claims if all of the crowd has something due: a small part.
const SOME: usize = 32;

/// The number of deliveries that the other turns ask for, as an idle worker does.
const ROOM: usize = 768;

/// The thing that the crowd waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// A retry in an hour, while an event for another endpoint is claimed.
    Retry,
    /// A worker that has enough for each of them, while an event for another endpoint is claimed.
    Busy,
    /// A claim: a delivery of each endpoint is due.
    Due,
}

pub(crate) async fn measure(kind: Kind, cluster: &Cluster, is_quick: bool, figures: &mut Figures) {
    let (sizes, rounds): (&[usize], usize) =
        if is_quick { (&[FEW, 20_000], QUICK_ROUNDS) } else { (&[FEW, 20_000, 100_000], 9) };
    println!("\n{kind:?}: processor µs a turn, {rounds} rounds");
    let mut crowds = Vec::new();
    for size in sizes {
        crowds.push(Crowd::open(kind, *size, cluster).await);
    }
    let store = kind.suffix();
    let mut worst = vec![0_f64; sizes.len()];
    let mut note_claims = |name: &str, ratios: &[f64], figures: &mut Figures| {
        for (n, (size, ratio)) in sizes.iter().zip(ratios).enumerate().skip(1) {
            let size = size / 1_000;
            note(figures, &format!("claim_{name}{store}_{size}k_endpoints_over_100"), *ratio);
            worst[n] = worst[n].max(*ratio);
            note(figures, &format!("claim{store}_{size}k_endpoints_over_100"), worst[n]);
        }
    };
    if only("claims") {
        let ratios = compare(&mut crowds, Waits::Retry, rounds).await;
        note_claims("waiting", &ratios, figures);
    }
    for crowd in &mut crowds {
        crowd.deliver().await;
        crowd.publish_to_crowd(1).await;
    }
    if only("busy") {
        let ratios = compare(&mut crowds, Waits::Busy, rounds).await;
        for (size, ratio) in sizes.iter().zip(&ratios).skip(1) {
            let size = size / 1_000;
            note(figures, &format!("busy_{size}k_over_100{store}"), *ratio);
        }
    }
    if only("claims") {
        let ratios = compare(&mut crowds, Waits::Due, rounds).await;
        note_claims("due", &ratios, figures);
    }
}

/// Returns the cost of a turn in each store over that in the first one.
async fn compare(crowds: &mut [Crowd], waits: Waits, rounds: usize) -> Vec<f64> {
    let mut costs = vec![Vec::new(); crowds.len()];
    for _ in 0..rounds {
        for (crowd, costs) in crowds.iter_mut().zip(&mut costs) {
            prepare(crowd, waits).await;
            costs.push(cost(crowd, waits).await);
        }
    }
    // Each round is compared with that of the first store just before it.
    let over_first = |costs_here: &Vec<f64>| {
        median(costs_here.iter().zip(&costs[0]).map(|(here, first)| here / first).collect())
    };
    let ratios: Vec<f64> = costs.iter().map(over_first).collect();
    let name = match waits {
        Waits::Retry => "with a retry in an hour; claims and settles one of another",
        Waits::Busy => "due and busy; claims one of another",
        Waits::Due => "due; claims and settles 32",
    };
    for ((crowd, costs), ratio) in crowds.iter().zip(costs).zip(&ratios) {
        let (size, micros) = (crowd.size, median(costs) * 1e6);
        println!("{size:>7} endpoints {name}: {micros:>9.1}, {ratio:.3} times");
    }
    ratios
}

/// The most turns of a round: enough for the clock to be precise.
fn most_turns(kind: Kind) -> usize {
    match kind {
        Kind::Memory => 2_000,
        Kind::Sqlite => 200,
        Kind::Postgres => 100,
    }
}

/// Publishes what the turns of a round claim.
async fn prepare(crowd: &mut Crowd, waits: Waits) {
    let turns = most_turns(crowd.kind);
    if waits == Waits::Due {
        // More than the turns claim, since they do not take the same of each endpoint.
        let needed = (turns * SOME * 3 / 2).max(crowd.size / 2).saturating_sub(crowd.due);
        crowd.publish_to_crowd(needed.div_ceil(crowd.size)).await;
    } else {
        crowd.publish_to_healthy(turns).await;
    }
    crowd.tidy().await;
}

/// Returns the processor seconds of a turn: a claim and its settlement. Beside busy endpoints it is the
/// claim alone.
async fn cost(crowd: &mut Crowd, waits: Waits) -> f64 {
    let most = most_turns(crowd.kind);
    let warm_up = most / WARM_UP_PART;
    make_turns(crowd, waits, warm_up, BUDGET / 10).await;
    let before = crowd.cpu();
    let turns = make_turns(crowd, waits, most - warm_up, BUDGET).await;
    let each = (crowd.cpu() - before) / float(turns);
    // Settles what the turns have left.
    crowd.advance(STEP * u32::try_from(most).unwrap());
    if waits != Waits::Due {
        crowd.deliver_to_healthy().await;
    }
    each
}

/// Makes at most `most` turns in about `time`; returns their number.
async fn make_turns(crowd: &mut Crowd, waits: Waits, most: usize, time: Duration) -> usize {
    let (limit, brings) = if waits == Waits::Due { (SOME, SOME) } else { (ROOM, 1) };
    let (start, mut turns) = (Instant::now(), 0);
    while turns < most && (turns < 2 || start.elapsed() < time) {
        crowd.advance(STEP);
        let request = if waits == Waits::Busy { &crowd.busy } else { &crowd.free };
        let request = ClaimRequest { now: crowd.now, limit, ..request.clone() };
        let claimed = claim(&crowd.worker, request).await;
        assert_eq!(claimed.len(), brings);
        match waits {
            Waits::Busy => crowd.unsettled.extend(claimed),
            Waits::Retry => settle(&crowd.worker, &claimed, crowd.now.wall).await,
            Waits::Due => {
                settle(&crowd.worker, &claimed, crowd.now.wall).await;
                crowd.due -= brings;
            }
        }
        turns += 1;
    }
    turns
}
