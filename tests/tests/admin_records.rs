//! The record stores of webhooks-admin: each keeps what the one in memory keeps.
#![expect(clippy::unwrap_used, reason = "a test")]

use webhooks_admin::record::{
    Record, RecordChange, RecordError, RecordKind, RecordName, RecordPlace, RecordQuery,
    RecordStore,
};
use webhooks_admin::{
    Admin, ApiKey, ApiKeyText, Grant, MemoryRecordStore, PostgresRecordStore, Role,
    SqliteRecordStore,
};
use webhooks_core::Timestamp;
use webhooks_postgres::PostgresStore;
use webhooks_sqlite::SqliteStore;
use webhooks_tests::postgres::Cluster;

fn at(second: u64) -> Timestamp {
    Timestamp::from_unix_seconds(1_000_000 + second)
}

/// Draws from few names, so that they meet.
struct Draw(fastrand::Rng);

impl Draw {
    fn place(&mut self) -> RecordPlace {
        let kind = [RecordKind::Application, RecordKind::Endpoint][self.0.usize(..2)];
        let scope = ["", "shop"][self.0.usize(..2)].to_owned();
        RecordPlace { kind, scope, key: self.name() }
    }

    fn name(&mut self) -> String {
        // Their order is that of bytes, in every locale.
        ["a", "B", "b", "_", "\u{e9}", "a.b"][self.0.usize(..6)].to_owned()
    }

    /// Draws a name to ask for, which may be one that nothing can have.
    fn asked(&mut self) -> String {
        let name = self.name();
        match self.0.u8(..8) {
            0 => format!("{name}\0"),
            1 => format!("\0{name}"),
            _ => name,
        }
    }

    fn record(&mut self, now: u64) -> Record {
        let expires_at = self.0.bool().then(|| at(now + self.0.u64(1..20)));
        Record {
            place: self.place(),
            alias: self.0.bool().then(|| self.name()),
            version: self.0.u64(1..4),
            created_at: at(self.0.u64(..50)),
            updated_at: at(now),
            expires_at,
            body: format!("{{\"text\":\"\\u0000 {}\"}}", self.0.u32(..)),
        }
    }

    fn change(&mut self, now: u64) -> RecordChange {
        match self.0.u8(..8) {
            0..4 => RecordChange::Insert(self.record(now)),
            4..7 => RecordChange::Replace(self.record(now)),
            _ => RecordChange::Delete(self.place()),
        }
    }
}

fn told(outcome: Result<(), RecordError>) -> String {
    match outcome {
        Ok(()) => "done".to_owned(),
        Err(RecordError::Exists { change }) => format!("change {change} exists"),
        Err(RecordError::Changed { change }) => format!("change {change} changed"),
        Err(error) => format!("{error:?}"),
    }
}

/// Makes the same changes in a store and in memory; all that can be read must be equal.
async fn compare(store: &impl RecordStore, seed: u64) {
    let memory = MemoryRecordStore::default();
    let (mut draw, mut now) = (Draw(fastrand::Rng::with_seed(seed)), 0);
    for step in 0..60 {
        now += draw.0.u64(..4);
        let changes: Vec<RecordChange> =
            (0..draw.0.usize(1..4)).map(|_| draw.change(now)).collect();
        let told = [
            told(memory.write(changes.clone(), at(now)).await),
            told(store.write(changes.clone(), at(now)).await),
        ];
        assert_eq!(told[0], told[1], "seed {seed}, step {step}: {changes:?}");
        let RecordPlace { kind, scope, .. } = draw.place();
        let key = draw.asked();
        let name = if draw.0.bool() { RecordName::Key(key) } else { RecordName::Alias(key) };
        let found = store.get(kind, scope.clone(), name.clone(), at(now)).await.unwrap();
        let expected = memory.get(kind, scope.clone(), name, at(now)).await.unwrap();
        assert_eq!(found, expected, "seed {seed}, step {step}");
        let after = draw.0.bool().then(|| draw.asked());
        let (is_descending, limit) = (draw.0.bool(), draw.0.usize(..5));
        let query = RecordQuery { kind, scope, after, is_descending, limit, now: at(now) };
        let found = store.list(query.clone()).await.unwrap();
        assert_eq!(found, memory.list(query).await.unwrap(), "seed {seed}, step {step}");
    }
}

#[tokio::test]
async fn the_file_keeps_what_memory_keeps() {
    for seed in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("a.db")).await.unwrap();
        compare(&SqliteRecordStore::new(store).await.unwrap(), seed).await;
    }
}

#[tokio::test]
async fn the_database_keeps_what_memory_keeps() {
    for seed in 0..15 {
        let store = PostgresStore::open(&Cluster::shared().database().await).await.unwrap();
        compare(&PostgresRecordStore::new(&store).await.unwrap(), seed).await;
    }
}

/// Goal: of many who take one name at once, one gets it, and of many who change one record, none
/// overwrites another's change.
async fn race(store: &impl RecordStore) {
    let record = |key: &str, alias: &str, version| Record {
        place: RecordPlace {
            kind: RecordKind::Application,
            scope: String::new(),
            key: key.to_owned(),
        },
        alias: Some(alias.to_owned()),
        version,
        created_at: at(0),
        updated_at: at(0),
        expires_at: None,
        body: "{}".to_owned(),
    };
    let keys: Vec<String> = (0..16).map(|number| format!("key-{number}")).collect();
    let inserts = keys
        .iter()
        .map(|key| store.write(vec![RecordChange::Insert(record(key, "shop", 1))], at(0)));
    let told: Vec<_> = futures_util::future::join_all(inserts).await;
    let taken: Vec<usize> = (0..16).filter(|number| told[*number].is_ok()).collect();
    assert_eq!(taken.len(), 1, "{told:?}");
    let key = &keys[taken[0]];
    let replaces = (0..16).map(|number| {
        let replace = record(key, &format!("shop-{number}"), 2);
        store.write(vec![RecordChange::Replace(replace)], at(1))
    });
    let told = futures_util::future::join_all(replaces).await;
    let is_changed = |outcome: &&_| matches!(outcome, Err(RecordError::Changed { change: 0 }));
    assert_eq!(told.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{told:?}");
    assert_eq!(told.iter().filter(is_changed).count(), 15, "{told:?}");
}

#[tokio::test]
async fn those_who_race_do_not_overwrite_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("a.db")).await.unwrap();
    race(&SqliteRecordStore::new(store).await.unwrap()).await;
    let store = PostgresStore::open(&Cluster::shared().database().await).await.unwrap();
    race(&PostgresRecordStore::new(&store).await.unwrap()).await;
    race(&MemoryRecordStore::default()).await;
}

/// Goal: several processes that open one new database at once make the table once.
#[tokio::test]
async fn the_table_is_made_once() {
    let url = Cluster::shared().database().await;
    let stores = (0..8).map(|_| async {
        let store = PostgresStore::open(&url).await.unwrap();
        PostgresRecordStore::new(&store).await
    });
    for made in futures_util::future::join_all(stores).await {
        made.unwrap();
    }
}

/// Goal: several processes that start at once on one new database make one key.
#[tokio::test]
async fn the_first_key_is_made_once() {
    let url = Cluster::shared().database().await;
    let stores = (0..8).map(|_| async {
        let store = PostgresStore::open(&url).await.unwrap();
        let admin = Admin::new(PostgresRecordStore::new(&store).await.unwrap());
        let key = ApiKeyText::generate().hash();
        let key = ApiKey::new("administrator", key, Grant::new(Role::Admin), at(0));
        admin.add_first_key(key, at(0)).await.unwrap()
    });
    let added = futures_util::future::join_all(stores).await;
    assert_eq!(added.iter().filter(|is_added| **is_added).count(), 1, "{added:?}");
}
