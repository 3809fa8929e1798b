//! Stores by their places, so that another process can open them again.

use tempfile::TempDir;
use webhooks_dispatch::BoxedStore;
use webhooks_postgres::PostgresStore;
use webhooks_sqlite::SqliteStore;
use webhooks_tests::postgres::Cluster;

use super::crowd::Kind;
use super::folder;

/// The place of a store: the path of a file, or the URL of a database.
pub(crate) struct Place {
    pub(crate) name: String,
    _folder: Option<TempDir>,
}

impl Place {
    /// Returns a place for a new store.
    pub(crate) async fn new(kind: Kind, cluster: &Cluster) -> Self {
        match kind {
            Kind::Memory => unreachable!("memory has no place"),
            Kind::Postgres => Self { name: cluster.database().await, _folder: None },
            Kind::Sqlite => {
                let folder = folder();
                let name = folder.path().join("bench.db").to_str().unwrap().to_owned();
                Self { name, _folder: Some(folder) }
            }
        }
    }
}

/// A store that is open.
pub(crate) enum Opened {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

impl Opened {
    pub(crate) async fn open(place: &str) -> Self {
        if place.starts_with("postgres://") {
            Self::Postgres(PostgresStore::open(place).await.unwrap())
        } else {
            Self::Sqlite(SqliteStore::open(place).await.unwrap())
        }
    }

    pub(crate) fn store(&self) -> BoxedStore {
        match self {
            Self::Sqlite(store) => BoxedStore::new(store.clone()),
            Self::Postgres(store) => BoxedStore::new(store.clone()),
        }
    }

    pub(crate) async fn close(self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }
}
