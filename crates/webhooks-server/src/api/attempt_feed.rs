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

/// The time by which a reader goes back with each turn: workers record in groups, and their clocks differ.
const OVERLAP: Duration = Duration::from_secs(10);

/// The time by which a reader goes back with the first turn of a minute, for what was recorded later: two minutes before
/// the last such turn. With each turn it would cost too much, since a turn reads the attempts of all applications.
const LONG_OVERLAP: Duration = Duration::from_secs(3 * 60);

/// The longest turn from whose start the next one goes back; after a longer one, it goes back from this time before its
/// end. So no reader gets an attempt again that ended more than four minutes before the end of its turn.
const TURN: Duration = Duration::from_secs(60);

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

/// A place in the order of ends. As text: five numbers.
#[derive(Clone, Copy)]
struct EndedPlace {
    /// The time before which the reader wants nothing.
    start: Timestamp,
    /// The time at which the turn began that the reader is in. Attempts that were recorded before are in it.
    begun: Timestamp,
    since: Timestamp,
    /// `None` at the end of a turn.
    after: Option<Cursor>,
}

/// Returns the attempts of an application in the order in which they ended, of all its endpoints.
///
/// A reader gives the `iterator` of each answer with its next request. An attempt may be recorded late, so it gets
/// those of the last ten seconds again, and every minute those of the last four minutes: their ids tell them.
/// An attempt that is recorded later than two minutes after its end can be missed.
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
        Some(text) => text.parse::<EndedPlace>()?.turned(now),
        None => EndedPlace::first(params.time("after")?.unwrap_or(now), now),
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
    /// Returns the place at which a reader begins who wants what ends from `start` on.
    fn first(start: Timestamp, now: Timestamp) -> Self {
        Self { start, begun: now, since: start, after: None }
    }

    /// Begins the next turn if this is the end of one.
    fn turned(self, now: Timestamp) -> Self {
        if self.after.is_some() {
            return self;
        }
        let minute = |time: Timestamp| time.as_unix_seconds() / 60;
        let is_first_of_minute = minute(self.begun) != minute(now);
        let overlap = if is_first_of_minute { LONG_OVERLAP } else { OVERLAP };
        let since = self.start.max(self.begun.saturating_sub(overlap));
        Self { begun: now, since, ..self }
    }

    /// Returns the place of a reader that has come to the end.
    fn at_end(self, now: Timestamp) -> Self {
        // An attempt that the reader passed before it was recorded was recorded in this turn.
        let begun = self.begun.max(now.saturating_sub(TURN));
        Self { begun, since: now, after: None, ..self }
    }

    fn behind(self, request: EndedRequest) -> Self {
        Self { since: request.since, after: request.after, ..self }
    }
}

impl std::fmt::Display for EndedPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [start, begun, since] =
            [self.start, self.begun, self.since].map(Timestamp::as_unix_microseconds);
        let Cursor { key, attempt } = self.after.unwrap_or(Cursor { key: 0, attempt: 0 });
        write!(f, "{start}-{begun}-{since}-{key}-{attempt}")
    }
}

impl FromStr for EndedPlace {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let mut parts = text.splitn(4, '-');
        let mut next = || parts.next().ok_or_else(no_page);
        let (start, begun, since, after) = (next()?, next()?, next()?, next()?);
        let time = |text: &str| {
            let microseconds = text.parse().map_err(|_no_number| no_page())?;
            Ok::<_, ApiError>(Timestamp::from_unix_microseconds(microseconds))
        };
        let after: Cursor = after.parse().map_err(|_unreadable| no_page())?;
        let after = Some(after).filter(|after| after.key > 0);
        Ok(Self { start: time(start)?, begun: time(begun)?, since: time(since)?, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn between_turns(place: EndedPlace) -> EndedPlace {
        place.to_string().parse().unwrap_or_else(|_error| panic!("{place}"))
    }

    #[test]
    fn a_turn_goes_back_from_the_start_of_the_one_before() {
        let first = EndedPlace::first(at(0), at(6_000));
        assert_eq!(first.since, at(0));
        // It took twenty seconds.
        let second = between_turns(first.at_end(at(6_020))).turned(at(6_021));
        assert_eq!((second.since, second.begun), (at(5_990), at(6_021)));
        // The first one of a minute.
        let third = between_turns(second.at_end(at(6_022))).turned(at(6_060));
        assert_eq!(third.since, at(6_021 - 180));
        // It took far more than a minute.
        let fourth = between_turns(third.at_end(at(7_000))).turned(at(7_000));
        assert_eq!(fourth.since, at(7_000 - 60 - 180));
        // Within a turn, nothing comes again.
        let after = Some(Cursor { key: 7, attempt: 1 });
        let within = fourth.behind(EndedRequest { since: at(6_999), after, limit: 1 });
        let within = between_turns(within).turned(at(7_300));
        assert_eq!((within.since, within.begun, within.after), (at(6_999), at(7_000), after));
    }

    #[test]
    fn nothing_comes_from_before_the_start() {
        let first = EndedPlace::first(at(6_050), at(6_051));
        assert_eq!(first.at_end(at(6_052)).turned(at(6_300)).since, at(6_050));
    }
}
