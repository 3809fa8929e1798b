//! The list of deliveries: of one endpoint or poller, or of all of an application.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use webhooks_core::Timestamp;

use super::poller_attempts;
use crate::client::Client;
use crate::failure::Failure;
use crate::list::ListOptions;
use crate::moment::past;
use crate::output::Output;
use crate::table::Column;

/// The most endpoints whose deliveries are listed together: each costs a request.
const MAX_ENDPOINTS: usize = 50;

const COLUMNS: [Column; 6] = [
    Column("EVENT", "/id"),
    Column("TYPE", "/eventType"),
    Column("ENDPOINT", "/endpointId"),
    Column("STATUS", "/statusText"),
    Column("NEXT ATTEMPT", "/nextAttempt"),
    Column("ACCEPTED", "/timestamp"),
];

/// The deliveries to list.
#[derive(Debug, Args)]
pub(crate) struct DeliveryFilter {
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
    #[arg(long, value_name = "TIME", value_parser = past)]
    until: Option<Timestamp>,
    #[command(flatten)]
    options: ListOptions,
}

/// The states of a delivery, in the words and numbers of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Status {
    /// Waits for its first attempt
    Pending = 1,
    /// Failed, and will be tried again
    Sending = 3,
    /// Was delivered
    Success = 0,
    /// Its attempts are spent
    Fail = 2,
    /// Was given up
    Canceled = 4,
}

impl Status {
    pub(crate) fn number(self) -> u8 {
        self as u8
    }
}

impl DeliveryFilter {
    /// Prints the deliveries, those of the newest events first.
    pub(crate) async fn list(
        self,
        client: &Client,
        output: Output,
        app: &str,
    ) -> Result<(), Failure> {
        let poller = self.endpoint.as_ref().filter(|id| poller_attempts::is_poller(id));
        let endpoints = match &self.endpoint {
            Some(_) if poller.is_some() => Vec::new(),
            Some(endpoint) => vec![endpoint.clone()],
            None => all_endpoints(client, app).await?,
        };
        let query = self.query();
        let mut rows = Vec::new();
        for endpoint in &endpoints {
            let path = ["app", app, "endpoint", endpoint, "msg"];
            for mut row in client.list(&path, &query, self.options.wanted()).await? {
                row["endpointId"] = json!(endpoint);
                rows.push(row);
            }
        }
        if poller.is_some() || self.endpoint.is_none() {
            rows.extend(self.of_pollers(client, app, poller).await?);
        }
        let time =
            |row: &Value| row["timestamp"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        rows.sort_by_key(|row| std::cmp::Reverse(time(row)));
        self.options.print(output, &COLUMNS, rows)
    }

    /// Returns what readers of pollers reported.
    async fn of_pollers(
        &self,
        client: &Client,
        app: &str,
        poller: Option<&String>,
    ) -> Result<Vec<Value>, Failure> {
        let mut query = self.query();
        query.retain(|(name, _)| *name != "status");
        query.extend(poller.map(|poller| ("poller_id", poller.clone())));
        let wanted = self.options.wanted();
        let mut found = poller_attempts::deliveries(client, app, &query, wanted).await?;
        let status = self.status.map(Status::number);
        found.retain(|row| status.is_none_or(|status| row["status"] == status));
        Ok(found)
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let query = [
            ("status", self.status.map(|status| status.number().to_string())),
            ("after", self.since.map(|time| time.to_string())),
            ("before", self.until.map(|time| time.to_string())),
            ("with_content", Some("false".to_owned())),
        ];
        query.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

async fn all_endpoints(client: &Client, app: &str) -> Result<Vec<String>, Failure> {
    let found = client.list(&["app", app, "endpoint"], &[], MAX_ENDPOINTS + 1).await?;
    if found.len() > MAX_ENDPOINTS {
        let text = format!("{app} has more than {MAX_ENDPOINTS} endpoints");
        return Err(Failure::usage(text).hint("name one with --endpoint"));
    }
    Ok(found.iter().filter_map(|endpoint| endpoint["id"].as_str().map(str::to_owned)).collect())
}
