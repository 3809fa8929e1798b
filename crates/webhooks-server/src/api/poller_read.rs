//! Reading by pollers and other followers, and the places of their consumers.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webhooks_admin::{Action, Consumer, Entry, Poller};
use webhooks_core::Timestamp;
use webhooks_dispatch::history::{Cursor, FeedRequest, HistoryStore as _};

use super::feed::{self, Part, Wanted, check_reached, limit, place};
use super::message_out::{MAX_PAGE_BYTES, MessageOut};
use super::poller::{PollerPath, find};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Body, Params, Path};
use crate::find::App;
use crate::parameters::{ConsumerPage, Follow, LeasedPage, PollerPage};
use crate::schema::Time;
use crate::service::Service;

/// The longest lease of a poll: an hour.
const MAX_LEASE_MS: u64 = 60 * 60 * 1_000;

/// The ids or uids of an application and a poller, and the name of a consumer.
type ConsumerPath = Path<(String, String, String)>;

#[derive(Serialize, ToSchema)]
pub(crate) struct FeedOut {
    /// The messages, in the order in which they were accepted.
    data: Vec<MessageOut>,
    /// The place from which to go on, also if `done`.
    iterator: String,
    /// Whether no message follows now.
    done: bool,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct LeasedOut {
    /// The messages, in the order in which they were accepted.
    data: Vec<LeasedMessage>,
    /// Whether no message follows now.
    done: bool,
}

/// A message with its place.
#[derive(Serialize, ToSchema)]
struct LeasedMessage {
    /// The place of the message. Commit it when this message, and all before it, were processed.
    offset: u64,
    #[serde(flatten)]
    message: MessageOut,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct SeekIn {
    /// The time from which messages are read next: those that were accepted then or later.
    #[schema(value_type = Time)]
    after: Timestamp,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct SeekOut {
    /// The new place of the consumer.
    iterator: String,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct CommitIn {
    /// The `offset` of the last message that was processed.
    offset: u64,
}

impl From<Part> for FeedOut {
    fn from(Part { items, next, is_last }: Part) -> Self {
        let data = items.iter().map(|(_, message)| MessageOut::new(message, true)).collect();
        Self { data, iterator: next.to_string(), done: is_last }
    }
}

/// Returns the messages of an application in the order in which they were accepted, from the oldest on.
///
/// A reader that gives the `iterator` of each answer with its next request misses no message.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/events",
    operation_id = "v1.message.events", tag = "Message", params(Follow),
    responses((status = 200, body = FeedOut)),
)]
pub(crate) async fn events(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    params: Params,
) -> Result<Json<FeedOut>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadPayloads).await?;
    let wanted = Wanted::read(params.texts("event_types"), params.texts("channels"))?;
    Ok(Json(feed::read(&service, feed::request(&app, &params)?, &wanted).await?.into()))
}

/// Returns the operational events of the service in the order in which they happened. They are made while there
/// is an operational endpoint.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    operation_id = "v1.events.stream", tag = "Webhook Endpoint", params(Follow),
    responses((status = 200, body = FeedOut)),
)]
pub(crate) async fn operational_events(
    State(service): State<Service>,
    caller: Caller,
    params: Params,
) -> Result<Json<FeedOut>, ApiError> {
    let app = Service::operational(&caller)?;
    let wanted = Wanted::read(params.texts("event_types"), params.texts("channels"))?;
    Ok(Json(feed::read(&service, feed::request(&app, &params)?, &wanted).await?.into()))
}

/// Returns the messages that a poller wants, in the order in which they were accepted.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/poller/{sink_id}",
    operation_id = "v1.message.poller.poll", tag = "Poller", params(PollerPage),
    responses((status = 200, body = FeedOut)),
)]
pub(crate) async fn poll(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name)): PollerPath,
    params: Params,
) -> Result<Json<FeedOut>, ApiError> {
    let (app, poller) = find(&service, &caller, (&app, &name), Action::Poll).await?;
    let mut part = feed::read(&service, feed::request(&app, &params)?, &wanted(&poller)?).await?;
    // A narrower choice for this request.
    let also = Wanted::read(params.text("event_type"), params.text("channel"))?;
    part.items.retain(|(_, message)| also.has(&message.summary));
    Ok(Json(part.into()))
}

/// Returns the messages that follow the place of a consumer. With `iterator`, that place is stored first:
/// give the `iterator` of the last answer once its messages were processed.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/poller/{sink_id}/consumer/{consumer_id}",
    operation_id = "v1.message.poller.consumer-poll", tag = "Poller", params(ConsumerPage),
    responses((status = 200, body = FeedOut)),
)]
pub(crate) async fn consume(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name, consumer)): ConsumerPath,
    params: Params,
) -> Result<Json<FeedOut>, ApiError> {
    let (app, poller) = find(&service, &caller, (&app, &name), Action::Poll).await?;
    let consumer = At { service: &service, app: &app, poller: &poller, name: &consumer };
    let (limit, iterator) = (limit(&params)?, params.text("iterator").map(place).transpose()?);
    let after = match iterator {
        Some(position) => {
            check_reached(&service, position).await?;
            consumer.move_to(position).await?;
            Some(position)
        }
        None => consumer.position().await?,
    };
    Ok(Json(consumer.read(after, limit).await?.into()))
}

/// Moves a consumer to a time: it gets the messages that were accepted then or later.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/poller/{sink_id}/consumer/{consumer_id}/seek",
    operation_id = "v1.message.poller.consumer-seek", tag = "Poller", request_body = SeekIn,
    responses((status = 200, body = SeekOut)),
)]
pub(crate) async fn seek(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name, consumer)): ConsumerPath,
    Body(SeekIn { after }): Body<SeekIn>,
) -> Result<Json<SeekOut>, ApiError> {
    let (app, poller) = find(&service, &caller, (&app, &name), Action::Poll).await?;
    let consumer = At { service: &service, app: &app, poller: &poller, name: &consumer };
    let first = FeedRequest { since: Some(after), limit: 1, ..consumer.request(None, 1) };
    // Before the messages are read: none that comes between is passed over.
    let end = service.engine().history().feed_end().await?;
    let page = service.engine().history().feed(first).await?;
    let position = match page.items.first() {
        Some((first, _)) => Cursor { key: first.key.saturating_sub(1), attempt: 0 },
        None => end,
    };
    consumer.move_to(position).await?;
    Ok(Json(SeekOut { iterator: position.to_string() }))
}

/// Returns the messages that follow the committed offset of a consumer.
///
/// With `lease_duration_ms`, other polls of this consumer get 409 until the lease is over or an offset is
/// committed. A message comes again until its offset was committed.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/polling-endpoint/{sink_id}/consumer/{consumer_id}",
    operation_id = "v1.message.pollerv2.consumer-poll", tag = "Poller", params(LeasedPage),
    responses((status = 200, body = LeasedOut), (status = 409)),
)]
pub(crate) async fn lease(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name, consumer)): ConsumerPath,
    params: Params,
) -> Result<Json<LeasedOut>, ApiError> {
    let (app, poller) = find(&service, &caller, (&app, &name), Action::Poll).await?;
    let consumer = At { service: &service, app: &app, poller: &poller, name: &consumer };
    let expected = "a number of milliseconds, at most 3600000";
    let lease: u64 = params.read("lease_duration_ms", expected)?.unwrap_or_default();
    if lease > MAX_LEASE_MS {
        return Err(ApiError::bad_request(format!("lease_duration_ms: it must be {expected}.")));
    }
    let start = match params.text("starting_position") {
        None | Some("earliest") => Cursor { key: 0, attempt: 0 },
        Some("latest") => service.engine().history().feed_end().await?,
        Some(_) => {
            let reason = "starting_position: it must be earliest or latest.";
            return Err(ApiError::bad_request(reason));
        }
    };
    let limit = limit(&params)?;
    let position = consumer.lease(start, Duration::from_millis(lease)).await?;
    let Part { items, is_last, .. } = consumer.read(Some(position), limit).await?;
    let message = |(at, message): &(Cursor, _)| LeasedMessage {
        offset: at.key,
        message: MessageOut::new(message, true),
    };
    Ok(Json(LeasedOut { data: items.iter().map(message).collect(), done: is_last }))
}

/// Stores that a consumer has processed the messages up to an offset, and ends its lease. An offset that lies
/// behind the stored one changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/polling-endpoint/{sink_id}/consumer/{consumer_id}/commit",
    operation_id = "v1.message.pollerv2.consumer-commit", tag = "Poller", request_body = CommitIn,
    responses((status = 204), (status = 400)),
)]
pub(crate) async fn commit(
    State(service): State<Service>,
    caller: Caller,
    Path((app, name, consumer)): ConsumerPath,
    Body(CommitIn { offset }): Body<CommitIn>,
) -> Result<StatusCode, ApiError> {
    let (app, poller) = find(&service, &caller, (&app, &name), Action::Poll).await?;
    let position = Cursor { key: offset, attempt: 0 };
    check_reached(&service, position).await?;
    let consumer = At { service: &service, app: &app, poller: &poller, name: &consumer };
    consumer.commit(position).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the messages that a poller gets.
pub(super) fn wanted(poller: &Entry<Poller>) -> Result<Wanted, ApiError> {
    let Poller { event_types, channels, .. } = &poller.value;
    Wanted::read(event_types.iter().map(String::as_str), channels.iter().map(String::as_str))
}

/// A consumer of a poller.
struct At<'a> {
    service: &'a Service,
    app: &'a App,
    poller: &'a Entry<Poller>,
    name: &'a str,
}

impl At<'_> {
    fn request(&self, after: Option<Cursor>, limit: usize) -> FeedRequest {
        let tenant = Some(self.app.tenant.clone());
        FeedRequest { tenant, after, since: None, limit, max_bytes: MAX_PAGE_BYTES }
    }

    async fn read(&self, after: Option<Cursor>, limit: usize) -> Result<Part, ApiError> {
        feed::read(self.service, self.request(after, limit), &wanted(self.poller)?).await
    }

    /// Returns the stored place; `None` if it has none yet.
    async fn position(&self) -> Result<Option<Cursor>, ApiError> {
        ApiError::check_path("consumer_id", self.name)?;
        let consumers = self.service.admin().consumers(&self.app.tenant, &self.poller.id);
        let found = consumers.look_up(self.name, Service::now()).await?;
        found.map(|found| place(&found.value.position)).transpose()
    }

    /// Stores a place, and ends the lease.
    async fn move_to(&self, position: Cursor) -> Result<(), ApiError> {
        let now = Service::now();
        let moved = Consumer { position: position.to_string(), leased_until: None, moved_at: now };
        self.advance(|_| Ok(moved.clone())).await.map(drop)
    }

    /// Stores a position that lies further, and ends the lease. A late reader, whose lease is over, changes
    /// nothing.
    async fn commit(&self, position: Cursor) -> Result<(), ApiError> {
        let now = Service::now();
        let committed = self.advance(|before: Option<Consumer>| {
            if let Some(before) = before
                && place(&before.position)? >= position
            {
                return Ok(before);
            }
            Ok(Consumer { position: position.to_string(), leased_until: None, moved_at: now })
        });
        committed.await.map(drop)
    }

    /// Takes a lease, unless another poll has one; returns the stored place, or `start` if there is none.
    async fn lease(&self, start: Cursor, lease: Duration) -> Result<Cursor, ApiError> {
        let now = Service::now();
        let leased = self.advance(|before: Option<Consumer>| {
            if let Some(until) = before.as_ref().and_then(|before| before.leased_until)
                && until > now
            {
                return Err(ApiError::conflict(format!(
                    "Another poll of this consumer has a lease until {until}: commit its offset, or \
                     wait."
                )));
            }
            let position = before.map_or_else(|| start.to_string(), |before| before.position);
            let leased_until = (!lease.is_zero()).then(|| now + lease);
            Ok(Consumer { position, leased_until, moved_at: now })
        });
        place(&leased.await?.position)
    }

    async fn advance(
        &self,
        next: impl Fn(Option<Consumer>) -> Result<Consumer, ApiError> + Send + Sync,
    ) -> Result<Consumer, ApiError> {
        ApiError::check_path("consumer_id", self.name)?;
        let consumers = self.service.admin().consumers(&self.app.tenant, &self.poller.id);
        consumers.advance(self.name, Service::now(), next).await
    }
}
