//! The transactional outbox: an event that is published if the caller's transaction is committed.

use sqlx::{PgConnection, Row as _};
use thiserror::Error;
use webhooks_core::{Channel, Event, LabelError, Tag};
use webhooks_dispatch::{Conflict, Publication, PublishStatus, Published, store::SerializedEvent};

use crate::error::{BadRow, has_code};
use crate::row::{At, count};

/// The reason why an event was not published in a transaction.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishInError {
    /// Another event has this id already. The transaction can go on.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The event has too many channels or tags. The transaction can go on.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// The database has no schema `webhooks`, or one of an older version. The transaction failed.
    #[error("the schema \"webhooks\" is not there or not up to date; open a PostgresStore once")]
    NoSchema {
        /// The error of PostgreSQL.
        source: sqlx::Error,
    },
    /// The statement failed, and with it the transaction.
    #[error("cannot publish in the transaction")]
    Sql(#[source] sqlx::Error),
    /// The event is to be delivered more than 90 days from now. The transaction can go on.
    #[error("an event can be scheduled 90 days ahead at most; publish it later")]
    TooFarAhead,
    /// The event's body is too large. The transaction can go on.
    #[error("the event's body has {len} bytes; at most {max} are allowed")]
    TooLarge {
        /// The length in bytes.
        len: usize,
        /// The maximum: [`PostgresOptions::max_body`](crate::PostgresOptions::max_body).
        max: usize,
    },
}

impl From<sqlx::Error> for PublishInError {
    fn from(source: sqlx::Error) -> Self {
        // invalid_schema_name, undefined_function.
        if has_code(&source, "3F000") || has_code(&source, "42883") {
            Self::NoSchema { source }
        } else {
            Self::Sql(source)
        }
    }
}

/// Publishes an event in the caller's own transaction: roll back, and nothing is sent; commit, and
/// any worker delivers it. The store must have been opened once before, which makes its schema. The
/// right to use the schema is enough to publish.
///
/// An event that is published again, with the same id and content, changes nothing, and the first
/// result is returned. Other publishers of the same id wait until this transaction ends, so keep it
/// short.
///
/// A [`Publication`] says more about the deliveries than an event alone. An endpoint of
/// [`Publication::only`] that is not registered, or is disabled, gets nothing.
///
/// The event is accepted when the transaction is committed. Its time of acceptance is the time of
/// the call, on the database's clock.
///
/// # Errors
/// [`PublishInError`] when the event was not stored.
///
/// # Cancellation
/// A dropped future may or may not have published the event in the transaction: roll it back.
///
/// # Example
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use sqlx::Connection as _;
/// use webhooks_core::Event;
///
/// let mut connection = sqlx::PgConnection::connect("postgres://shop@db.internal/shop").await?;
/// let mut transaction = connection.begin().await?;
/// sqlx::query("INSERT INTO orders (id) VALUES (17)").execute(&mut *transaction).await?;
/// webhooks_postgres::publish_in(&mut transaction, &Event::new("order.placed", 17)?).await?;
/// transaction.commit().await?;
/// # Ok(())
/// # }
/// ```
pub async fn publish_in(
    connection: &mut PgConnection,
    publication: impl Into<Publication>,
) -> Result<Published, PublishInError> {
    const PUBLISH: &str = "SELECT status, deliveries, body_bytes, max_body
        FROM webhooks.publish_event($1, $2::text::json, $3::text::json, $4, $5, $6, $7, $8, $9,
                                    $10, $11)";
    let event = publication.into().into_serialized();
    event.check_labels()?;
    let SerializedEvent { id, tenant, body, channels, tags, deliver_at, only, trace, .. } = event;
    let event = Event::from_stored(&body, tenant);
    let event = event.map_err(|error| sqlx::Error::Encode(error.into()))?;
    let source = event.source.as_ref().map(serde_json::to_string).transpose();
    let row = sqlx::query(PUBLISH)
        .bind(event.event_type.as_str())
        .bind(event.payload.as_str())
        .bind(source.map_err(|error| sqlx::Error::Encode(error.into()))?)
        .bind(id.to_string())
        .bind(event.tenant.as_str())
        .bind(At(event.timestamp))
        .bind(channels.iter().map(Channel::as_str).collect::<Vec<_>>())
        .bind(tags.iter().map(Tag::as_str).collect::<Vec<_>>())
        .bind(deliver_at.map(At))
        .bind(only.map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>()))
        .bind(trace.map(|trace| trace.to_string()))
        .fetch_one(connection)
        .await?;
    let size = |column| -> Result<usize, sqlx::Error> {
        Ok(usize::try_from(count(row.try_get(column)?)).unwrap_or(usize::MAX))
    };
    let status = match row.try_get(0)? {
        "created" => PublishStatus::Created,
        "duplicate" => PublishStatus::Duplicate,
        "conflict" => return Err(Conflict { event: id }.into()),
        "too far ahead" => return Err(PublishInError::TooFarAhead),
        "too large" => return Err(PublishInError::TooLarge { len: size(2)?, max: size(3)? }),
        _ => return Err(BadRow::of("the status of a publish").in_column(0).into()),
    };
    Ok(Published { event: id, deliveries: size(1)?, status })
}
