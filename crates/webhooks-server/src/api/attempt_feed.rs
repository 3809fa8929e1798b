//! The attempts of an application in the order in which they ended, for readers that follow them.

use std::str::FromStr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use webhooks_admin::Action;
use webhooks_core::Timestamp;
use webhooks_dispatch::history::{Cursor, EndedRequest, HistoryStore as _};

use super::attempt_out::{AttemptOut, AttemptShower};
use super::feed::limit;
use super::message::has_payload;
use crate::auth::Caller;
use crate::error::{ApiError, no_page};
use crate::extract::{Params, Path};
use crate::paging::MAX_PAGES;
use crate::parameters::FollowAttempts;
use crate::schema::EventTypeName;
use crate::service::Service;

/// The time in which an attempt may be recorded late: workers record in groups, and their clocks differ.
const OVERLAP: Duration = Duration::from_secs(10);

/// The attempts, of all applications, that are read at once.
const STEP: usize = 250;

/// An attempt that has ended.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndedAttemptOut {
    #[serde(flatten)]
    attempt: AttemptOut,
    /// The event type of the message.
    #[schema(value_type = EventTypeName)]
    event_type: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct EndedOut {
    /// The attempts, in the order in which they ended.
    data: Vec<EndedAttemptOut>,
    /// The place from which to go on, also if `done`.
    iterator: String,
    /// Whether no attempt follows now.
    done: bool,
}

/// A place in the order of ends, and the time before which a reader wants nothing. As text: four numbers.
#[derive(Clone, Copy)]
struct EndedPlace {
    start: Timestamp,
    since: Timestamp,
    after: Option<Cursor>,
}

/// Returns the attempts of an application in the order in which they ended, of all its endpoints.
///
/// A reader that gives the `iterator` of each answer with its next request misses none. It gets those of the last ten
/// seconds again, since an attempt may be recorded late: their ids tell them.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/attempt",
    operation_id = "v1.message-attempt.list-ended", tag = "Message Attempt", params(FollowAttempts),
    responses((status = 200, body = EndedOut)),
)]
pub(crate) async fn ended(
    State(service): State<Service>,
    caller: Caller,
    Path(app): Path<String>,
    params: Params,
) -> Result<Json<EndedOut>, ApiError> {
    let app = service.app(&caller, &app, Action::ReadEvents).await?;
    let has_content = has_payload(&params)? && caller.may(Action::ReadPayloads, &app.tenant);
    let (limit, now) = (limit(&params)?, Service::now());
    let place: EndedPlace = match params.text("iterator") {
        Some(text) => text.parse()?,
        None => EndedPlace::from(params.time("after")?.unwrap_or(now)),
    };
    let mut request = EndedRequest { since: place.since, after: place.after, limit: STEP };
    let mut shower = AttemptShower::new(&service, &app, has_content);
    let (mut data, mut is_last) = (Vec::new(), false);
    for _ in 0..MAX_PAGES {
        let found = service.engine().history().ended_attempts(request).await?;
        is_last = found.len() < STEP;
        for record in found {
            if data.len() == limit {
                is_last = false;
                break;
            }
            request = request.behind(&record);
            if record.tenant == app.tenant {
                let event_type = record.event_type.to_string();
                let attempt = shower.show(record, None).await?;
                data.push(EndedAttemptOut { attempt, event_type });
            }
        }
        if is_last || data.len() == limit {
            break;
        }
    }
    let next = if is_last { place.at_end(now) } else { place.behind(request) };
    Ok(Json(EndedOut { data, iterator: next.to_string(), done: is_last }))
}

impl EndedPlace {
    /// Returns the place at which a reader begins again that has come to the end.
    fn at_end(self, now: Timestamp) -> Self {
        let since = self.start.max(now.saturating_sub(OVERLAP));
        Self { start: self.start, since, after: None }
    }

    fn behind(self, request: EndedRequest) -> Self {
        Self { start: self.start, since: request.since, after: request.after }
    }
}

/// Returns the place at which a reader begins who wants what ends from a time on.
impl From<Timestamp> for EndedPlace {
    fn from(start: Timestamp) -> Self {
        Self { start, since: start, after: None }
    }
}

impl std::fmt::Display for EndedPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (start, since) = (self.start.as_unix_microseconds(), self.since.as_unix_microseconds());
        let Cursor { key, attempt } = self.after.unwrap_or(Cursor { key: 0, attempt: 0 });
        write!(f, "{start}-{since}-{key}-{attempt}")
    }
}

impl FromStr for EndedPlace {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let mut parts = text.splitn(3, '-');
        let mut next = || parts.next().ok_or_else(no_page);
        let (start, since, after) = (next()?, next()?, next()?);
        let time = |text: &str| {
            let microseconds = text.parse().map_err(|_no_number| no_page())?;
            Ok::<_, ApiError>(Timestamp::from_unix_microseconds(microseconds))
        };
        let after: Cursor = after.parse().map_err(|_unreadable| no_page())?;
        let after = Some(after).filter(|after| after.key > 0);
        Ok(Self { start: time(start)?, since: time(since)?, after })
    }
}
