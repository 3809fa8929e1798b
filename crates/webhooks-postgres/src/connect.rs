//! How to reach the database: what its URL must look like, and the first connection.

use std::fmt;
use std::io;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;
use tokio::time::timeout;

use crate::OpenError;
use crate::error::{has_code, rest};

/// How long to wait before a server that refuses connections is tried again: it doubles each time.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How long a call waits for a free connection, and opening a store for the first try to connect and,
/// unless set, for a server that starts.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How to connect. Its debug form shows neither address nor password.
#[derive(Clone)]
pub(crate) struct Connect(pub(crate) PgConnectOptions);

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").finish_non_exhaustive()
    }
}

/// Says what is wrong with a URL, without repeating any of it.
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
        // Poolers refuse parameters that they don't know, and we have no floats.
        Self(options.extra_float_digits(None).application_name("webhooks"))
    }

    /// Returns a connection of its own. A server that may be starting is tried again, for `patience`
    /// after the first try; what the last try met is told then. A pool would tell only that time is
    /// over.
    pub(crate) async fn establish(&self, patience: Duration) -> Result<PgConnection, OpenError> {
        let connect = || PgConnection::connect_with(&self.0);
        let mut met = match timeout(PATIENCE, connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_elapsed) => {
                sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))
            }
        };
        let again = async {
            let mut pause = PAUSES.0;
            while self.may_be_starting(&met) {
                rest(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                match connect().await {
                    Ok(connection) => return Some(connection),
                    Err(error) => met = error,
                }
            }
            None
        };
        match timeout(patience, again).await.ok().flatten() {
            Some(connection) => Ok(connection),
            None => Err(self.error(met)),
        }
    }

    /// Returns what an error says to whoever opens a store.
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

    /// Returns whether an error comes from TLS: a file that cannot be read, or a handshake that failed.
    /// A socket in the file system has neither.
    fn is_of_tls(&self, error: &io::Error) -> bool {
        use io::ErrorKind::{InvalidData, IsADirectory, NotFound, PermissionDenied};
        let kinds = [InvalidData, IsADirectory, NotFound, PermissionDenied];
        !self.is_local() && kinds.contains(&error.kind())
    }

    /// Returns whether a server may be about to take connections: nothing listens at its address, its
    /// socket is not there yet, what stands before it closes connections at once, it says that it
    /// starts, or it has too many connections just now.
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
            // The connection ended before it was said whether there is TLS: sqlx reads that as a zero.
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

/// Refuses what sqlx would take for something else: any scheme, and a password that ends the part
/// of the URL that it is in.
fn check(url: &str) -> Result<(), UrlFault> {
    let (scheme, rest) = url.split_once("://").ok_or(UrlFault::Scheme)?;
    let is_postgres = |name| scheme.eq_ignore_ascii_case(name);
    if !is_postgres("postgres") && !is_postgres("postgresql") {
        return Err(UrlFault::Scheme);
    }
    if rest.contains('#') {
        return Err(UrlFault::Raw('#'));
    }
    // Behind a '?', the rest of the password is a parameter's name.
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
