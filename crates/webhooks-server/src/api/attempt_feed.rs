//! The attempts of an application in the order in which they ended, for readers that follow them.

use std::str::FromStr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use webhooks_admin::Action;
use webhooks_core::Timestamp;
use webhooks_dispatch::history::{Cursor, EndedPlace, EndedRequest, HistoryStore as _};

use super::attempt_out::{AttemptOut, AttemptShower};
use super::feed::limit;
use super::message::has_payload;
use crate::auth::Caller;
use crate::error::{ApiError, no_page};
use crate::extract::{Params, Path};
use crate::parameters::FollowAttempts;
use crate::schema::EventTypeName;
use crate::service::Service;

/// The time by which a reader goes back with each turn: workers record in groups, and their clocks differ.
const OVERLAP: Duration = Duration::from_secs(10);

/// The time by which a reader goes back with the first turn of a minute, for what was recorded later: two minutes before
/// the last such turn. A reader gets all attempts of that time again, so a longer time, or one with each turn, would
/// send most of them many times.
const LONG_OVERLAP: Duration = Duration::from_secs(3 * 60);

/// The longest turn from whose start the next one goes back; after a longer one, it goes back from this time before its
/// end. So no reader gets an attempt again that ended more than four minutes before the end of its turn.
const TURN: Duration = Duration::from_secs(60);

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
    /// The attempts, in the order in which they ended. There may be none although others follow.
    data: Vec<EndedAttemptOut>,
    /// The place from which to go on, also if `done`.
    iterator: String,
    /// Whether no attempt follows now.
    done: bool,
}

/// A place of a reader. As text: five numbers.
#[derive(Clone, Copy)]
struct Reader {
    /// The time before which the reader wants nothing.
    start: Timestamp,
    /// The time at which the turn began that the reader is in. Attempts that were recorded before are in it.
    begun: Timestamp,
    /// The place behind which the turn goes on; `None` at the end of one.
    place: Option<EndedPlace>,
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
    let reader: Reader = match params.text("iterator") {
        Some(text) => text.parse()?,
        None => Reader::first(params.time("after")?.unwrap_or(now), now),
    };
    let (reader, after) = reader.turned(now);
    let request = EndedRequest { tenant: app.tenant.clone(), after, limit };
    let found = service.engine().history().ended_attempts(request).await?;
    let mut shower = AttemptShower::new(&service, &app, has_content);
    let mut data = Vec::new();
    for record in found.items {
        let event_type = record.event_type.to_string();
        let attempt = shower.show(record, None).await?;
        data.push(EndedAttemptOut { attempt, event_type });
    }
    let next = if found.is_last { reader.at_end(now) } else { reader.behind(found.next) };
    Ok(Json(EndedOut { data, iterator: next.to_string(), done: found.is_last }))
}

impl Reader {
    /// Returns a reader that begins, and wants what ends from `start` on.
    fn first(start: Timestamp, now: Timestamp) -> Self {
        Self { start, begun: now, place: Some(EndedPlace::since(start)) }
    }

    /// Returns the place behind which the reader goes on; begins the next turn if this is the end of one.
    fn turned(self, now: Timestamp) -> (Self, EndedPlace) {
        if let Some(place) = self.place {
            return (self, place);
        }
        let minute = |time: Timestamp| time.as_unix_seconds() / 60;
        let is_first_of_minute = minute(self.begun) != minute(now);
        let overlap = if is_first_of_minute { LONG_OVERLAP } else { OVERLAP };
        let since = self.start.max(self.begun.saturating_sub(overlap));
        (Self { begun: now, ..self }, EndedPlace::since(since))
    }

    /// Returns the reader at the end of its turn.
    fn at_end(self, now: Timestamp) -> Self {
        // An attempt that the reader passed before it was recorded was recorded in this turn.
        let begun = self.begun.max(now.saturating_sub(TURN));
        Self { begun, place: None, ..self }
    }

    fn behind(self, place: EndedPlace) -> Self {
        Self { place: Some(place), ..self }
    }
}

impl std::fmt::Display for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self.place.unwrap_or(EndedPlace::since(Timestamp::UNIX_EPOCH));
        let [start, begun, ended_at] =
            [self.start, self.begun, place.ended_at].map(Timestamp::as_unix_microseconds);
        write!(f, "{start}-{begun}-{ended_at}-{}", place.attempt)
    }
}

impl FromStr for Reader {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let mut parts = text.splitn(4, '-');
        let mut next = || parts.next().ok_or_else(no_page);
        let (start, begun, ended_at, attempt) = (next()?, next()?, next()?, next()?);
        let time = |text: &str| {
            let microseconds = text.parse().map_err(|_no_number| no_page())?;
            Ok::<_, ApiError>(Timestamp::from_unix_microseconds(microseconds))
        };
        let attempt: Cursor = attempt.parse().map_err(|_unreadable| no_page())?;
        let place = EndedPlace { ended_at: time(ended_at)?, attempt };
        let place = Some(place).filter(|place| place.attempt.key > 0);
        Ok(Self { start: time(start)?, begun: time(begun)?, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn between_requests(reader: Reader) -> Reader {
        reader.to_string().parse().unwrap_or_else(|_error| panic!("{reader}"))
    }

    /// Ends a turn, and begins the next one; returns the reader and the time to which it goes back.
    fn next(reader: Reader, end: Timestamp, now: Timestamp) -> (Reader, Timestamp) {
        let (reader, place) = between_requests(reader.at_end(end)).turned(now);
        assert_eq!(place, EndedPlace::since(place.ended_at));
        (reader, place.ended_at)
    }

    #[test]
    fn a_turn_goes_back_from_the_start_of_the_one_before() {
        let (first, place) = Reader::first(at(0), at(6_000)).turned(at(6_000));
        assert_eq!(place, EndedPlace::since(at(0)));
        // It took twenty seconds.
        let (second, since) = next(first, at(6_020), at(6_021));
        assert_eq!((since, second.begun), (at(5_990), at(6_021)));
        // The first one of a minute.
        let (third, since) = next(second, at(6_022), at(6_060));
        assert_eq!(since, at(6_021 - 180));
        // It took far more than a minute.
        let (fourth, since) = next(third, at(7_000), at(7_000));
        assert_eq!(since, at(7_000 - 60 - 180));
        // Within a turn, nothing comes again.
        let last = EndedPlace { ended_at: at(6_999), attempt: Cursor { key: 7, attempt: 1 } };
        let (within, place) = between_requests(fourth.behind(last)).turned(at(7_300));
        assert_eq!((within.begun, place), (at(7_000), last));
    }

    #[test]
    fn nothing_comes_from_before_the_start() {
        let first = Reader::first(at(6_050), at(6_051));
        assert_eq!(next(first, at(6_052), at(6_300)).1, at(6_050));
    }
}
