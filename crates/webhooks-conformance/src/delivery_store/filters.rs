//! Filters of histories, each alone and with others.

use std::time::Duration;

use webhooks_core::{Channel, DeliveryStatus, Event, EventId, Tag};
use webhooks_dispatch::{
    history::Query,
    store::{Outcome, Settlement},
    transport::ErrorClass,
};

use super::{
    AnyStore, at, claim, deliveries_of, endpoint, endpoint_id, event, publish, register, tenant,
};

/// The status code or the class of an error that an attempt ended with, and the outcome.
type Step = (Result<u16, ErrorClass>, Outcome);

/// The id of an event, its channels, its tags, and its attempts.
type History<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [Step]);

const RETRY: Outcome = Outcome::Retrying { due_at: webhooks_core::Timestamp::UNIX_EPOCH };

/// Claims all that is due and settles each with the same result.
async fn attempt_all(store: &impl AnyStore, second: u64, (result, outcome): Step) {
    let settlements = claim(store, at(second)).await.into_iter().map(|claimed| {
        let mut settlement = super::settlement(&claimed, outcome);
        if let Outcome::Retrying { due_at } = &mut settlement.outcome {
            *due_at = at(second + 1);
        }
        if let Some(attempt) = &mut settlement.attempt {
            attempt.status_code = result.ok();
            attempt.error_class = result.err();
            attempt.duration = Duration::from_millis(second);
        }
        settlement
    });
    let settlements: Vec<Settlement> = settlements.collect();
    assert!(!settlements.is_empty(), "something is due");
    let _recorded = store.settle(settlements, at(second)).await.expect("a store that works");
}

/// Stores one event after another with a delivery for `a`, and attempts each.
async fn histories(store: &impl AnyStore) {
    register(store, "a", endpoint()).await;
    let (dns, timeout) = (Err(ErrorClass::Dns), Err(ErrorClass::Timeout));
    let histories: [History<'_>; 6] = [
        ("delivered", &["eu"], &["x"], &[(Ok(200), Outcome::Delivered)]),
        ("second-try", &["eu", "us"], &[], &[(Ok(503), RETRY), (Ok(204), Outcome::Delivered)]),
        ("timed-out", &[], &["x", "y"], &[(Ok(500), RETRY), (timeout, Outcome::Failed)]),
        ("unresolved", &["us"], &["y"], &[(dns, Outcome::Failed)]),
        ("refused", &[], &["z:1"], &[(timeout, RETRY), (dns, RETRY), (Ok(410), Outcome::Failed)]),
        ("expired", &["EU"], &[], &[(Ok(502), RETRY), (Ok(1), Outcome::Expired)]),
    ];
    for ((id, channels, tags, steps), start) in histories.into_iter().zip((0..).step_by(10)) {
        let event = event(id).channels(channels).expect("valid").tags(tags).expect("valid");
        publish(store, &[event], at(start)).await;
        for (step, second) in steps.iter().zip(start..) {
            attempt_all(store, second, *step).await;
        }
    }
    publish(store, &[event("pending")], at(90)).await;
}

/// Checks the events and the deliveries that a query finds, oldest first, and the number of attempts.
async fn check(store: &impl AnyStore, query: Query, expected: &[&str], attempts: usize) {
    let events = store.events(query.clone()).await.expect("a store that works");
    let mut events: Vec<String> = events.items.iter().map(|found| found.id.to_string()).collect();
    events.reverse();
    assert_eq!(events, expected, "events of {query:?}");
    let found = store.deliveries(query.clone()).await.expect("a store that works");
    let mut found: Vec<String> = found.items.iter().map(|found| found.event.to_string()).collect();
    found.reverse();
    assert_eq!(found, expected, "deliveries of {query:?}");
    let tried = store.attempts(query.clone()).await.expect("a store that works");
    assert_eq!(tried.items.len(), attempts, "attempts of {query:?}");
}

pub async fn histories_are_filtered_by_status_and_number_of_attempts(store: impl AnyStore) {
    use DeliveryStatus::{Cancelled, Delivered, Failed, Pending, Retrying};

    histories(&store).await;
    let statuses =
        |statuses: &[DeliveryStatus]| Query { statuses: statuses.to_vec(), ..Query::default() };
    check(&store, statuses(&[Delivered]), &["delivered", "second-try"], 3).await;
    check(&store, statuses(&[Failed]), &["timed-out", "unresolved", "refused"], 6).await;
    check(&store, statuses(&[Cancelled]), &["expired"], 1).await;
    check(&store, statuses(&[Pending, Cancelled]), &["expired", "pending"], 1).await;
    check(&store, statuses(&[Retrying]), &[], 0).await;
    let all =
        ["delivered", "second-try", "timed-out", "unresolved", "refused", "expired", "pending"];
    check(&store, statuses(&[Pending, Delivered, Failed, Cancelled]), &all, 10).await;
    let attempts = |range| Query { attempts: Some(range), ..Query::default() };
    check(&store, attempts(0..=0), &["pending"], 0).await;
    check(&store, attempts(1..=1), &["delivered", "unresolved", "expired"], 3).await;
    check(&store, attempts(2..=u32::MAX), &["second-try", "timed-out", "refused"], 7).await;
    check(&store, attempts(3..=3), &["refused"], 3).await;
    let failed_at_once = Query { attempts: Some(1..=1), ..statuses(&[Failed]) };
    check(&store, failed_at_once, &["unresolved"], 1).await;
}

/// An event and a delivery are judged by the last attempt, an attempt by its own result.
pub async fn histories_are_filtered_by_the_result_of_attempts(store: impl AnyStore) {
    histories(&store).await;
    let codes = |range| Query { status_codes: Some(range), ..Query::default() };
    let classes =
        |classes: &[ErrorClass]| Query { error_classes: classes.to_vec(), ..Query::default() };
    check(&store, codes(200..=299), &["delivered", "second-try"], 2).await;
    check(&store, codes(204..=204), &["second-try"], 1).await;
    check(&store, codes(400..=499), &["refused"], 1).await;
    check(&store, codes(500..=599), &["expired"], 3).await;
    check(&store, codes(0..=u16::MAX), &["delivered", "second-try", "refused", "expired"], 6).await;
    check(&store, codes(300..=399), &[], 0).await;
    check(&store, classes(&[ErrorClass::Timeout]), &["timed-out"], 2).await;
    check(&store, classes(&[ErrorClass::Dns]), &["unresolved"], 2).await;
    let both = [ErrorClass::Dns, ErrorClass::Timeout];
    check(&store, classes(&both), &["timed-out", "unresolved"], 4).await;
    check(&store, classes(&[ErrorClass::Tls]), &[], 0).await;
    let none = Query { status_codes: Some(200..=200), ..classes(&both) };
    check(&store, none, &[], 0).await;
    let failed = Query { statuses: vec![DeliveryStatus::Failed], ..codes(400..=499) };
    check(&store, failed, &["refused"], 1).await;
    let several = Query { attempts: Some(2..=2), ..classes(&both) };
    check(&store, several, &["timed-out"], 1).await;
}

pub async fn histories_are_filtered_by_channel_and_tag(store: impl AnyStore) {
    histories(&store).await;
    let channel = |name| Query { channel: Channel::new(name).ok(), ..Query::default() };
    let tag = |name| Query { tag: Tag::new(name).ok(), ..Query::default() };
    check(&store, channel("eu"), &["delivered", "second-try"], 3).await;
    check(&store, channel("us"), &["second-try", "unresolved"], 3).await;
    check(&store, channel("EU"), &["expired"], 1).await;
    check(&store, channel("u"), &[], 0).await;
    check(&store, tag("x"), &["delivered", "timed-out"], 3).await;
    check(&store, tag("y"), &["timed-out", "unresolved"], 3).await;
    check(&store, tag("z"), &[], 0).await;
    check(&store, tag("z:1"), &["refused"], 3).await;
    check(&store, tag("z_1"), &[], 0).await;
    let both = Query { tag: Tag::new("y").ok(), ..channel("us") };
    check(&store, both, &["unresolved"], 1).await;
    let failed = Query { statuses: vec![DeliveryStatus::Failed], since: Some(at(25)), ..tag("y") };
    check(&store, failed, &["unresolved"], 1).await;
}

/// The filters for deliveries hold of one delivery together, and not of several.
pub async fn an_event_is_found_by_one_delivery_that_fits(store: impl AnyStore) {
    register(&store, "a", endpoint()).await;
    register(&store, "b", endpoint()).await;
    register(&store, "a", endpoint().tenant(tenant("acme"))).await;
    publish(&store, &[event("one"), event("one").tenant(tenant("acme"))], at(0)).await;
    for claimed in claim(&store, at(0)).await {
        let is_b = claimed.registration.id.as_str() == "b";
        let outcome = if is_b { Outcome::Failed } else { Outcome::Delivered };
        let _recorded = super::settle(&store, &claimed, outcome, at(0)).await;
    }
    let count = async |query: Query| {
        let events = store.events(query.clone()).await.expect("a store that works").items.len();
        let found = store.deliveries(query).await.expect("a store that works").items.len();
        (events, found)
    };
    let of = |id: &str, status| Query {
        endpoint: Some(endpoint_id(id)),
        statuses: vec![status],
        ..Query::default()
    };
    assert_eq!(count(of("b", DeliveryStatus::Failed)).await, (1, 1));
    assert_eq!(count(of("b", DeliveryStatus::Delivered)).await, (0, 0));
    assert_eq!(count(of("a", DeliveryStatus::Delivered)).await, (2, 2));
    let acmes = Query { tenant: Some(tenant("acme")), ..of("a", DeliveryStatus::Delivered) };
    assert_eq!(count(acmes).await, (1, 1));
    let codes = Query { status_codes: Some(500..=599), ..of("a", DeliveryStatus::Delivered) };
    assert_eq!(count(codes).await, (0, 0));
    for found in deliveries_of(&store, "one").await {
        let by_number = Query { delivery: Some(found.id), ..Query::default() };
        assert_eq!(count(by_number.clone()).await, (1, 1));
        let other = Query { event: EventId::new("two").ok(), ..by_number.clone() };
        assert_eq!(count(other).await, (0, 0));
        let others = Query { tenant: Some(tenant("acme")), ..by_number };
        assert_eq!(count(others).await, (0, 0));
    }
    // An event that nobody wants is one without deliveries.
    let unwanted = Event::new("user.created", 1).expect("a valid event").tenant(tenant("globex"));
    publish(&store, &[unwanted], at(1)).await;
    let globexs = Query { tenant: Some(tenant("globex")), ..Query::default() };
    assert_eq!(count(globexs.clone()).await, (1, 0));
    assert_eq!(count(Query { attempts: Some(0..=9), ..globexs }).await, (0, 0));
}
