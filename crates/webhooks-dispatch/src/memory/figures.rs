//! The figures of the store in memory.

use std::collections::BTreeMap;

use webhooks_core::Timestamp;
use webhooks_registry::EndpointNumber;

use crate::figures::{FigureKind, KEPT, SPANS, start_of};
use crate::store::Settlement;

/// Counts by endpoint, kind and the start of a minute or, once they are old, of an hour.
#[derive(Debug, Default)]
pub(super) struct FigureTable {
    counts: BTreeMap<(EndpointNumber, FigureKind, Timestamp), u64>,
}

impl FigureTable {
    /// Counts one delivery of a kind.
    pub(super) fn count(&mut self, endpoint: EndpointNumber, kind: FigureKind, now: Timestamp) {
        *self.counts.entry((endpoint, kind, start_of(now, SPANS.0))).or_default() += 1;
    }

    /// Counts a settlement that was recorded.
    pub(super) fn settled(
        &mut self,
        endpoint: EndpointNumber,
        settlement: &Settlement,
        now: Timestamp,
    ) {
        for kind in FigureKind::of(settlement) {
            self.count(endpoint, kind, now);
        }
    }

    /// Adds up old minutes by the hour, and forgets old hours.
    pub(super) fn roll_up(&mut self, now: Timestamp) {
        let hour = |at: Timestamp| start_of(at, SPANS.1);
        let (minutes_from, hours_from) =
            (hour(now.saturating_sub(KEPT.0)), now.saturating_sub(KEPT.1));
        let is_old = |(_, _, at): &(EndpointNumber, FigureKind, Timestamp)| *at < minutes_from;
        if !self.counts.keys().any(|key| is_old(key) && hour(key.2) != key.2 || key.2 < hours_from)
        {
            return;
        }
        for ((endpoint, kind, at), count) in std::mem::take(&mut self.counts) {
            if at >= hours_from {
                let at = if at < minutes_from { hour(at) } else { at };
                *self.counts.entry((endpoint, kind, at)).or_default() += count;
            }
        }
    }

    /// Returns the counts of some endpoints in a span of time.
    pub(super) fn of<'f>(
        &'f self,
        endpoints: impl Fn(EndpointNumber) -> bool + 'f,
        since: Timestamp,
        until: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, FigureKind, u64)> + 'f {
        (self.counts.iter())
            .filter(move |((endpoint, _, at), _)| {
                *at >= since && *at < until && endpoints(*endpoint)
            })
            .map(|((_, kind, at), count)| (*at, *kind, *count))
    }

    /// Returns the start of the last span in which an endpoint took a delivery.
    pub(super) fn delivered_at(&self, endpoint: EndpointNumber) -> Option<Timestamp> {
        let (first, last) = (Timestamp::UNIX_EPOCH, Timestamp::from_unix_microseconds(u64::MAX));
        let kind = FigureKind::Delivered;
        let found = self.counts.range((endpoint, kind, first)..=(endpoint, kind, last));
        found.last().map(|((_, _, at), _)| *at)
    }
}
