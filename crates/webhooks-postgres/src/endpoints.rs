//! Endpoints: registered, changed, unregistered, read.

use std::sync::Arc;

use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use webhooks_core::{EndpointId, TenantId};
use webhooks_registry::{
    DisableReason, Endpoint, EndpointKey, EndpointNumber, EndpointState, RegisterError,
    Registration, UnknownEndpoint,
    store::{EndpointStoreError, Registered, StateChange, StoredEndpoint},
};

use crate::call::{Call, with_read_retries, with_retries};
use crate::cancel_closed::{LockedRows, cancel_closed};
use crate::endpoint_row::{self, LockedEndpoint, SELECT, lock, registration};
use crate::error::store_error;
use crate::row;
use crate::share::max_workers;
use crate::state::PostgresInner;

impl PostgresInner {
    pub(crate) async fn register(
        &self,
        id: EndpointId,
        endpoint: Endpoint,
    ) -> Result<Registered, EndpointStoreError> {
        endpoint.check().map_err(RegisterError::Endpoint)?;
        let key = EndpointKey::new(endpoint.tenant.clone(), id);
        let stored = StoredEndpoint::new(&endpoint);
        let secrets = self.keys.seal(&key.to_string(), &stored.secrets);
        let secrets =
            secrets.map_err(|error| EndpointStoreError::Unavailable { source: error.into() })?;
        let mut transaction = self.database.begin().await.map_err(unavailable)?;
        let locked = lock(transaction.connection(), &key).await.map_err(unavailable)?;
        let before = locked.as_ref().map(|locked| locked.read_or_stand_in(&self.keys));
        let added =
            || Registration::new(EndpointNumber::default(), key.id.clone(), endpoint.clone());
        let after = match &before {
            None => Some(added()),
            Some(before) => before.again(endpoint.clone()),
        };
        let Some(after) = after else {
            transaction.commit().await.map_err(unavailable)?;
            return Ok(Registered::Unchanged);
        };
        let change = Change { after: &after, settings: &stored.settings, secrets: &secrets };
        change.store(transaction.connection(), locked.as_ref()).await.map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)?;
        self.wake();
        Ok(before
            .map_or(Registered::Added, |before| Registered::Changed { before: Arc::new(before) }))
    }

    pub(crate) async fn unregister(
        &self,
        key: EndpointKey,
    ) -> Result<Arc<Registration>, EndpointStoreError> {
        // Nothing is signed with its secrets any more, so they are erased.
        const RETIRE: &str = "UPDATE webhooks.endpoints
            SET is_current = false, state = 'unregistered', secrets = '' WHERE number = $1";
        let mut transaction = self.database.begin().await.map_err(unavailable)?;
        let locked = lock(transaction.connection(), &key).await.map_err(unavailable)?;
        let Some(locked) = locked else { return Err(unknown(transaction, &key).await) };
        let number = locked.number;
        let retire =
            sqlx::query(RETIRE).persistent(false).bind(number).execute(transaction.connection());
        retire.await.map_err(unavailable)?;
        close(transaction.connection(), number).await.map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)?;
        self.wake();
        Ok(Arc::new(locked.read_or_stand_in(&self.keys)))
    }

    pub(crate) async fn set_state(
        &self,
        key: EndpointKey,
        change: StateChange,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        let mut transaction = self.database.begin().await.map_err(unavailable)?;
        let locked = lock(transaction.connection(), &key).await.map_err(unavailable)?;
        let Some(locked) = locked else { return Err(unknown(transaction, &key).await) };
        let state = match locked.state.after(change) {
            Ok(Some(state)) => state,
            Ok(None) => {
                transaction.commit().await.map_err(unavailable)?;
                return Ok(None);
            }
            Err(error) => return Err(transaction.refuse(error).await.into()),
        };
        let before = locked.read_or_stand_in(&self.keys);
        if state.is_open() && !locked.state.is_open() {
            // The endpoint gets deliveries from now on, so it must be readable.
            if let Err(error) = locked.read(&self.keys) {
                return Err(unavailable(transaction.refuse(error).await));
            }
            let (settings, secrets) = locked.stored().map_err(unavailable)?;
            let after = before.in_state(state);
            let change = Change { after: &after, settings, secrets };
            change.store(transaction.connection(), Some(&locked)).await.map_err(unavailable)?;
        } else {
            enter(transaction.connection(), locked.number, state).await.map_err(unavailable)?;
        }
        transaction.commit().await.map_err(unavailable)?;
        self.wake();
        Ok(Some(Arc::new(before)))
    }

    pub(crate) async fn endpoint(
        &self,
        key: EndpointKey,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        let select = format!("{SELECT} WHERE tenant = $1 AND id = $2 AND is_current");
        let get = async || {
            let mut call = self.database.call().await?;
            let statement = sqlx::query(sqlx::AssertSqlSafe(select.as_str()))
                .persistent(false)
                .bind(key.tenant.as_str())
                .bind(key.id.as_str());
            let row = statement.fetch_optional(call.connection()).await?;
            call.commit().await?;
            row.map(|row| registration(&row, &self.keys).map(Arc::new)).transpose()
        };
        with_retries(get).await.map_err(unavailable)
    }

    pub(crate) async fn endpoints(
        &self,
        tenant: Option<TenantId>,
        after: Option<EndpointKey>,
        limit: usize,
    ) -> Result<Vec<Arc<Registration>>, EndpointStoreError> {
        let (mut found, mut after) = (Vec::new(), after);
        while found.len() < limit {
            let left = limit - found.len();
            let page = with_read_retries(|| self.rows(tenant.as_ref(), after.as_ref(), left));
            let page = page.await.map_err(unavailable)?;
            let is_last = page.len() < left;
            for row in page {
                after = Some(endpoint_row::key(&row).map_err(unavailable)?);
                // An endpoint that cannot be read is left out, so that the others can be listed.
                found.extend(registration(&row, &self.keys).map(Arc::new));
            }
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    /// Returns at most `limit` rows of endpoints, those after one.
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
        let mut call = self.database.reading_call().await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(select))
            .persistent(false)
            .bind(tenant.map(TenantId::as_str))
            .bind(after.map_or("", |after| after.tenant.as_str()))
            .bind(after.map_or("", |after| after.id.as_str()))
            .bind(row::int4(limit))
            .fetch_all(call.connection())
            .await?;
        call.commit().await?;
        Ok(rows)
    }
}

/// Ends a call for an endpoint that is not registered.
async fn unknown(call: Call, key: &EndpointKey) -> EndpointStoreError {
    call.refuse(UnknownEndpoint::new(key)).await.into()
}

/// A change of an endpoint.
struct Change<'c> {
    /// The endpoint after the change.
    after: &'c Registration,
    /// Its settings and secrets as they are stored.
    settings: &'c str,
    secrets: &'c [u8],
}

impl Change<'_> {
    /// Changes the endpoint's row, or gives it a new one if deliveries are stored for it from now
    /// on.
    async fn store(
        &self,
        connection: &mut PgConnection,
        before: Option<&LockedEndpoint>,
    ) -> Result<(), sqlx::Error> {
        let is_open = self.after.state.is_open();
        match before {
            Some(before) if before.state.is_open() || !is_open => {
                self.update(connection, before).await
            }
            _ => self.insert(connection, before.map(|before| before.number)).await,
        }
    }

    /// Changes the endpoint's row; deliveries that wait go to the changed endpoint. If it becomes
    /// ordered, claims put them into order.
    async fn update(
        &self,
        connection: &mut PgConnection,
        before: &LockedEndpoint,
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
            .bind(max_workers_column(endpoint))
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

    /// Adds a row for the endpoint, in place of a closed one if there was one.
    async fn insert(
        &self,
        connection: &mut PgConnection,
        replaced: Option<i64>,
    ) -> Result<(), sqlx::Error> {
        // Nothing is signed with the secrets of the old row any more, so they are erased.
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
            .bind(max_workers_column(endpoint))
            .fetch_one(&mut *connection)
            .await?;
        if state.is_open() { subscribe(connection, number, endpoint).await } else { Ok(()) }
    }
}

/// Changes the state in an endpoint's row.
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

fn max_workers_column(endpoint: &Endpoint) -> i32 {
    i32::try_from(max_workers(endpoint).get()).unwrap_or(i32::MAX)
}

/// Replaces the subscriptions of an endpoint's row by those of the endpoint.
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

/// Closes an endpoint's row: events no longer go to it, and the first of the deliveries that wait
/// are cancelled. Claims cancel the rest.
async fn close(connection: &mut PgConnection, number: i64) -> Result<(), sqlx::Error> {
    unsubscribe(connection, number).await?;
    cancel_closed(connection, number, LockedRows::Skip).await.map(drop)
}

/// Removes the subscriptions of an endpoint's row.
async fn unsubscribe(connection: &mut PgConnection, number: i64) -> Result<(), sqlx::Error> {
    const UNSUBSCRIBE: &str = "DELETE FROM webhooks.subscriptions WHERE endpoint = $1";
    sqlx::query(UNSUBSCRIBE).persistent(false).bind(number).execute(connection).await.map(drop)
}

fn unavailable(error: sqlx::Error) -> EndpointStoreError {
    EndpointStoreError::Unavailable { source: store_error(error).into() }
}
