//! Rows of endpoints: read, and locked.

use std::collections::BTreeSet;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use webhooks_core::Timestamp;
use webhooks_registry::{
    Endpoint, EndpointKey, EndpointState, Registration, Revision, seal::SealingKeys,
    store::StoredEndpoint,
};

use crate::row::{self, At};

/// The columns of an endpoint, as [`registration`] reads them.
pub(crate) const SELECT: &str =
    "SELECT number, tenant, id, settings::text, secrets, state, disabled, version, created_at,
        updated_at, state_since
    FROM webhooks.endpoints";

/// Locks an id of a tenant, whether or not an endpoint has it: two transactions that register it at
/// once would both find no row that they could lock.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7305001, hashtext($1))";

/// Reads an endpoint from the columns of [`SELECT`].
pub(crate) fn registration(row: &PgRow, keys: &SealingKeys) -> Result<Registration, sqlx::Error> {
    let key = key(row)?;
    let (settings, secrets): (String, &[u8]) = (row.try_get(3)?, row.try_get(4)?);
    let secrets = keys.open(&key.to_string(), secrets).map_err(|error| in_column(4, error))?;
    let stored = StoredEndpoint { settings, secrets };
    let endpoint = stored.to_endpoint().map_err(|error| in_column(3, error))?;
    let number = row::endpoint_number(row.try_get(0)?);
    Ok(Registration::new(number, key.id, endpoint).restored(state(row)?, revision(row)?))
}

/// Reads the tenant and id of an endpoint from the columns of [`SELECT`].
pub(crate) fn key(row: &PgRow) -> Result<EndpointKey, sqlx::Error> {
    Ok(EndpointKey::new(row::tenant(row, 1)?, row::endpoint_id(row, 2)?))
}

fn state(row: &PgRow) -> Result<EndpointState, sqlx::Error> {
    let (state, disabled): (&str, Option<&str>) = (row.try_get(5)?, row.try_get(6)?);
    Ok(EndpointState::from_words(state, disabled))
}

/// Reads the time of creation of an endpoint from the columns of [`SELECT`].
pub(crate) fn created_at(row: &PgRow) -> Result<Timestamp, sqlx::Error> {
    row.try_get::<At, _>(8).map(|At(created_at)| created_at)
}

fn revision(row: &PgRow) -> Result<Revision, sqlx::Error> {
    let (At(updated_at), At(state_since)) = (row.try_get(9)?, row.try_get(10)?);
    let created_at = created_at(row)?;
    let version = row::unsigned(row.try_get(7)?);
    Ok(Revision { version, created_at, updated_at, state_since })
}

fn in_column(column: usize, source: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_string(), source: source.into() }
}

/// An endpoint whose row is locked. It can be replaced or removed although it cannot be read.
pub(crate) struct LockedEndpoint {
    pub(crate) number: i64,
    key: EndpointKey,
    pub(crate) state: EndpointState,
    revision: Revision,
    row: PgRow,
}

impl LockedEndpoint {
    /// Reads the endpoint.
    pub(crate) fn read(&self, keys: &SealingKeys) -> Result<Registration, sqlx::Error> {
        registration(&self.row, keys)
    }

    /// Reads the endpoint, or returns one that stands for it if it cannot be read.
    pub(crate) fn read_or_stand_in(&self, keys: &SealingKeys) -> Registration {
        self.read(keys).unwrap_or_else(|_unreadable| {
            let mut endpoint = stand_in();
            endpoint.tenant = self.key.tenant.clone();
            let number = row::endpoint_number(self.number);
            Registration::new(number, self.key.id.clone(), endpoint)
                .restored(self.state, self.revision)
        })
    }

    /// Returns the stored settings, and the stored secrets, which may be encrypted.
    pub(crate) fn stored(&self) -> Result<(&str, &[u8]), sqlx::Error> {
        Ok((self.row.try_get(3)?, self.row.try_get(4)?))
    }
}

/// Returns an endpoint that no delivery can reach, with a secret that nobody knows.
#[expect(clippy::expect_used, reason = "both texts are well formed")]
fn stand_in() -> Endpoint {
    let secret = format!("{:032x}", fastrand::u128(..));
    let endpoint = Endpoint::new("https://unreadable.invalid/", &secret);
    endpoint.expect("it is a URL and a secret")
}

/// Locks an id of a tenant until the transaction ends, and returns the endpoint that has it.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    key: &EndpointKey,
) -> Result<Option<LockedEndpoint>, sqlx::Error> {
    let select = format!("{SELECT} WHERE tenant = $1 AND id = $2 AND is_current FOR NO KEY UPDATE");
    sqlx::query(LOCK).persistent(false).bind(key.to_string()).execute(&mut *connection).await?;
    let select = sqlx::query(sqlx::AssertSqlSafe(select)).persistent(false);
    let select = select.bind(key.tenant.as_str()).bind(key.id.as_str());
    let Some(row) = select.fetch_optional(connection).await? else { return Ok(None) };
    locked(row).map(|(_, locked)| Some(locked))
}

/// Locks ids until the transaction ends, and returns the endpoints that have them.
///
/// Every transaction that locks several endpoints does so here: first the ids, in the order of
/// their hashes, and then the rows in the order of their numbers, as settlements do. So
/// transactions never wait for each other in a circle.
pub(crate) async fn lock_all(
    connection: &mut PgConnection,
    keys: &BTreeSet<EndpointKey>,
) -> Result<Vec<(EndpointKey, LockedEndpoint)>, sqlx::Error> {
    const LOCK_ALL: &str = "SELECT pg_advisory_xact_lock(7305001, hash) FROM (
        SELECT DISTINCT hashtext(key) AS hash FROM unnest($1::text[]) AS k(key) ORDER BY 1) h";
    let select = format!(
        "{SELECT} WHERE (tenant, id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
        AND is_current ORDER BY number FOR NO KEY UPDATE"
    );
    let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
    sqlx::query(LOCK_ALL).persistent(false).bind(names).execute(&mut *connection).await?;
    let rows = sqlx::query(sqlx::AssertSqlSafe(select))
        .persistent(false)
        .bind(keys.iter().map(|key| key.tenant.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(locked).collect()
}

fn locked(row: PgRow) -> Result<(EndpointKey, LockedEndpoint), sqlx::Error> {
    let (number, key, state) = (row.try_get(0)?, key(&row)?, state(&row)?);
    let revision = revision(&row)?;
    Ok((key.clone(), LockedEndpoint { number, key, state, revision, row }))
}
