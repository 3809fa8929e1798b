//! Endpoints: registered, changed, unregistered.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use webhooks_core::{EndpointId, TenantId};
use webhooks_registry::{
    DisableReason, Endpoint, EndpointKey, EndpointNumber, EndpointState, RegisterError,
    Registration, UnknownEndpoint,
    seal::SealingKeys,
    store::{EndpointStore, EndpointStoreError, Registered, StateChange, StoredEndpoint},
};

use crate::PostgresStore;
use crate::claim::drain;
use crate::error::{persistently, reading, store_error};
use crate::row;
use crate::share::max_workers;
use crate::store::Call;

/// Reads endpoints, for [`registration`].
pub(crate) const SELECT: &str =
    "SELECT number, tenant, id, settings::text, secrets, state, disabled
    FROM webhooks.endpoints";

/// Locks an id of a tenant, whether or not an endpoint has it.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7305001, hashtext($1))";

impl EndpointStore for PostgresStore {
    async fn register(
        &self,
        id: EndpointId,
        endpoint: Endpoint,
    ) -> Result<Registered, EndpointStoreError> {
        endpoint.check().map_err(RegisterError::Endpoint)?;
        let key = EndpointKey::new(endpoint.tenant.clone(), id);
        let stored = StoredEndpoint::new(&endpoint);
        let secrets = self.shared.keys.seal(&key.to_string(), &stored.secrets);
        let secrets =
            secrets.map_err(|error| EndpointStoreError::Unavailable { source: error.into() })?;
        let mut transaction = self.shared.begin().await.map_err(unavailable)?;
        let locked = lock(transaction.on(), &key).await.map_err(unavailable)?;
        let before = locked.as_ref().map(|locked| locked.read_or_stand_in(&self.shared.keys));
        let added =
            || Registration::new(EndpointNumber::default(), key.id.clone(), endpoint.clone());
        let after = match &before {
            None => Some(added()),
            Some(before) => before.again(endpoint.clone()),
        };
        let Some(after) = after else {
            transaction.end().await.map_err(unavailable)?;
            return Ok(Registered::Unchanged);
        };
        let change = Change { after: &after, settings: &stored.settings, secrets: &secrets };
        change.keep(transaction.on(), locked.as_ref()).await.map_err(unavailable)?;
        transaction.end().await.map_err(unavailable)?;
        self.shared.wake();
        Ok(before
            .map_or(Registered::Added, |before| Registered::Changed { before: Arc::new(before) }))
    }

    /// An endpoint that cannot be read is removed all the same; a stand-in is returned for it, which
    /// has its id, tenant and state, and leads to `https://unreadable.invalid/`.
    async fn unregister(&self, key: EndpointKey) -> Result<Arc<Registration>, EndpointStoreError> {
        // Its secrets are of no use to anybody any more.
        const RETIRE: &str = "UPDATE webhooks.endpoints
            SET is_current = false, state = 'unregistered', secrets = '' WHERE number = $1";
        let mut transaction = self.shared.begin().await.map_err(unavailable)?;
        let locked = lock(transaction.on(), &key).await.map_err(unavailable)?;
        let Some(locked) = locked else { return Err(unknown(transaction, &key).await) };
        let number = locked.number;
        let retire = sqlx::query(RETIRE).persistent(false).bind(number).execute(transaction.on());
        retire.await.map_err(unavailable)?;
        close(transaction.on(), number).await.map_err(unavailable)?;
        transaction.end().await.map_err(unavailable)?;
        self.shared.wake();
        Ok(Arc::new(locked.read_or_stand_in(&self.shared.keys)))
    }

    async fn set_state(
        &self,
        key: EndpointKey,
        change: StateChange,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        let mut transaction = self.shared.begin().await.map_err(unavailable)?;
        let locked = lock(transaction.on(), &key).await.map_err(unavailable)?;
        let Some(locked) = locked else { return Err(unknown(transaction, &key).await) };
        let state = match locked.state.after(change) {
            Ok(Some(state)) => state,
            Ok(None) => {
                transaction.end().await.map_err(unavailable)?;
                return Ok(None);
            }
            Err(error) => return Err(transaction.refuse(error).await.into()),
        };
        let before = locked.read_or_stand_in(&self.shared.keys);
        if state.is_open() && !locked.state.is_open() {
            // What is to be sent must be readable.
            if let Err(error) = locked.read(&self.shared.keys) {
                return Err(unavailable(transaction.refuse(error).await));
            }
            let (settings, secrets) = locked.stored().map_err(unavailable)?;
            let after = before.in_state(state);
            let change = Change { after: &after, settings, secrets };
            change.keep(transaction.on(), Some(&locked)).await.map_err(unavailable)?;
        } else {
            enter(transaction.on(), locked.number, state).await.map_err(unavailable)?;
        }
        transaction.end().await.map_err(unavailable)?;
        self.shared.wake();
        Ok(Some(Arc::new(before)))
    }

    async fn get(&self, key: EndpointKey) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        let select = format!("{SELECT} WHERE tenant = $1 AND id = $2 AND is_current");
        let get = async || {
            let mut call = self.shared.call().await?;
            let statement = sqlx::query(sqlx::AssertSqlSafe(select.as_str()))
                .persistent(false)
                .bind(key.tenant.as_str())
                .bind(key.id.as_str());
            let row = statement.fetch_optional(call.on()).await?;
            call.end().await?;
            row.map(|row| registration(&row, &self.shared.keys).map(Arc::new)).transpose()
        };
        persistently(get).await.map_err(unavailable)
    }

    async fn list(
        &self,
        tenant: Option<TenantId>,
        after: Option<EndpointKey>,
        limit: usize,
    ) -> Result<Vec<Arc<Registration>>, EndpointStoreError> {
        let (mut found, mut after) = (Vec::new(), after);
        while found.len() < limit {
            let most = limit - found.len();
            let page = reading(|| self.rows(tenant.as_ref(), after.as_ref(), most));
            let page = page.await.map_err(unavailable)?;
            let is_last = page.len() < most;
            for row in page {
                after = Some(key(&row).map_err(unavailable)?);
                // One that cannot be read keeps nobody from the others.
                found.extend(registration(&row, &self.shared.keys).map(Arc::new));
            }
            if is_last {
                break;
            }
        }
        Ok(found)
    }
}

impl PostgresStore {
    /// Returns the rows of endpoints, at most so many, those after one.
    async fn rows(
        &self,
        tenant: Option<&TenantId>,
        after: Option<&EndpointKey>,
        limit: usize,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let select = format!(
            "{SELECT} WHERE is_current AND ($1::text IS NULL OR tenant = $1)
            AND (tenant, id) > ($2, $3) ORDER BY tenant, id LIMIT $4"
        );
        let mut call = self.shared.reading_call().await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(select))
            .persistent(false)
            .bind(tenant.map(TenantId::as_str))
            .bind(after.map_or("", |after| after.tenant.as_str()))
            .bind(after.map_or("", |after| after.id.as_str()))
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
    key: EndpointKey,
    pub(crate) state: EndpointState,
    row: PgRow,
}

impl Locked {
    /// Reads the endpoint.
    pub(crate) fn read(&self, keys: &SealingKeys) -> Result<Registration, sqlx::Error> {
        registration(&self.row, keys)
    }

    /// Reads the endpoint, or returns one that stands for it if it cannot be read.
    fn read_or_stand_in(&self, keys: &SealingKeys) -> Registration {
        self.read(keys).unwrap_or_else(|_unreadable| {
            let mut endpoint = stand_in();
            endpoint.tenant = self.key.tenant.clone();
            let number = row::endpoint_number(self.number);
            Registration::new(number, self.key.id.clone(), endpoint).in_state(self.state)
        })
    }

    /// Borrows what is stored of it: its settings, and its secrets as they are.
    fn stored(&self) -> Result<(&str, &[u8]), sqlx::Error> {
        Ok((self.row.try_get(3)?, self.row.try_get(4)?))
    }
}

/// Returns an endpoint that nothing can be delivered to, and whose secret nobody knows.
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
) -> Result<Option<Locked>, sqlx::Error> {
    let select = format!("{SELECT} WHERE tenant = $1 AND id = $2 AND is_current FOR NO KEY UPDATE");
    sqlx::query(LOCK).persistent(false).bind(key.to_string()).execute(&mut *connection).await?;
    let select = sqlx::query(sqlx::AssertSqlSafe(select)).persistent(false);
    let select = select.bind(key.tenant.as_str()).bind(key.id.as_str());
    let Some(row) = select.fetch_optional(connection).await? else { return Ok(None) };
    let (number, state) = (row.try_get(0)?, state(&row)?);
    Ok(Some(Locked { number, key: key.clone(), state, row }))
}

/// Locks ids until the transaction ends, and returns the endpoints that have them.
///
/// Whoever locks several does so here: ids in the order of what they are locked by, and then rows in
/// the order of their numbers, as settlements do. So nobody waits in a circle.
pub(crate) async fn lock_all(
    connection: &mut PgConnection,
    keys: &BTreeSet<EndpointKey>,
) -> Result<Vec<(EndpointKey, Locked)>, sqlx::Error> {
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
    let locked = |row: PgRow| {
        let (number, key, state) = (row.try_get(0)?, key(&row)?, state(&row)?);
        Ok((key.clone(), Locked { number, key, state, row }))
    };
    rows.into_iter().map(locked).collect()
}

/// Ends a call for an endpoint that there is not.
async fn unknown(call: Call, key: &EndpointKey) -> EndpointStoreError {
    call.refuse(UnknownEndpoint::new(key)).await.into()
}

/// An endpoint as it is to be, and what is stored of it.
struct Change<'c> {
    after: &'c Registration,
    settings: &'c str,
    secrets: &'c [u8],
}

impl Change<'_> {
    /// Changes the endpoint's row, or gives it a new one if it gets deliveries from now on.
    async fn keep(
        &self,
        connection: &mut PgConnection,
        before: Option<&Locked>,
    ) -> Result<(), sqlx::Error> {
        let is_open = self.after.state.is_open();
        match before {
            Some(before) if before.state.is_open() || !is_open => {
                self.update(connection, before).await
            }
            _ => self.insert(connection, before.map(|before| before.number)).await,
        }
    }

    /// Changes an endpoint's row; what waits for it goes to the new one. If it becomes ordered, claims
    /// put what waits into order.
    async fn update(
        &self,
        connection: &mut PgConnection,
        before: &Locked,
    ) -> Result<(), sqlx::Error> {
        const UPDATE: &str = "UPDATE webhooks.endpoints
            SET settings = $2::json, secrets = $3, is_ordered = $4, max_workers = $5,
                version = version + 1,
                blocked_until = CASE WHEN $4 THEN blocked_until ELSE 'epoch' END
            WHERE number = $1";
        let endpoint = &self.after.endpoint;
        sqlx::query(UPDATE)
            .persistent(false)
            .bind(before.number)
            .bind(self.settings)
            .bind(self.secrets)
            .bind(endpoint.ordered)
            .bind(most_workers(endpoint))
            .execute(&mut *connection)
            .await?;
        if self.after.state != before.state {
            enter(connection, before.number, self.after.state).await?;
        }
        if self.after.state.is_open() {
            subscribe(connection, before.number, endpoint).await?;
        }
        Ok(())
    }

    /// Adds an endpoint's row in place of one that got nothing any more, if there was one.
    async fn insert(
        &self,
        connection: &mut PgConnection,
        replaced: Option<i64>,
    ) -> Result<(), sqlx::Error> {
        // The secrets of the old one are of no use to anybody any more.
        const RETIRE: &str =
            "UPDATE webhooks.endpoints SET is_current = false, secrets = '' WHERE number = $1";
        const INSERT: &str = "INSERT INTO webhooks.endpoints
            (id, tenant, settings, secrets, state, disabled, is_ordered, max_workers)
            VALUES ($1, $2, $3::json, $4, $5, $6, $7, $8) RETURNING number";
        sqlx::query(RETIRE).persistent(false).bind(replaced).execute(&mut *connection).await?;
        let Registration { id, endpoint, state, .. } = self.after;
        let number: i64 = sqlx::query_scalar(INSERT)
            .persistent(false)
            .bind(id.as_str())
            .bind(endpoint.tenant.as_str())
            .bind(self.settings)
            .bind(self.secrets)
            .bind(state.as_str())
            .bind(state.disabled().map(DisableReason::as_str))
            .bind(endpoint.ordered)
            .bind(most_workers(endpoint))
            .fetch_one(&mut *connection)
            .await?;
        if state.is_open() { subscribe(connection, number, endpoint).await } else { Ok(()) }
    }
}

/// Changes the state of an endpoint's row.
async fn enter(
    connection: &mut PgConnection,
    number: i64,
    state: EndpointState,
) -> Result<(), sqlx::Error> {
    const ENTER: &str = "UPDATE webhooks.endpoints
        SET state = $2, disabled = $3, version = version + 1,
            failing_since = CASE WHEN $4 THEN failing_since END,
            failed_at = CASE WHEN $4 THEN failed_at END,
            tried_for = CASE WHEN $4 THEN tried_for END
        WHERE number = $1";
    sqlx::query(ENTER)
        .persistent(false)
        .bind(number)
        .bind(state.as_str())
        .bind(state.disabled().map(DisableReason::as_str))
        .bind(state.is_open())
        .execute(&mut *connection)
        .await?;
    if state.is_open() { Ok(()) } else { close(connection, number).await }
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
    const SUBSCRIBE: &str = "
        INSERT INTO webhooks.subscriptions (tenant, pattern, endpoint, is_ordered)
        SELECT $1, pattern, $2, $3 FROM unnest($4::text[]) AS pattern ON CONFLICT DO NOTHING";
    unsubscribe(connection, number).await?;
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
    unsubscribe(connection, number).await?;
    drain(connection, number).await.map(drop)
}

/// Has an endpoint want nothing.
async fn unsubscribe(connection: &mut PgConnection, number: i64) -> Result<(), sqlx::Error> {
    const UNSUBSCRIBE: &str = "DELETE FROM webhooks.subscriptions WHERE endpoint = $1";
    sqlx::query(UNSUBSCRIBE).persistent(false).bind(number).execute(connection).await.map(drop)
}

/// Reads an endpoint from the columns of [`SELECT`].
pub(crate) fn registration(row: &PgRow, keys: &SealingKeys) -> Result<Registration, sqlx::Error> {
    let key = key(row)?;
    let (settings, secrets): (String, &[u8]) = (row.try_get(3)?, row.try_get(4)?);
    let secrets = keys.open(&key.to_string(), secrets).map_err(|error| in_column(4, error))?;
    let stored = StoredEndpoint { settings, secrets };
    let endpoint = stored.to_endpoint().map_err(|error| in_column(3, error))?;
    let number = row::endpoint_number(row.try_get(0)?);
    Ok(Registration::new(number, key.id, endpoint).in_state(state(row)?))
}

/// Reads what names an endpoint from the columns of [`SELECT`].
pub(crate) fn key(row: &PgRow) -> Result<EndpointKey, sqlx::Error> {
    Ok(EndpointKey::new(row::tenant(row, 1)?, row::endpoint_id(row, 2)?))
}

fn state(row: &PgRow) -> Result<EndpointState, sqlx::Error> {
    let (state, disabled): (&str, Option<&str>) = (row.try_get(5)?, row.try_get(6)?);
    Ok(EndpointState::from_words(state, disabled))
}

fn in_column(column: usize, source: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_string(), source: source.into() }
}

fn unavailable(error: sqlx::Error) -> EndpointStoreError {
    EndpointStoreError::Unavailable { source: store_error(error).into() }
}
