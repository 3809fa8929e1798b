//! The end of a run: every delivery must have ended in the way that the run saw.

use std::collections::BTreeMap;
use std::time::Duration;

use webhooks_core::DeliveryStatus;
use webhooks_dispatch::store::Outcome;

use super::checker::Checker;
use super::leases::{Delivery, Key};

impl Checker {
    /// Checks the store's record of each delivery at the end: every promised delivery must be
    /// there.
    pub(crate) fn on_end_of_run(&mut self, kept: &BTreeMap<Key, DeliveryStatus>, now: Duration) {
        let mut wrong = None;
        for (key, delivery) in &self.deliveries.by_key {
            let found = kept.get(key).copied();
            if !ended_well(delivery, found) {
                wrong.get_or_insert((*key, found));
            }
        }
        let cancelled =
            kept.values().filter(|status| **status == DeliveryStatus::Cancelled).count();
        self.counters.cancelled += u64::try_from(cancelled).unwrap_or(u64::MAX);
        if let Some((key, found)) = wrong {
            let found = found.map_or("lost", DeliveryStatus::as_str);
            self.violate(now, format_args!("accepted means delivered: {key} is {found}"));
        }
    }
}

/// Returns whether a delivery ended in the way that the run saw.
fn ended_well(delivery: &Delivery, found: Option<DeliveryStatus>) -> bool {
    let last = delivery.claims.iter().rev().find_map(|claim| claim.settled);
    match found {
        None => !delivery.is_promised,
        Some(DeliveryStatus::Delivered) => delivery.was_taken,
        Some(DeliveryStatus::Failed) => last == Some(Outcome::Failed),
        Some(DeliveryStatus::Cancelled) => {
            delivery.cancelled.is_some() || last == Some(Outcome::Expired)
        }
        Some(_) => false,
    }
}
