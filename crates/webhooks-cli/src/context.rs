//! The surroundings of every command: its output, the configuration, and the way to the server.

use clap::{ArgMatches, Command};

use crate::client::Client;
use crate::config::{Config, Origin, settings, with_variable};
use crate::failure::{Exit, Failure, NO_KEY};
use crate::global::Global;
use crate::output::Output;
use crate::secret;
use crate::signals::Interruption;

/// The surroundings of a command.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) config: Config,
    pub(crate) output: Output,
    pub(crate) interruption: Interruption,
    plain: Command,
    /// With the values of the files.
    command: Command,
    matches: ArgMatches,
}

impl Context {
    pub(crate) fn new(
        global: Global,
        config: Config,
        commands: (Command, Command),
        matches: ArgMatches,
    ) -> Self {
        let output = Output::new(&global);
        let ((plain, command), interruption) = (commands, Interruption::default());
        Self { global, config, output, interruption, plain, command, matches }
    }

    /// Borrows the command line with the values of the files as defaults.
    pub(crate) fn command(&self) -> &Command {
        &self.command
    }

    /// Returns the command line as it is without files.
    pub(crate) fn plain_command(&self) -> Command {
        self.plain.clone()
    }

    /// Returns the values of a section's settings: those of this call for the options of every command, and
    /// those that the section's command would have otherwise.
    pub(crate) fn matches_of(&self, section: &str) -> Result<ArgMatches, Failure> {
        if section.is_empty() {
            return Ok(self.matches.clone());
        }
        let matches = self.command.clone().try_get_matches_from(["webhooks", section]);
        let matches = matches.map_err(|error| {
            let error = with_variable(error, &self.command, std::iter::empty());
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            Failure::usage(line.trim_start_matches("error: "))
        })?;
        Ok(matches.subcommand().map(|(_, found)| found.clone()).unwrap_or_default())
    }

    /// Returns the client of the server, with the key for it.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let (server, key) = (self.origin("", "server"), self.origin("", "key"));
        let trusted = self.origin("", "ca");
        // A project that was fetched from somewhere must not learn the user's key: neither its server, nor one that
        // has a certificate of its authority.
        let of_project = [&server, &trusted].into_iter().find_map(Origin::project);
        if let (Some(project), Origin::User(user)) = (of_project, &key) {
            let text = format!(
                "the server or the authority of {} would get the key of {}",
                project.display(),
                user.display()
            );
            return Err(Failure::new(Exit::NotAllowed, text).hint(
                "give the key for this server with --key @FILE, or the server with --server",
            ));
        }
        let text = self.global.key.as_deref();
        if key == Origin::Flag && text.is_some_and(|text| text != "-" && !text.starts_with('@')) {
            Output::warn(
                "other users of this machine can see a key on the command line: use --key @FILE",
            );
        }
        let text = text.map(|text| secret::read(&self.name_of("", "key"), text)).transpose();
        let text = text.map_err(|failure| failure.hint(NO_KEY))?;
        self.client_of(text.as_deref())
    }

    /// Returns the client of the server with another key.
    pub(crate) fn client_with(&self, key: &str) -> Result<Client, Failure> {
        self.client_of(Some(key))
    }

    /// Returns the client of the server without a key.
    pub(crate) fn client_without_key(&self) -> Result<Client, Failure> {
        self.client_of(None)
    }

    fn client_of(&self, key: Option<&str>) -> Result<Client, Failure> {
        let name = self.name_of("", "server");
        Client::named((&name, &self.global.server), key, &self.global)
    }

    /// Returns where the value of an option of the command `section` comes from. An empty section is that of the
    /// options of every command.
    pub(crate) fn origin(&self, section: &str, option: &str) -> Origin {
        let arg = settings(&self.command, section).find(|arg| arg.get_long() == Some(option));
        let matches = match self.matches.subcommand() {
            Some((running, matches)) if running == section => Some(matches.clone()),
            _ => self.matches_of(section).ok(),
        };
        let found = arg.zip(matches);
        found.map_or(Origin::Default, |(arg, matches)| self.config.origin(section, arg, &matches))
    }

    /// Returns the name under which people know an option's value: that of the place that has set it.
    pub(crate) fn name_of(&self, section: &str, option: &str) -> String {
        match self.origin(section, option) {
            Origin::Environment(name) => name,
            Origin::Project(path) | Origin::User(path) if section.is_empty() => {
                format!("{option} of {}", path.display())
            }
            Origin::Project(path) | Origin::User(path) => {
                format!("{section}.{option} of {}", path.display())
            }
            Origin::Flag | Origin::Default => format!("--{option}"),
        }
    }
}
