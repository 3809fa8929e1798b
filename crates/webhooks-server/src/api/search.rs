//! Messages by what they have: their labels, types and times, and a text in their payloads.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use webhooks_admin::Action;
use webhooks_core::{Channel, EventType, Tag, Timestamp};
use webhooks_dispatch::history::{HistoryStore as _, Query, SearchRequest};

use super::message::{HistoryFilter, page};
use super::message_out::{MAX_PAGE_BYTES, MessageOut};
use crate::auth::Caller;
use crate::error::{ApiError, NO_PAGE};
use crate::extract::{Body, Path};
use crate::find::App;
use crate::paging::{List, Place, place_of};
use crate::schema::{EventTypeName, Label, Time};
use crate::service::Service;

/// The payloads that one search looks at; its iterator leads to the next ones.
const MAX_LOOKED: usize = 2_000;

/// The most characters of a text to search for, and the sizes of a page: by default and at most.
const MAX_TEXT: usize = 256;
const LIMITS: (usize, usize) = (50, 250);

/// A search. The words of its fields are those of Svix, except `text`.
#[derive(Deserialize, ToSchema)]
pub(crate) struct SearchIn {
    /// The most messages: 1 to 250; 50 by default.
    #[schema(minimum = 1, maximum = 250)]
    limit: Option<usize>,
    /// The `iterator` of the answer before.
    iterator: Option<String>,
    /// Only messages of this channel.
    #[schema(value_type = Option<Label>)]
    channel: Option<Channel>,
    /// Only messages with this tag.
    #[schema(value_type = Option<Label>)]
    tag: Option<Tag>,
    /// Only messages before this time.
    #[schema(value_type = Option<Time>)]
    before: Option<Timestamp>,
    /// Only messages since this time.
    #[schema(value_type = Option<Time>)]
    after: Option<Timestamp>,
    /// Whether payloads are shown; `false` by default.
    #[serde(default)]
    with_content: bool,
    /// Only messages of these event types; of all if absent.
    #[schema(value_type = Option<Vec<EventTypeName>>)]
    event_types: Option<Vec<String>>,
    /// A text that the payload has, character for character as it was published: 1 to 256 bytes.
    #[schema(min_length = 1, max_length = 256)]
    text: Option<String>,
}

impl SearchIn {
    fn filter(&self, app: &App) -> Result<HistoryFilter, ApiError> {
        let event_types = self.event_types.iter().flatten().map(|name| EventType::new(name));
        let event_types: Vec<EventType> = event_types
            .collect::<Result<_, _>>()
            .map_err(|error| ApiError::value("event_types", error))?;
        let event_type = match &*event_types {
            [one] => one.as_str().parse().ok(),
            _ => None,
        };
        let query = Query {
            tenant: Some(app.tenant.clone()),
            event_type,
            channel: self.channel.clone(),
            tag: self.tag.clone(),
            since: self.after,
            until: self.before,
            ..Query::default()
        };
        Ok(HistoryFilter { query, event_types })
    }

    fn place(&self) -> Result<Place, ApiError> {
        let limit = self.limit.unwrap_or(LIMITS.0);
        if !(1..=LIMITS.1).contains(&limit) {
            return Err(ApiError::value("limit", "it is not 1 to 250"));
        }
        let unreadable = |_| ApiError::value("iterator", NO_PAGE);
        place_of(self.iterator.as_deref(), limit).map_err(unreadable)
    }
}

/// Finds messages, the newest first.
///
/// One request looks at the payloads of 2,000 messages for a `text`. So a page may be short, or empty, and
/// its `iterator` goes on.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/msg/search",
    operation_id = "v1.message.search", tag = "Message", request_body = SearchIn,
    responses((status = 200, body = List<MessageOut>)),
)]
pub(crate) async fn search(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    Body(input): Body<SearchIn>,
) -> Result<Json<List<MessageOut>>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadEvents).await?;
    let (filter, place) = (input.filter(&app)?, input.place()?);
    let has_payload = input.with_content && caller.may(Action::ReadPayloads, &app.tenant);
    let Some(text) = input.text else { return page(&service, &filter, place, has_payload).await };
    // A search for texts tells what payloads hold.
    caller.check(Action::ReadPayloads, Some(&app.tenant))?;
    if !(1..=MAX_TEXT).contains(&text.chars().count()) {
        return Err(ApiError::value("text", "it has not 1 to 256 characters"));
    }
    if place.before.is_some() {
        return Err(ApiError::value("iterator", "a search for a text only goes on"));
    }
    let (query, max_looked) = (filter.query(place), MAX_LOOKED);
    let request = SearchRequest { query: query.clone(), text: text.clone(), max_looked };
    let mut found = service.engine().history().search(request).await?;
    let (mut shown, mut bytes) = (Vec::new(), 0);
    for (number, summary) in found.items.iter().enumerate() {
        bytes += summary.body_len;
        if number > 0 && bytes > MAX_PAGE_BYTES {
            // A shorter page, with the iterator of its end.
            let query = Query { limit: number, ..query };
            let request = SearchRequest { query, text, max_looked };
            found.next = service.engine().history().search(request).await?.next;
            break;
        }
        let (tenant, id) = (summary.tenant.clone(), summary.id.clone());
        let Some(record) = service.engine().history().event(tenant, id).await? else { continue };
        // The store looks at the whole event, its type and ids included.
        let has_text = record.event().is_ok_and(|event| event.payload.as_str().contains(&*text));
        if has_text && filter.keeps(&summary.event_type) {
            shown.push(MessageOut::new(&record, has_payload));
        }
    }
    let next = found.next.map(|next| next.to_string());
    Ok(Json(List::of(shown, next, found.next.is_none())))
}
