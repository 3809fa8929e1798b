//! `delivery tail`: attempts as they end.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use webhooks_core::Timestamp;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use super::delivery_list::{QueryOptions, ids};
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure, not_a_service};
use crate::moment::past;
use crate::outage::outlast;
use crate::output::Output;
use crate::query::{OF_ATTEMPTS, Query, Status};
use crate::table::Column;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// The time before the newest end from which no attempt comes again: the server goes back four minutes at most.
const LATE: Duration = Duration::from_mins(5);

/// The largest page.
const PAGE: &str = "250";

const COLUMNS: [Column; 8] = [
    Column("AT", "/timestamp"),
    Column("STATUS", "/statusText"),
    Column("CODE", "/responseStatusCode"),
    Column("TYPE", "/eventType"),
    Column("EVENT", "/msgId"),
    Column("ENDPOINT", "/endpointId"),
    Column("MS", "/responseDurationMs"),
    Column("RESPONSE", "/response"),
];

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Words such as status:failed endpoint:crm type:invoice.* code:5xx since:10m
    #[arg(value_name = "QUERY")]
    query: Vec<String>,
    /// Only attempts that failed: the same as status:failed
    #[arg(long)]
    failed: bool,
    /// Only attempts to this endpoint, by id or uid; to all of the application by default
    #[arg(long, value_name = "ID")]
    endpoint: Option<String>,
    /// Only attempts of this status: success or fail
    #[arg(long, hide_possible_values = true, conflicts_with = "failed")]
    status: Option<Status>,
    /// Start with those that ended then: a time, or an age such as 10m
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Timestamp>,
}

impl TailArgs {
    pub(crate) fn query(&self) -> Result<Query, Failure> {
        let mut query = Query::read(&self.query.join(" "), &OF_ATTEMPTS)?;
        QueryOptions::of_attempts(self.endpoint.clone(), self.status, self.since)
            .add_to(&mut query)?;
        if self.failed {
            query.statuses.push(Status::Fail);
        }
        if query.statuses.iter().any(|status| !matches!(status, Status::Success | Status::Fail)) {
            return Err(Failure::usage("an attempt has the status success or fail")
                .hint("`webhooks delivery list` shows deliveries, which have others too"));
        }
        Ok(query)
    }

    /// Prints attempts until Ctrl-C.
    pub(crate) async fn run(
        self,
        client: &Client,
        context: &Context,
        app: &str,
    ) -> Result<(), Failure> {
        let mut query = self.query()?;
        query.endpoints = ids(client, app, &query).await?;
        // Until here, a signal ends the program at once, also at a server that is silent.
        let mut signals = context.interruption.take();
        let place = query.since.map(|since| ("after", since.to_string()));
        let mut tail = Tail {
            client,
            app,
            query,
            output: context.output,
            place,
            seen: HashMap::new(),
            newest: Timestamp::UNIX_EPOCH,
            has_begun: false,
        };
        tokio::select! {
            ended = tail.follow() => ended,
            () = signals.next() => Err(Failure::told(Exit::Interrupted)),
        }
    }
}

/// A reader of the attempts of an application.
struct Tail<'c> {
    client: &'c Client,
    app: &'c str,
    query: Query,
    output: Output,
    /// The parameter with the place from which to read; nothing before the first answer.
    place: Option<(&'static str, String)>,
    /// The attempts behind that place that were printed, with their ends: they come again.
    seen: HashMap<String, Timestamp>,
    newest: Timestamp,
    has_begun: bool,
}

impl Tail<'_> {
    async fn follow(&mut self) -> Result<(), Failure> {
        loop {
            self.round().await?;
            SystemClock.sleep(PAUSE).await;
        }
    }

    /// Reads and prints all that is there.
    async fn round(&mut self) -> Result<(), Failure> {
        let (mut at, mut pages) = (self.place.clone(), VecDeque::new());
        loop {
            let mut query = vec![("limit", PAGE.to_owned())];
            query.extend(at.take());
            let get = async || self.client.get(&["app", self.app, "attempt"], &query).await;
            // A server that has never answered may be none.
            let page =
                if self.has_begun { outlast(self.output, get).await? } else { get().await? };
            let (Some(next), Some(is_done), Some(attempts)) =
                (page["iterator"].as_str(), page["done"].as_bool(), page["data"].as_array())
            else {
                return Err(not_a_service("the server did not answer with attempts"));
            };
            for attempt in attempts {
                let id = attempt["id"].as_str().unwrap_or_default();
                let end = end(attempt);
                self.newest = self.newest.max(end);
                if !self.seen.contains_key(id) {
                    self.print(attempt)?;
                }
                self.seen.insert(id.to_owned(), end);
            }
            let next = ("iterator", next.to_owned());
            if is_done || self.place.is_none() {
                self.move_to(next.clone(), self.newest.saturating_sub(LATE));
            }
            self.has_begun = true;
            if is_done {
                return Ok(());
            }
            pages.push_back((next.clone(), self.newest));
            // Nothing is recorded any longer before a page that ended long before the newest.
            while let Some((_, end)) = pages.front()
                && *end + LATE < self.newest
                && let Some((place, end)) = pages.pop_front()
            {
                self.move_to(place, end);
            }
            at = Some(next);
        }
    }

    /// Goes on from a place, and forgets what ended before it.
    fn move_to(&mut self, place: (&'static str, String), before: Timestamp) {
        self.place = Some(place);
        self.seen.retain(|_, end| *end >= before);
    }

    fn print(&self, attempt: &Value) -> Result<(), Failure> {
        let endpoints = &self.query.endpoints;
        let is_of_endpoint =
            endpoints.is_empty() || endpoints.iter().any(|id| *id == attempt["endpointId"]);
        if is_of_endpoint && self.query.chooses(attempt) {
            Ok(self.output.row(&COLUMNS, attempt)?)
        } else {
            Ok(())
        }
    }
}

/// Returns the time at which an attempt ended.
fn end(attempt: &Value) -> Timestamp {
    let start = attempt["timestamp"].as_str().and_then(|time| time.parse().ok());
    let took = Duration::from_millis(attempt["responseDurationMs"].as_u64().unwrap_or_default());
    start.unwrap_or(Timestamp::UNIX_EPOCH) + took
}
