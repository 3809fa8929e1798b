//! `key`: API keys.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};
use webhooks_admin::{Actor, AdminError, ApiKey, ApiKeyText, Entry, Grant, IdKind};
use webhooks_core::Timestamp;

use super::confirm::Confirm;
use crate::body::add;
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure, not_a_service};
use crate::list::ListOptions;
use crate::moment::future;
use crate::output::Output;
use crate::secret;
use crate::store::Database;
use crate::table::Column;

/// The API names an environment in the path of keys; there is one.
const KEYS: [&str; 4] = ["management", "authentication", "default", "api-token"];

const COLUMNS: [Column; 6] = [
    Column("ID", "/id"),
    Column("NAME", "/name"),
    Column("ROLE", "/role"),
    Column("APP", "/application"),
    Column("EXPIRES", "/expiresAt"),
    Column("LAST USED", "/lastUsedAt"),
];

/// Make, list and end API keys
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks key create billing --role publisher --app acme > key.txt
  webhooks key list
  webhooks key revoke key_2x")]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    action: KeyAction,
}

#[derive(Debug, Subcommand)]
enum KeyAction {
    /// Make a key, and print it: it is shown this once
    #[command(before_help = "Examples:
  webhooks key create billing --role publisher --app acme --expires 90d > key.txt
  webhooks key create admin --role admin --database /var/lib/webhooks/webhooks.db > new-key.txt")]
    Create {
        /// Name for people
        name: String,
        /// Rights of the key
        #[arg(long)]
        role: Role,
        /// Only for this application, by id or uid
        #[arg(long, value_name = "ID")]
        app: Option<String>,
        /// End: a delay such as 90d, or a time; never by default
        #[arg(long, value_name = "TIME", value_parser = future)]
        expires: Option<Timestamp>,
        /// Make it in this database itself, without a key: a file that no service uses, or a postgres:// URL, @FILE for
        /// a URL in a file; only for --role admin
        #[arg(
            long,
            value_name = "FILE|URL",
            conflicts_with_all = ["app", "sees_secrets", "without_payloads"]
        )]
        database: Option<String>,
        /// The key may see secrets of endpoints
        #[arg(long)]
        sees_secrets: bool,
        /// The key may not see payloads
        #[arg(long)]
        without_payloads: bool,
    },
    /// List keys, without their texts
    #[command(before_help = "Examples:\n  webhooks key list")]
    List(ListOptions),
    /// Make a key with the rights of another one, print it, and end the other
    #[command(before_help = "Examples:\n  webhooks key rotate key_2x --grace 1h > new-key.txt")]
    Rotate {
        /// Id of the key that ends
        id: String,
        /// Time in which both can be used; at most 3 days
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
        grace: Duration,
    },
    /// End a key
    #[command(
        before_help = "Examples:\n  webhooks key revoke key_2x\n  webhooks key revoke key_2x --in 1h"
    )]
    Revoke {
        /// Id
        id: String,
        /// Delay; at most 3 days
        #[arg(long = "in", value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
        delay: Duration,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// The rights of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Everything
    Admin,
    /// Change endpoints, and repair deliveries
    Operator,
    /// Read
    Viewer,
    /// Publish events
    Publisher,
    /// Pull events
    Poller,
    /// Manage the endpoints of one application
    Customer,
}

pub(crate) async fn run(args: KeyArgs, context: &Context) -> Result<(), Failure> {
    let output = context.output;
    if let KeyAction::Create { name, role, expires, database: Some(database), .. } = args.action {
        if role != Role::Admin {
            return Err(Failure::usage("--database makes keys of the role admin alone")
                .hint("with such a key, the service makes others"));
        }
        return make_in(&database, name, expires, output).await;
    }
    let client = context.client()?;
    match args.action {
        KeyAction::Create { name, role, app, expires, sees_secrets, without_payloads, .. } => {
            let role = role.to_possible_value().map(|value| value.get_name().to_owned());
            let mut body = Map::new();
            add(&mut body, "name", Some(name));
            add(&mut body, "role", role);
            add(&mut body, "application", app);
            add(&mut body, "expiresAt", expires.map(|time| time.to_string()));
            add(&mut body, "seesSecrets", sees_secrets.then_some(true));
            add(&mut body, "seesPayloads", without_payloads.then_some(false));
            make(&client, output, &body).await?;
        }
        KeyAction::Rotate { id, grace } => {
            let old = client.get(&[&KEYS[..], &[&id]].concat(), &[]).await?;
            let kept = ["name", "role", "application", "seesPayloads", "seesSecrets", "expiresAt"];
            let kept =
                kept.into_iter().filter_map(|name| Some((name.to_owned(), old.get(name)?.clone())));
            let made = make(&client, output, &kept.collect()).await?;
            let ended = match end(&client, &id, grace).await {
                // A key cannot end itself, and the new one has the same rights.
                Err(failure) if failure.exit == Exit::Refused => {
                    let new = context.client_with(made["token"].as_str().unwrap_or_default())?;
                    end(&new, &id, grace).await?
                }
                ended => ended?,
            };
            // The answer is the new key.
            output.note(ended);
        }
        KeyAction::List(options) => {
            return options.run(&client, output, &KEYS, &[], &COLUMNS).await;
        }
        KeyAction::Revoke { id, delay, confirm } => {
            confirm.ask(context, &format!("End key {id}? Programs with it are refused then."))?;
            let text = end(&client, &id, delay).await?;
            output.done(&id, "revoked", text)?;
        }
    }
    Ok(())
}

/// Makes a key, prints it, and returns it.
async fn make(
    client: &Client,
    output: Output,
    body: &Map<String, Value>,
) -> Result<Value, Failure> {
    let made = client.post(&KEYS, body).await?;
    show(&made, output)?;
    Ok(made)
}

/// Makes the key of an administrator in a database, as the first start of a service does, and prints it.
async fn make_in(
    database: &str,
    name: String,
    expires: Option<Timestamp>,
    output: Output,
) -> Result<(), Failure> {
    if Database::shows_password(database) {
        secret::warn_of_literal("--database", database);
    }
    let (admin, closing) = Database::read(database, &[])?.open_records().await?;
    let (text, now) = (ApiKeyText::generate(), Timestamp::now());
    let grant = Grant::new(webhooks_admin::Role::Admin);
    let mut key = ApiKey::new(name, text.hash(), grant, now);
    key.expires_at = expires;
    let keys = admin.keys();
    let added = keys.add(IdKind::ApiKey.generate(), key, &Actor::database(), now).await;
    closing.close().await;
    let Entry { id, value, .. } = added.map_err(|error| {
        let exit = match error {
            AdminError::Invalid(_) => Exit::Refused,
            _ => Exit::Failed,
        };
        Failure::new(exit, "the key was not made").because(error)
    })?;
    let mut made = json!({
        "id": id, "name": value.name, "role": "admin", "token": text.reveal(),
        "createdAt": now.to_string(),
    });
    if let Some(expires) = expires {
        made["expiresAt"] = expires.to_string().into();
    }
    show(&made, output)
}

/// Prints a key that was made.
fn show(made: &Value, output: Output) -> Result<(), Failure> {
    let Some(token) = made["token"].as_str() else {
        return Err(not_a_service("the server answered without a key"));
    };
    if output.is_json() {
        output.json(made)?;
    } else {
        output.note(format!("key {} is shown this once:", made["id"].as_str().unwrap_or_default()));
        output.line(token)?;
    }
    Ok(())
}

/// Ends a key; returns the text for it.
async fn end(client: &Client, id: &str, delay: Duration) -> Result<String, Failure> {
    let path = [&KEYS[..], &[id, "expire"]].concat();
    client.post(&path, &json!({ "expiry": delay.as_secs() })).await?;
    let when = if delay.is_zero() {
        "now".to_owned()
    } else {
        format!("in {}", humantime::format_duration(delay))
    };
    Ok(format!("key {id} ends {when}"))
}
