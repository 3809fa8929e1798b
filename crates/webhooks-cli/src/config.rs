//! The configuration: where the value of each setting comes from.
//!
//! A setting is an option of the command line. Files give defaults to them, so that clap alone decides what is set:
//! option, environment, project file, user file, default. A profile that the command line names counts as options do:
//! the environment is not read for what it sets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use toml::{Table, Value};

use crate::failure::{Exit, Failure};

/// The file of a project, in the folder in which the program is started.
const PROJECT_FILE: &str = "webhooks.toml";

/// The commands that have settings, beside the options of every command.
const SECTIONS: [&str; 1] = ["serve"];

/// Options that no file can set: they belong to one call.
const CALL_ONLY: [&str; 8] =
    ["config", "profile", "json", "quiet", "no-input", "help", "version", "check"];

/// The settings of the files.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// By section (empty for the options of every command) and option.
    values: BTreeMap<(String, String), Setting>,
    /// The options that a profile of the command line sets.
    chosen: BTreeSet<String>,
    /// The files that were read.
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Clone)]
struct Setting {
    values: Vec<String>,
    origin: Origin,
}

/// The origin of a setting's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An option of the command line.
    Flag,
    /// An environment variable, with its name.
    Environment(String),
    /// A file of the project, which others may have written.
    Project(PathBuf),
    /// The user's own file.
    User(PathBuf),
    /// The default of the program.
    Default,
}

impl Origin {
    /// Borrows the file of the project, if it is one.
    pub(crate) fn project(&self) -> Option<&Path> {
        match self {
            Self::Project(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("command line"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Project(path) | Self::User(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The parts of the command line that decide which files are read.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub(crate) config: Option<PathBuf>,
    pub(crate) profile: Option<String>,
    /// Whether the command line names the profile, and not the environment.
    pub(crate) is_profile_given: bool,
    /// The folder with the user's configuration of all programs.
    pub(crate) user_folder: Option<PathBuf>,
}

impl Selection {
    /// Returns what the command line and the environment say about files.
    pub(crate) fn new(matches: &ArgMatches) -> Self {
        let folder =
            |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // XDG Base Directory Specification, "Environment variables".
        let user_folder = folder("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        let user_folder = user_folder.or_else(|| Some(folder("HOME")?.join(".config")));
        let (config, profile) =
            (matches.get_one("config").cloned(), matches.get_one("profile").cloned());
        let is_profile_given = matches.value_source("profile") == Some(ValueSource::CommandLine);
        Self { config, profile, is_profile_given, user_folder }
    }
}

impl Config {
    /// Reads the files, which need not exist unless they are named, and checks each value in them.
    pub(crate) fn read(selection: &Selection, command: &Command) -> Result<Self, Failure> {
        let mut config = Self::default();
        let user = selection.user_folder.as_ref().map(|folder| folder.join("webhooks/config.toml"));
        let project = selection.config.clone().unwrap_or_else(|| PROJECT_FILE.into());
        let files = user.map(|path| (Origin::User(path.clone()), path, false));
        let files = files.into_iter().chain([(
            Origin::Project(project.clone()),
            project,
            selection.config.is_some(),
        )]);
        let mut tables = Vec::new();
        for (origin, path, is_required) in files {
            let Some(table) = read_file(&path, is_required)? else { continue };
            tables.push((table, origin, path.clone()));
            config.files.push(path);
        }
        let (name, is_given) = (selection.profile.as_deref(), selection.is_profile_given);
        let mut has_profile = false;
        for (table, origin, path) in &tables {
            config.add(table, origin, path)?;
            // After the rest of the file: a profile counts before what the file has for all.
            if !is_given {
                has_profile |= config.add_profile(table, origin, path, name)?.is_some();
            }
        }
        // After both files: a profile of the command line counts before what they have for all.
        for (table, origin, path) in tables.iter().filter(|_| is_given) {
            if let Some(options) = config.add_profile(table, origin, path, name)? {
                has_profile = true;
                config.chosen.extend(options);
            }
        }
        match &selection.profile {
            Some(name) if !has_profile => Err(Failure::usage(format!("no file has the profile {name:?}"))
                .hint(format!("add [profile.{name}] with server and key to the file that `webhooks config show` names"))),
            _ => {
                config.check(command)?;
                Ok(config)
            }
        }
    }

    /// Adds the values of a file, except those of profiles.
    fn add(&mut self, table: &Table, origin: &Origin, path: &Path) -> Result<(), Failure> {
        for (name, value) in table {
            match value {
                Value::Table(_) if name == "profile" => {}
                Value::Table(section) if SECTIONS.contains(&name.as_str()) => {
                    for (option, value) in section {
                        self.insert(name, option, value, origin, path)?;
                    }
                }
                _ => self.insert("", name, value, origin, path)?,
            }
        }
        Ok(())
    }

    /// Adds the values of a profile; returns its options if the file has it.
    fn add_profile(
        &mut self,
        table: &Table,
        origin: &Origin,
        path: &Path,
        name: Option<&str>,
    ) -> Result<Option<Vec<String>>, Failure> {
        let profiles = table.get("profile").and_then(Value::as_table);
        let chosen = profiles.zip(name).and_then(|(profiles, name)| profiles.get(name));
        let Some(chosen) = chosen else { return Ok(None) };
        let Value::Table(settings) = chosen else {
            return Err(Failure::usage(format!("a profile in {} is not a table", path.display())));
        };
        for (option, value) in settings {
            self.insert("", option, value, origin, path)?;
        }
        Ok(Some(settings.keys().cloned().collect()))
    }

    fn insert(
        &mut self,
        section: &str,
        option: &str,
        value: &Value,
        origin: &Origin,
        path: &Path,
    ) -> Result<(), Failure> {
        let values = match value {
            Value::Array(values) => values.iter().map(text).collect(),
            value => text(value).map(|text| vec![text]),
        };
        let place =
            if section.is_empty() { option.to_owned() } else { format!("{section}.{option}") };
        let values = values.ok_or_else(|| {
            Failure::usage(format!(
                "{place} in {} is neither a value nor a list of values",
                path.display()
            ))
        })?;
        self.values.insert(
            (section.to_owned(), option.to_owned()),
            Setting { values, origin: origin.clone() },
        );
        Ok(())
    }

    /// Checks that each value is one of an option, as the option reads it.
    fn check(&self, command: &Command) -> Result<(), Failure> {
        // A wrong value of the environment is no fault of the file.
        let command = &each_arg(command.clone(), |_, arg| arg.env(None::<&'static str>));
        for ((section, option), setting) in &self.values {
            let place =
                if section.is_empty() { option.clone() } else { format!("{section}.{option}") };
            let wrong =
                |what: String| Failure::usage(format!("{place} in the {}: {what}", setting.origin));
            let Some(scope) = scope(command, section) else { continue };
            if !is_setting(scope, option) {
                let hint = "`webhooks config show` lists all settings";
                return Err(wrong("there is no such setting".to_owned()).hint(hint));
            }
            let (section, option) = (section.as_str(), option.as_str());
            let words = ["webhooks", if section.is_empty() { "config" } else { section }]
                .map(str::to_owned);
            let shown = section.is_empty().then(|| "show".to_owned());
            let is_flag = find(scope, option).is_some_and(|arg| !arg.get_action().takes_values());
            if is_flag {
                let is_bool =
                    matches!(&setting.values[..], [value] if value == "true" || value == "false");
                if !is_bool {
                    return Err(wrong("it is true or false".to_owned()));
                }
                continue;
            }
            let options = setting.values.iter().map(|value| format!("--{option}={value}"));
            let parsed =
                command.clone().try_get_matches_from(words.into_iter().chain(shown).chain(options));
            if let Err(error) = parsed {
                let text = error.to_string();
                let line = text.lines().next().unwrap_or_default();
                return Err(wrong(line.trim_start_matches("error: ").to_owned()));
            }
        }
        Ok(())
    }

    /// Returns the command with the values of the files as defaults.
    pub(crate) fn apply(&self, command: Command) -> Command {
        each_arg(command, |section, arg| self.with_default(section, arg))
    }

    fn with_default(&self, section: &str, arg: Arg) -> Arg {
        let setting = arg
            .get_long()
            .and_then(|option| self.values.get(&(section.to_owned(), option.to_owned())));
        let Some(setting) = setting else { return arg };
        let option = arg.get_long().unwrap_or_default();
        let is_chosen = section.is_empty() && self.chosen.contains(option);
        let arg = arg.default_values(setting.values.clone());
        if is_chosen { arg.env(None::<&'static str>) } else { arg }
    }

    /// Returns where the value of a setting comes from. `matches` are those of the section's command.
    pub(crate) fn origin(&self, section: &str, arg: &Arg, matches: &ArgMatches) -> Origin {
        let option = arg.get_long().unwrap_or_default().to_owned();
        match matches.value_source(arg.get_id().as_str()) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => {
                let name = arg.get_env().map(|name| name.to_string_lossy().into_owned());
                Origin::Environment(name.unwrap_or_default())
            }
            _ => match self.values.get(&(section.to_owned(), option)) {
                Some(setting) => setting.origin.clone(),
                None => Origin::Default,
            },
        }
    }
}

/// Returns the settings of a section, in the order of the help.
pub(crate) fn settings<'c>(command: &'c Command, section: &str) -> impl Iterator<Item = &'c Arg> {
    let scope = scope(command, section);
    let args = scope.into_iter().flat_map(Command::get_arguments);
    args.filter(|arg| arg.get_long().is_some_and(|option| !CALL_ONLY.contains(&option))).filter({
        let is_own = !section.is_empty();
        move |arg| !(is_own && arg.is_global_set())
    })
}

/// Returns the sections, the options of every command first.
pub(crate) fn sections() -> impl Iterator<Item = &'static str> {
    std::iter::once("").chain(SECTIONS)
}

/// Names the environment variable in place of the option in an error about its value, if the value came from there.
/// `words` are those of the command line. Values of files were checked before.
pub(crate) fn with_variable(
    mut error: clap::Error,
    command: &Command,
    mut words: impl Iterator<Item = String>,
) -> clap::Error {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    // Before, an option cannot be shown.
    let mut command = command.clone();
    command.build();
    let scopes = command.get_subcommands().chain([&command]);
    // Another command may have an option of the same name without a variable.
    let is_meant = |arg: &&Arg| arg.get_env().is_some() && arg.to_string() == *shown;
    let arg = scopes.flat_map(Command::get_arguments).find(is_meant);
    let variable = arg.and_then(Arg::get_env).filter(|name| std::env::var_os(name).is_some());
    let option = arg.and_then(Arg::get_long).map(|option| format!("--{option}"));
    if let (Some(variable), Some(option)) = (variable, option) {
        let is_given = words.any(|word| word.split('=').next() == Some(&*option));
        if !is_given {
            let name = variable.to_string_lossy().into_owned();
            error.insert(ContextKind::InvalidArg, ContextValue::String(name));
        }
    }
    error
}

/// Changes the options of all sections.
fn each_arg(mut command: Command, change: impl Fn(&str, Arg) -> Arg) -> Command {
    command = command.mut_args(|arg| change("", arg));
    for section in SECTIONS {
        command =
            command.mut_subcommand(section, |found| found.mut_args(|arg| change(section, arg)));
    }
    command
}

fn scope<'c>(command: &'c Command, section: &str) -> Option<&'c Command> {
    if section.is_empty() { Some(command) } else { command.find_subcommand(section) }
}

fn find<'c>(scope: &'c Command, option: &str) -> Option<&'c Arg> {
    scope.get_arguments().find(|arg| arg.get_long() == Some(option))
}

fn is_setting(scope: &Command, option: &str) -> bool {
    find(scope, option).is_some() && !CALL_ONLY.contains(&option)
}

/// Returns the text of a value as it would stand on the command line.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        Value::Datetime(time) => Some(time.to_string()),
        Value::Array(_) | Value::Table(_) => None,
    }
}

fn read_file(path: &Path, is_required: bool) -> Result<Option<Table>, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && !is_required => return Ok(None),
        Err(error) => return Err(Failure::file("read", path.display(), error)),
    };
    let table = text.parse::<Table>().map_err(|error| {
        // The message shows the line at fault, which may hold a key.
        let line = error.span().map_or(1, |span| {
            1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
        });
        let text = format!("line {line} of {} is not TOML: {}", path.display(), error.message());
        Failure::new(Exit::Usage, text)
    })?;
    Ok(Some(table))
}
