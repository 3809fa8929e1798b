//! The seen stores: one suite for all three, and the state that two processes share.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use http::{Request, StatusCode};
use http_body_util::Full;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use webhooks_core::{Event, Timestamp};
use webhooks_dispatch::store::{DeliveryStore as _, SerializedEvent};
use webhooks_postgres::{PostgresStore, publish_in};
use webhooks_receive::{
    MemorySeenStore, PostgresSeenStore, Receiver, ReplayGuard, SqliteSeenStore, Webhook,
    provider::Standard,
    seen::{BeginOutcome, SeenClaim, SeenError, SeenId, SeenStore},
};
use webhooks_sign::{Key, standard};
use webhooks_sqlite::{SqliteStore, Transaction, rusqlite};
use webhooks_tests::postgres::{Cluster, connect};

mod memory {
    use super::*;

    webhooks_conformance::seen_store_tests!(async || (MemorySeenStore::new(), ()));
}

mod sqlite {
    use super::*;

    async fn store() -> (SqliteSeenStore, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (SqliteSeenStore::open(folder.path().join("a.db")).await.unwrap(), folder)
    }

    webhooks_conformance::seen_store_tests!(store);
}

/// A seen store of an application, over the writer of the embedded store: its claims share the commits
/// of publishing and settling, so neither waits for the other's lock.
mod embedded {
    use super::*;

    const TABLE: &str = "CREATE TABLE IF NOT EXISTS seen (
        scope TEXT NOT NULL, id TEXT NOT NULL, is_done INTEGER NOT NULL, expires_at INTEGER NOT NULL,
        PRIMARY KEY (scope, id)) STRICT, WITHOUT ROWID";

    #[derive(Clone)]
    struct EmbeddedSeenStore(SqliteStore);

    impl EmbeddedSeenStore {
        async fn new(store: SqliteStore) -> Self {
            store.transaction(|transaction| transaction.execute_batch(TABLE)).await.unwrap();
            Self(store)
        }

        async fn run<T: Send + 'static>(
            &self,
            work: impl FnMut(&mut Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
        ) -> Result<T, SeenError> {
            let done = self.0.transaction(work).await;
            done.map_err(|error| SeenError::Unavailable { source: error.into() })
        }
    }

    impl SeenStore for EmbeddedSeenStore {
        async fn begin(&self, claim: SeenClaim, now: Timestamp) -> Result<BeginOutcome, SeenError> {
            let SeenClaim { id, until } = claim;
            let claim = "INSERT INTO seen VALUES (?1, ?2, 0, ?3)
                ON CONFLICT DO UPDATE SET is_done = 0, expires_at = excluded.expires_at
                WHERE expires_at <= ?4";
            let find = "SELECT is_done, expires_at FROM seen WHERE scope = ? AND id = ?";
            self.run(move |transaction| {
                let parameters = (&id.scope, &id.id, micros(until), micros(now));
                if transaction.execute(claim, parameters)? > 0 {
                    return Ok(BeginOutcome::Claimed);
                }
                let (is_done, until) = transaction.query_row(find, (&id.scope, &id.id), |row| {
                    Ok((row.get(0)?, row.get::<_, i64>(1)?))
                })?;
                let until = Timestamp::from_unix_microseconds(until.unsigned_abs());
                Ok(if is_done { BeginOutcome::Done } else { BeginOutcome::InProgress { until } })
            })
            .await
        }

        async fn done(&self, id: SeenId, until: Timestamp) -> Result<(), SeenError> {
            let done = "INSERT OR REPLACE INTO seen VALUES (?, ?, 1, ?)";
            self.run(move |transaction| {
                transaction.execute(done, (&id.scope, &id.id, micros(until))).map(drop)
            })
            .await
        }

        async fn release(&self, claim: SeenClaim) -> Result<(), SeenError> {
            let release =
                "DELETE FROM seen WHERE scope = ? AND id = ? AND is_done = 0 AND expires_at = ?";
            self.run(move |transaction| {
                let parameters = (&claim.id.scope, &claim.id.id, micros(claim.until));
                transaction.execute(release, parameters).map(drop)
            })
            .await
        }
    }

    fn micros(at: Timestamp) -> i64 {
        i64::try_from(at.as_unix_microseconds()).unwrap_or(i64::MAX)
    }

    async fn store() -> (EmbeddedSeenStore, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("shop.db")).await.unwrap();
        (EmbeddedSeenStore::new(store).await, folder)
    }

    webhooks_conformance::seen_store_tests!(store);
}

mod postgres {
    use super::*;

    async fn store() -> (PostgresSeenStore, ()) {
        let url = Cluster::shared().database().await;
        (PostgresSeenStore::connect(&url).await.unwrap(), ())
    }

    webhooks_conformance::seen_store_tests!(store);
}

/// Returns a receiver that is the same in the whole test.
fn receiver() -> Receiver<Standard> {
    static RECEIVER: LazyLock<Receiver<Standard>> =
        LazyLock::new(|| Receiver::from_keys(key()).unwrap());
    RECEIVER.clone()
}

fn key() -> Key {
    Key::standard(concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap()
}

async fn webhook(id: &str) -> Webhook {
    let now = Timestamp::now().as_unix_seconds();
    let signature = standard::sign(&key(), id, now, b"{}").unwrap();
    let request = Request::post("/")
        .header("webhook-id", id)
        .header("webhook-timestamp", now)
        .header("webhook-signature", signature.as_str());
    let request = request.body(Full::new(bytes::Bytes::from_static(b"{}"))).unwrap();
    receiver().receive(request).await.unwrap().into_body()
}

/// 1,000 duplicates reach two processes that share a store. Method: two guards, which know of each
/// other only through their stores, and a handler that ends when all have come.
async fn two_processes_run_a_handler_once<S: SeenStore>(stores: [S; 2]) {
    let guards = stores.map(|store| ReplayGuard::new(&receiver(), "billing", store).unwrap());
    let (come, runs) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let webhook = webhook("msg_1").await;
    let mut all = JoinSet::new();
    for number in 0..1000 {
        let (guard, webhook) = (guards[number % 2].clone(), webhook.clone());
        let (come, runs) = (Arc::clone(&come), Arc::clone(&runs));
        all.spawn(async move {
            come.add_permits(1);
            let handler = async {
                runs.fetch_add(1, Ordering::Relaxed);
                come.acquire_many(1000).await.unwrap().forget();
            };
            match guard.run(&webhook, handler).await {
                Ok(guarded) => guarded.status(),
                Err(rejection) => rejection.status(),
            }
        });
    }
    let statuses = all.join_all().await;
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    let expected = [StatusCode::OK, StatusCode::CONFLICT];
    assert!(statuses.iter().all(|status| expected.contains(status)), "{statuses:?}");
    assert!(statuses.contains(&StatusCode::OK));
    for guard in guards {
        let again = async {
            runs.fetch_add(1, Ordering::Relaxed);
        };
        assert_eq!(guard.run(&webhook, again).await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

/// Goal: a seen store in the file of the embedded store loses nothing, and makes it lose nothing.
/// Method: both commit as often as they can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seen_store_and_the_embedded_store_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let seen = SqliteSeenStore::open(&path).await.unwrap();
    let at = Timestamp::from_unix_seconds;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut claims = JoinSet::new();
    for task in 0..4 {
        let (seen, is_over) = (seen.clone(), Arc::clone(&is_over));
        claims.spawn(async move {
            let mut claimed = 0_i64;
            while !is_over.load(Ordering::Relaxed) {
                let id = SeenId::new("standard", &format!("{task}-{claimed}"));
                let claim = SeenClaim { id, until: at(60) };
                assert_eq!(seen.begin(claim.clone(), at(0)).await.unwrap(), BeginOutcome::Claimed);
                seen.done(claim.id, at(1_000)).await.unwrap();
                claimed += 1;
            }
            claimed
        });
    }
    for number in 0..100 {
        let event = Event::new("created", number).unwrap();
        let published = store.publish(vec![SerializedEvent::new(&event)], at(0)).await.unwrap();
        assert!(published[0].is_ok());
    }
    is_over.store(true, Ordering::Relaxed);
    let claimed: i64 = claims.join_all().await.iter().sum();
    let count = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM webhooks_seen)";
    let count = store.read(move |file| {
        file.query_row(count, (), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
    });
    assert_eq!(count.await.unwrap(), (100, claimed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seen.db");
    let open = async || SqliteSeenStore::open(&path).await.unwrap();
    two_processes_run_a_handler_once([open().await, open().await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_a_database() {
    let url = Cluster::shared().database().await;
    let open = async || PostgresSeenStore::connect(&url).await.unwrap();
    two_processes_run_a_handler_once([open().await, open().await]).await;
}

/// Goal: one pool serves the seen ids, the rows of the handler and the event that it publishes.
#[tokio::test]
async fn a_handler_and_the_seen_store_use_the_pool_that_the_store_lends() {
    let url = Cluster::shared().database().await;
    let store = PostgresStore::open(&url).await.unwrap();
    let pool = store.pool();
    sqlx::query("CREATE TABLE invoices (id text PRIMARY KEY)").execute(pool).await.unwrap();
    let seen = PostgresSeenStore::new(pool.clone()).await.unwrap();
    let guard = ReplayGuard::new(&receiver(), "billing", seen).unwrap();
    let webhook = webhook("msg_1").await;
    for _ in 0..2 {
        let handler = async {
            let mut transaction = pool.begin().await.unwrap();
            let insert = sqlx::query("INSERT INTO invoices VALUES ('17')");
            insert.execute(&mut *transaction).await.unwrap();
            publish_in(&mut transaction, &Event::new("invoice.paid", 17).unwrap()).await.unwrap();
            transaction.commit().await.unwrap();
        };
        let handled = Box::pin(guard.run(&webhook, handler)).await.unwrap();
        assert_eq!(handled.status(), StatusCode::OK);
    }
    let count = "SELECT (SELECT count(*) FROM invoices), (SELECT count(*) FROM webhooks_seen),
        (SELECT count(*) FROM webhooks.events)";
    let count: (i64, i64, i64) = sqlx::query_as(count).fetch_one(pool).await.unwrap();
    assert_eq!(count, (1, 1, 1));
    store.close().await;
}

#[tokio::test]
async fn a_file_remembers_through_a_restart() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let path = folder.path().join("seen.db");
    let at = Timestamp::from_unix_seconds;
    let id = SeenId::new("standard", "msg_1");
    let store = SqliteSeenStore::open(&path).await.unwrap();
    store.done(id.clone(), at(1000)).await.unwrap();
    drop(store);
    let store = SqliteSeenStore::open(&path).await.unwrap();
    assert_eq!(
        store.begin(SeenClaim { id, until: at(60) }, at(0)).await.unwrap(),
        BeginOutcome::Done
    );
}

#[tokio::test]
async fn what_has_expired_is_removed_from_the_table_bit_by_bit() {
    let url = Cluster::shared().database().await;
    let store = PostgresSeenStore::connect(&url).await.unwrap();
    let at = Timestamp::from_unix_seconds;
    for number in 0..20 {
        store.done(SeenId::new("standard", &number.to_string()), at(10)).await.unwrap();
    }
    let mut left = Vec::new();
    for number in 20..24 {
        let claim = SeenClaim { id: SeenId::new("standard", &number.to_string()), until: at(99) };
        store.begin(claim, at(10)).await.unwrap();
        let rows = "SELECT count(*) FROM webhooks_seen WHERE expires_at = 10000000";
        let rows = sqlx::query_scalar::<_, i64>(rows).fetch_one(&mut connect(&url).await).await;
        left.push(rows.unwrap());
    }
    assert_eq!(left, [12, 4, 0, 0]);
}

/// A program that only handles webhooks needs no right to create tables. Method: the owner makes
/// the table, and a role without any other right takes over.
#[tokio::test]
async fn a_role_that_may_create_nothing_can_use_the_table() {
    let url = Cluster::shared().database().await;
    PostgresSeenStore::connect(&url).await.unwrap();
    let role = format!("receiver_{}", std::process::id());
    let grant = format!(
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC;
         CREATE ROLE {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON webhooks_seen TO {role};"
    );
    sqlx::raw_sql(AssertSqlSafe(grant)).execute(&mut connect(&url).await).await.unwrap();
    let options: PgConnectOptions = url.parse().unwrap();
    let pool = PgPoolOptions::new().connect_lazy_with(options.options([("role", &*role)]));
    let created = sqlx::raw_sql("CREATE TABLE other ()").execute(&pool).await;
    assert!(created.is_err(), "the role may create tables");
    let store = PostgresSeenStore::new(pool).await.unwrap();
    let claim = SeenClaim {
        id: SeenId::new("7:billing", "msg_1"),
        until: Timestamp::from_unix_seconds(60),
    };
    let now = Timestamp::from_unix_seconds(0);
    assert_eq!(store.begin(claim, now).await.unwrap(), BeginOutcome::Claimed);
}

#[tokio::test]
async fn a_database_that_is_away_is_an_error_with_its_reason() {
    let refused =
        PostgresSeenStore::connect("postgres://localhost/x?host=/nowhere").await.unwrap_err();
    assert!(std::error::Error::source(&refused).is_some());
}
