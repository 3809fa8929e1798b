//! The messages of an application in the order in which they were accepted, for readers that follow them.

use webhooks_core::{Channel, EventType};
use webhooks_dispatch::history::{
    Cursor, EventRecord, EventSummary, FeedRequest, HistoryStore as _, Query,
};
use webhooks_registry::Subscription;

use super::message_out::MAX_PAGE_BYTES;
use crate::error::{ApiError, no_page};
use crate::extract::Params;
use crate::find::App;
use crate::paging::{DEFAULT_LIMIT, MAX_LIMIT, MAX_PAGES};
use crate::service::Service;

/// The messages that a reader gets.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) types: Vec<Subscription>,
    pub(super) channels: Vec<Channel>,
}

/// A part of a feed.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) items: Vec<(Cursor, EventRecord)>,
    /// The place at which the next part begins.
    pub(super) next: Cursor,
    pub(super) is_last: bool,
}

impl Wanted {
    /// Reads what a reader wants from texts.
    pub(super) fn read<'t>(
        types: impl IntoIterator<Item = &'t str>,
        channels: impl IntoIterator<Item = &'t str>,
    ) -> Result<Self, ApiError> {
        let types = types.into_iter().map(Subscription::new).collect::<Result<_, _>>();
        let types =
            types.map_err(|error| ApiError::bad_request(format!("event_types: {error}.")))?;
        let channels = Channel::list(channels)
            .map_err(|error| ApiError::bad_request(format!("channels: {error}.")))?;
        Ok(Self { types, channels })
    }

    pub(super) fn has(&self, message: &EventSummary) -> bool {
        let is_type = |event_type: &EventType| {
            self.types.is_empty() || self.types.iter().any(|one| one.matches(event_type))
        };
        let is_channel = |own: &[Channel]| {
            self.channels.is_empty() || self.channels.iter().any(|channel| own.contains(channel))
        };
        // Examples go to the endpoint that they were made for.
        message.only.is_none() && is_type(&message.event_type) && is_channel(&message.channels)
    }
}

/// Reads the size of a part.
pub(super) fn limit(params: &Params) -> Result<usize, ApiError> {
    let expected = "a number from 1 to 250";
    let limit = params.read("limit", expected)?.unwrap_or(DEFAULT_LIMIT);
    if (1..=MAX_LIMIT).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::bad_request(format!("limit: it must be {expected}.")))
}

/// Reads a place from a text.
pub(super) fn place(text: &str) -> Result<Cursor, ApiError> {
    text.parse().map_err(|_unreadable| no_page())
}

/// Checks that a place is one that a reader can have come to: behind the end, it would pass over messages.
pub(super) async fn check_reached(service: &Service, place: Cursor) -> Result<(), ApiError> {
    let end = service.engine().history().feed_end().await?;
    // An open transaction can move the end back, behind what was read already.
    let newest = Query { limit: 1, ..Query::default() };
    let newest = async || service.engine().history().events(newest.clone()).await;
    if place > end && newest().await?.previous.is_none_or(|newest| place > newest) {
        return Err(ApiError::bad_request("No message has this place yet."));
    }
    Ok(())
}

/// Returns a request for the messages of an application.
pub(super) fn request(app: &App, params: &Params) -> Result<FeedRequest, ApiError> {
    Ok(FeedRequest {
        tenant: Some(app.tenant.clone()),
        after: params.text("iterator").map(place).transpose()?,
        since: params.time("after")?,
        limit: limit(params)?,
        max_bytes: MAX_PAGE_BYTES,
    })
}

/// Reads the next messages that a reader wants.
pub(super) async fn read(
    service: &Service,
    mut request: FeedRequest,
    wanted: &Wanted,
) -> Result<Part, ApiError> {
    let (limit, mut items, mut bytes) = (request.limit, Vec::new(), 0);
    for _ in 0..MAX_PAGES {
        let page = service.engine().history().feed(request.clone()).await?;
        for (next, message) in page.items {
            request.after = Some(next);
            if wanted.has(&message.summary) {
                bytes += message.body.len();
                items.push((next, message));
            }
            if items.len() >= limit || bytes >= MAX_PAGE_BYTES {
                return Ok(Part { items, next, is_last: false });
            }
        }
        request.after = Some(page.next);
        if page.is_last {
            return Ok(Part { items, next: page.next, is_last: true });
        }
    }
    Ok(Part { items, next: request.place(), is_last: false })
}
