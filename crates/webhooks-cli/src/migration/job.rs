//! Jobs: deliveries that they name get their new numbers.

use webhooks_core::DeliveryId;
use webhooks_dispatch::history::{Cursor, Query};
use webhooks_dispatch::jobs::JobWork;
use webhooks_dispatch::{Replay, ReplayCursor};

/// The new number of a delivery, or of the last one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewNumber {
    pub(super) number: u64,
    /// Whether it is that of the delivery itself.
    pub(super) is_exact: bool,
}

/// Returns the work and the place of a job with new numbers of deliveries.
///
/// The order of deliveries changes: those that a replay added stand beside the others of their events. So a job that
/// goes along deliveries begins again, and none is left out. It passes over what it has done: a replay those that were
/// replayed since the job began, and a cancellation those that have ended. A place in a list of ids, or among
/// events, stays.
pub(super) fn converted<E>(
    work: JobWork,
    cursor: Option<String>,
    mut number: impl FnMut(DeliveryId) -> Result<NewNumber, E>,
) -> Result<(JobWork, Option<String>), E> {
    let mut delivery = |id: DeliveryId| {
        // 0 is no delivery: one that is deleted stays unknown.
        let found = number(id)?;
        Ok(DeliveryId::from_u64(if found.is_exact { found.number } else { 0 }))
    };
    let is_of_events = |cursor: &String| matches!(cursor.parse(), Ok(ReplayCursor::Missed(_)));
    Ok(match work {
        JobWork::Replay(Replay::Delivery(id)) => {
            (JobWork::Replay(Replay::Delivery(delivery(id)?)), cursor)
        }
        JobWork::Replay(Replay::Deliveries(ids)) => {
            let ids = ids.into_iter().map(delivery).collect::<Result<_, E>>()?;
            (JobWork::Replay(Replay::Deliveries(ids)), cursor)
        }
        JobWork::Replay(replay) => (JobWork::Replay(replay), cursor.filter(is_of_events)),
        JobWork::Cancel(query) => (JobWork::Cancel(with_numbers(query, number)?), None),
        JobWork::ReplayFound(query) => (JobWork::ReplayFound(with_numbers(query, number)?), None),
        other => (other, cursor),
    })
}

fn with_numbers<E>(
    query: Query,
    mut number: impl FnMut(DeliveryId) -> Result<NewNumber, E>,
) -> Result<Query, E> {
    let mut find = |number_before: u64| number(DeliveryId::from_u64(number_before));
    let delivery = query.delivery.map(|id| find(id.as_u64())).transpose()?;
    let delivery =
        delivery.map(|found| DeliveryId::from_u64(if found.is_exact { found.number } else { 0 }));
    let place = |key: u64, attempt: u32| Cursor { key, attempt };
    // A page begins below the one and ends above the other.
    let after = query.after.map(|cursor| {
        let found = find(cursor.key)?;
        Ok(place(found.number + u64::from(!found.is_exact), cursor.attempt))
    });
    let after = after.transpose()?;
    let before = query.before.map(|cursor| Ok(place(find(cursor.key)?.number, cursor.attempt)));
    let before = before.transpose()?;
    Ok(Query { delivery, after, before, ..query })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use webhooks_core::{EndpointId, Timestamp};
    use webhooks_dispatch::Undelivered;
    use webhooks_registry::EndpointKey;

    use super::*;

    fn id(number: u64) -> DeliveryId {
        DeliveryId::from_u64(number)
    }

    /// The new number is a hundred times the old one; odd ones are deleted.
    fn check(work: JobWork, cursor: Option<&str>, expected: &(JobWork, Option<&str>)) {
        let number = |old: DeliveryId| {
            let is_exact = old.as_u64().is_multiple_of(2);
            let last = old.as_u64() - u64::from(!is_exact);
            Ok::<_, Infallible>(NewNumber { number: last * 100, is_exact })
        };
        let (work, cursor) = converted(work, cursor.map(str::to_owned), number).unwrap();
        assert_eq!((work, cursor.as_deref()), *expected);
    }

    #[test]
    fn lists_keep_their_places_and_walks_begin_again() {
        let list = |ids: &[u64]| {
            JobWork::Replay(Replay::Deliveries(ids.iter().copied().map(id).collect()))
        };
        check(list(&[2, 3, 4]), Some("ended-2"), &(list(&[200, 0, 400]), Some("ended-2")));
        let one = |number| JobWork::Replay(Replay::Delivery(id(number)));
        check(one(4), None, &(one(400), None));
        let endpoint = EndpointKey::of_default_tenant(EndpointId::new("crm").unwrap());
        let walk = || JobWork::Replay(Replay::of_endpoint(endpoint.clone(), Undelivered::ALL));
        check(walk(), Some("ended-17"), &(walk(), None));
        check(walk(), Some("missed-17"), &(walk(), Some("missed-17")));
    }

    #[test]
    fn queries_keep_their_bounds() {
        let place = |key| Some(Cursor { key, attempt: 0 });
        let query = |delivery, after, before| Query {
            delivery: Some(id(delivery)),
            after: place(after),
            before: place(before),
            since: Some(Timestamp::UNIX_EPOCH),
            ..Query::default()
        };
        check(
            JobWork::Cancel(query(2, 8, 4)),
            Some("6-0"),
            &(JobWork::Cancel(query(200, 800, 400)), None),
        );
        check(
            JobWork::ReplayFound(query(3, 9, 5)),
            None,
            &(JobWork::ReplayFound(query(0, 801, 400)), None),
        );
    }
}
