//! Endpoints: registered, replaced, disabled, forgotten.

use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use webhooks_core::{EndpointId, TenantId};
use webhooks_registry::{
    DisableReason, Endpoint, EndpointStore, EndpointStoreError, RegisterError, Registration,
    SealingKeys, StoredEndpoint, UnknownEndpoint,
};

use crate::PostgresStore;
use crate::claim::drain;
use crate::error::{persistently, reading, store_error};
use crate::row;
use crate::share::max_workers;
use crate::store::Call;

/// Reads endpoints, for [`registration`].
pub(crate) const SELECT: &str =
    "SELECT number, id, settings::text, secrets, disabled FROM webhooks.endpoints";

/// Locks an id, whether or not an endpoint has it.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7305001, hashtext($1))";

impl EndpointStore for PostgresStore {
    async fn register(
        &self,
        id: EndpointId,
        endpoint: Endpoint,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        endpoint.check().map_err(RegisterError::Endpoint)?;
        let mut transaction = self.shared.begin().await.map_err(unavailable)?;
        let current = lock(transaction.on(), &id).await.map_err(unavailable)?;
        if current.as_ref().is_some_and(|current| current.tenant != endpoint.tenant) {
            let error = RegisterError::OtherTenant { id: id.to_string() };
            return Err(transaction.refuse(error).await.into());
        }
        let stored = StoredEndpoint::new(&endpoint);
        let secrets = self.shared.keys.seal(id.as_str(), &stored.secrets);
        let secrets =
            secrets.map_err(|error| EndpointStoreError::Unavailable { source: error.into() })?;
        let kept = match &current {
            Some(Locked { number, is_active: true, .. }) => {
                update(transaction.on(), *number, &endpoint, &stored.settings, &secrets).await
            }
            _ => {
                let replaced = current.as_ref().map(|current| current.number);
                insert(transaction.on(), replaced, &id, &endpoint, &stored.settings, &secrets).await
            }
        };
        kept.map_err(unavailable)?;
        transaction.end().await.map_err(unavailable)?;
        self.shared.wake();
        Ok(current.map(|current| Arc::new(current.read_or_stand_in(&self.shared.keys))))
    }

    /// An endpoint that cannot be read is removed all the same; a stand-in is returned for it, which
    /// has its id and tenant, is inactive, and leads to `https://unreadable.invalid/`.
    async fn unregister(&self, id: EndpointId) -> Result<Arc<Registration>, EndpointStoreError> {
        // Its secrets are of no use to anybody any more.
        const RETIRE: &str = "UPDATE webhooks.endpoints
            SET is_current = false, active = false, secrets = '' WHERE number = $1";
        let mut transaction = self.shared.begin().await.map_err(unavailable)?;
        let current = lock(transaction.on(), &id).await.map_err(unavailable)?;
        let Some(current) = current else { return Err(unknown(transaction, &id).await) };
        let number = current.number;
        let retire = sqlx::query(RETIRE).persistent(false).bind(number).execute(transaction.on());
        retire.await.map_err(unavailable)?;
        close(transaction.on(), number).await.map_err(unavailable)?;
        transaction.end().await.map_err(unavailable)?;
        self.shared.wake();
        Ok(Arc::new(current.read_or_stand_in(&self.shared.keys)))
    }

    async fn disable(
        &self,
        id: EndpointId,
        reason: DisableReason,
    ) -> Result<bool, EndpointStoreError> {
        const DISABLE: &str = "UPDATE webhooks.endpoints
            SET active = false, disabled = $2, settings = $3::json, version = version + 1
            WHERE number = $1";
        let mut transaction = self.shared.begin().await.map_err(unavailable)?;
        let current = lock(transaction.on(), &id).await.map_err(unavailable)?;
        let Some(locked) = current else { return Err(unknown(transaction, &id).await) };
        if !locked.is_active {
            transaction.end().await.map_err(unavailable)?;
            return Ok(false);
        }
        let (number, current) = (locked.number, locked.read(&self.shared.keys));
        let current = match current {
            Ok(current) => current,
            Err(error) => return Err(unavailable(transaction.refuse(error).await)),
        };
        let stored = StoredEndpoint::new(&current.disabled(reason).endpoint);
        let disable = sqlx::query(DISABLE)
            .persistent(false)
            .bind(number)
            .bind(word(reason))
            .bind(stored.settings);
        disable.execute(transaction.on()).await.map_err(unavailable)?;
        close(transaction.on(), number).await.map_err(unavailable)?;
        transaction.end().await.map_err(unavailable)?;
        self.shared.wake();
        Ok(true)
    }

    async fn get(&self, id: EndpointId) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        let select = format!("{SELECT} WHERE id = $1 AND is_current");
        let get = async || {
            let mut call = self.shared.call().await?;
            let statement = sqlx::query(sqlx::AssertSqlSafe(select.as_str()))
                .persistent(false)
                .bind(id.as_str());
            let row = statement.fetch_optional(call.on()).await?;
            call.end().await?;
            row.map(|row| registration(&row, &self.shared.keys).map(Arc::new)).transpose()
        };
        persistently(get).await.map_err(unavailable)
    }

    async fn list(
        &self,
        tenant: Option<TenantId>,
        after: Option<EndpointId>,
        limit: usize,
    ) -> Result<Vec<Arc<Registration>>, EndpointStoreError> {
        let (mut found, mut after) = (Vec::new(), after);
        while found.len() < limit {
            let most = limit - found.len();
            let page = reading(|| self.rows(tenant.as_ref(), after.as_ref(), most));
            let page = page.await.map_err(unavailable)?;
            let is_last = page.len() < most;
            for row in page {
                let id = row::endpoint_id(&row, 1).map_err(unavailable)?;
                // One that cannot be read keeps nobody from the others.
                found.extend(registration(&row, &self.shared.keys).map(Arc::new));
                after = Some(id);
            }
            if is_last {
                break;
            }
        }
        Ok(found)
    }
}

impl PostgresStore {
    /// Returns the rows of endpoints, at most so many, those after an id.
    async fn rows(
        &self,
        tenant: Option<&TenantId>,
        after: Option<&EndpointId>,
        limit: usize,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let select = format!(
            "{SELECT} WHERE is_current AND ($1::text IS NULL OR tenant = $1) AND id > $2
            ORDER BY id LIMIT $3"
        );
        let mut call = self.shared.reading_call().await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(select))
            .persistent(false)
            .bind(tenant.map(TenantId::as_str))
            .bind(after.map_or("", EndpointId::as_str))
            .bind(row::limit(limit))
            .fetch_all(call.on())
            .await?;
        call.end().await?;
        Ok(rows)
    }
}

/// An endpoint whose row is locked. It can be replaced or removed without being read.
pub(crate) struct Locked {
    pub(crate) number: i64,
    id: EndpointId,
    tenant: TenantId,
    is_active: bool,
    row: PgRow,
}

impl Locked {
    /// Reads the endpoint.
    pub(crate) fn read(&self, keys: &SealingKeys) -> Result<Registration, sqlx::Error> {
        registration(&self.row, keys)
    }

    /// Reads the endpoint, or returns one that stands for it if it cannot be read.
    fn read_or_stand_in(self, keys: &SealingKeys) -> Registration {
        self.read(keys).unwrap_or_else(|_unreadable| {
            let mut endpoint = stand_in();
            endpoint.tenant = self.tenant;
            Registration::new(self.id, endpoint)
        })
    }
}

/// Returns an endpoint that nothing can be delivered to, and whose secret nobody knows.
#[expect(clippy::expect_used, reason = "both texts are well formed")]
fn stand_in() -> Endpoint {
    let secret = format!("{:032x}", fastrand::u128(..));
    let endpoint = Endpoint::new("https://unreadable.invalid/", &secret);
    endpoint.expect("it is a URL and a secret").inactive()
}

/// Locks an id until the transaction ends, and returns the endpoint that has it.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    id: &EndpointId,
) -> Result<Option<Locked>, sqlx::Error> {
    const SELECT: &str = "SELECT number, id, settings::text, secrets, disabled, tenant, active
        FROM webhooks.endpoints WHERE id = $1 AND is_current FOR NO KEY UPDATE";
    sqlx::query(LOCK).persistent(false).bind(id.as_str()).execute(&mut *connection).await?;
    let select = sqlx::query(SELECT).persistent(false).bind(id.as_str());
    let Some(row) = select.fetch_optional(connection).await? else { return Ok(None) };
    let (number, is_active) = (row.try_get(0)?, row.try_get(6)?);
    let tenant = row::tenant(&row, 5)?;
    Ok(Some(Locked { number, id: id.clone(), tenant, is_active, row }))
}

/// Ends a call for an endpoint that there is not.
async fn unknown(call: Call, id: &EndpointId) -> EndpointStoreError {
    call.refuse(UnknownEndpoint { id: id.to_string() }).await.into()
}

/// Changes an endpoint; what waits for it goes to the new one. If it becomes ordered, claims put what
/// waits into order.
async fn update(
    connection: &mut PgConnection,
    number: i64,
    endpoint: &Endpoint,
    settings: &str,
    secrets: &[u8],
) -> Result<(), sqlx::Error> {
    const UPDATE: &str = "UPDATE webhooks.endpoints
        SET settings = $2::json, secrets = $3, active = $4, is_ordered = $5, max_workers = $6,
            version = version + 1, disabled = NULL, failing_since = NULL, blocked_until = 'epoch'
        WHERE number = $1";
    sqlx::query(UPDATE)
        .persistent(false)
        .bind(number)
        .bind(settings)
        .bind(secrets)
        .bind(endpoint.active)
        .bind(endpoint.ordered)
        .bind(most_workers(endpoint))
        .execute(&mut *connection)
        .await?;
    if !endpoint.active {
        return close(connection, number).await;
    }
    subscribe(connection, number, endpoint).await
}

/// Adds an endpoint in place of one that was inactive, if there was one.
async fn insert(
    connection: &mut PgConnection,
    replaced: Option<i64>,
    id: &EndpointId,
    endpoint: &Endpoint,
    settings: &str,
    secrets: &[u8],
) -> Result<(), sqlx::Error> {
    // The secrets of the old one are of no use to anybody any more.
    const RETIRE: &str =
        "UPDATE webhooks.endpoints SET is_current = false, secrets = '' WHERE number = $1";
    const INSERT: &str = "INSERT INTO webhooks.endpoints
        (id, tenant, settings, secrets, active, is_ordered, max_workers)
        VALUES ($1, $2, $3::json, $4, $5, $6, $7) RETURNING number";
    sqlx::query(RETIRE).persistent(false).bind(replaced).execute(&mut *connection).await?;
    let number: i64 = sqlx::query_scalar(INSERT)
        .persistent(false)
        .bind(id.as_str())
        .bind(endpoint.tenant.as_str())
        .bind(settings)
        .bind(secrets)
        .bind(endpoint.active)
        .bind(endpoint.ordered)
        .bind(most_workers(endpoint))
        .fetch_one(&mut *connection)
        .await?;
    if endpoint.active { subscribe(connection, number, endpoint).await } else { Ok(()) }
}

fn most_workers(endpoint: &Endpoint) -> i32 {
    i32::try_from(max_workers(endpoint).get()).unwrap_or(i32::MAX)
}

/// Makes events go to an endpoint as it wants them.
async fn subscribe(
    connection: &mut PgConnection,
    number: i64,
    endpoint: &Endpoint,
) -> Result<(), sqlx::Error> {
    const FORGET: &str = "DELETE FROM webhooks.subscriptions WHERE endpoint = $1";
    const SUBSCRIBE: &str = "
        INSERT INTO webhooks.subscriptions (tenant, pattern, endpoint, is_ordered)
        SELECT $1, pattern, $2, $3 FROM unnest($4::text[]) AS pattern ON CONFLICT DO NOTHING";
    sqlx::query(FORGET).persistent(false).bind(number).execute(&mut *connection).await?;
    let mut patterns: Vec<&str> =
        endpoint.subscriptions.iter().map(webhooks_registry::Subscription::as_str).collect();
    if patterns.is_empty() {
        patterns.push("*");
    }
    sqlx::query(SUBSCRIBE)
        .persistent(false)
        .bind(endpoint.tenant.as_str())
        .bind(number)
        .bind(endpoint.ordered)
        .bind(patterns)
        .execute(connection)
        .await?;
    Ok(())
}

/// Lets nothing more come for an endpoint, and begins to cancel what waits for it; claims do the
/// rest.
async fn close(connection: &mut PgConnection, number: i64) -> Result<(), sqlx::Error> {
    const FORGET: &str = "DELETE FROM webhooks.subscriptions WHERE endpoint = $1";
    sqlx::query(FORGET).persistent(false).bind(number).execute(&mut *connection).await?;
    drain(connection, number).await.map(drop)
}

/// Reads an endpoint from the columns of [`SELECT`].
pub(crate) fn registration(row: &PgRow, keys: &SealingKeys) -> Result<Registration, sqlx::Error> {
    let id = row::endpoint_id(row, 1)?;
    let (settings, secrets): (String, &[u8]) = (row.try_get(2)?, row.try_get(3)?);
    let secrets = keys.open(id.as_str(), secrets).map_err(|error| in_column(3, error))?;
    let stored = StoredEndpoint { settings, secrets };
    let endpoint = stored.to_endpoint().map_err(|error| in_column(2, error))?;
    let disabled: Option<&str> = row.try_get(4)?;
    let registration = Registration::new(id, endpoint);
    Ok(match disabled {
        Some(word) => registration.disabled(reason(word)),
        None => registration,
    })
}

fn in_column(column: usize, source: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_string(), source: source.into() }
}

/// The words for why an endpoint was disabled.
fn word(reason: DisableReason) -> &'static str {
    match reason {
        DisableReason::Gone => "gone",
        _ => "failing",
    }
}

fn reason(word: &str) -> DisableReason {
    if word == "gone" { DisableReason::Gone } else { DisableReason::Failing }
}

fn unavailable(error: sqlx::Error) -> EndpointStoreError {
    EndpointStoreError::Unavailable { source: store_error(error).into() }
}
