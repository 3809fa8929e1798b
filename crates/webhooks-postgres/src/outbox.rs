//! The transactional outbox: an event that is published if the caller's transaction is committed.

use sqlx::PgConnection;
use thiserror::Error;
use webhooks_core::Event;
use webhooks_dispatch::{Conflict, Published, SerializedEvent};

use crate::publication::Publication;

/// Says why an event was not published in a transaction.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishInError {
    /// The event's id stands for another event already. The transaction can go on.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The statement failed, and with it the transaction.
    #[error("cannot publish in the transaction")]
    Sql(#[from] sqlx::Error),
}

/// Publishes an event in the caller's own transaction: roll back, and nothing is sent; commit, and it
/// is delivered by whatever worker is there. The store must have been opened once before, which
/// makes its schema.
///
/// Publishing the same event again, by its id, does nothing and returns the first result. Whoever
/// publishes the same id at the same time waits until this transaction ends, so keep it short.
///
/// The event is accepted when the transaction is committed; its time of acceptance is that of the
/// call, by the database's clock.
///
/// # Errors
/// [`PublishInError`] when the event was not kept.
///
/// # Cancellation
/// A dropped future may or may not have published; the transaction decides.
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
    event: &Event,
) -> Result<Published, PublishInError> {
    let event = SerializedEvent::new(event);
    let publication = Publication { events: vec![(&event, None)], worker: None, offer: None };
    let mut kept = publication.publish(connection, true).await?;
    Ok(kept.outcomes.pop().ok_or(sqlx::Error::RowNotFound)??)
}
