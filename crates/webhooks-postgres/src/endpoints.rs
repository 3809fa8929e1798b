//! Endpoints: registered, changed, unregistered, read.

use std::sync::Arc;

use sqlx::PgConnection;
use webhooks_core::{Channel, Timestamp};
use webhooks_dispatch::store::RATE_SPAN;
use webhooks_registry::{
    DisableReason, Endpoint, EndpointKey, RegisterError, Registration, UnknownEndpoint,
    store::{EndpointStoreError, RegisterRequest, Registered, StateChange, StoredEndpoint},
};

use crate::call::{Call, with_retries};
use crate::cancel_closed::{LockedRows, cancel_closed};
use crate::endpoint_list::{metadata, words};
use crate::endpoint_row::{LockedEndpoint, SELECT, lock, registration};
use crate::error::store_error;
use crate::row::{self, At};
use crate::share::max_workers;
use crate::state::PostgresInner;

impl PostgresInner {
    pub(crate) async fn register(
        &self,
        request: RegisterRequest,
    ) -> Result<Registered, EndpointStoreError> {
        request.endpoint.check().map_err(RegisterError::Endpoint)?;
        let key = request.key();
        let stored = StoredEndpoint::new(&request.endpoint);
        let secrets = self.keys.seal(&key.to_string(), &stored.secrets);
        let secrets =
            secrets.map_err(|error| EndpointStoreError::Unavailable { source: error.into() })?;
        let mut transaction = self.database.begin().await.map_err(unavailable)?;
        let locked = lock(transaction.connection(), &key).await.map_err(unavailable)?;
        let before = locked.as_ref().map(|locked| locked.read_or_stand_in(&self.keys));
        let after = match request.apply(before.as_ref()) {
            Ok(Some(after)) => after,
            Ok(None) => {
                transaction.commit().await.map_err(unavailable)?;
                return Ok(Registered::Unchanged);
            }
            Err(error) => return Err(transaction.refuse(error).await),
        };
        let after = match before {
            Some(_) => after,
            None => match add(transaction.connection(), &request, after).await {
                Ok(after) => after,
                Err(error @ EndpointStoreError::TooMany { .. }) => {
                    return Err(transaction.refuse(error).await);
                }
                Err(error) => return Err(error),
            },
        };
        let change = Change {
            after: &after,
            settings: &stored.settings,
            secrets: &secrets,
            now: request.now,
        };
        change.store(transaction.connection(), locked.as_ref()).await.map_err(unavailable)?;
        if let Some(locked) = &locked {
            // It may be mended. The engine tells the workers of this process.
            let probe = self.probe_elsewhere(&mut transaction, &[locked.number]).await;
            probe.map_err(unavailable)?;
        }
        transaction.commit().await.map_err(unavailable)?;
        // A new endpoint has nothing to claim yet.
        self.wake_for(locked.map(|locked| locked.number));
        Ok(before
            .map_or(Registered::Added, |before| Registered::Changed { before: Arc::new(before) }))
    }

    pub(crate) async fn unregister(
        &self,
        key: EndpointKey,
        now: Timestamp,
    ) -> Result<Arc<Registration>, EndpointStoreError> {
        // Nothing is signed with its secrets any more, so they are erased. One that is disabled stays so:
        // what is pending for it was cancelled then.
        const RETIRE: &str = "UPDATE webhooks.endpoints
            SET is_current = false, state = CASE WHEN is_open THEN 'unregistered' ELSE state END,
                state_since = CASE WHEN is_open THEN $2 ELSE state_since END, updated_at = $2,
                secrets = '' WHERE number = $1";
        let mut transaction = self.database.begin().await.map_err(unavailable)?;
        let locked = lock(transaction.connection(), &key).await.map_err(unavailable)?;
        let Some(locked) = locked else { return Err(unknown(transaction, &key).await) };
        let number = locked.number;
        let retire = sqlx::query(RETIRE).persistent(false).bind(number).bind(At(now));
        retire.execute(transaction.connection()).await.map_err(unavailable)?;
        close(transaction.connection(), number, now).await.map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)?;
        self.wake_for([number]);
        Ok(Arc::new(locked.read_or_stand_in(&self.keys)))
    }

    pub(crate) async fn set_state(
        &self,
        key: EndpointKey,
        change: StateChange,
        now: Timestamp,
    ) -> Result<Option<Arc<Registration>>, EndpointStoreError> {
        let mut transaction = self.database.begin().await.map_err(unavailable)?;
        let locked = lock(transaction.connection(), &key).await.map_err(unavailable)?;
        let Some(locked) = locked else { return Err(unknown(transaction, &key).await) };
        let before = locked.read_or_stand_in(&self.keys);
        let after = match before.after(change, now) {
            Ok(Some(after)) => after,
            Ok(None) => {
                transaction.commit().await.map_err(unavailable)?;
                return Ok(None);
            }
            Err(error) => return Err(transaction.refuse(error).await.into()),
        };
        if after.state.is_open() && !before.state.is_open() {
            // The endpoint gets deliveries from now on, so it must be readable.
            if let Err(error) = locked.read(&self.keys) {
                return Err(unavailable(transaction.refuse(error).await));
            }
            let (settings, secrets) = locked.stored().map_err(unavailable)?;
            let change = Change { after: &after, settings, secrets, now };
            change.store(transaction.connection(), Some(&locked)).await.map_err(unavailable)?;
        } else {
            enter(transaction.connection(), locked.number, &after, now)
                .await
                .map_err(unavailable)?;
        }
        transaction.commit().await.map_err(unavailable)?;
        self.wake_for([locked.number]);
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
}

/// Ends a call for an endpoint that is not registered.
async fn unknown(call: Call, key: &EndpointKey) -> EndpointStoreError {
    call.refuse(UnknownEndpoint::new(key)).await.into()
}

/// Returns the endpoint to add, unless its tenant may have no further one. It is above all versions
/// that its id had.
async fn add(
    connection: &mut PgConnection,
    request: &RegisterRequest,
    added: Registration,
) -> Result<Registration, EndpointStoreError> {
    // Of two that are added at once, the second one counts the first.
    const LOCK: &str = "SELECT pg_advisory_xact_lock(7305004, hashtext($1))";
    const COUNT: &str = "SELECT count(*) FROM
        (SELECT 1 FROM webhooks.endpoints WHERE tenant = $1 AND is_current LIMIT $2) AS current";
    const LAST: &str = "SELECT max(version) FROM webhooks.endpoints WHERE tenant = $1 AND id = $2";
    let tenant = request.endpoint.tenant.as_str();
    if let Some(max) = request.max_endpoints {
        let lock = sqlx::query(LOCK).persistent(false).bind(tenant);
        lock.execute(&mut *connection).await.map_err(unavailable)?;
        let count = sqlx::query_scalar(COUNT).persistent(false).bind(tenant).bind(row::int4(max));
        let count: i64 = count.fetch_one(&mut *connection).await.map_err(unavailable)?;
        request.check_count(|| usize::try_from(count).unwrap_or(usize::MAX))?;
    }
    let last = sqlx::query_scalar(LAST).persistent(false).bind(tenant).bind(request.id.as_str());
    let last: Option<i64> = last.fetch_one(connection).await.map_err(unavailable)?;
    let revision = last.map_or(added.revision, |last| added.revision.above(row::unsigned(last)));
    let state = added.state;
    Ok(added.restored(state, revision))
}

/// A change of an endpoint.
struct Change<'c> {
    /// The endpoint after the change.
    after: &'c Registration,
    /// Its settings and secrets as they are stored.
    settings: &'c str,
    secrets: &'c [u8],
    now: Timestamp,
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
                version = $6, updated_at = $7, url = $8, words = $9, metadata = $10::jsonb,
                patterns = $11, max_claim = $12,
                blocked_until = CASE WHEN $4 THEN blocked_until ELSE 'epoch' END
            WHERE number = $1";
        let Registration { endpoint, revision, .. } = self.after;
        sqlx::query(UPDATE)
            .persistent(false)
            .bind(before.number)
            .bind(self.settings)
            .bind(self.secrets)
            .bind(endpoint.ordered)
            .bind(max_workers_column(endpoint))
            .bind(row::int8(revision.version))
            .bind(At(revision.updated_at))
            .bind(endpoint.url.as_str())
            .bind(words(self.after))
            .bind(metadata(&endpoint.metadata))
            .bind(patterns(endpoint))
            .bind(max_claim_column(endpoint))
            .execute(&mut *connection)
            .await?;
        if self.after.state != before.state {
            enter(connection, before.number, self.after, self.now).await?;
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
            (id, tenant, settings, secrets, state, disabled, is_ordered, max_workers, version,
             created_at, updated_at, state_since, url, words, metadata, patterns, max_claim)
            VALUES ($1, $2, $3::json, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15::jsonb,
                    $16, $17) RETURNING number";
        sqlx::query(RETIRE).persistent(false).bind(replaced).execute(&mut *connection).await?;
        let Registration { id, endpoint, state, revision, .. } = self.after;
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
            .bind(row::int8(revision.version))
            .bind(At(revision.created_at))
            .bind(At(revision.updated_at))
            .bind(At(revision.state_since))
            .bind(endpoint.url.as_str())
            .bind(words(self.after))
            .bind(metadata(&endpoint.metadata))
            .bind(patterns(endpoint))
            .bind(max_claim_column(endpoint))
            .fetch_one(&mut *connection)
            .await?;
        if state.is_open() { subscribe(connection, number, endpoint).await } else { Ok(()) }
    }
}

/// Changes the state and the revision in an endpoint's row.
async fn enter(
    connection: &mut PgConnection,
    number: i64,
    after: &Registration,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    const ENTER: &str = "UPDATE webhooks.endpoints
        SET state = $2, disabled = $3, version = $5, updated_at = $6, state_since = $7,
            failing_since = CASE WHEN $4 THEN failing_since END,
            failed_at = CASE WHEN $4 THEN failed_at END,
            tried_for = CASE WHEN $4 THEN tried_for END
        WHERE number = $1";
    let Registration { state, revision, .. } = after;
    sqlx::query(ENTER)
        .persistent(false)
        .bind(number)
        .bind(state.as_str())
        .bind(state.disabled().map(DisableReason::as_str))
        .bind(state.is_open())
        .bind(row::int8(revision.version))
        .bind(At(revision.updated_at))
        .bind(At(revision.state_since))
        .execute(&mut *connection)
        .await?;
    if state.is_open() { Ok(()) } else { close(connection, number, now).await }
}

pub(crate) fn max_claim_column(endpoint: &Endpoint) -> Option<i32> {
    endpoint.rate_limit.map(|limit| row::int4(limit.most_within(RATE_SPAN)))
}

pub(crate) fn max_workers_column(endpoint: &Endpoint) -> i32 {
    i32::try_from(max_workers(endpoint).get()).unwrap_or(i32::MAX)
}

/// Returns the patterns of event types that an endpoint gets.
pub(crate) fn patterns(endpoint: &Endpoint) -> Vec<&str> {
    match endpoint.subscriptions.as_slice() {
        [] => vec!["*"],
        some => some.iter().map(webhooks_registry::Subscription::as_str).collect(),
    }
}

/// Replaces the subscriptions of an endpoint's row by those of the endpoint.
async fn subscribe(
    connection: &mut PgConnection,
    number: i64,
    endpoint: &Endpoint,
) -> Result<(), sqlx::Error> {
    const SUBSCRIBE: &str = "
        INSERT INTO webhooks.subscriptions (tenant, pattern, endpoint, is_ordered, channels)
        SELECT $1, pattern, $2, $3, $5 FROM unnest($4::text[]) AS pattern ON CONFLICT DO NOTHING";
    unsubscribe(connection, number).await?;
    let channels: Vec<&str> = endpoint.channels.iter().map(Channel::as_str).collect();
    sqlx::query(SUBSCRIBE)
        .persistent(false)
        .bind(endpoint.tenant.as_str())
        .bind(number)
        .bind(endpoint.ordered)
        .bind(patterns(endpoint))
        .bind(Some(channels).filter(|channels| !channels.is_empty()))
        .execute(connection)
        .await?;
    Ok(())
}

/// Closes an endpoint's row: events no longer go to it, and the first of the deliveries that wait
/// are cancelled. Claims cancel the rest.
async fn close(
    connection: &mut PgConnection,
    number: i64,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    unsubscribe(connection, number).await?;
    cancel_closed(connection, number, LockedRows::Skip, now).await.map(drop)
}

/// Removes the subscriptions of an endpoint's row.
async fn unsubscribe(connection: &mut PgConnection, number: i64) -> Result<(), sqlx::Error> {
    const UNSUBSCRIBE: &str = "DELETE FROM webhooks.subscriptions WHERE endpoint = $1";
    sqlx::query(UNSUBSCRIBE).persistent(false).bind(number).execute(connection).await.map(drop)
}

fn unavailable(error: sqlx::Error) -> EndpointStoreError {
    EndpointStoreError::Unavailable { source: store_error(error).into() }
}
