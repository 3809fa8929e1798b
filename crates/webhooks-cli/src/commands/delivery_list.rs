//! Deliveries: of one endpoint or poller, or of all of an application, as a query chooses them.

use std::ops::ControlFlow;

use clap::Args;
use serde_json::{Value, json};
use webhooks_core::Timestamp;

use super::poller_attempts;
use crate::client::Client;
use crate::failure::{Failure, not_a_service};
use crate::list::ListOptions;
use crate::moment::past;
use crate::output::Output;
use crate::query::{OF_DELIVERIES, Query, Status};
use crate::table::Column;

/// The most endpoints whose deliveries are read together: each costs a request.
const MAX_ENDPOINTS: usize = 250;

const COLUMNS: [Column; 7] = [
    Column("EVENT", "/id"),
    Column("TYPE", "/eventType"),
    Column("ENDPOINT", "/endpointId"),
    Column("STATUS", "/statusText"),
    Column("CODE", "/responseStatusCode"),
    Column("NEXT ATTEMPT", "/nextAttempt"),
    Column("ACCEPTED", "/timestamp"),
];

/// The options that say the same as words of a query.
#[derive(Debug, Clone, Args)]
pub(crate) struct QueryOptions {
    /// Endpoint, by id or uid; all of the application by default
    #[arg(long, value_name = "ID")]
    endpoint: Option<String>,
    /// Only those of this status
    #[arg(long)]
    status: Option<Status>,
    /// Start: a time, or an age such as 2h
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Timestamp>,
    /// End: a time, or an age
    #[arg(long, alias = "before", value_name = "TIME", value_parser = past)]
    until: Option<Timestamp>,
}

/// The deliveries to list.
#[derive(Debug, Args)]
pub(crate) struct DeliveryFilter {
    /// Words such as status:failed endpoint:crm type:invoice.* code:5xx since:2h
    #[arg(value_name = "QUERY")]
    query: Vec<String>,
    #[command(flatten)]
    choice: QueryOptions,
    #[command(flatten)]
    options: ListOptions,
}

impl QueryOptions {
    /// Adds the options to a query.
    pub(crate) fn add_to(&self, query: &mut Query) -> Result<(), Failure> {
        query.endpoints.extend(self.endpoint.clone());
        query.statuses.extend(self.status.filter(|status| !query.statuses.contains(status)));
        let twice = |option: &str| Failure::usage(format!("{option} is in the query too"));
        if self.since.is_some() && query.since.is_some() {
            return Err(twice("--since"));
        }
        if self.until.is_some() && query.until.is_some() {
            return Err(twice("--until"));
        }
        query.since = query.since.or(self.since);
        query.until = query.until.or(self.until);
        Ok(())
    }

    pub(crate) fn of_endpoint(endpoint: Option<String>) -> Self {
        Self { endpoint, status: None, since: None, until: None }
    }

    /// Returns the options for attempts, which come until somebody ends them.
    pub(crate) fn of_attempts(
        endpoint: Option<String>,
        status: Option<Status>,
        since: Option<Timestamp>,
    ) -> Self {
        Self { endpoint, status, since, until: None }
    }

    /// Returns whether any is given.
    pub(crate) fn is_given(&self) -> bool {
        let Self { endpoint, status, since, until } = self;
        endpoint.is_some() || status.is_some() || since.is_some() || until.is_some()
    }
}

impl DeliveryFilter {
    /// Reads the query.
    pub(crate) fn query(&self) -> Result<Query, Failure> {
        let mut query = Query::read(&self.query.join(" "), &OF_DELIVERIES)?;
        self.choice.add_to(&mut query)?;
        Ok(query)
    }

    /// Prints the deliveries, those of the newest events first.
    pub(crate) async fn list(
        self,
        client: &Client,
        output: Output,
        app: &str,
    ) -> Result<(), Failure> {
        let mut query = self.query()?;
        let (pollers, endpoint_names): (Vec<_>, Vec<_>) =
            query.endpoints.drain(..).partition(|id| poller_attempts::is_poller(id));
        query.endpoints = endpoint_names;
        let is_of_all = query.endpoints.is_empty() && pollers.is_empty();
        let (wanted, mut rows) = (self.options.wanted(), Vec::new());
        if is_of_all || !query.endpoints.is_empty() {
            for endpoint in &endpoints(client, app, &query).await? {
                let mut count = 0;
                each(client, (app, endpoint), &query, |row| {
                    rows.push(row);
                    count += 1;
                    if count < wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })
                .await?;
            }
        }
        if is_of_all {
            rows.extend(of_poller(client, app, None, &query, wanted).await?);
        }
        for poller in &pollers {
            rows.extend(of_poller(client, app, Some(poller), &query, wanted).await?);
        }
        let time =
            |row: &Value| row["timestamp"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        rows.sort_by_key(|row| std::cmp::Reverse(time(row)));
        self.options.print(output, &COLUMNS, rows)
    }
}

/// Returns what readers of a poller reported, or of all pollers.
async fn of_poller(
    client: &Client,
    app: &str,
    poller: Option<&String>,
    query: &Query,
    wanted: usize,
) -> Result<Vec<Value>, Failure> {
    if query.channel.is_some() || query.tag.is_some() {
        // Such an attempt tells neither.
        return Ok(Vec::new());
    }
    let mut parameters = parameters(query);
    parameters.retain(|(name, _)| *name != "status");
    parameters.extend(poller.map(|poller| ("poller_id", poller.clone())));
    let mut found = poller_attempts::deliveries(client, app, &parameters, wanted).await?;
    found.retain(|row| query.chooses(row));
    Ok(found)
}

/// Returns the endpoints of a query: all of the application if it names none.
pub(crate) async fn endpoints(
    client: &Client,
    app: &str,
    query: &Query,
) -> Result<Vec<String>, Failure> {
    if !query.endpoints.is_empty() {
        return if query.endpoints.len() == 1 {
            Ok(query.endpoints.clone())
        } else {
            ids(client, app, query).await
        };
    }
    let found = client.list(&["app", app, "endpoint"], &[], MAX_ENDPOINTS + 1).await?;
    if found.len() > MAX_ENDPOINTS {
        let text = format!("{app} has more than {MAX_ENDPOINTS} endpoints");
        return Err(Failure::usage(text).hint("name one with endpoint:ID in the query"));
    }
    Ok(found.iter().filter_map(|endpoint| endpoint["id"].as_str().map(str::to_owned)).collect())
}

/// Returns the ids of the endpoints that a query names: one may be named by its id and by its uid.
pub(crate) async fn ids(client: &Client, app: &str, query: &Query) -> Result<Vec<String>, Failure> {
    let mut ids = Vec::new();
    for name in &query.endpoints {
        let found = client.get(&["app", app, "endpoint", name], &[]).await?;
        let id = found["id"].as_str().unwrap_or_default().to_owned();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// Visits the deliveries of an endpoint that a query chooses, those of the newest events first.
pub(crate) async fn each(
    client: &Client,
    (app, endpoint): (&str, &str),
    query: &Query,
    mut visit: impl FnMut(Value) -> ControlFlow<()>,
) -> Result<(), Failure> {
    let path = ["app", app, "endpoint", endpoint, "msg"];
    let (parameters, mut iterator) = (parameters(query), None);
    loop {
        let (page, next) = client.page(&path, &parameters, iterator).await?;
        for mut row in page.into_iter().filter(|row| query.chooses(row)) {
            if matches!(row["id"].as_str(), None | Some("" | "." | "..")) {
                return Err(not_a_service("the server showed a delivery without an event"));
            }
            row["endpointId"] = json!(endpoint);
            if visit(row).is_break() {
                return Ok(());
            }
        }
        iterator = next;
        if iterator.is_none() {
            return Ok(());
        }
    }
}

/// Returns the parameters by which the server chooses.
fn parameters(query: &Query) -> Vec<(&'static str, String)> {
    // It takes one status; among several, this side chooses.
    let status = match query.statuses[..] {
        [one] => Some(one.number().to_string()),
        _ => None,
    };
    let parameters = [
        ("status", status),
        ("after", query.since.map(|time| time.to_string())),
        ("before", query.until.map(|time| time.to_string())),
        ("channel", query.channel.clone()),
        ("tag", query.tag.clone()),
        ("with_content", Some("false".to_owned())),
    ];
    parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
