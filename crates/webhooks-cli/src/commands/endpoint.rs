//! `endpoint`: where events go, their secrets, and repair.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use webhooks_core::Timestamp;

use super::confirm::Confirm;
use super::endpoint_health::Health;
use super::job;
use crate::application_option::ApplicationOption;
use crate::body::{add, add_list, name_of, object, pair};
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Failure, not_a_service};
use crate::list::ListOptions;
use crate::moment::past;
use crate::secret;
use crate::table::Column;

const COLUMNS: [Column; 8] = [
    Column("ID", "/id"),
    Column("UID", "/uid"),
    Column("URL", "/url"),
    Column("DISABLED", "/disabled"),
    Column("PAUSED", "/delivery/paused"),
    Column("TYPES", "/eventTypes"),
    Column("CHANNELS", "/channels"),
    Column("RATE", "/throttleRate"),
];

/// The fields of one endpoint.
const SHOWN: [Column; 9] = {
    let [id, uid, url, disabled, paused, types, channels, rate] = COLUMNS;
    [id, uid, url, disabled, paused, types, channels, rate, Column("METADATA", "/metadata")]
};

/// The fields of one endpoint with its health.
const WITH_HEALTH: [Column; 10] = {
    let [id, uid, url, disabled, paused, types, channels, rate, metadata] = SHOWN;
    let health = Column("HEALTH", "/health");
    [id, uid, url, health, disabled, paused, types, channels, rate, metadata]
};

const STATS: [Column; 5] = [
    Column("SUCCESS", "/success"),
    Column("PENDING", "/pending"),
    Column("SENDING", "/sending"),
    Column("FAIL", "/fail"),
    Column("CANCELED", "/canceled"),
];

/// List and change endpoints, their secrets, and what they missed
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks endpoint create https://example.com/hook --types 'invoice.*' --app acme
  webhooks endpoint list --app acme
  webhooks endpoint secret show crm --app acme
  webhooks endpoint recover crm --since 2h --app acme")]
pub(crate) struct EndpointArgs {
    #[command(flatten)]
    app: ApplicationOption,
    #[command(subcommand)]
    action: EndpointAction,
}

#[derive(Debug, Subcommand)]
enum EndpointAction {
    /// List the endpoints of an application
    #[command(before_help = "Examples:\n  webhooks endpoint list --app acme")]
    List(ListOptions),
    /// Make an endpoint
    #[command(before_help = "Examples:
  webhooks endpoint create https://example.com/hook --app acme
  webhooks endpoint create https://example.com/hook --uid crm --types 'invoice.*' --app acme
  webhooks endpoint create https://example.com/hook --secret @secret.txt --app acme")]
    Create {
        /// URL that gets the events
        url: String,
        /// Secret to sign with: @FILE or - for standard input; a new one by default
        #[arg(long, value_name = "@FILE")]
        secret: Option<String>,
        #[command(flatten)]
        settings: Box<EndpointSettings>,
    },
    /// Show an endpoint
    #[command(before_help = "Examples:\n  webhooks endpoint show crm --app acme --json")]
    Show {
        /// Id or uid
        id: String,
    },
    /// Change what is given, and leave the rest
    #[command(
        before_help = "Examples:\n  webhooks endpoint edit crm --url https://example.com/new --rate 10 --app acme"
    )]
    Edit {
        /// Id or uid
        id: String,
        /// URL that gets the events
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        settings: Box<EndpointSettings>,
    },
    /// Let events go to an endpoint again
    #[command(before_help = "Examples:\n  webhooks endpoint enable crm --app acme")]
    Enable {
        /// Id or uid
        id: String,
    },
    /// Stop an endpoint: what waits for it is cancelled, and it misses the events of this time
    #[command(before_help = "Examples:\n  webhooks endpoint disable crm --app acme")]
    Disable {
        /// Id or uid
        id: String,
    },
    /// Let events wait for an endpoint
    #[command(before_help = "Examples:\n  webhooks endpoint pause crm --app acme")]
    Pause {
        /// Id or uid
        id: String,
    },
    /// End a pause
    #[command(before_help = "Examples:\n  webhooks endpoint resume crm --app acme")]
    Resume {
        /// Id or uid
        id: String,
    },
    /// Delete an endpoint; what waits for it is cancelled
    #[command(before_help = "Examples:\n  webhooks endpoint delete crm --app acme --yes")]
    Delete {
        /// Id or uid
        id: String,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Send an example of an event type to an endpoint
    #[command(
        before_help = "Examples:\n  webhooks endpoint test crm --type invoice.paid --app acme"
    )]
    Test {
        /// Id or uid
        id: String,
        /// Event type; its schema has the example
        #[arg(long = "type", value_name = "TYPE", default_value = "svix.ping")]
        event_type: String,
    },
    /// Count the deliveries of an endpoint by status
    #[command(before_help = "Examples:\n  webhooks endpoint stats crm --since 24h --app acme")]
    Stats {
        /// Id or uid
        id: String,
        /// Start: a time, or an age such as 24h
        #[arg(long, value_name = "TIME", value_parser = past)]
        since: Option<Timestamp>,
    },
    /// Show or change the secret of an endpoint
    #[command(
        before_help = "Examples:\n  webhooks endpoint secret show crm --app acme\n  webhooks endpoint secret rotate crm --grace 24h --app acme"
    )]
    Secret {
        #[command(subcommand)]
        action: SecretAction,
    },
    /// Deliver what an endpoint did not get: failed, cancelled, and missed while it was disabled
    #[command(before_help = "Examples:\n  webhooks endpoint recover crm --since 2h --app acme")]
    Recover {
        /// Id or uid
        id: String,
        /// Start: a time, or an age such as 2h
        #[arg(long, value_name = "TIME", value_parser = past)]
        since: Timestamp,
        /// End: now by default
        #[arg(long, value_name = "TIME", value_parser = past)]
        until: Option<Timestamp>,
        /// Only the events for which there is no delivery, because it was disabled or did not exist
        #[arg(long)]
        missed: bool,
        /// Return at once; the job goes on
        #[arg(long)]
        no_wait: bool,
    },
}

#[derive(Debug, Subcommand)]
enum SecretAction {
    /// Print the secret
    #[command(
        before_help = "Examples:\n  webhooks endpoint secret show crm --app acme > secret.txt"
    )]
    Show {
        /// Id or uid
        id: String,
    },
    /// Make a new secret, and print it; both sign for a time
    #[command(
        before_help = "Examples:\n  webhooks endpoint secret rotate crm --grace 24h --app acme"
    )]
    Rotate {
        /// Id or uid
        id: String,
        /// New secret: @FILE or - for standard input; a random one by default
        #[arg(long, value_name = "@FILE")]
        secret: Option<String>,
        /// Time in which the old secret signs too; 0s ends it at once
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
        grace: std::time::Duration,
    },
}

#[derive(Debug, Args)]
struct EndpointSettings {
    /// Id of your own, which every command takes in place of ours
    #[arg(long)]
    uid: Option<String>,
    /// Text for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Event type, or invoice.* for all below; may be given several times, all types by default
    #[arg(long, value_name = "TYPE")]
    types: Vec<String>,
    /// Channel; may be given several times
    #[arg(long = "channel", value_name = "NAME")]
    channels: Vec<String>,
    /// Most events delivered per second
    #[arg(long, value_name = "NUMBER")]
    rate: Option<u16>,
    /// Deliver in the order of acceptance: true or false
    #[arg(long, value_name = "BOOL")]
    ordered: Option<bool>,
    /// Longest time of an attempt in seconds
    #[arg(long, value_name = "SECONDS")]
    attempt_timeout: Option<u16>,
    /// Text to keep with it; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
}

pub(crate) async fn run(args: EndpointArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let app = args.app.find(&client).await?;
    let endpoints = Endpoints { client: &client, context, app: &app };
    match args.action {
        EndpointAction::List(options) => {
            options.run(&client, context.output, &endpoints.path(&[]), &[], &COLUMNS).await
        }
        EndpointAction::Create { url, secret, settings } => {
            endpoints.create(url, secret, *settings).await
        }
        EndpointAction::Show { id } => endpoints.show(&id).await,
        EndpointAction::Edit { id, url, settings } => {
            endpoints.change(&id, &settings.body(url).into()).await
        }
        EndpointAction::Enable { id } => endpoints.change(&id, &json!({ "disabled": false })).await,
        EndpointAction::Disable { id } => endpoints.change(&id, &json!({ "disabled": true })).await,
        EndpointAction::Pause { id } => endpoints.pause(&id, true).await,
        EndpointAction::Resume { id } => endpoints.pause(&id, false).await,
        EndpointAction::Delete { id, confirm } => endpoints.delete(&id, confirm).await,
        EndpointAction::Test { id, event_type } => endpoints.test(&id, &event_type).await,
        EndpointAction::Stats { id, since } => {
            let query: Vec<_> = since.iter().map(|since| ("since", since.to_string())).collect();
            let found = client.get(&endpoints.path(&[&id, "stats"]), &query).await?;
            context.output.thing(&STATS, &found)
        }
        EndpointAction::Secret { action } => endpoints.secret(action).await,
        EndpointAction::Recover { id, since, until, missed, no_wait } => {
            let mut body = Map::new();
            add(&mut body, "since", Some(since.to_string()));
            add(&mut body, "until", until.map(|until| until.to_string()));
            let work = if missed { "replay-missing" } else { "recover" };
            let made = client.post(&endpoints.path(&[&id, work]), &body).await?;
            job::follow(&client, context, &made, no_wait).await
        }
    }
}

/// The endpoints of an application.
struct Endpoints<'c> {
    client: &'c Client,
    context: &'c Context,
    app: &'c str,
}

impl Endpoints<'_> {
    fn path<'p>(&'p self, rest: &[&'p str]) -> Vec<&'p str> {
        [&["app", self.app, "endpoint"], rest].concat()
    }

    async fn create(
        &self,
        url: String,
        secret: Option<String>,
        settings: EndpointSettings,
    ) -> Result<(), Failure> {
        let mut body = settings.body(Some(url));
        let secret = secret.map(|text| secret::read_given("--secret", &text)).transpose()?;
        add(&mut body, "secret", secret);
        let made = self.client.post(&self.path(&[]), &body).await?;
        self.context.output.thing(&SHOWN, &made)?;
        let id = name_of(&made);
        let app = self.app;
        self.context
            .output
            .hint(format!("its secret: webhooks endpoint secret show {id} --app {app}"));
        Ok(())
    }

    async fn show(&self, id: &str) -> Result<(), Failure> {
        let mut found = self.client.get(&self.path(&[id]), &[]).await?;
        let (output, app) = (self.context.output, self.app);
        let health = Health::find(self.client, app, id).await;
        let yields = health.as_ref().is_some_and(Health::yields);
        if let (Some(health), Some(fields)) = (health, found.as_object_mut()) {
            let text = health.text(Timestamp::now());
            let shown = if output.is_json() { health.0 } else { text.into() };
            fields.insert("health".to_owned(), shown);
        }
        output.thing(&WITH_HEALTH, &found)?;
        if yields {
            output.hint(format!("try it now: webhooks delivery retry --endpoint {id} --app {app}"));
        }
        Ok(())
    }

    async fn change(&self, id: &str, body: &Value) -> Result<(), Failure> {
        let changed = self.client.patch(&self.path(&[id]), body).await?;
        self.context.output.thing(&SHOWN, &changed)
    }

    async fn pause(&self, id: &str, is_paused: bool) -> Result<(), Failure> {
        self.change(id, &json!({ "delivery": { "paused": is_paused } })).await
    }

    async fn delete(&self, id: &str, confirm: Confirm) -> Result<(), Failure> {
        confirm.ask(self.context, &format!("Delete endpoint {id} of {}?", self.app))?;
        self.client.delete(&self.path(&[id])).await?;
        Ok(self.context.output.done(id, "deleted", format!("endpoint {id} is deleted"))?)
    }

    async fn test(&self, id: &str, event_type: &str) -> Result<(), Failure> {
        let body = json!({ "eventType": event_type });
        let sent = self.client.post(&self.path(&[id, "send-example"]), &body).await?;
        let app = self.app;
        self.context.output.thing(&[Column("ID", "/id"), Column("TYPE", "/eventType")], &sent)?;
        let event = sent["id"].as_str().unwrap_or_default();
        self.context
            .output
            .hint(format!("what became of it: webhooks delivery show {event} --app {app}"));
        Ok(())
    }

    async fn secret(&self, action: SecretAction) -> Result<(), Failure> {
        let id = match action {
            SecretAction::Show { id } => id,
            SecretAction::Rotate { id, secret, grace } => {
                let mut body = Map::new();
                let secret =
                    secret.map(|text| secret::read_given("--secret", &text)).transpose()?;
                add(&mut body, "key", secret);
                add(&mut body, "gracePeriodSeconds", Some(grace.as_secs()));
                self.client.post(&self.path(&[&id, "secret", "rotate"]), &body).await?;
                id
            }
        };
        let found = self.client.get(&self.path(&[&id, "secret"]), &[]).await?;
        if self.context.output.is_json() {
            return Ok(self.context.output.json(&found)?);
        }
        let secret = found["key"].as_str();
        let missing = || not_a_service("the server answered without a secret");
        Ok(self.context.output.line(secret.ok_or_else(missing)?)?)
    }
}

impl EndpointSettings {
    fn body(self, url: Option<String>) -> Map<String, Value> {
        let mut body = Map::new();
        add(&mut body, "url", url);
        add(&mut body, "uid", self.uid);
        add(&mut body, "description", self.description);
        add_list(&mut body, "eventTypes", &self.types);
        add_list(&mut body, "channels", &self.channels);
        add(&mut body, "throttleRate", self.rate);
        add(
            &mut body,
            "metadata",
            Some(self.metadata).filter(|pairs| !pairs.is_empty()).map(object),
        );
        let mut delivery = Map::new();
        add(&mut delivery, "ordered", self.ordered);
        add(&mut delivery, "timeoutSecs", self.attempt_timeout);
        add(&mut body, "delivery", Some(delivery).filter(|fields| !fields.is_empty()));
        body
    }
}
