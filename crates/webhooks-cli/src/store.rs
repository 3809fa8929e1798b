//! The database: a file, or a server of PostgreSQL.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;
use webhooks_admin::{Admin, PostgresRecordStore, SqliteRecordStore};
use webhooks_dispatch::BoxedStore;
use webhooks_postgres::{OpenError, PostgresOptions, PostgresStore};
use webhooks_registry::seal::SealingKey;
use webhooks_sqlite::{BackupError, Snapshot, SqliteOptions, SqliteStore};

use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::secret;

/// A database, as it was named. It is shown without a password.
pub(crate) struct Database {
    place: Place,
    keys: Vec<SealingKey>,
}

enum Place {
    File(PathBuf),
    Postgres(Url),
}

/// A database that is open.
pub(crate) struct Opened {
    pub(crate) store: BoxedStore,
    pub(crate) admin: Admin,
    pub(crate) closing: Closing,
    /// Whether its file did not exist before.
    pub(crate) is_new: bool,
}

/// A handle to close a database.
pub(crate) enum Closing {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Postgres(url) => {
                let (host, name) = (url.host_str().unwrap_or("localhost"), url.path());
                write!(f, "postgres://{host}{name}")
            }
        }
    }
}

impl Database {
    pub(crate) fn read(text: &str, keys: &[String]) -> Result<Self, Failure> {
        Self::read_named(("--database", text), ("--sealing-key", keys))
    }

    /// Reads a database and its keys, whose settings have these names in errors.
    pub(crate) fn read_named(
        (name, text): (&str, &str),
        (key_name, keys): (&str, &[String]),
    ) -> Result<Self, Failure> {
        let text = if text.starts_with('@') { secret::read(name, text)? } else { text.to_owned() };
        let place = if is_server(&text) {
            Place::Postgres(server_url(name, &text)?)
        } else if Self::is_url(&text) {
            let text = format!("{name} is neither a file nor a postgres:// URL");
            return Err(Failure::usage(text));
        } else {
            Place::File(text.into())
        };
        let key = |text: &String| {
            let key = SealingKey::from_hex(&secret::read(key_name, text)?);
            key.map_err(|error| Failure::usage(format!("{key_name} is refused")).because(error))
        };
        let keys = keys.iter().map(key).collect::<Result<_, _>>()?;
        Ok(Self { place, keys })
    }

    /// Reads the URL of a server, or `@FILE` with one.
    pub(crate) fn server(option: &str, text: &str) -> Result<Self, Failure> {
        let is_in_file = text.starts_with('@');
        let text = if is_in_file { secret::read(option, text)? } else { text.to_owned() };
        if !is_server(&text) {
            return Err(Failure::usage(format!("{option} is not a postgres:// URL")));
        }
        let url = server_url(option, &text)?;
        if has_password(&url) && !is_in_file {
            Output::warn(format!(
                "other users of this machine can see a password on the command line: use {option} @FILE"
            ));
        }
        Ok(Self { place: Place::Postgres(url), keys: Vec::new() })
    }

    /// Returns the options of its server.
    pub(crate) fn postgres(&self) -> Result<PostgresOptions, Failure> {
        match &self.place {
            Place::Postgres(url) => {
                PostgresOptions::new(url.as_str()).map_err(|error| self.failed(error))
            }
            Place::File(_) => Err(Failure::usage(format!("{self} is not a postgres:// URL"))),
        }
    }

    pub(crate) async fn open(&self) -> Result<Opened, Failure> {
        match &self.place {
            Place::File(path) => {
                let is_new = !path.exists();
                let options = SqliteOptions::new(path).sealing_keys(self.keys.clone());
                let store = options.reserve_log().open().await;
                let store = store.map_err(|error| self.failed(error))?;
                let records = SqliteRecordStore::new(store.clone())
                    .await
                    .map_err(|error| self.failed(error))?;
                let closing = Closing::Sqlite(store.clone());
                Ok(Opened {
                    store: BoxedStore::new(store),
                    admin: Admin::new(records),
                    closing,
                    is_new,
                })
            }
            Place::Postgres(url) => {
                let options =
                    PostgresOptions::new(url.as_str()).map_err(|error| self.failed(error))?;
                let store = options.sealing_keys(self.keys.clone()).open().await;
                let store = store.map_err(|error| self.not_opened(error))?;
                let records =
                    PostgresRecordStore::new(&store).await.map_err(|error| self.failed(error))?;
                let closing = Closing::Postgres(store.clone());
                Ok(Opened {
                    store: BoxedStore::new(store),
                    admin: Admin::new(records),
                    closing,
                    is_new: false,
                })
            }
        }
    }

    /// Opens a database that is there for the things of a service alone, such as its keys: no sealing key is needed. A
    /// file must not be in use by a service.
    pub(crate) async fn open_records(&self) -> Result<(Admin, Closing), Failure> {
        let failed = |error| self.failed(error);
        match &self.place {
            Place::File(path) => {
                let text = format!("cannot open the database {self}");
                // It refuses all that opening a store would make, and has freed the file afterwards.
                Snapshot::open(path).map(drop).map_err(|error| file_refused(text, error))?;
                let store = SqliteOptions::new(path).without_secrets().open().await;
                let store = store.map_err(|error| self.failed(error))?;
                let records = SqliteRecordStore::new(store.clone()).await.map_err(failed)?;
                Ok((Admin::new(records), Closing::Sqlite(store)))
            }
            Place::Postgres(_) => {
                let store = self.postgres()?.existing().open().await;
                let store = store.map_err(|error| self.not_opened(error))?;
                let records = PostgresRecordStore::new(&store).await.map_err(failed)?;
                Ok((Admin::new(records), Closing::Postgres(store)))
            }
        }
    }

    /// Returns whether the text of a setting shows a password, to those who see the setting.
    pub(crate) fn shows_password(text: &str) -> bool {
        Url::parse(text).is_ok_and(|url| has_password(&url))
    }

    /// Returns whether a text is meant as a URL, which may have a password, and not as a file.
    pub(crate) fn is_url(text: &str) -> bool {
        text.contains("://") || text.split_once(':').is_some_and(|(scheme, _)| is_postgres(scheme))
    }

    /// Returns the file, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.place {
            Place::File(path) => Some(path),
            Place::Postgres(_) => None,
        }
    }

    /// Returns the version of the database's server, if it has one; nothing is changed.
    pub(crate) async fn server_version(&self) -> Result<Option<String>, Failure> {
        let Place::Postgres(url) = &self.place else { return Ok(None) };
        let options = PostgresOptions::new(url.as_str()).map_err(|error| self.failed(error))?;
        options.server_version().await.map(Some).map_err(|error| self.failed(error))
    }

    fn not_opened(&self, error: OpenError) -> Failure {
        let (exit, hint) = match &error {
            OpenError::NoStore => (Exit::Refused, "name the database of a service"),
            OpenError::Unfinished => {
                (Exit::Failed, "finish the migration: run the same `webhooks migrate-store` again")
            }
            _ => return self.failed(error),
        };
        let mut failure = self.failed(error).hint(hint);
        failure.exit = exit;
        failure
    }

    fn failed(&self, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
        Failure::new(Exit::Failed, format!("cannot open the database {self}")).because(error)
    }
}

/// Returns the failure of a command with a file, with its exit code and what to do.
pub(crate) fn file_refused(text: impl Into<String>, error: BackupError) -> Failure {
    let (exit, hint) = match &error {
        BackupError::Exists { .. } => (Exit::Refused, Some("--force replaces it")),
        BackupError::InUse { .. } => {
            (Exit::Refused, Some("stop the service that uses it, or name another file"))
        }
        BackupError::Busy { .. } | BackupError::NoStore { .. } => (Exit::Refused, None),
        BackupError::Same { .. } => (Exit::Refused, Some("name another file")),
        BackupError::Newer { .. } => (Exit::Refused, Some("update this program")),
        BackupError::Read { path, .. } if !path.exists() => (Exit::Usage, None),
        BackupError::Damaged { .. } => (Exit::CheckFailed, Some("take an older backup")),
        _ => (Exit::Failed, None),
    };
    let failure = Failure::new(exit, text).because(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn is_postgres(scheme: &str) -> bool {
    ["postgres", "postgresql"].iter().any(|name| scheme.eq_ignore_ascii_case(name))
}

fn is_server(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| is_postgres(scheme))
}

/// Reads the URL of a server. `name` is that of the setting.
fn server_url(name: &str, text: &str) -> Result<Url, Failure> {
    let wrong = || Failure::usage(format!("{name} is not a postgres:// URL"));
    let url = Url::parse(text).map_err(|error| wrong().because(error))?;
    // There is a slash too many, or one in the password: a part of that would stand in the path, which is shown.
    if url.path().contains('@') {
        return Err(wrong()
            .hint("write postgres://USER:PASSWORD@HOST/DATABASE, with '/' in a password as %2F"));
    }
    Ok(url)
}

/// Returns whether a URL has a password, as a part of its own or as a parameter.
fn has_password(url: &Url) -> bool {
    url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password")
}

impl Closing {
    /// Waits until everything is written.
    pub(crate) async fn close(self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => Box::pin(store.close()).await,
        }
    }
}
