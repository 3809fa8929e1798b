use proptest::prelude::*;
use webhooks_core::{EndpointId, Event};
use webhooks_dispatch::clock::Now;
use webhooks_registry::Endpoint;

use super::*;
use crate::row;

const LEASE: Duration = Duration::from_mins(1);

/// One small event.
const ONE: (usize, usize) = (1, 1);

fn at(milliseconds: u64) -> MonotonicTime {
    MonotonicTime::from_origin(Duration::from_secs(1_000) + Duration::from_millis(milliseconds))
}

/// Returns the time of acceptance that belongs to a time.
fn wall(at: MonotonicTime) -> Timestamp {
    Timestamp::UNIX_EPOCH + at.saturating_since(MonotonicTime::default())
}

/// The endpoint of this number. Every third one belongs to a tenant of its own.
fn registration(number: i64) -> Arc<Registration> {
    let endpoint = Endpoint::new("https://example.com/", "my-secret-key").unwrap();
    let tenant = if number % 3 == 0 { format!("small-{number}") } else { "large".to_owned() };
    let endpoint = endpoint.tenant(TenantId::new(&tenant).unwrap());
    let id = EndpointId::new(&format!("e{number}")).unwrap();
    Arc::new(Registration::new(row::endpoint_number(number), id, endpoint))
}

fn delivery(id: i64, endpoint: i64, at: MonotonicTime) -> PreclaimedDelivery {
    let event = Arc::new(SerializedEvent::new(&Event::new("created", id).unwrap()));
    let (queued_at, until) = (wall(at), at + LEASE + MAX_LOCAL_WAIT);
    PreclaimedDelivery { id, endpoint, token: 1, queued_at, until, cancels: None, event }
}

/// Queues of a worker that has made this number of claims for each endpoint at the start.
fn queues(claims: &[(i64, usize)]) -> LocalQueues {
    let mut queues = LocalQueues::default();
    queues.start(LEASE);
    for (number, claims) in claims {
        for _ in 0..*claims {
            queues.record_claim(*number, &registration(*number), at(0));
        }
    }
    queues
}

fn request(now: MonotonicTime) -> ClaimRequest {
    let now = Now { wall: wall(now), monotonic: now };
    ClaimRequest {
        now,
        lease: LEASE,
        limit: 1_000,
        per_endpoint: 1_000,
        bytes: usize::MAX,
        room: Room::new(),
    }
}

fn ids(deliveries: &[PreclaimedDelivery]) -> Vec<i64> {
    deliveries.iter().map(|delivery| delivery.id).collect()
}

/// Returns the endpoints that deliveries may be preclaimed for.
fn numbers(with_room: Option<(BTreeMap<i64, Option<i64>>, Duration)>) -> Vec<i64> {
    with_room.unwrap().0.into_keys().collect()
}

/// Preclaims deliveries until there is no room; returns how many there was room for.
fn fill(queues: &mut LocalQueues, now: MonotonicTime, is_alone: bool) -> usize {
    let mut count = 0;
    while let Some((with_room, lease)) = queues.endpoints_with_room(now, ONE, is_alone) {
        assert_eq!(lease, LEASE + MAX_LOCAL_WAIT);
        let first = *with_room.keys().next().unwrap();
        queues.push(delivery(0, first, now)).unwrap();
        count += 1;
    }
    count
}

#[test]
fn nothing_is_preclaimed_before_a_worker_claims_for_the_endpoint_or_after_it_stopped() {
    let mut queues = LocalQueues::default();
    assert!(queues.endpoints_with_room(at(0), ONE, true).is_none());
    queues.start(LEASE);
    assert!(queues.endpoints_with_room(at(0), ONE, true).is_none());
    let mut ordered = (*registration(2)).clone();
    ordered.endpoint = ordered.endpoint.ordered();
    queues.record_claim(2, &Arc::new(ordered), at(0));
    assert!(queues.endpoints_with_room(at(0), ONE, true).is_none());
    queues.record_claim(1, &registration(1), at(0));
    assert_eq!(numbers(queues.endpoints_with_room(at(0), ONE, true)), [1]);
    assert_eq!(queues.push(delivery(5, 2, at(0))).unwrap_err().id, 5);
    queues.push(delivery(6, 1, at(0))).unwrap();
    assert_eq!(ids(&queues.stop()), [6]);
    assert!(queues.endpoints_with_room(at(0), ONE, true).is_none());
    assert_eq!(queues.push(delivery(7, 1, at(0))).unwrap_err().id, 7);
}

#[test]
fn as_much_is_preclaimed_as_was_lately_claimed_in_a_second() {
    assert_eq!(fill(&mut queues(&[(1, 1)]), at(10), true), BASE_PER_ENDPOINT);
    assert_eq!(fill(&mut queues(&[(1, 500)]), at(900), true), 500);
    assert_eq!(fill(&mut queues(&[(1, 500)]), at(1_900), true), 500);
    assert_eq!(fill(&mut queues(&[(1, 500)]), at(2_100), true), BASE_PER_ENDPOINT);
    assert_eq!(fill(&mut queues(&[(1, 500)]), at(0), false), BASE_PER_ENDPOINT);
    assert_eq!(fill(&mut queues(&[(1, 9_000)]), at(0), true), MAX_PER_ENDPOINT);
    let mut goes_on = queues(&[(1, 500)]);
    goes_on.record_claim(1, &registration(1), at(1_500));
    assert_eq!(fill(&mut goes_on, at(1_600), true), 500);
}

#[test]
fn a_delivery_that_waits_too_long_is_released_and_its_endpoint_gets_no_more_than_it_takes() {
    let mut queues = queues(&[(1, 1), (2, 1)]);
    for id in 0..3 {
        queues.push(delivery(id, 1, at(1_000 * id.unsigned_abs()))).unwrap();
    }
    assert!(queues.take_stale(at(5_000)).is_empty());
    assert_eq!(ids(&queues.take_stale(at(6_500))), [0, 1]);
    assert_eq!(numbers(queues.endpoints_with_room(at(6_500), ONE, true)), [2]);
    assert_eq!(ids(&queues.take(&request(at(6_600)))), [2]);
    assert_eq!(numbers(queues.endpoints_with_room(at(6_600), ONE, true)), [2]);
    queues.record_claim(1, &registration(1), at(6_600));
    assert_eq!(numbers(queues.endpoints_with_room(at(6_600), ONE, true)), [1, 2]);
    queues.push(delivery(3, 1, at(6_600))).unwrap();
    assert_eq!(numbers(queues.endpoints_with_room(at(6_600), ONE, true)), [2]);
    queues.remove_idle(at(70_000));
    assert!(
        queues
            .endpoints_with_room(at(70_000), ONE, true)
            .is_none_or(|(with_room, _)| !with_room.contains_key(&2))
    );
    assert_eq!(ids(&queues.stop()), [3]);
}

/// Goal: a queue never holds more than there is room for, however much is published at once; an
/// endpoint that was not this worker's gets nothing for a while.
#[test]
fn all_of_a_publish_is_preclaimed_or_nothing() {
    let mut queues = queues(&[(1, 500), (2, 1)]);
    assert_eq!(numbers(queues.endpoints_with_room(at(0), (64, 1), true)), [1, 2]);
    assert_eq!(numbers(queues.endpoints_with_room(at(0), (65, 1), true)), [1]);
    assert_eq!(numbers(queues.endpoints_with_room(at(0), (500, 1), true)), [1]);
    assert!(queues.endpoints_with_room(at(0), (501, 1), true).is_none());
    assert!(queues.endpoints_with_room(at(0), (1, MAX_BYTES + 1), true).is_none());
    queues.record_refusal(1, at(0));
    assert_eq!(numbers(queues.endpoints_with_room(at(59_999), ONE, true)), [2]);
    assert_eq!(numbers(queues.endpoints_with_room(at(60_000), ONE, true)), [1, 2]);
}

/// A delivery that was published late, or by a worker with a shorter lease, may come behind one
/// with a longer lease.
#[test]
fn the_shortest_lease_is_released_first() {
    let mut queues = queues(&[(1, 1)]);
    for (id, since) in [(1, 3_000), (2, 1_000), (3, 2_000)] {
        queues.push(delivery(id, 1, at(since))).unwrap();
    }
    assert_eq!(ids(&queues.take_stale(at(6_500))), [2]);
    queues.start(LEASE + Duration::from_secs(1));
    assert_eq!(ids(&queues.take_stale(at(6_500))), [3]);
    assert_eq!(ids(&queues.take(&request(at(6_500)))), [1]);
}

#[test]
fn memory_is_bounded() {
    let mut queues = queues(&[(1, 5_000)]);
    let large = Event::new("created", "x".repeat(MAX_BYTES)).unwrap();
    let event = Arc::new(SerializedEvent::new(&large));
    queues.push(PreclaimedDelivery { event, ..delivery(1, 1, at(0)) }).unwrap();
    assert!(queues.endpoints_with_room(at(0), ONE, true).is_none());
    queues.remove_cancelled(&[1]);
    assert!(queues.endpoints_with_room(at(0), ONE, true).is_some());
    for number in 2..2_000 {
        queues.record_claim(number, &registration(number), at(0));
    }
    assert_eq!(queues.endpoints_with_room(at(0), ONE, true).unwrap().0.len(), MAX_QUEUES);
    for number in 1..=900 {
        for id in 0..70 {
            queues.push(delivery(id, number, at(0))).unwrap();
        }
    }
    let left = (MAX_TOTAL - 900 * 70) / 64;
    assert_eq!(queues.endpoints_with_room(at(0), (64, 1), true).unwrap().0.len(), left);
}

/// Goal: a tenant with many endpoints does not keep another waiting. Method: twenty endpoints wait
/// with more than is asked for, two of them of tenants with nothing else.
#[test]
fn tenants_take_turns() {
    let numbers = [1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17, 3, 6];
    let mut queues = queues(&numbers.map(|number| (number, 1)));
    for (id, number) in (0..).zip(numbers.into_iter().cycle().take(140)) {
        queues.push(delivery(id, number, at(id.unsigned_abs()))).unwrap();
    }
    let few = ClaimRequest { limit: 6, per_endpoint: 2, ..request(at(200)) };
    let taken = queues.take(&few);
    let of = |number| taken.iter().filter(|taken| taken.endpoint == number).count();
    assert_eq!((taken.len(), of(1), of(3), of(6)), (6, 2, 2, 2));
    // The longest wait comes first.
    let next: Vec<i64> = queues.take(&few).iter().map(|taken| taken.endpoint).collect();
    assert_eq!(next, [2, 2, 3, 3, 6, 6]);
}

#[derive(Debug, Clone)]
enum Step {
    Push(i64),
    Take { limit: usize, per_endpoint: usize, busy: Option<i64> },
    Wait(u64),
    Cancel(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_i64..6).prop_map(Step::Push),
        2 => (0_usize..8, 0_usize..4, prop::option::of(1_i64..6))
            .prop_map(|(limit, per_endpoint, busy)| Step::Take { limit, per_endpoint, busy }),
        1 => (0_u64..4_000).prop_map(Step::Wait),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
    ]
}

proptest! {
    /// Goal: no delivery is lost, taken twice, or taken too late; bounds hold. Method: a plain list
    /// holds the deliveries that wait.
    #[test]
    fn what_is_pushed_comes_out_once(steps in prop::collection::vec(step(), 0..100)) {
        let numbers: Vec<(i64, usize)> = (1..6).map(|number| (number, 1)).collect();
        let (mut queues, mut waits, mut now) = (queues(&numbers), Vec::new(), at(0));
        for (id, step) in (0..).zip(steps) {
            match step {
                Step::Push(number) => {
                    queues.push(delivery(id, number, now)).unwrap();
                    waits.push((id, number, now));
                }
                Step::Take { limit, per_endpoint, busy } => {
                    let busy = busy.map(|number| registration(number).number);
                    let room = Room::from_iter(busy);
                    let has_some = queues.has_some(&room);
                    let request = ClaimRequest { limit, per_endpoint, room, ..request(now) };
                    let taken = queues.take(&request);
                    prop_assert!(taken.len() <= limit);
                    prop_assert_eq!(taken.is_empty(), !has_some || limit == 0 || per_endpoint == 0);
                    for number in 1..6 {
                        let own = taken.iter().filter(|taken| taken.endpoint == number);
                        let own: Vec<i64> = own.map(|taken| taken.id).collect();
                        prop_assert!(own.len() <= per_endpoint);
                        let is_busy = request.room.is_busy(registration(number).number);
                        prop_assert!(own.is_empty() || !is_busy);
                        let first = waits.iter().filter(|(_, of, _)| *of == number);
                        let first = first.map(|(id, ..)| *id);
                        prop_assert_eq!(&own, &first.take(own.len()).collect::<Vec<_>>());
                    }
                    waits.retain(|(id, ..)| taken.iter().all(|taken| taken.id != *id));
                }
                Step::Wait(milliseconds) => {
                    now = now + Duration::from_millis(milliseconds);
                    let mut stale = ids(&queues.take_stale(now));
                    stale.sort_unstable();
                    let is_stale =
                        |since: MonotonicTime| now.saturating_since(since) > MAX_LOCAL_WAIT;
                    let expected = waits.iter().filter(|(_, _, since)| is_stale(*since));
                    prop_assert_eq!(stale, expected.map(|(id, ..)| *id).collect::<Vec<_>>());
                    waits.retain(|(_, _, since)| !is_stale(*since));
                }
                Step::Cancel(index) if !waits.is_empty() => {
                    let (id, ..) = waits.remove(index.index(waits.len()));
                    queues.remove_cancelled(&[id]);
                }
                Step::Cancel(_) => queues.remove_cancelled(&[-1]),
            }
            let all = queues.by_endpoint.values().flat_map(|queue| &queue.deliveries);
            prop_assert_eq!(queues.count, all.clone().count());
            prop_assert_eq!(queues.bytes, all.map(|one| one.event.body.len()).sum::<usize>());
        }
        let mut left = ids(&queues.stop());
        left.sort_unstable();
        prop_assert_eq!(left, waits.into_iter().map(|(id, ..)| id).collect::<Vec<_>>());
    }
}

/// Goal: a grant has the count of cancellations that was known before the publish. A delivery that
/// waits keeps that count, whatever is read meanwhile, and the count of an endpoint never goes
/// back.
#[test]
fn a_delivery_keeps_the_count_of_cancellations_of_its_grant() {
    let mut queues = queues(&[(1, 1), (2, 1)]);
    let cancels = |queues: &LocalQueues| {
        Vec::from_iter(queues.endpoints_with_room(at(0), ONE, true).unwrap().0)
    };
    assert_eq!(cancels(&queues), [(1, None), (2, None)]);
    queues.record_cancels(1, 3);
    assert_eq!(cancels(&queues), [(1, Some(3)), (2, None)]);
    queues.push(PreclaimedDelivery { cancels: Some(3), ..delivery(1, 1, at(0)) }).unwrap();
    queues.record_cancels(1, 4);
    queues.record_cancels(1, 2);
    assert_eq!(cancels(&queues), [(1, Some(4)), (2, None)]);
    let taken = queues.take(&request(at(0)));
    assert_eq!(taken[0].cancels, Some(3));
}
