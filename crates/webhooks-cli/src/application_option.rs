//! The application that a command is about.

use clap::Args;

use crate::body::name_of;
use crate::client::Client;
use crate::failure::{Exit, Failure};

/// The most applications that an error names.
const NAMED: usize = 10;

/// The application of a command.
#[derive(Debug, Clone, Args)]
pub(crate) struct ApplicationOption {
    /// Application, by id or uid; not needed if there is only one
    #[arg(long, global = true, env = "WEBHOOKS_APP", value_name = "ID")]
    pub(crate) app: Option<String>,
}

impl ApplicationOption {
    /// Returns the id or uid of the application: the only one if none is named.
    pub(crate) async fn find(&self, client: &Client) -> Result<String, Failure> {
        if let Some(app) = &self.app {
            return Ok(app.clone());
        }
        let found = match client.list(&["app"], &[], NAMED).await {
            Err(refused) if refused.exit == Exit::NotAllowed => {
                return application_of_key(client, refused).await;
            }
            found => found?,
        };
        match &found[..] {
            [app] => Ok(name_of(app).to_owned()),
            [] => Err(Failure::usage("there is no application yet")
                .hint("make one with `webhooks app create NAME`")),
            several => {
                let names: Vec<_> = several.iter().map(name_of).collect();
                Err(Failure::usage(format!(
                    "there are several applications: name one with --app, such as {}",
                    names.join(", ")
                )))
            }
        }
    }
}

/// Returns the application of a key that may not list applications: the only one for which it is.
async fn application_of_key(client: &Client, refused: Failure) -> Result<String, Failure> {
    // A key that is not valid is refused here, too.
    let Ok(who) = client.get(&["auth", "whoami"], &[]).await else { return Err(refused) };
    let app = who["appId"].as_str().map(str::to_owned);
    app.ok_or_else(|| {
        let text = "the key may not list applications, and the command names none";
        Failure::new(Exit::NotAllowed, text).hint("name it with --app ID or WEBHOOKS_APP")
    })
}
