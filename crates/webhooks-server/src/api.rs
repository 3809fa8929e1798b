//! The operations of the API, by what they are about.

mod application;
mod attempt;
mod attempt_out;
mod batch;
mod content;
mod endpoint;
mod endpoint_headers;
mod endpoint_in;
mod endpoint_secret;
mod event_type;
mod example;
mod health;
mod key;
mod message;
mod message_out;
mod operate;
mod portal;
mod scrape;
mod status;
mod task;

use axum::Router;
use axum::routing::{delete, get, post};

use crate::service::Service;

/// Returns the routes of all operations.
pub(crate) fn routes() -> Router<Service> {
    const APP: &str = "/api/v1/app/{app_id}";
    const ENDPOINT: &str = "/api/v1/app/{app_id}/endpoint/{endpoint_id}";
    const MESSAGE: &str = "/api/v1/app/{app_id}/msg/{msg_id}";
    let at = |base: &str, rest: &str| format!("{base}{rest}");
    Router::new()
        .route("/api/v1/health", get(health::check))
        .route("/api/v1/health/ping", get(health::ping))
        .route("/api/v1/app", get(application::list).post(application::create))
        .route(
            APP,
            get(application::read)
                .put(application::replace)
                .patch(application::patch)
                .delete(application::delete),
        )
        .route("/api/v1/event-type", get(event_type::list).post(event_type::create))
        .route(
            "/api/v1/event-type/{event_type_name}",
            get(event_type::read)
                .put(event_type::replace)
                .patch(event_type::patch)
                .delete(event_type::delete),
        )
        .route(&at(APP, "/endpoint"), get(endpoint::list).post(endpoint::create))
        .route(
            ENDPOINT,
            get(endpoint::read)
                .put(endpoint::replace)
                .patch(endpoint::patch)
                .delete(endpoint::delete),
        )
        .route(
            &at(ENDPOINT, "/headers"),
            get(endpoint_headers::read)
                .put(endpoint_headers::replace)
                .patch(endpoint_headers::patch),
        )
        .route(&at(ENDPOINT, "/secret"), get(endpoint_secret::read))
        .route(&at(ENDPOINT, "/secret/rotate"), post(endpoint_secret::rotate))
        .route(&at(ENDPOINT, "/stats"), get(operate::stats))
        .route(&at(ENDPOINT, "/recover"), post(task::recover))
        .route(&at(ENDPOINT, "/send-example"), post(example::send))
        .route(&at(ENDPOINT, "/msg"), get(attempt::messages_of_endpoint))
        .route(&at(APP, "/msg"), get(message::list).post(message::create))
        .route(MESSAGE, get(message::read))
        .route(&at(MESSAGE, "/content"), delete(message::expunge))
        .route(&at(MESSAGE, "/endpoint"), get(attempt::endpoints_of_message))
        .route(&at(MESSAGE, "/endpoint/{endpoint_id}/resend"), post(operate::resend))
        .route(&at(MESSAGE, "/attempt/{attempt_id}"), get(attempt::read))
        .route(&at(MESSAGE, "/attempt/{attempt_id}/content"), delete(attempt::expunge))
        .route(&at(APP, "/attempt/endpoint/{endpoint_id}"), get(attempt::of_endpoint))
        .route(&at(APP, "/attempt/msg/{msg_id}"), get(attempt::of_message))
        .route("/api/v1/auth/app-portal-access/{app_id}", post(portal::access))
        .route("/api/v1/auth/logout", post(portal::logout))
        .merge(more())
}

/// Returns the routes of operations that Svix has in its cloud alone.
fn more() -> Router<Service> {
    const APP: &str = "/api/v1/app/{app_id}";
    const KEYS: &str = "/api/v1/management/authentication/{environment_id}/api-token";
    let at = |base: &str, rest: &str| format!("{base}{rest}");
    Router::new()
        .route("/metrics", get(scrape::scrape))
        .route("/api/v1/auth/whoami", get(portal::whoami))
        .route("/api/v1/auth/app/{app_id}/expire-all", post(key::expire_sessions))
        .route(KEYS, get(key::list).post(key::create))
        .route(&at(KEYS, "/{key_id}"), get(key::read).put(key::rename).patch(key::rename))
        .route(&at(KEYS, "/{key_id}/expire"), post(key::expire))
        .route("/api/v1/background-task", get(task::list))
        .route("/api/v1/background-task/{task_id}", get(task::show))
        .route(&at(APP, "/endpoint/{endpoint_id}/replay-missing"), post(task::replay_missing))
        .route(&at(APP, "/endpoint/{endpoint_id}/bulk-replay"), post(task::bulk_replay))
        .route(&at(APP, "/endpoint/{endpoint_id}/cancel-msgs"), post(task::cancel))
        .route(&at(APP, "/msg/batch"), post(batch::create))
        .route(&at(APP, "/msg/precheck/active"), post(content::precheck))
        .route(&at(APP, "/msg/bulk-expunge"), post(content::expunge))
        .route(&at(APP, "/msg/{msg_id}/raw"), get(content::raw))
        .route(
            &at(APP, "/msg/{msg_id}/attempt/{attempt_id}/headers"),
            get(content::attempt_headers),
        )
}
