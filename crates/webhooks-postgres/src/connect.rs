//! The way to the database: its URL, and the first connection.

use std::fmt;
use std::io;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;
use tokio::time::timeout;

use crate::call::pause;
use crate::error::{OpenError, has_code};

/// The first and the longest pause before a server that refuses connections is tried again. Each
/// pause is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The longest time that the first try to connect may take, and, unless set, that a server may take
/// to start after it.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The options of a connection. The debug form shows neither address nor password.
#[derive(Clone)]
pub(crate) struct Connect(pub(crate) PgConnectOptions);

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").finish_non_exhaustive()
    }
}

/// The fault of a URL, without any text of the URL.
#[derive(Debug, Error, PartialEq, Eq)]
enum UrlFault {
    #[error("the scheme is not \"postgres\" or \"postgresql\"")]
    Scheme,
    #[error("the user or the password holds a raw {0:?}")]
    Raw(char),
}

impl Connect {
    pub(crate) fn parse(url: &str) -> Result<Self, OpenError> {
        check(url).map_err(|fault| OpenError::Url { source: fault.into() })?;
        let options = PgConnectOptions::from_str(url);
        Ok(Self::new(options.map_err(|source| OpenError::Url { source: source.into() })?))
    }

    pub(crate) fn new(options: PgConnectOptions) -> Self {
        // Poolers refuse parameters that they don't know. The schema has no floating point columns.
        Self(options.extra_float_digits(None).application_name("webhooks"))
    }

    /// Returns a connection outside all pools. A server that may be starting is tried again, for
    /// `patience` after the first try; then the error of the last try is returned. A pool would
    /// only say that time is over.
    pub(crate) async fn establish(&self, patience: Duration) -> Result<PgConnection, OpenError> {
        let connect = || PgConnection::connect_with(&self.0);
        let mut last_error = match timeout(CONNECT_TIMEOUT, connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_elapsed) => {
                sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))
            }
        };
        let again = async {
            let mut duration = PAUSES.0;
            while self.may_be_starting(&last_error) {
                pause(duration).await;
                duration = (duration * 2).min(PAUSES.1);
                match connect().await {
                    Ok(connection) => return Some(connection),
                    Err(error) => last_error = error,
                }
            }
            None
        };
        match timeout(patience, again).await.ok().flatten() {
            Some(connection) => Ok(connection),
            None => Err(self.error(last_error)),
        }
    }

    /// Translates an error for the caller who opens a store.
    fn error(&self, source: sqlx::Error) -> OpenError {
        let address = self.address();
        match source {
            sqlx::Error::Io(source) if !self.is_of_tls(&source) => {
                OpenError::Unreachable { address, source }
            }
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) => OpenError::Tls { address, source },
            source => OpenError::Sql { source },
        }
    }

    /// Returns whether an error comes from TLS: a file that cannot be read, or a handshake that
    /// failed. A socket in the file system has neither.
    fn is_of_tls(&self, error: &io::Error) -> bool {
        use io::ErrorKind::{InvalidData, IsADirectory, NotFound, PermissionDenied};
        let kinds = [InvalidData, IsADirectory, NotFound, PermissionDenied];
        !self.is_local() && kinds.contains(&error.kind())
    }

    /// Returns whether a server may accept connections soon: nothing listens at its address, its
    /// socket does not exist yet, a proxy in front of it closes connections at once, it answers
    /// that it is starting, or it has too many connections at the moment.
    fn may_be_starting(&self, error: &sqlx::Error) -> bool {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, NotFound,
            UnexpectedEof,
        };
        let ended = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
        match error {
            sqlx::Error::Io(error) => match error.kind() {
                NotFound => self.is_local(),
                kind => kind == ConnectionRefused || ended.contains(&kind),
            },
            // The connection ended before the answer whether there is TLS: sqlx reads that as a
            // zero.
            sqlx::Error::Protocol(text) => text.contains("SSLRequest: 0x00 "),
            error => has_code(error, "57P03") || has_code(error, "53300"),
        }
    }

    /// Returns whether the server is reached by a socket in the file system.
    fn is_local(&self) -> bool {
        self.0.get_socket().is_some() || self.0.get_host().starts_with('/')
    }

    /// Returns the host and port, or the folder of the socket.
    fn address(&self) -> String {
        let (host, port) = (self.0.get_host(), self.0.get_port());
        match self.0.get_socket() {
            Some(folder) => folder.display().to_string(),
            None if host.starts_with('/') => host.to_owned(),
            None => format!("{host}:{port}"),
        }
    }
}

/// Refuses URLs that sqlx would misread: those with another scheme, and those with a password that
/// ends its part of the URL.
fn check(url: &str) -> Result<(), UrlFault> {
    let (scheme, rest) = url.split_once("://").ok_or(UrlFault::Scheme)?;
    let is_postgres = |name| scheme.eq_ignore_ascii_case(name);
    if !is_postgres("postgres") && !is_postgres("postgresql") {
        return Err(UrlFault::Scheme);
    }
    if rest.contains('#') {
        return Err(UrlFault::Raw('#'));
    }
    // Behind a '?', sqlx reads the rest of the password as the name of a parameter.
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    if before.split_once('/').is_some_and(|(_, path)| path.contains('@')) {
        return Err(UrlFault::Raw('/'));
    }
    let key = |parameter: &str| parameter.split('=').next().is_some_and(|key| key.contains('@'));
    if query.split('&').any(key) {
        return Err(UrlFault::Raw('?'));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn fault(url: &str) -> String {
        let error = Connect::parse(url).unwrap_err();
        assert!(matches!(error, OpenError::Url { .. }), "{url}: {error:?}");
        let shown = format!("{error} {error:?} {:?}", error.source());
        assert!(!shown.contains("hunter"), "{url}: {shown}");
        error.source().map_or_else(String::new, ToString::to_string)
    }

    #[test]
    fn a_url_of_something_else_is_refused() {
        for url in [
            "mysql://app:hunter@db/app",
            "jdbc:postgresql://db/app",
            "postgresql+asyncpg://db/app",
            "http://db/",
            "db.internal/app",
            "host=db user=app password=hunter",
            "",
        ] {
            assert_eq!(fault(url), UrlFault::Scheme.to_string(), "{url}");
        }
        assert!(fault("postgres://app:hunter@db:port/app").contains("port"));
    }

    #[test]
    fn a_password_that_is_not_encoded_is_the_url_s_fault() {
        for (password, raw) in [
            ("hunter/2", '/'),
            ("1/hunter", '/'),
            ("a@hunter/2", '/'),
            ("hunter#2", '#'),
            ("1#hunter@", '#'),
            ("hunter?2", '?'),
            ("a@b?hunter", '?'),
        ] {
            let url = format!("postgres://app:{password}@db.internal/app?sslmode=require");
            assert_eq!(fault(&url), UrlFault::Raw(raw).to_string(), "{url}");
        }
    }

    #[test]
    fn other_urls_are_taken_as_they_are() {
        for url in [
            "postgres://app:hunter%2F%23%3F%402@db.internal/app?sslmode=require",
            "POSTGRESQL://app:hunt@er@db.internal:5433/app",
            "postgresql://",
            "postgres:///app?host=/var/run/postgresql",
            "postgres://db/app?user=app@tenant&schema=public&pgbouncer=true",
            "postgres://%2Fvar%2Frun/app",
        ] {
            Connect::parse(url).unwrap();
        }
        let address = |url| Connect::parse(url).unwrap().address();
        assert_eq!(address("postgres://app:hunter@db.internal:5433/app"), "db.internal:5433");
        assert_eq!(address("postgres:///app?host=/run/sockets"), "/run/sockets");
    }
}
