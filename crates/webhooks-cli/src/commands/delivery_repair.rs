//! `delivery replay`, `retry` and `cancel`: of events that are named, or of all deliveries that a query chooses.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use webhooks_core::Timestamp;

use super::confirm::Confirm;
use super::delivery_bulk::{Bulk, Ended, Pace, Refusal, Repaired};
use super::delivery_job;
use super::delivery_list::{QueryOptions, each, endpoints};
use super::endpoint_health::Health;
use crate::body::name_statuses;
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::query::{OF_DELIVERIES, Query, Status};
use crate::table::Column;
use crate::visible::visible;

/// The most deliveries that one command handles.
const MAX_FOUND: usize = 1_000_000;

/// The most endpoints that a question names, and whose health and numbers are told.
pub(crate) const MAX_NAMED: usize = 10;

const COUNTS: [Column; 2] = [Column("ENDPOINT", "/endpoint"), Column("MATCHED", "/matched")];

/// The repair of deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Delivers what has ended once more.
    Replay,
    /// Tries now what waits, and what failed.
    Retry,
    /// Ends what waits.
    Cancel,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// Events, by id or by the event id of your own: their deliveries to all endpoints, or to --endpoint
    #[arg(value_name = "ID")]
    events: Vec<String>,
    /// All that a query finds: words such as 'status:failed endpoint:crm type:invoice.* code:5xx since:2h'
    #[arg(long = "where", value_name = "QUERY", conflicts_with = "events")]
    query: Option<String>,
    #[command(flatten)]
    choice: QueryOptions,
    /// Most deliveries per second, such as 50/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<NonZeroU32>,
    /// Count what a query finds by endpoint, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirm: Confirm,
}

/// The deliveries that were found: events by endpoint.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) endpoints: Vec<OfEndpoint>,
}

/// The deliveries to one endpoint that were found.
#[derive(Debug)]
pub(crate) struct OfEndpoint {
    pub(crate) endpoint: String,
    pub(crate) deliveries: Vec<(String, Option<Status>)>,
}

impl Repair {
    /// Returns the last part of the path of the operation for one delivery.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Replay | Self::Retry => "resend",
            Self::Cancel => "cancel",
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Retry => "retry",
            Self::Cancel => "cancel",
        }
    }

    pub(crate) fn done(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Retry => "retried",
            Self::Cancel => "cancelled",
        }
    }

    /// Returns the statuses that can be chosen, those without a choice first, and the number of these.
    fn statuses(self) -> (&'static [Status], usize) {
        match self {
            Self::Replay => (&[Status::Fail, Status::Canceled, Status::Success], 2),
            Self::Retry => (&[Status::Fail, Status::Sending, Status::Pending], 2),
            Self::Cancel => (&[Status::Pending, Status::Sending], 2),
        }
    }

    /// Returns the statuses of which a delivery must have one when its turn comes, of those that a query chose: others
    /// may have delivered it meanwhile.
    fn condition(self, query: &Query) -> Vec<Status> {
        let mut statuses = Vec::new();
        // The server cancels only what waits. A delivery that is named with its endpoint may have any status.
        if self == Self::Cancel || (query.statuses.is_empty() && !query.endpoints.is_empty()) {
            return statuses;
        }
        // One that is to be retried may have been replayed meanwhile: an attempt now is no second delivery.
        let also: &[Status] = if self == Self::Retry { self.statuses().0 } else { &[] };
        for status in query.statuses.iter().chain(also) {
            if !statuses.contains(status) {
                statuses.push(*status);
            }
        }
        statuses
    }

    /// Sets the statuses of a query that has none.
    fn choose(self, query: &mut Query) -> Result<(), Failure> {
        let (allowed, by_default) = self.statuses();
        if let Some(wrong) = query.statuses.iter().find(|status| !allowed.contains(status)) {
            let allowed: Vec<_> = allowed.iter().map(|status| status.word()).collect();
            let text = format!(
                "{} is for deliveries of the status {}, not {}",
                self.word(),
                allowed.join(", "),
                wrong.word()
            );
            return Err(Failure::usage(text));
        }
        if query.statuses.is_empty() {
            query.statuses = allowed.iter().take(by_default).copied().collect();
            query.or_held = self == Self::Retry;
        }
        Ok(())
    }
}

impl RepairArgs {
    /// Returns the arguments for events that are named.
    pub(crate) fn of_event(event: String, endpoint: Option<String>) -> Self {
        Self {
            events: vec![event],
            query: None,
            choice: QueryOptions::of_endpoint(endpoint),
            rate: None,
            dry_run: false,
            confirm: Confirm::default(),
        }
    }

    /// Reads the query, before anything is asked of the server.
    pub(crate) fn query(&self, repair: Repair) -> Result<Query, Failure> {
        let mut query = Query::read(self.query.as_deref().unwrap_or_default(), &OF_DELIVERIES)?;
        if self.events.is_empty() && self.query.is_none() && !self.choice.is_given() {
            let text = format!("say what to {}", repair.word());
            return Err(Failure::usage(text)
                .hint("name events, or give --where 'status:failed since:2h' or --endpoint ID"));
        }
        self.choice.add_to(&mut query)?;
        if !self.events.is_empty() {
            if self.dry_run {
                return Err(Failure::usage("--dry-run is for --where: events are named here"));
            }
            if query.since.is_some() || query.until.is_some() {
                return Err(Failure::usage(
                    "--since and --until are for --where: events are named here",
                ));
            }
            // One that is named with its endpoint is repeated whatever became of it.
            return Ok(query);
        }
        repair.choose(&mut query)?;
        Ok(query)
    }

    pub(crate) async fn run(
        self,
        client: &Client,
        context: &Context,
        (app, repair, no_wait): (&str, Repair, bool),
    ) -> Result<(), Failure> {
        let query = self.query(repair)?;
        let is_job =
            self.events.is_empty() && repair == Repair::Replay && delivery_job::fits(&query);
        if no_wait && !is_job {
            return Err(Failure::usage("--no-wait is for what the server does by itself").hint(
                "that is --where with one type at most, and no code except classes such as 5xx",
            ));
        }
        let statuses = repair.condition(&query);
        let bulk = Bulk { client, context, app, repair, rate: self.rate, statuses, no_wait };
        if !self.events.is_empty() {
            return named(&bulk, &self.events, &query).await;
        }
        let found = find(client, context, app, &query).await?;
        let count = found.count();
        if self.dry_run || count == 0 {
            let end =
                if self.dry_run { end_dry(&bulk, &found) } else { bulk.end(0, Ended::default()) };
            end?;
            if count == 0 {
                bulk.tell_others(&query).await;
            }
            return Ok(());
        }
        for of in found.endpoints.iter().take(MAX_NAMED) {
            if let Some(health) = bulk.health(&of.endpoint).await {
                bulk.tell_health(&of.endpoint, "is", &health);
            }
        }
        self.confirm.ask(context, &question(&found, repair, self.rate))?;
        let by_jobs = if is_job { delivery_job::run(&bulk, &query, &found).await? } else { None };
        match by_jobs {
            Some(ended) => bulk.end(count, ended),
            None if no_wait => Err(Failure::usage("--rate is less than 1/s for each job")
                .hint("a job is for one endpoint and one status: give a higher --rate, or none")),
            None => bulk.end(count, bulk.run(&found, count).await?),
        }
    }
}

/// Reads `50/s` or `50`.
fn rate(text: &str) -> Result<NonZeroU32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    let rate = number.filter(|rate: &NonZeroU32| rate.get() <= 10_000);
    rate.ok_or_else(|| "write a number per second, such as 50/s; 10000/s at most".to_owned())
}

impl Found {
    pub(crate) fn count(&self) -> usize {
        self.endpoints.iter().map(|of| of.deliveries.len()).sum()
    }

    fn rows(&self) -> Vec<Value> {
        let row =
            |of: &OfEndpoint| json!({ "endpoint": of.endpoint, "matched": of.deliveries.len() });
        self.endpoints.iter().map(row).collect()
    }
}

/// Prints the numbers that a query finds.
fn end_dry(bulk: &Bulk<'_>, found: &Found) -> Result<(), Failure> {
    let (output, count) = (bulk.context.output, found.count());
    output.rows(&COUNTS, &found.rows())?;
    if output.is_json() {
        let mut summary = bulk.summary(count, (0, 0));
        summary["dryRun"] = json!(true);
        output.json(&summary)?;
    } else {
        output.note(format!("{} match; dry run, nothing was changed", grouped(count)));
    }
    Ok(())
}

/// Finds the deliveries that a query chooses, the endpoints with the most of them first.
async fn find(
    client: &Client,
    context: &Context,
    app: &str,
    query: &Query,
) -> Result<Found, Failure> {
    let (mut found, mut count) = (Found::default(), 0);
    for endpoint in endpoints(client, app, query).await? {
        let (mut deliveries, mut query) = (Vec::new(), query.clone());
        if query.or_held && is_held(client, app, &endpoint).await {
            query.statuses.push(Status::Pending);
        }
        each(client, (app, &endpoint), &query, |row| {
            if query.or_held && is_scheduled(&row) {
                return ControlFlow::Continue(());
            }
            let status = row["statusText"].as_str().unwrap_or_default();
            let status = query.statuses.iter().find(|one| one.word() == status).copied();
            deliveries.push((row["id"].as_str().unwrap_or_default().to_owned(), status));
            count += 1;
            if count % 100 == 0 {
                context.output.progress(format!("{} found", grouped(count)));
            }
            if count > MAX_FOUND { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .await?;
        if count > MAX_FOUND {
            context.output.end_progress();
            return Err(Failure::usage(format!("more than {} match", grouped(MAX_FOUND)))
                .hint("ask for less, such as since:2h or one endpoint"));
        }
        // The oldest first, as they would have come.
        deliveries.reverse();
        if !deliveries.is_empty() {
            found.endpoints.push(OfEndpoint { endpoint, deliveries });
        }
    }
    context.output.end_progress();
    found.endpoints.sort_by_key(|of| std::cmp::Reverse(of.deliveries.len()));
    Ok(found)
}

/// Returns whether an endpoint is held back, and would be tried if somebody asks for it.
async fn is_held(client: &Client, app: &str, endpoint: &str) -> bool {
    Health::find(client, app, endpoint).await.is_some_and(|health| health.yields())
}

/// Returns whether a delivery waits for the time for which its event is scheduled.
fn is_scheduled(row: &Value) -> bool {
    let time = row["deliverAt"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    row["statusText"] == Status::Pending.word() && time.is_some_and(|time| time > Timestamp::now())
}

/// Returns the question before a bulk, such as `4,310 match (ep_2 4,102; ep_9 208). Replay at 50/s, about 86 s?`
fn question(found: &Found, repair: Repair, rate: Option<NonZeroU32>) -> String {
    let named = found.endpoints.iter().take(MAX_NAMED);
    let named =
        named.map(|of| format!("{} {}", visible(&of.endpoint), grouped(of.deliveries.len())));
    let mut by_endpoint: Vec<String> = named.collect();
    let more = found.endpoints.len().saturating_sub(MAX_NAMED);
    if more > 0 {
        by_endpoint.push(format!("{more} more endpoints"));
    }
    let (count, by_endpoint) = (found.count(), by_endpoint.join("; "));
    let word = match repair {
        Repair::Replay => "Replay",
        Repair::Retry => "Retry",
        Repair::Cancel => "Cancel",
    };
    let pace = rate.map_or_else(String::new, |rate| {
        let seconds = count as u64 / u64::from(rate.get());
        let time = if seconds < 120 {
            format!("{seconds} s")
        } else {
            humantime::format_duration(Duration::from_secs(seconds)).to_string()
        };
        format!(" at {rate}/s, about {time}")
    });
    format!("{} match ({by_endpoint}). {word}{pace}?", grouped(count))
}

/// Writes a number with commas between its thousands.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the events that are named, each once: a repeat would be a second delivery.
fn without_repeats(events: &[String]) -> impl Iterator<Item = &String> {
    let mut seen = BTreeSet::new();
    events.iter().filter(move |event| seen.insert(*event))
}

/// Repairs the deliveries of events that are named. One that cannot be does not stop the others.
async fn named(bulk: &Bulk<'_>, events: &[String], query: &Query) -> Result<(), Failure> {
    let (mut refusals, mut count, mut pace) = (Vec::new(), 0, Pace::new(bulk.rate));
    let (mut done, mut told) = (BTreeSet::new(), BTreeSet::new());
    for event in without_repeats(events) {
        let endpoints = match endpoints_of(bulk, event, query).await {
            Ok(endpoints) => endpoints,
            Err(failure) if Bulk::is_refusal(&failure) => {
                count += 1;
                refusals.push(Refusal { event: event.clone(), endpoint: String::new(), failure });
                continue;
            }
            Err(failure) => return Err(failure),
        };
        for endpoint in endpoints {
            count += 1;
            pace.turn().await;
            let before = bulk.health(&endpoint).await;
            match bulk.one(event, &endpoint).await {
                Ok(Repaired::Done) => {
                    bulk.tell(event, &endpoint, before.as_ref())?;
                    done.insert(event);
                    if let Some(before) = before.filter(|_| told.insert(endpoint.clone())) {
                        bulk.tell_health(&endpoint, "was", &before);
                    }
                }
                Ok(Repaired::PassedOver(failure)) => {
                    refusals.push(Refusal { event: event.clone(), endpoint, failure });
                }
                Err(failure) if Bulk::is_refusal(&failure) => {
                    refusals.push(Refusal { event: event.clone(), endpoint, failure });
                }
                Err(failure) => return Err(failure),
            }
        }
    }
    bulk.hint_at(&done);
    match refusals.len() {
        0 => Ok(()),
        1 if count == 1 => Err(refusals.swap_remove(0).failure),
        refused => {
            for refusal in refusals {
                bulk.context.output.note(refusal.to_string());
            }
            Err(Failure::new(Exit::Partly, format!("{refused} of {count} were refused")))
        }
    }
}

/// Returns the endpoints of an event whose deliveries are meant.
async fn endpoints_of(bulk: &Bulk<'_>, event: &str, query: &Query) -> Result<Vec<String>, Failure> {
    if !query.endpoints.is_empty() && query.statuses.is_empty() {
        return Ok(query.endpoints.clone());
    }
    let path = ["app", bulk.app, "msg", event, "endpoint"];
    let mut found = bulk.client.list(&path, &[], usize::MAX).await?;
    name_statuses(&mut found);
    let (allowed, by_default) = bulk.repair.statuses();
    let statuses = match (&query.statuses[..], bulk.repair) {
        // Its endpoint may be held, and an attempt now is what is asked for.
        ([], Repair::Retry) => allowed,
        ([], Repair::Replay | Repair::Cancel) => allowed.get(..by_default).unwrap_or(allowed),
        (chosen, _) => chosen,
    };
    let is_named = |found: &Value| {
        let is_named =
            |name: &String| [&found["id"], &found["uid"]].into_iter().any(|id| id == name);
        query.endpoints.is_empty() || query.endpoints.iter().any(is_named)
    };
    found.retain(is_named);
    let is_meant =
        |found: &&Value| statuses.iter().any(|status| found["statusText"] == status.word());
    let meant = found.iter().filter(is_meant);
    let meant: Vec<_> = meant.filter_map(|found| found["id"].as_str().map(str::to_owned)).collect();
    if meant.is_empty() {
        return Err(bulk.none_is_meant(event, (query, statuses), &found));
    }
    Ok(meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_have_commas() {
        for (number, text) in [(0, "0"), (999, "999"), (4_310, "4,310"), (1_000_000, "1,000,000")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn a_rate_is_a_number_per_second() {
        assert_eq!(
            (rate("50/s"), rate("7")),
            (Ok(NonZeroU32::new(50).unwrap()), Ok(NonZeroU32::new(7).unwrap()))
        );
        for wrong in ["0", "0/s", "-1/s", "50/m", "1.5/s", "10001/s", "", "/s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_question_has_the_numbers_by_endpoint_and_the_time() {
        let of = |endpoint: &str, count| OfEndpoint {
            endpoint: endpoint.to_owned(),
            deliveries: vec![(String::new(), None); count],
        };
        let mut found = Found { endpoints: vec![of("ep_2", 4_102), of("ep_9", 208)] };
        assert_eq!(
            question(&found, Repair::Replay, NonZeroU32::new(50)),
            "4,310 match (ep_2 4,102; ep_9 208). Replay at 50/s, about 86 s?"
        );
        found.endpoints.extend((0..10).map(|_| of("ep", 1)));
        let text = question(&found, Repair::Cancel, None);
        assert!(text.ends_with("ep 1; 2 more endpoints). Cancel?"), "{text}");
    }
}
