//! Opening a store: servers that are not there or not yet, and roles with few rights.

use std::error::Error;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, UnixStream};
use webhooks_postgres::OpenError;

use super::*;

/// Returns an error with all its causes, in the form that people read.
fn told(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(" <- ")
}

/// Opens a store where nothing answers; returns the error.
async fn refused(url: &str) -> OpenError {
    let options = PostgresOptions::new(url).unwrap().server_patience(Duration::from_millis(50));
    let error = options.open().await.unwrap_err();
    let shown = format!("{} {error:?}", told(&error));
    assert!(!shown.contains("hunter2"), "{shown}");
    error
}

/// Goal: if a connection fails, the error names the address that did not answer, and the reason.
/// Method: a port that was free a moment ago, a name that cannot exist (RFC 6761 §6.4), a folder
/// without a socket.
#[tokio::test]
async fn a_server_that_is_not_there_is_told_with_its_address_and_the_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    for (url, address, cause) in [
        (
            format!("postgres://app:hunter2@127.0.0.1:{port}/app"),
            format!("127.0.0.1:{port}"),
            "refused",
        ),
        (
            "postgres://app:hunter2@db.invalid/app".to_owned(),
            "db.invalid:5432".to_owned(),
            "lookup",
        ),
        (
            format!("postgres://app:hunter2@localhost/app?host={path}"),
            path.to_string(),
            "No such file",
        ),
    ] {
        let error = refused(&url).await;
        let told = told(&error);
        assert!(told.contains(&address) && told.contains(cause), "{told}");
        assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn the_version_of_a_server_is_told_without_a_change_to_the_database() {
    let url = Cluster::shared().database().await;
    let version = PostgresOptions::new(&url).unwrap().server_version().await.unwrap();
    assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{version}");
    let untouched = sqlx::query_scalar("SELECT to_regnamespace('webhooks') IS NULL");
    let is_untouched: bool = untouched.fetch_one(&mut connect(&url).await).await.unwrap();
    assert!(is_untouched);
    let options = PostgresOptions::new("postgres://app:hunter2@db.invalid/app").unwrap();
    let error = options.server_version().await.unwrap_err();
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_database_are_told_as_the_server_says_it() {
    let url = Cluster::shared().database().await;
    let role = "CREATE ROLE guarded LOGIN PASSWORD 'right'";
    sqlx::raw_sql(role).execute(&mut connect(&url).await).await.unwrap();
    let wrong = url.replacen("postgres@", "guarded:hunter2@", 1);
    let told_wrong = told(&refused(&wrong).await);
    assert!(told_wrong.contains("password authentication failed"), "{told_wrong}");
    let missing = url.replacen("test_", "no_", 1);
    let told_missing = told(&refused(&missing).await);
    assert!(told_missing.contains("does not exist"), "{told_missing}");
}

/// Goal: if a certificate cannot be read, or a handshake fails, the error names that at once.
/// Method: something answers that it has TLS, and then sends something else; the patience is longer
/// than the test.
#[tokio::test]
async fn what_is_wrong_with_tls_is_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            client.read_exact(&mut request).await.unwrap();
            client.write_all(b"S").await.unwrap();
            // The client's first bytes; none if it has gone.
            if client.read(&mut request).await.is_ok_and(|len| len > 0) {
                client.write_all(b"no TLS at all").await.unwrap();
                while client.read(&mut request).await.is_ok_and(|len| len > 0) {}
            }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let (folder, no_file) = (folder.path().display(), "No such file");
    for (parameters, cause) in [
        (format!("verify-full&sslrootcert={folder}/none.pem"), no_file),
        (format!("verify-ca&sslrootcert={folder}"), "directory"),
        (format!("require&sslcert={folder}/none.pem&sslkey={folder}/none.key"), no_file),
        ("require".to_owned(), "message"),
    ] {
        let url = format!("postgres://app:hunter2@{address}/app?sslmode={parameters}");
        let open = PostgresOptions::new(&url).unwrap().server_patience(DEADLINE * 2).open();
        let error = timeout(DEADLINE, open).await.unwrap().unwrap_err();
        let told = told(&error);
        assert!(matches!(error, OpenError::Tls { .. }), "{parameters}: {told}");
        assert!(told.contains(&address) && told.contains(cause), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    server.abort();
}

/// Goal: a caller that does not want to wait for a server still reaches one that is there.
#[tokio::test]
async fn without_patience_there_is_one_try() {
    let url = Cluster::shared().database().await;
    let impatient =
        |url: &str| PostgresOptions::new(url).unwrap().server_patience(Duration::ZERO).open();
    impatient(&url).await.unwrap().close().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("postgres://app@localhost/app?host={}", folder.path().display());
    let told = told(&impatient(&url).await.unwrap_err());
    assert!(told.contains("No such file"), "{told}");
}

/// Goal: the store waits for a server that starts. Method: something in its place ends connections,
/// first at once and then after the first question, as a proxy does. After that it answers that the
/// server starts (57P03). In the end it leads to the real server.
#[tokio::test]
async fn a_server_that_starts_is_waited_for() {
    for mode in ["disable", "prefer"] {
        await_server_that_starts(mode).await;
    }
}

async fn await_server_that_starts(mode: &str) {
    const STARTING: &[u8] = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
    let url = Cluster::shared().database().await;
    let (before, folder) = url.split_once("?host=").unwrap();
    let (database, folder) = (before.rsplit('/').next().unwrap(), folder.to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let mut request = [0; 1_024];
        drop(listener.accept().await.unwrap());
        let (mut asked, _) = listener.accept().await.unwrap();
        assert!(asked.read(&mut request).await.unwrap() > 0);
        drop(asked);
        let (mut first, _) = listener.accept().await.unwrap();
        let mut len = first.read(&mut request).await.unwrap();
        // A client that asks for TLS sends eight bytes first.
        if len == 8 {
            first.write_all(b"N").await.unwrap();
            len = first.read(&mut request).await.unwrap();
        }
        assert!(len > 8);
        let len = u32::try_from(STARTING.len() + 4).unwrap();
        let answer = [b"E", len.to_be_bytes().as_slice(), STARTING].concat();
        first.write_all(&answer).await.unwrap();
        drop(first);
        let mut connections = JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = UnixStream::connect(format!("{folder}/.s.PGSQL.5432")).await.unwrap();
            connections.spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    let url = format!("postgres://postgres@127.0.0.1:{port}/{database}?sslmode={mode}");
    let store = PostgresStore::open(&url).await.unwrap();
    publish(&store, ["a".to_owned()]).await;
    store.close().await;
    server.abort();
}

/// Goal: a role needs no right in the database except on a schema that an administrator made for
/// it.
#[tokio::test]
async fn a_role_with_a_schema_of_its_own_opens_the_store() {
    let url = Cluster::shared().database().await;
    let prepare = "CREATE ROLE app LOGIN; CREATE SCHEMA webhooks AUTHORIZATION app";
    sqlx::raw_sql(prepare).execute(&mut connect(&url).await).await.unwrap();
    let own = url.replacen("postgres@", "app@", 1);
    let refused = sqlx::raw_sql("CREATE SCHEMA other").execute(&mut connect(&own).await).await;
    assert!(refused.unwrap_err().to_string().contains("permission denied"));
    for _ in 0..2 {
        let store = open(&own).await;
        register(&store, "crm", endpoint()).await;
        publish(&store, ["a".to_owned()]).await;
        store.close().await;
    }
    let store = open(&own).await;
    let claimed = claim_at_last(&store, 10).await;
    let settled = settle(&store, &claimed, Outcome::Delivered).await;
    assert!(matches!(settled[..], [Settled::Recorded { .. }]), "{settled:?}");
    assert_eq!(kept(&store).await, ["a"]);
}
