//! Figures over time: exact, by endpoint and step, and kept small.

use std::time::Duration;

use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::{
    Replay, Undelivered,
    figures::{FailureClass, FigureKind, Figures, FiguresQuery, FiguresRow, FiguresStep},
    store::{ExpungeRequest, Outcome, PruneRequest, SerializedEvent},
    transport::ErrorClass,
};
use webhooks_registry::{DisableReason, EndpointKey, store::StateChange};

use super::replay::replay;
use super::{
    AnyStore, at, cancel, claim, deliveries_of, endpoint, endpoint_id, event, key, publish,
    register, request, settle, settlement, tenant,
};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The kind of an attempt of the suite that failed.
const UNAVAILABLE: FigureKind = FigureKind::Failure(FailureClass::Status(5));

/// The bucket of the attempts of the suite, which take 15 ms.
fn within() -> FigureKind {
    FigureKind::within(Duration::from_millis(15))
}

/// Returns a query for all of the first two hundred days.
fn all(step: FiguresStep) -> FiguresQuery {
    let (since, until) = (at(0), at(200 * DAY));
    FiguresQuery { tenant: None, endpoint: None, since, until, step }
}

async fn read(store: &impl AnyStore, query: FiguresQuery) -> Vec<FiguresRow> {
    store.figures(query).await.expect("a store that works")
}

fn row(second: u64, counts: &[(FigureKind, u64)]) -> FiguresRow {
    let mut figures = Figures::default();
    for (kind, count) in counts {
        figures.add(*kind, *count);
    }
    FiguresRow { at: at(second), figures }
}

/// Checks the figures of all time together.
async fn check(store: &impl AnyStore, counts: &[(FigureKind, u64)], reason: &str) {
    let found = read(store, all(FiguresStep::Whole)).await;
    assert_eq!(found, [row(0, counts)], "{reason}");
}

/// Publishes an event and settles all that is due with this outcome.
async fn deliver(store: &impl AnyStore, id: &str, outcome: Outcome, second: u64) {
    publish(store, &[event(id)], at(second)).await;
    for claimed in claim(store, at(second)).await {
        let _recorded = settle(store, &claimed, outcome, at(second)).await;
    }
}

async fn prune(store: &impl AnyStore, before: Timestamp, now: u64) {
    // It is rolled up in small steps.
    for _ in 0..20 {
        let request = PruneRequest { tenant: None, before, limit: 1_000, now: at(now) };
        store.prune(request).await.expect("a store that works");
    }
}

pub async fn each_outcome_is_counted(store: impl AnyStore) {
    use FigureKind::{Accepted, Cancelled, Delivered, Failed};

    assert_eq!(read(&store, all(FiguresStep::Whole)).await, []);
    register(&store, "a", endpoint()).await;
    publish(&store, &["a", "b", "c", "d", "e"].map(event), at(0)).await;
    publish(&store, &[event("a")], at(0)).await;
    check(&store, &[(Accepted, 5)], "a duplicate is not accepted").await;
    let claimed = claim(&store, at(0)).await;
    let _recorded = settle(&store, &claimed[0], Outcome::Delivered, at(1)).await;
    check(&store, &[(Accepted, 5), (Delivered, 1), (within(), 1)], "delivered").await;
    let _recorded = settle(&store, &claimed[1], Outcome::Failed, at(1)).await;
    let retrying = Outcome::Retrying { due_at: at(2) };
    let _recorded = settle(&store, &claimed[2], retrying, at(1)).await;
    let counts = [(Accepted, 5), (Delivered, 1), (Failed, 1), (UNAVAILABLE, 2), (within(), 3)];
    check(&store, &counts, "failed for now, and for good").await;
    let _recorded = settle(&store, &claimed[3], Outcome::Released, at(1)).await;
    check(&store, &counts, "a release is no attempt").await;
    let _recorded = settle(&store, &claimed[4], Outcome::Expired, at(1)).await;
    let expired = [counts.as_slice(), &[(Cancelled, 1)]].concat();
    check(&store, &expired, "expired").await;
    for again in &claimed {
        let _lost = settle(&store, again, Outcome::Delivered, at(3)).await;
    }
    check(&store, &expired, "a lost claim counts for nothing").await;
    let mut stranger = claim(&store, at(3)).await.remove(0);
    stranger.claim.token += 1_000;
    let _lost = settle(&store, &stranger, Outcome::Delivered, at(3)).await;
    check(&store, &expired, "nor does a stranger's").await;
}

pub async fn each_cancellation_is_counted(store: impl AnyStore) {
    use FigureKind::{Accepted, Cancelled};

    register(&store, "a", endpoint()).await;
    publish(&store, &["a", "b"].map(event), at(0)).await;
    let first = deliveries_of(&store, "a").await[0].id;
    cancel(&store, first, at(1)).await.expect("it waits");
    cancel(&store, first, at(1)).await.expect_err("it has ended");
    check(&store, &[(Accepted, 2), (Cancelled, 1)], "by hand").await;
    let event_id = Some(event("b").id);
    let tenant = TenantId::default();
    let request = ExpungeRequest { tenant, event: event_id, after: None, limit: 1, now: at(1) };
    for _ in 0..2 {
        let _one = store.expunge(request.clone()).await.expect("it was published");
    }
    check(&store, &[(Accepted, 2), (Cancelled, 2)], "expunged").await;
    publish(&store, &["c", "d"].map(event), at(2)).await;
    let _flying = claim(&store, at(2)).await;
    let disable = StateChange::Disable(DisableReason::Gone);
    store.set_state(key("a"), disable, at(3)).await.expect("it is registered");
    check(&store, &[(Accepted, 4), (Cancelled, 4)], "disabled").await;
    store.set_state(key("a"), StateChange::Enable, at(3)).await.expect("it is registered");
    publish(&store, &["e"].map(event), at(4)).await;
    store.unregister(key("a"), at(5)).await.expect("it is registered");
    check(&store, &[(Accepted, 5), (Cancelled, 5)], "unregistered").await;
}

pub async fn a_replay_is_accepted_only_if_it_was_missed(store: impl AnyStore) {
    use FigureKind::{Accepted, Delivered, Failed};

    publish(&store, &[event("missed")], at(0)).await;
    assert_eq!(read(&store, all(FiguresStep::Whole)).await, [], "nobody got it");
    register(&store, "a", endpoint()).await;
    deliver(&store, "failed", Outcome::Failed, 1).await;
    let counts = [(Accepted, 1), (Failed, 1), (UNAVAILABLE, 1), (within(), 1)];
    check(&store, &counts, "failed").await;
    let replays = Replay::of_endpoint(key("a"), Undelivered::ALL);
    assert_eq!(replay(&store, replays, 2).await, 2);
    for claimed in claim(&store, at(2)).await {
        let _recorded = settle(&store, &claimed, Outcome::Delivered, at(2)).await;
    }
    let counts = [(Accepted, 2), (Delivered, 2), (Failed, 1), (UNAVAILABLE, 1), (within(), 3)];
    check(&store, &counts, "one came into being by the replay").await;
}

pub async fn failures_are_counted_by_class_and_times_by_bucket(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    let results = [
        (Some(404), None, 10),
        (Some(410), None, 11),
        (Some(503), None, 250),
        (Some(301), None, 30_000),
        (None, Some(ErrorClass::Dns), 0),
        (None, Some(ErrorClass::Timeout), 30_001),
        (None, Some(ErrorClass::Timeout), 900_000),
        (None, None, 1),
    ];
    let events: Vec<_> = (0..results.len()).map(|n| event(&format!("event-{n}"))).collect();
    publish(&store, &events, at(0)).await;
    let settlements =
        claim(&store, at(0)).await.into_iter().zip(results).map(|(claimed, result)| {
            let mut settlement = settlement(&claimed, Outcome::Failed);
            if let Some(attempt) = &mut settlement.attempt {
                (attempt.status_code, attempt.error_class) = (result.0, result.1);
                attempt.duration = Duration::from_millis(result.2);
            }
            settlement
        });
    let settled = store.settle(settlements.collect(), at(1)).await.expect("a store that works");
    assert_eq!(settled.len(), results.len());
    let status = |digit| FigureKind::Failure(FailureClass::Status(digit));
    let error = |class| FigureKind::Failure(FailureClass::Error(class));
    let within = |millis| FigureKind::within(Duration::from_millis(millis));
    let counts = [
        (FigureKind::Accepted, 8),
        (FigureKind::Failed, 8),
        (status(3), 1),
        (status(4), 2),
        (status(5), 1),
        (error(ErrorClass::Dns), 1),
        (error(ErrorClass::Timeout), 2),
        (error(ErrorClass::Other), 1),
        (within(10), 3),
        (within(25), 1),
        (within(250), 1),
        (within(30_000), 1),
        (within(30_001), 2),
    ];
    check(&store, &counts, "each class and bucket").await;
    let found = read(&store, all(FiguresStep::Whole)).await;
    assert_eq!(found[0].figures.attempts(), 8);
}

pub async fn figures_are_added_up_by_steps(store: impl AnyStore) {
    use FigureKind::{Accepted, Delivered};

    register(&store, "a", endpoint()).await;
    let seconds = [0, 59, 60, HOUR - 1, HOUR, DAY - 1, DAY, DAY + 90];
    for second in seconds {
        deliver(&store, &format!("event-{second}"), Outcome::Delivered, second).await;
    }
    let step =
        |second, count| row(second, &[(Accepted, count), (Delivered, count), (within(), count)]);
    let minutes = [
        step(0, 2),
        step(60, 1),
        step(HOUR - 60, 1),
        step(HOUR, 1),
        step(DAY - 60, 1),
        step(DAY, 1),
        step(DAY + 60, 1),
    ];
    assert_eq!(read(&store, all(FiguresStep::Minute)).await, minutes);
    let hours = [step(0, 4), step(HOUR, 1), step(DAY - HOUR, 1), step(DAY, 2)];
    assert_eq!(read(&store, all(FiguresStep::Hour)).await, hours);
    assert_eq!(read(&store, all(FiguresStep::Day)).await, [step(0, 6), step(DAY, 2)]);
    assert_eq!(read(&store, all(FiguresStep::Whole)).await, [step(0, 8)]);
    let (since, until) = (at(HOUR), at(DAY));
    let between = |step| FiguresQuery { since, until, ..all(step) };
    assert_eq!(read(&store, between(FiguresStep::Minute)).await, minutes[3..5]);
    assert_eq!(read(&store, between(FiguresStep::Day)).await, [step(0, 2)]);
    assert_eq!(read(&store, between(FiguresStep::Whole)).await, [step(HOUR, 2)]);
    let nothing =
        FiguresQuery { since: at(2 * HOUR), until: at(3 * HOUR), ..all(FiguresStep::Whole) };
    assert_eq!(read(&store, nothing).await, []);
}

pub async fn figures_are_told_by_endpoint_and_tenant(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint()).await;
    register(&store, "a", endpoint().tenant(tenant("acme"))).await;
    publish(&store, &[event("one"), event("two")], at(0)).await;
    publish(&store, &[event("one").tenant(tenant("acme"))], at(0)).await;
    let disable = StateChange::Disable(DisableReason::Gone);
    for change in [disable, StateChange::Enable] {
        store.set_state(key("a"), change, at(1)).await.expect("it is registered");
    }
    publish(&store, &[event("three")], at(2)).await;
    let check = async |tenant: Option<TenantId>, endpoint: Option<EndpointKey>, expected| {
        let query = FiguresQuery { tenant, endpoint, ..all(FiguresStep::Whole) };
        let found = read(&store, query.clone()).await;
        let accepted = found.first().map_or(0, |found| found.figures.accepted);
        assert_eq!(accepted, expected, "{query:?}");
    };
    let acmes = EndpointKey::new(tenant("acme"), endpoint_id("a"));
    check(None, None, 7).await;
    check(None, Some(key("a")), 3).await;
    check(None, Some(key("b")), 3).await;
    check(None, Some(acmes.clone()), 1).await;
    check(Some(tenant("acme")), None, 1).await;
    check(Some(TenantId::default()), None, 6).await;
    check(Some(TenantId::default()), Some(key("a")), 3).await;
    check(Some(TenantId::default()), Some(acmes), 0).await;
    check(Some(tenant("nobody")), None, 0).await;
    check(None, Some(key("nobody")), 0).await;
    // They stay under the id.
    store.unregister(key("a"), at(3)).await.expect("it is registered");
    check(None, Some(key("a")), 3).await;
    register(&store, "a", endpoint()).await;
    publish(&store, &[event("four")], at(4)).await;
    check(None, Some(key("a")), 4).await;
    check(None, None, 9).await;
}

/// Goal: figures are exact when many write at once. Method: eight tasks publish, claim and settle, also
/// claims that were settled already.
pub async fn figures_are_exact_when_many_write_at_once(store: impl AnyStore) {
    const TASKS: u64 = 8;
    const EACH: u64 = 25;
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            for n in 0..EACH {
                let own = SerializedEvent::new(&event(&format!("event-{task}-{n}")));
                let shared = SerializedEvent::new(&event(&format!("shared-{n}")));
                let published = store.publish(vec![own, shared], at(0)).await;
                published.expect("a store that works");
                let claimed = store.claim(request(at(0))).await.expect("a store that works");
                for claimed in claimed {
                    let twice = vec![settlement(&claimed, Outcome::Delivered); 2];
                    let settled = store.settle(twice, at(1)).await;
                    assert_eq!(settled.expect("a store that works").len(), 2);
                }
            }
        });
    }
    tasks.join_all().await;
    for claimed in claim(&store, at(0)).await {
        let _recorded = settle(&store, &claimed, Outcome::Delivered, at(1)).await;
    }
    let expected = 2 * (TASKS * EACH + EACH);
    let counts =
        [(FigureKind::Accepted, expected), (FigureKind::Delivered, expected), (within(), expected)];
    check(&store, &counts, "each once").await;
}

/// Goal: old figures are kept by the hour, and lose nothing. Method: figures of two hours two days ago and
/// of today, rolled up repeatedly; only the minutes of whole hours older than 48 hours are added up.
pub async fn old_figures_are_added_up_by_the_hour(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint()).await;
    let seconds = [0, 10 * MINUTE, 20 * MINUTE, HOUR + 5 * MINUTE, HOUR + 50 * MINUTE, 2 * DAY];
    for (n, second) in (0..).zip(seconds) {
        let outcome = if n % 2 == 0 { Outcome::Delivered } else { Outcome::Failed };
        deliver(&store, &format!("event-{second}"), outcome, second).await;
    }
    let steps = [FiguresStep::Hour, FiguresStep::Day, FiguresStep::Whole];
    let mut before = Vec::new();
    for step in steps {
        before.push(read(&store, all(step)).await);
    }
    let minutes = read(&store, all(FiguresStep::Minute)).await;
    assert_eq!(minutes.len(), seconds.len());
    for (now, rows) in [
        (2 * DAY, 6),
        (2 * DAY + HOUR + 30 * MINUTE, 4),
        (2 * DAY + HOUR + 30 * MINUTE, 4),
        (2 * DAY + 2 * HOUR + 1, 3),
        (20 * DAY, 3),
    ] {
        prune(&store, at(0), now).await;
        for (step, before) in steps.into_iter().zip(&before) {
            assert_eq!(read(&store, all(step)).await, *before, "{step:?} at {now}");
        }
        let found = read(&store, all(FiguresStep::Minute)).await;
        assert_eq!(found.len(), rows, "at {now}: {found:?}");
        if now > 2 * DAY {
            assert_eq!(found[0], before[0][0], "the first minute of the hour has all of it");
        } else {
            assert_eq!(found, minutes);
        }
    }
    let a = FiguresQuery { endpoint: Some(key("a")), ..all(FiguresStep::Whole) };
    let counts = [
        (FigureKind::Accepted, 6),
        (FigureKind::Delivered, 3),
        (FigureKind::Failed, 3),
        (UNAVAILABLE, 3),
        (within(), 6),
    ];
    assert_eq!(read(&store, a).await, [row(0, &counts)]);
    let health = store.health(vec![key("a")], 1).await.expect("a store that works");
    assert_eq!(health[0].delivered_at, Some(at(HOUR)), "the last one failed");
}

pub async fn very_old_figures_are_forgotten(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    for (id, second) in [("old", 5 * MINUTE), ("older", HOUR), ("young", 10 * DAY + 7 * MINUTE)] {
        deliver(&store, id, Outcome::Delivered, second).await;
    }
    prune(&store, at(0), 89 * DAY).await;
    let found = read(&store, all(FiguresStep::Minute)).await;
    let times: Vec<Timestamp> = found.iter().map(|found| found.at).collect();
    assert_eq!(times, [at(0), at(HOUR), at(10 * DAY)]);
    prune(&store, at(0), 90 * DAY + 3 * HOUR).await;
    let counts = [(FigureKind::Accepted, 1), (FigureKind::Delivered, 1), (within(), 1)];
    assert_eq!(read(&store, all(FiguresStep::Minute)).await, [row(10 * DAY, &counts)]);
    let health = store.health(vec![key("a")], 1).await.expect("a store that works");
    assert_eq!(health[0].delivered_at, Some(at(10 * DAY)), "by the hour");
    prune(&store, at(0), 101 * DAY).await;
    assert_eq!(read(&store, all(FiguresStep::Minute)).await, []);
}

pub async fn figures_outlive_the_events_that_they_count(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    deliver(&store, "delivered", Outcome::Delivered, 0).await;
    deliver(&store, "failed", Outcome::Failed, HOUR).await;
    let before = read(&store, all(FiguresStep::Minute)).await;
    prune(&store, at(DAY), DAY).await;
    let left = store.events(webhooks_dispatch::history::Query::default()).await;
    assert_eq!(left.expect("a store that works").items, []);
    assert_eq!(read(&store, all(FiguresStep::Minute)).await, before);
}
