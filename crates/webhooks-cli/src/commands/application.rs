//! `app`: applications, whose endpoints an event goes to.

use clap::{Args, Subcommand};
use serde_json::Map;

use super::confirm;
use crate::body::{add, name_of, object, pair};
use crate::context::Context;
use crate::failure::Failure;
use crate::list::ListOptions;
use crate::table::Column;

const COLUMNS: [Column; 5] = [
    Column("ID", "/id"),
    Column("UID", "/uid"),
    Column("NAME", "/name"),
    Column("RATE", "/throttleRate"),
    Column("CREATED", "/createdAt"),
];

/// The fields of one application.
const SHOWN: [Column; 6] = {
    let [id, uid, name, rate, created] = COLUMNS;
    [id, uid, name, rate, created, Column("METADATA", "/metadata")]
};

/// List and change applications: the customers whose endpoints get events
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  webhooks app create 'Acme Inc' --uid acme
  webhooks app list
  webhooks app edit acme --rate 100")]
pub(crate) struct AppArgs {
    #[command(subcommand)]
    action: AppAction,
}

#[derive(Debug, Subcommand)]
enum AppAction {
    /// List applications
    #[command(before_help = "Examples:\n  webhooks app list\n  webhooks app list --limit 5 --json")]
    List(ListOptions),
    /// Make an application
    #[command(
        before_help = "Examples:\n  webhooks app create 'Acme Inc' --uid acme --metadata plan=gold"
    )]
    Create {
        /// Name for people
        name: String,
        #[command(flatten)]
        settings: AppSettings,
    },
    /// Show an application
    #[command(before_help = "Examples:\n  webhooks app show acme")]
    Show {
        /// Id or uid
        id: String,
    },
    /// Change what is given, and leave the rest
    #[command(before_help = "Examples:\n  webhooks app edit acme --name 'Acme Ltd' --rate 100")]
    Edit {
        /// Id or uid
        id: String,
        /// Name for people
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        settings: AppSettings,
    },
    /// Delete an application with its endpoints; what waits for them is cancelled
    #[command(
        before_help = "Examples:\n  webhooks app delete acme\n  webhooks app delete acme --yes"
    )]
    Delete {
        /// Id or uid
        id: String,
        #[command(flatten)]
        confirm: confirm::Confirm,
    },
}

#[derive(Debug, Args)]
struct AppSettings {
    /// Id of your own, which every command takes in place of ours
    #[arg(long)]
    uid: Option<String>,
    /// Most events published per second
    #[arg(long, value_name = "NUMBER")]
    rate: Option<u16>,
    /// Text to keep with it; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
}

pub(crate) async fn run(args: AppArgs, context: &Context) -> Result<(), Failure> {
    let (client, output) = (context.client()?, context.output);
    match args.action {
        AppAction::List(options) => {
            return options.run(&client, output, &["app"], &[], &COLUMNS).await;
        }
        AppAction::Create { name, settings } => {
            let made = client.post(&["app"], &settings.body(Some(name))).await?;
            output.thing(&SHOWN, &made)?;
            let id = name_of(&made);
            output.hint(format!(
                "next: webhooks endpoint create https://example.com/hook --app {id}"
            ));
        }
        AppAction::Show { id } => output.thing(&SHOWN, &client.get(&["app", &id], &[]).await?)?,
        AppAction::Edit { id, name, settings } => {
            output.thing(&SHOWN, &client.patch(&["app", &id], &settings.body(name)).await?)?;
        }
        AppAction::Delete { id, confirm } => {
            confirm.ask(context, &format!("Delete application {id} with all its endpoints?"))?;
            client.delete(&["app", &id]).await?;
            output.done(&id, "deleted", format!("application {id} is deleted"))?;
        }
    }
    Ok(())
}

impl AppSettings {
    fn body(self, name: Option<String>) -> Map<String, serde_json::Value> {
        let mut body = Map::new();
        add(&mut body, "name", name);
        add(&mut body, "uid", self.uid);
        add(&mut body, "throttleRate", self.rate);
        add(
            &mut body,
            "metadata",
            Some(self.metadata).filter(|pairs| !pairs.is_empty()).map(object),
        );
        body
    }
}
