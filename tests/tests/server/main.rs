//! The service, over real connections, on each store.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test")]

/// Runs a behaviour on each store.
macro_rules! on_each_store {
    ($($name:ident;)*) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                super::behaviour::$name(crate::running::Running::start(crate::running::Kind::Sqlite).await).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                super::behaviour::$name(crate::running::Running::start(crate::running::Kind::Postgres).await).await;
            }
        })*
    };
}

mod access;
mod api;
mod attempt_feed;
mod background_jobs;
mod catching_up;
mod clients;
mod cloud;
mod cloud_events;
mod content_ends;
mod errors;
mod event_types;
mod faults;
mod guide;
mod idempotency;
mod jwt;
mod killed;
mod left_changes;
mod life;
mod limits;
mod more;
mod openapi;
mod operational;
mod pollers;
mod resend;
mod running;
mod schemathesis;
mod sessions;
mod settings;
mod spans;
mod store_lost;
mod telemetry;
mod tls;
mod trace;
