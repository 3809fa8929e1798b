//! The application that a command is about.

use clap::Args;

use crate::body::name_of;
use crate::client::Client;
use crate::failure::Failure;

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
        let found = client.list(&["app"], &[], NAMED).await?;
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
