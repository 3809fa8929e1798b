//! The seen stores: one suite for all three, and the state that two processes share.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use http::{Request, StatusCode};
use http_body_util::Full;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use webhooks_core::Timestamp;
use webhooks_receive::{
    MemorySeenStore, PostgresSeenStore, Receiver, ReplayGuard, SqliteSeenStore, Webhook,
    provider::Standard,
    seen::{BeginOutcome, SeenClaim, SeenId, SeenStore},
};
use webhooks_sign::{Key, standard};
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
