//! The same as `outbox` in plain SQL, for programs with diesel, tokio-postgres or another language:
//! they only need the function `webhooks.publish`.
//!
//! ```sh
//! cargo run -p webhooks-postgres --example outbox_sql -- postgres://localhost/shop
//! ```
#![expect(clippy::print_stdout, reason = "an example")]

use std::error::Error;

use sqlx::{Connection as _, PgConnection};
use webhooks_postgres::PostgresStore;

/// The same statements work in psql.
const PLACE_ORDER: &str = "
    BEGIN;
    INSERT INTO orders (id) VALUES (18);
    SELECT webhooks.publish(
        'order.placed',
        json_build_object('order_id', 18),
        source => 'shop',
        id => 'order-18-placed');
    COMMIT;
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Some(database) = std::env::args().nth(1) else {
        println!("usage: outbox_sql DATABASE");
        return Ok(());
    };
    // Makes the schema, if that has not been done.
    PostgresStore::open(&database).await?.close().await;
    let mut connection = PgConnection::connect(&database).await?;
    let create = "CREATE TABLE IF NOT EXISTS orders (id bigint PRIMARY KEY)";
    sqlx::query(create).execute(&mut connection).await?;
    match sqlx::raw_sql(PLACE_ORDER).execute(&mut connection).await {
        Ok(_) => println!("order 18 is placed, and its event will be sent"),
        Err(error) => println!("neither is there: {error}"),
    }
    Ok(())
}
