//! Jobs: bulk replays and cancellations, on which one worker works at a time.

use std::num::NonZeroU32;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use webhooks_core::{TenantId, Timestamp};
use webhooks_dispatch::{
    clock::Now,
    jobs::{
        Job, JobAdvance, JobChange, JobError, JobId, JobProgress, JobQuery, JobState, LeasedJob,
        NewJob,
    },
    store::StoreError,
};

use crate::call::{with_read_retries, with_retries, with_timeout};
use crate::error::{BadRow, store_error};
use crate::row::{self, At, without_nul};
use crate::state::PostgresInner;

/// The columns of a job, as [`job`] reads them.
const COLUMNS: &str =
    "number, tenant, work, rate, state, done, cursor, error, created_at, updated_at";

impl PostgresInner {
    pub(crate) async fn create_job(&self, new: NewJob, now: Timestamp) -> Result<Job, StoreError> {
        let insert = format!(
            "INSERT INTO webhooks.jobs (tenant, work, rate, state, created_at, updated_at, request)
            VALUES ($1, $2, $3, 'running', $4, $4, $5)
            ON CONFLICT (request) DO UPDATE SET request = excluded.request RETURNING {COLUMNS}"
        );
        let work = serde_json::to_string(&new.work);
        let work = work.map_err(|error| store_error(sqlx::Error::Encode(error.into())))?;
        // Made once: a job whose answer was lost must not be made twice.
        let create = Box::pin(with_timeout(async {
            let mut transaction = self.database.begin().await?;
            let row = sqlx::query(sqlx::AssertSqlSafe(insert))
                .persistent(false)
                .bind(new.tenant.as_ref().map(TenantId::as_str))
                .bind(work)
                .bind(new.rate.map(|rate| i64::from(rate.get())))
                .bind(At(now))
                .bind(new.request.map(|request| request.to_be_bytes().to_vec()))
                .fetch_one(transaction.connection())
                .await?;
            self.notify_others(&mut transaction).await?;
            transaction.commit().await?;
            job(&row)
        }));
        let job = create.await.map_err(store_error)?;
        self.wake();
        Ok(job)
    }

    pub(crate) async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let select = format!("SELECT {COLUMNS} FROM webhooks.jobs WHERE number = $1");
        let find = async || {
            let mut call = self.database.reading_call().await?;
            let find = sqlx::query(sqlx::AssertSqlSafe(select.as_str())).persistent(false);
            let find = find.bind(row::int8(id.as_u64()));
            let row = find.fetch_optional(call.connection()).await?;
            call.commit().await?;
            row.map(|row| job(&row)).transpose()
        };
        with_read_retries(find).await.map_err(store_error)
    }

    pub(crate) async fn jobs(&self, query: JobQuery) -> Result<Vec<Job>, StoreError> {
        let select = format!(
            "SELECT {COLUMNS} FROM webhooks.jobs
            WHERE ($1::text IS NULL OR tenant = $1) AND ($2::text IS NULL OR state = $2)
              AND ($3::bigint IS NULL OR number < $3) ORDER BY number DESC LIMIT $4"
        );
        let find = async || {
            let mut call = self.database.reading_call().await?;
            let rows = sqlx::query(sqlx::AssertSqlSafe(select.as_str()))
                .persistent(false)
                .bind(query.tenant.as_ref().map(TenantId::as_str))
                .bind(query.state.map(JobState::as_str))
                .bind(query.after.map(|id| row::int8(id.as_u64())))
                .bind(row::int4(query.page_size()))
                .fetch_all(call.connection())
                .await?;
            call.commit().await?;
            rows.iter().map(job).collect::<Result<Vec<_>, _>>()
        };
        with_read_retries(find).await.map_err(store_error)
    }

    pub(crate) async fn change_job(
        &self,
        id: JobId,
        change: JobChange,
        now: Timestamp,
    ) -> Result<Job, JobError> {
        let select = format!("SELECT {COLUMNS} FROM webhooks.jobs WHERE number = $1 FOR UPDATE");
        let update = format!(
            "UPDATE webhooks.jobs SET state = $2, updated_at = $3,
                error = CASE WHEN $2 = 'running' THEN NULL ELSE error END
            WHERE number = $1 RETURNING {COLUMNS}"
        );
        let number = row::int8(id.as_u64());
        let change = async || {
            let mut transaction = self.database.begin().await?;
            let select = sqlx::query(sqlx::AssertSqlSafe(select.as_str())).persistent(false);
            let found = select.bind(number).fetch_optional(transaction.connection()).await?;
            let mut found = found.map(|row| job(&row)).transpose()?;
            if let Some(after) = found.as_ref().and_then(|found| found.state.after(change)) {
                let update = sqlx::query(sqlx::AssertSqlSafe(update.as_str())).persistent(false);
                let update = update.bind(number).bind(after.as_str()).bind(At(now));
                found = Some(job(&update.fetch_one(transaction.connection()).await?)?);
                self.notify_others(&mut transaction).await?;
            }
            transaction.commit().await?;
            Ok(found)
        };
        let found = Box::pin(with_retries(change)).await.map_err(store_error)?;
        self.wake();
        found.ok_or(JobError::Unknown { id })
    }

    pub(crate) async fn lease_job(
        &self,
        lease: Duration,
        now: Now,
    ) -> Result<Option<LeasedJob>, StoreError> {
        // Leases go by the server's clock, as those of deliveries do.
        let lease_one = format!(
            "UPDATE webhooks.jobs
            SET leased_until = webhooks.lease_clock($1) + $2 * interval '1 microsecond', token = $3
            WHERE number = (
                SELECT number FROM webhooks.jobs
                WHERE state = 'running'
                  AND (leased_until IS NULL OR leased_until <= webhooks.lease_clock($1))
                ORDER BY updated_at, number LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING {COLUMNS}"
        );
        // Tried once: if the answer is lost, the lease ends by itself.
        let token = fastrand::i64(1..);
        let find = with_timeout(async {
            let mut call = self.database.call().await?;
            let row = sqlx::query(sqlx::AssertSqlSafe(lease_one))
                .persistent(call.prepares())
                .bind(At(now.wall))
                .bind(row::micros(lease))
                .bind(token)
                .fetch_optional(call.connection())
                .await?;
            call.commit().await?;
            row.map(|row| job(&row)).transpose()
        });
        let found = find.await.map_err(store_error)?;
        Ok(found.map(|job| LeasedJob { job, token: row::unsigned(token) }))
    }

    pub(crate) async fn advance_job(
        &self,
        advance: JobAdvance,
        lease: Duration,
        now: Now,
    ) -> Result<Option<JobState>, StoreError> {
        // An operator may have stopped it meanwhile. That stays, and ends the lease.
        const ADVANCE: &str = "UPDATE webhooks.jobs
            SET done = $3, cursor = $4, error = $5, updated_at = $6,
                state = CASE WHEN state = 'running' THEN $7 ELSE state END,
                leased_until = CASE WHEN state = 'running' AND $7 = 'running'
                    THEN webhooks.lease_clock($6) + $8 * interval '1 microsecond' END,
                token = CASE WHEN state = 'running' AND $7 = 'running' THEN token END
            WHERE number = $1 AND token = $2 RETURNING state";
        let JobAdvance { id, token, progress, state } = advance;
        let record = with_timeout(async {
            let mut call = self.database.call().await?;
            let state: Option<String> = sqlx::query_scalar(ADVANCE)
                .persistent(call.prepares())
                .bind(row::int8(id.as_u64()))
                .bind(row::int8(token))
                .bind(row::int8(progress.done))
                .bind(progress.cursor.as_deref().map(without_nul))
                .bind(progress.error.as_deref().map(without_nul))
                .bind(At(now.wall))
                .bind(state.as_str())
                .bind(row::micros(lease))
                .fetch_optional(call.connection())
                .await?;
            call.commit().await?;
            Ok(state)
        });
        let state = record.await.map_err(store_error)?;
        let read = |word: String| JobState::from_word(&word).ok_or_else(|| unreadable(0));
        state.map(read).transpose().map_err(store_error)
    }
}

/// Reads a job from [`COLUMNS`].
fn job(row: &PgRow) -> Result<Job, sqlx::Error> {
    let (At(created_at), At(updated_at)) = (row.try_get(8)?, row.try_get(9)?);
    let tenant: Option<&str> = row.try_get(1)?;
    let work: &str = row.try_get(2)?;
    let rate: Option<i64> = row.try_get(3)?;
    let state: &str = row.try_get(4)?;
    Ok(Job {
        id: JobId::from_u64(row::unsigned(row.try_get(0)?)),
        tenant: tenant.map(TenantId::new).transpose().map_err(|_shows_text| unreadable(1))?,
        work: serde_json::from_str(work).map_err(|_shows_text| unreadable(2))?,
        rate: rate.and_then(|rate| NonZeroU32::new(u32::try_from(rate).ok()?)),
        state: JobState::from_word(state).ok_or_else(|| unreadable(4))?,
        progress: JobProgress {
            done: row::unsigned(row.try_get(5)?),
            cursor: row.try_get(6)?,
            error: row.try_get(7)?,
        },
        created_at,
        updated_at,
    })
}

fn unreadable(column: usize) -> sqlx::Error {
    BadRow::of("a job").in_column(column)
}
