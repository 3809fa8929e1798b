//! The parameters of queries, for the document: [`Params`](crate::extract::Params) reads them by name.
#![expect(dead_code, reason = "the document alone is made of them")]

use utoipa::IntoParams;

use crate::schema::{
    EventTypeName, Label, Name, Ordering, Pattern, Period, Position, TaskStatus, Time,
};

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// The most entries of the page; 50 by default.
    #[param(required = false, maximum = 250)]
    limit: u16,
    /// The `iterator` or `prevIterator` of another page of the list.
    #[param(required = false)]
    iterator: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Order {
    /// The order of the list.
    #[param(required = false, value_type = Ordering)]
    order: String,
}

/// The filters of counts of the history.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryOnly {
    /// Only messages of this channel.
    #[param(required = false, value_type = Label)]
    channel: String,
    /// Only messages with this tag.
    #[param(required = false, value_type = Label)]
    tag: String,
    /// Only entries before this time.
    #[param(required = false, value_type = Time)]
    before: String,
    /// Only entries since this time.
    #[param(required = false, value_type = Time)]
    after: String,
    /// Only messages of these event types.
    #[param(required = false, value_type = Vec<EventTypeName>)]
    event_types: Vec<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ByClass {
    /// Only attempts whose response has a status code of this class; 0 if there was no response.
    #[param(required = false, maximum = 500, multiple_of = 100)]
    status_code_class: u16,
}

/// The filters of lists of messages, deliveries and attempts.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct History {
    /// Only messages of this channel.
    #[param(required = false, value_type = Label)]
    channel: String,
    /// Only messages with this tag.
    #[param(required = false, value_type = Label)]
    tag: String,
    /// Only entries before this time.
    #[param(required = false, value_type = Time)]
    before: String,
    /// Only entries since this time.
    #[param(required = false, value_type = Time)]
    after: String,
    /// Whether payloads and responses are shown; they are by default.
    #[param(required = false)]
    with_content: bool,
    /// Only messages of these event types.
    #[param(required = false, value_type = Vec<EventTypeName>)]
    event_types: Vec<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ByStatus {
    /// Only entries of this status.
    #[param(required = false, maximum = 4)]
    status: u8,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AttemptFilter {
    /// Only attempts whose response has a status code of this class; 0 if there was no response.
    #[param(required = false, maximum = 500, multiple_of = 100)]
    status_code_class: u16,
    /// Whether the message is shown in each attempt.
    #[param(required = false)]
    with_msg: bool,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ByEndpoint {
    /// Only attempts to this endpoint.
    #[param(required = false, value_type = Name)]
    endpoint_id: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Content {
    /// Whether the payload is shown; it is by default.
    #[param(required = false)]
    with_content: bool,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventTypeFilter {
    /// Whether archived event types are in the list.
    #[param(required = false)]
    include_archived: bool,
    /// Whether schemas are shown.
    #[param(required = false)]
    with_content: bool,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Expunge {
    /// Whether it is deleted instead of archived.
    #[param(required = false)]
    expunge: bool,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct GetIfExists {
    /// Whether the application that has the `uid` is returned if there is one.
    #[param(required = false)]
    get_if_exists: bool,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Since {
    /// Only deliveries since this time.
    #[param(required = false, value_type = Time)]
    since: String,
    /// Only deliveries before this time.
    #[param(required = false, value_type = Time)]
    until: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TaskFilter {
    /// Only tasks in this state.
    #[param(required = false, value_type = TaskStatus)]
    status: String,
    /// Only tasks of this kind.
    #[param(required = false)]
    task: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatisticsSpan {
    /// The start of the time; 24 periods before its end by default. It is moved to the start of its period.
    #[param(rename = "startDate", required = false, value_type = Time)]
    start_date: String,
    /// The end of the time; now by default.
    #[param(rename = "endDate", required = false, value_type = Time)]
    end_date: String,
    /// The length of a step; a day by default.
    #[param(required = false, value_type = Period)]
    period: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AttemptSpan {
    /// Only messages since this time.
    #[param(value_type = Time)]
    since: String,
    /// Only messages before this time.
    #[param(value_type = Time)]
    until: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventTypesParam {
    /// Only messages of these event types.
    #[param(required = false, value_type = Vec<EventTypeName>)]
    event_types: Vec<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WithoutPlay {
    /// Ignored: no endpoint here belongs to a playground of Svix.
    #[param(required = false)]
    exclude_svix_play: bool,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AppCount {
    /// Whether a disabled endpoint counts for nothing, as by default.
    #[param(required = false)]
    exclude_disabled: bool,
}

/// The place and the size of a part of a feed.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ConsumerPage {
    /// The most messages; 50 by default.
    #[param(required = false, minimum = 1, maximum = 250)]
    limit: u16,
    /// The `iterator` of the answer before.
    #[param(required = false)]
    iterator: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Follow {
    /// The most messages; 50 by default.
    #[param(required = false, minimum = 1, maximum = 250)]
    limit: u16,
    /// The `iterator` of the answer before.
    #[param(required = false)]
    iterator: String,
    /// Only messages of these event types or patterns.
    #[param(required = false, value_type = Vec<Pattern>)]
    event_types: Vec<String>,
    /// Only messages of these channels.
    #[param(required = false, value_type = Vec<Label>, max_items = 16)]
    channels: Vec<String>,
    /// Only messages that were accepted then or later.
    #[param(required = false, value_type = Time)]
    after: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FollowAttempts {
    /// The most attempts; 50 by default.
    #[param(required = false, minimum = 1, maximum = 250)]
    limit: u16,
    /// The `iterator` of the answer before.
    #[param(required = false)]
    iterator: String,
    /// Only attempts that ended then or later; now by default. An `iterator` has it already.
    #[param(required = false, value_type = Time)]
    after: String,
    /// Whether responses are shown; they are by default.
    #[param(required = false)]
    with_content: bool,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PollerPage {
    /// The most messages; 50 by default.
    #[param(required = false, minimum = 1, maximum = 250)]
    limit: u16,
    /// The `iterator` of the answer before.
    #[param(required = false)]
    iterator: String,
    /// Only messages of this event type or pattern, of those that the poller wants.
    #[param(required = false, value_type = Pattern)]
    event_type: String,
    /// Only messages of this channel, of those that the poller wants.
    #[param(required = false, value_type = Label)]
    channel: String,
    /// Only messages that were accepted then or later.
    #[param(required = false, value_type = Time)]
    after: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PollerAttemptFilter {
    /// Only attempts at this message.
    #[param(required = false, value_type = Name)]
    msg_id: String,
    /// Only attempts that a reader of this poller made. A page may have fewer entries then.
    #[param(required = false, value_type = Name)]
    poller_id: String,
    /// Only attempts at messages that were accepted before this time.
    #[param(required = false, value_type = Time)]
    before: String,
    /// Only attempts at messages that were accepted since this time.
    #[param(required = false, value_type = Time)]
    after: String,
    /// Whether responses are shown; they are by default.
    #[param(required = false)]
    with_content: bool,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LeasedPage {
    /// The most messages; 50 by default.
    #[param(required = false, minimum = 1, maximum = 250)]
    limit: u16,
    /// How long other polls of this consumer are refused, in milliseconds; not at all by default.
    #[param(required = false, maximum = 3_600_000)]
    lease_duration_ms: u64,
    /// The place of a consumer that is new: `earliest` by default.
    #[param(required = false, value_type = Position)]
    starting_position: String,
}
