//! Many deliveries, replayed by jobs of the server.

use serde_json::{Map, Value, json};
use webhooks_core::EventId;
use webhooks_dispatch::clock::{Clock as _, SystemClock};

use super::delivery_bulk::{Bulk, Ended};
use super::delivery_repair::{Found, OfEndpoint, grouped};
use super::job::PAUSE;
use crate::body::add;
use crate::client::Answer;
use crate::failure::{Exit, Failure, not_a_service};
use crate::outage::outlast;
use crate::query::{Query, Status};

/// A job, and what it is to do.
struct Job {
    id: String,
    matched: usize,
    done: usize,
}

/// Returns whether a job of the server can ask for all that a query asks for.
pub(crate) fn fits(query: &Query) -> bool {
    let is_class =
        |first: u16, last: u16| first >= 100 && first.is_multiple_of(100) && last == first + 99;
    query.types.len() <= 1
        && match &query.codes[..] {
            [] => true,
            [codes] => is_class(*codes.start(), *codes.end()),
            _ => false,
        }
}

/// Replays all by jobs: one for each endpoint and status. Returns nothing if they are too many for the rate.
pub(crate) async fn run(
    bulk: &Bulk<'_>,
    query: &Query,
    found: &Found,
) -> Result<Option<Ended>, Failure> {
    let (mut ended, mut jobs, mut signals) =
        (Ended::default(), Vec::new(), bulk.context.interruption.take());
    let count = found.count();
    let work: Vec<_> = found.endpoints.iter().flat_map(|of| by_status(of, query)).collect();
    // The jobs share what is left of the rate when each has one per second, by what each has to do.
    let rate = bulk.rate.map(|rate| u64::from(rate.get()).checked_sub(work.len() as u64));
    if rate == Some(None) {
        return Ok(None);
    }
    let work = work.into_iter().map(|(endpoint, status, matched)| {
        let share = rate.flatten().map(|rate| 1 + rate * matched as u64 / count.max(1) as u64);
        (endpoint, body(query, status, share), matched)
    });
    let stopped = tokio::select! {
        begun = begin_all(bulk, work, &mut jobs, &mut ended) => begun.err(),
        () = signals.next() => Some(Failure::new(Exit::Interrupted, "interrupted")),
    };
    ended.may_have_begun = stopped.as_ref().is_some_and(is_unknown);
    ended.stopped = stopped;
    ended.jobs = jobs.iter().map(|job| job.id.clone()).collect();
    for id in &ended.jobs {
        bulk.context.output.note(format!("job {id} runs, also if this command is interrupted"));
    }
    if ended.stopped.is_none() && !bulk.no_wait {
        let stopped = tokio::select! {
            followed = follow(bulk, &mut jobs, &mut ended, count) => followed.err(),
            () = signals.next() => Some(Failure::new(Exit::Interrupted, "interrupted")),
        };
        ended.stopped = stopped;
    }
    bulk.context.output.end_progress();
    ended.done = jobs.iter().map(|job| job.done).sum();
    Ok(Some(ended))
}

/// Begins the jobs, one after the other.
async fn begin_all<'w>(
    bulk: &Bulk<'_>,
    work: impl Iterator<Item = (&'w str, Map<String, Value>, usize)>,
    jobs: &mut Vec<Job>,
    ended: &mut Ended,
) -> Result<(), Failure> {
    for (endpoint, body, matched) in work {
        match begin(bulk, endpoint, &body).await {
            Ok(id) => jobs.push(Job { id, matched, done: 0 }),
            Err(failure) if Bulk::is_refusal(&failure) => {
                ended.refused += matched;
                bulk.context.output.note(format!(
                    "{} to {endpoint}: {}",
                    grouped(matched),
                    failure.one_line()
                ));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// Begins a job, and returns its id. If the answer is lost, the same request is made once more: its key lets the
/// server begin one job alone, and answer with that.
async fn begin(
    bulk: &Bulk<'_>,
    endpoint: &str,
    body: &Map<String, Value>,
) -> Result<String, Failure> {
    let path = ["app", bulk.app, "endpoint", endpoint, "bulk-replay"];
    let key = EventId::random().to_string();
    let lost = match bulk.client.post_for_answer(&path, body, Some(&key)).await {
        Ok(answer) => return id_of(&answer),
        Err(failure) if matches!(failure.exit, Exit::Unreachable | Exit::TimedOut) => failure,
        Err(failure) => return Err(failure),
    };
    match bulk.client.post_for_answer(&path, body, Some(&key)).await {
        Ok(answer) if answer.status.is_success() => id_of(&answer),
        // A refusal may be about the first request, which the server is still answering.
        _ => Err(lost),
    }
}

/// Returns the id of a job that has begun.
fn id_of(answer: &Answer) -> Result<String, Failure> {
    let made = answer.value()?;
    let id = made["id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
    id.ok_or_else(|| not_a_service("the server did not answer with a job"))
}

/// Returns whether a job may have begun although the request for it failed.
fn is_unknown(failure: &Failure) -> bool {
    matches!(failure.exit, Exit::Failed | Exit::Interrupted | Exit::TimedOut | Exit::Unreachable)
}

/// Waits until all jobs have ended.
async fn follow(
    bulk: &Bulk<'_>,
    jobs: &mut [Job],
    ended: &mut Ended,
    count: usize,
) -> Result<(), Failure> {
    for at in 0..jobs.len() {
        while let Some(job) = jobs.get_mut(at) {
            let get = async || bulk.client.get(&["background-task", &job.id], &[]).await;
            let found = outlast(bulk.context.output, get).await?;
            let done = found["data"]["deliveries"].as_u64().unwrap_or_default();
            job.done = usize::try_from(done).unwrap_or(usize::MAX);
            if found["status"] == "failed" {
                ended.refused += job.matched.saturating_sub(job.done);
                let error = found["data"]["error"].as_str().unwrap_or("it was stopped");
                bulk.context.output.note(format!("job {} failed: {error}", job.id));
            }
            ended.done = jobs.iter().map(|job| job.done).sum();
            bulk.progress(ended, count);
            if found["status"] != "running" {
                break;
            }
            SystemClock.sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Returns the numbers of deliveries to an endpoint by status.
fn by_status<'f>(
    of: &'f OfEndpoint,
    query: &'f Query,
) -> impl Iterator<Item = (&'f str, Status, usize)> {
    let count =
        |status: Status| of.deliveries.iter().filter(|(_, found)| *found == Some(status)).count();
    let mut statuses = Vec::new();
    for status in &query.statuses {
        // Two jobs for one status would deliver twice.
        if !statuses.contains(status) {
            statuses.push(*status);
        }
    }
    let counts = statuses.into_iter().map(move |status| (&*of.endpoint, status, count(status)));
    counts.filter(|(.., count)| *count > 0)
}

fn body(query: &Query, status: Status, rate: Option<u64>) -> Map<String, Value> {
    let mut body = Map::new();
    // The server wants a start, also for all.
    let since =
        query.since.map_or_else(|| "1970-01-01T00:00:00Z".to_owned(), |time| time.to_string());
    add(&mut body, "since", Some(since));
    add(&mut body, "until", query.until.map(|until| until.to_string()));
    add(&mut body, "status", Some(status.number()));
    let types = query.types.first().map(|one| json!([one.as_str()]));
    add(&mut body, "eventTypes", types);
    add(&mut body, "statusCodeClass", query.codes.first().map(|codes| *codes.start()));
    add(&mut body, "channel", query.channel.clone());
    add(&mut body, "tag", query.tag.clone());
    add(&mut body, "rate", rate);
    body
}
