//! Lists of endpoints: filters, orders, and pages in both directions.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;
use webhooks_core::{EndpointId, EventType, TenantId, Timestamp};

use crate::{EndpointKey, EndpointState, Registration, Registry};

/// The endpoints to list: all of them, unless a field is set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers and tests build it")]
pub struct EndpointQuery {
    /// Those of this tenant.
    pub tenant: Option<TenantId>,
    /// Those in one of these states; in any state if empty.
    pub states: Vec<StateKind>,
    /// Those with exactly this URL, as [`EndpointUrl`](crate::EndpointUrl) writes it.
    pub url: Option<String>,
    /// Those that get events of this type.
    pub event_type: Option<EventType>,
    /// Those with this text in their id, name, description or URL; upper and lower case of ASCII
    /// letters are the same.
    pub text: Option<String>,
    /// Those whose metadata has all these entries.
    pub metadata: BTreeMap<String, String>,
    /// The order of the list.
    pub order: EndpointOrder,
    /// The place at which the page begins; the start of the list if `None`.
    pub place: Option<PagePlace>,
    /// The largest number of entries, from 1 to 1,000.
    pub limit: usize,
}

/// The kinds of states of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "stores must know each")]
pub enum StateKind {
    /// Published events are delivered.
    Active,
    /// Published events wait.
    Paused,
    /// Disabled for any reason.
    Disabled,
}

/// The order of a list of endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "stores must know each")]
pub enum EndpointOrder {
    /// By tenant, and then by id.
    #[default]
    ById,
    /// By the time of creation, the newest first.
    NewestFirst,
}

/// The place of a page in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third direction")]
pub enum PagePlace {
    /// The entries after this one: those that follow it in the order of the list.
    After(EndpointCursor),
    /// The entries before this one, the nearest ones, also in the order of the list.
    Before(EndpointCursor),
}

/// The place of an endpoint in the order of a list. Its text is opaque, and fits into a URL as it is.
///
/// # Example
/// ```
/// use webhooks_core::EndpointId;
/// use webhooks_registry::{EndpointKey, store::EndpointCursor};
///
/// let cursor = EndpointCursor::ById(EndpointKey::of_default_tenant(EndpointId::new("crm")?));
/// assert_eq!(cursor.to_string().parse(), Ok(cursor));
/// # Ok::<(), webhooks_core::IdError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "stores build it")]
pub enum EndpointCursor {
    /// In a list by id.
    ById(EndpointKey),
    /// In a list by time of creation.
    ByCreation(Timestamp, EndpointKey),
}

/// An error: a text is no cursor of a list of endpoints, or is one of a list in another order.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this is no cursor of this list; leave it out to begin at the start")]
#[non_exhaustive]
pub struct EndpointCursorError;

/// A part of a list of endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
pub struct EndpointPage {
    /// The endpoints, in the order of the list.
    pub items: Vec<Arc<Registration>>,
    /// The place of the next page; `None` if nothing follows.
    pub next: Option<EndpointCursor>,
    /// The place of the page before; `None` if nothing comes before.
    pub previous: Option<EndpointCursor>,
}

impl EndpointQuery {
    /// The largest number of entries of a page.
    pub const MAX_LIMIT: usize = 1_000;

    /// Returns the number of entries asked for, within the limits.
    pub fn page_size(&self) -> usize {
        self.limit.clamp(1, Self::MAX_LIMIT)
    }

    /// Returns an error if the place belongs to a list in another order.
    ///
    /// # Errors
    /// [`EndpointCursorError`] then.
    pub fn check(&self) -> Result<(), EndpointCursorError> {
        match &self.place {
            Some(PagePlace::After(cursor) | PagePlace::Before(cursor))
                if cursor.order() != self.order =>
            {
                Err(EndpointCursorError)
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the filters let an endpoint through.
    pub fn matches(&self, found: &Registration) -> bool {
        let endpoint = &found.endpoint;
        let has_entry = |(key, value)| endpoint.metadata.get(key) == Some(value);
        self.tenant.as_ref().is_none_or(|tenant| *tenant == endpoint.tenant)
            && (self.states.is_empty() || self.states.contains(&found.state.kind()))
            && self.url.as_deref().is_none_or(|url| url == endpoint.url.as_str())
            && self.event_type.as_ref().is_none_or(|event_type| endpoint.wants(event_type))
            && self.metadata.iter().all(has_entry)
            && self.text.as_deref().is_none_or(|text| has_text(found, text))
    }

    /// Returns the cursor of an endpoint in this list.
    pub fn cursor(&self, found: &Registration) -> EndpointCursor {
        match self.order {
            EndpointOrder::ById => EndpointCursor::ById(found.key()),
            EndpointOrder::NewestFirst => {
                EndpointCursor::ByCreation(found.revision.created_at, found.key())
            }
        }
    }

    /// Returns the page of this list, for a store that has its endpoints in memory.
    ///
    /// # Errors
    /// [`EndpointCursorError`] when the place belongs to a list in another order.
    pub fn page_in(&self, registry: &Registry) -> Result<EndpointPage, EndpointCursorError> {
        self.check()?;
        Ok(registry.with_all(self.tenant.as_ref(), |all| self.page(all)))
    }

    /// Counts the endpoints that the filters let through, up to `max`, for a store that has its endpoints
    /// in memory.
    pub fn count_in(&self, registry: &Registry, max: usize) -> usize {
        registry.with_all(self.tenant.as_ref(), |all| {
            all.filter(|found| self.matches(found)).take(max).count()
        })
    }

    /// Returns the page of a list, of which `found` yields all endpoints in any order.
    fn page<'r>(&self, found: impl Iterator<Item = &'r Arc<Registration>>) -> EndpointPage {
        let mut found: Vec<_> = found.filter(|found| self.matches(found)).collect();
        match self.order {
            EndpointOrder::ById => found.sort_by_cached_key(|found| found.key()),
            EndpointOrder::NewestFirst => {
                found.sort_by_cached_key(|found| (found.revision.created_at, found.key()));
                found.reverse();
            }
        }
        let limit = self.page_size();
        let (from, to) = match &self.place {
            None => (0, limit),
            Some(PagePlace::After(cursor)) => {
                let from = found.partition_point(|found| cursor.compare(found).is_le());
                (from, from.saturating_add(limit))
            }
            Some(PagePlace::Before(cursor)) => {
                let to = found.partition_point(|found| cursor.compare(found).is_lt());
                (to.saturating_sub(limit), to)
            }
        };
        let to = to.min(found.len());
        let items = found.get(from..to).unwrap_or_default();
        let items: Vec<Arc<Registration>> = items.iter().map(|found| Arc::clone(found)).collect();
        EndpointPage {
            next: items.last().filter(|_| to < found.len()).map(|last| self.cursor(last)),
            previous: items.first().filter(|_| from > 0).map(|first| self.cursor(first)),
            items,
        }
    }
}

impl Default for EndpointQuery {
    /// Returns a query for the first hundred of all, by id.
    fn default() -> Self {
        Self {
            tenant: None,
            states: Vec::new(),
            url: None,
            event_type: None,
            text: None,
            metadata: BTreeMap::new(),
            order: EndpointOrder::ById,
            place: None,
            limit: 100,
        }
    }
}

fn has_text(found: &Registration, text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let endpoint = &found.endpoint;
    let texts =
        [Some(found.id.as_str()), endpoint.name.as_deref(), endpoint.description.as_deref()];
    (texts.into_iter().flatten().chain([endpoint.url.as_str()]))
        .any(|field| field.to_ascii_lowercase().contains(&text))
}

impl EndpointCursor {
    /// Returns the order of the list that the cursor belongs to.
    pub fn order(&self) -> EndpointOrder {
        match self {
            Self::ById(_) => EndpointOrder::ById,
            Self::ByCreation(..) => EndpointOrder::NewestFirst,
        }
    }

    /// Borrows the key of the endpoint.
    pub fn key(&self) -> &EndpointKey {
        match self {
            Self::ById(key) | Self::ByCreation(_, key) => key,
        }
    }

    /// Compares the place of an endpoint with this one, in the order of the cursor's list. The cursor's
    /// own endpoint may be elsewhere by now.
    fn compare(&self, found: &Registration) -> Ordering {
        match self {
            Self::ById(key) => found.key().cmp(key),
            Self::ByCreation(at, key) => {
                // The newest come first.
                (*at, key).cmp(&(found.revision.created_at, &found.key()))
            }
        }
    }
}

impl fmt::Display for EndpointCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::ById(key) => format!("i/{key}"),
            Self::ByCreation(at, key) => format!("c{}/{key}", at.as_unix_microseconds()),
        };
        f.write_str(&URL_SAFE_NO_PAD.encode(text))
    }
}

impl FromStr for EndpointCursor {
    type Err = EndpointCursorError;

    fn from_str(text: &str) -> Result<Self, EndpointCursorError> {
        let parse = || {
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
            let mut parts = text.splitn(3, '/');
            let (order, tenant, id) = (parts.next()?, parts.next()?, parts.next()?);
            let key = EndpointKey::new(TenantId::new(tenant).ok()?, EndpointId::new(id).ok()?);
            match order.strip_prefix('c') {
                Some(at) => {
                    let at = Timestamp::from_unix_microseconds(at.parse().ok()?);
                    Some(Self::ByCreation(at, key))
                }
                None => (order == "i").then_some(Self::ById(key)),
            }
        };
        parse().ok_or(EndpointCursorError)
    }
}

impl EndpointState {
    /// Returns the kind of the state.
    pub fn kind(self) -> StateKind {
        match self {
            Self::Active => StateKind::Active,
            Self::Paused => StateKind::Paused,
            Self::Disabled(_) => StateKind::Disabled,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use webhooks_core::EventType;

    use super::*;
    use crate::{DisableReason, Endpoint, EndpointNumber, Revision};

    /// Returns an endpoint of one of three tenants.
    fn registration(tenant: u8, id: u8, created: u64, is_disabled: bool) -> Arc<Registration> {
        let tenant = TenantId::new(&format!("t{tenant}")).unwrap();
        let endpoint = Endpoint::new(&format!("https://example.com/{id}"), "plain").unwrap();
        let endpoint = endpoint.tenant(tenant).name(format!("Name {id}")).metadata("id", "x");
        let id = EndpointId::new(&format!("e{id}")).unwrap();
        let revision = Revision::first(Timestamp::from_unix_seconds(created));
        let disabled = EndpointState::Disabled(DisableReason::Gone);
        let state = if is_disabled { disabled } else { EndpointState::Active };
        let number = EndpointNumber::default();
        Arc::new(Registration::new(number, id, endpoint).restored(state, revision))
    }

    /// Returns the list that a query pages through, in one direction.
    fn walk(
        query: &EndpointQuery,
        all: &[Arc<Registration>],
        step: impl Fn(&EndpointPage) -> Option<PagePlace>,
    ) -> Vec<EndpointPage> {
        let mut pages = vec![query.page(all.iter())];
        while let Some(place) = pages.last().and_then(&step) {
            let query = EndpointQuery { place: Some(place), ..query.clone() };
            assert_eq!(query.check(), Ok(()));
            pages.push(query.page(all.iter()));
        }
        pages
    }

    proptest! {
        #[test]
        fn pages_forward_and_back_are_the_whole_list(
            all in vec((0..3_u8, 0..20_u8, 0..4_u64, any::<bool>()), 0..40),
            limit in 1..7_usize,
            newest_first in any::<bool>(),
            tenant in proptest::option::of(0..3_u8),
            only_disabled in any::<bool>(),
        ) {
            let mut found: BTreeMap<EndpointKey, Arc<Registration>> = BTreeMap::new();
            for (tenant, id, created, is_disabled) in all {
                let one = registration(tenant, id, created, is_disabled);
                found.insert(one.key(), one);
            }
            let all: Vec<Arc<Registration>> = found.into_values().collect();
            let order = if newest_first { EndpointOrder::NewestFirst } else { EndpointOrder::ById };
            let query = EndpointQuery {
                tenant: tenant.map(|tenant| TenantId::new(&format!("t{tenant}")).unwrap()),
                states: only_disabled.then_some(StateKind::Disabled).into_iter().collect(),
                order,
                limit,
                ..EndpointQuery::default()
            };
            let mut expected: Vec<_> = all.iter().filter(|one| query.matches(one)).cloned().collect();
            if newest_first {
                expected.sort_by_key(|one| (one.revision.created_at, one.key()));
                expected.reverse();
            }
            let forward = walk(&query, &all, |page| page.next.clone().map(PagePlace::After));
            let listed: Vec<_> = forward.iter().flat_map(|page| page.items.clone()).collect();
            prop_assert_eq!(&listed, &expected);
            prop_assert!(forward.iter().skip(1).all(|page| page.previous.is_some()));
            // Back from behind the last entry.
            let Some(last) = expected.last() else { return Ok(()) };
            let place = Some(PagePlace::Before(query.cursor(last)));
            let from_end = EndpointQuery { place, ..query.clone() };
            let back = walk(&from_end, &all, |page| page.previous.clone().map(PagePlace::Before));
            let listed: Vec<_> = back.iter().rev().flat_map(|page| page.items.clone()).collect();
            prop_assert_eq!(&listed[..], &expected[..expected.len() - 1]);
        }
    }

    #[test]
    fn each_filter_filters() {
        let found = registration(1, 7, 0, true);
        let matches = |change: fn(&mut EndpointQuery)| {
            let mut query = EndpointQuery::default();
            change(&mut query);
            query.matches(&found)
        };
        assert!(matches(|query| query.text = Some("nAME 7".to_owned())));
        assert!(!matches(|query| query.text = Some("name 8".to_owned())));
        assert!(matches(|query| query.url = Some("https://example.com/7".to_owned())));
        assert!(!matches(|query| query.url = Some("https://example.com/".to_owned())));
        assert!(matches(|query| query.event_type = Some(EventType::CREATED)));
        assert!(matches(|query| drop(query.metadata.insert("id".into(), "x".into()))));
        assert!(!matches(|query| drop(query.metadata.insert("id".into(), "y".into()))));
        assert!(!matches(|query| query.states = vec![StateKind::Active, StateKind::Paused]));
    }

    #[test]
    fn a_cursor_is_read_back_from_its_text_alone() {
        let found = registration(1, 7, 5, true);
        let query = |order| EndpointQuery { order, ..EndpointQuery::default() };
        for order in [EndpointOrder::ById, EndpointOrder::NewestFirst] {
            let cursor = query(order).cursor(&found);
            assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
            let other = match order {
                EndpointOrder::ById => EndpointOrder::NewestFirst,
                EndpointOrder::NewestFirst => EndpointOrder::ById,
            };
            let place = Some(PagePlace::After(cursor));
            assert!(EndpointQuery { place, ..query(other) }.check().is_err());
        }
        for text in ["", "e", "aS8v", "aS90MS9lN", "bm9uc2Vuc2U", "?", "ä"] {
            assert_eq!(text.parse::<EndpointCursor>(), Err(EndpointCursorError), "{text:?}");
        }
    }
}
