//! The operations of the API, by what they are about.

mod application;
mod attempt;
mod attempt_out;
mod audit;
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
mod operational_endpoint;
mod portal;
mod scrape;
mod status;
mod task;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::service::Service;

/// Returns the routes of all operations. The operations of one path are named together.
pub(crate) fn routes() -> OpenApiRouter<Service> {
    OpenApiRouter::default()
        .routes(routes!(health::check))
        .routes(routes!(health::ping))
        .routes(routes!(application::list, application::create))
        .routes(routes!(
            application::read,
            application::replace,
            application::patch,
            application::delete
        ))
        .routes(routes!(event_type::list, event_type::create))
        .routes(routes!(
            event_type::read,
            event_type::replace,
            event_type::patch,
            event_type::delete
        ))
        .routes(routes!(endpoint::list, endpoint::create))
        .routes(routes!(endpoint::read, endpoint::replace, endpoint::patch, endpoint::delete))
        .routes(routes!(endpoint_headers::read, endpoint_headers::replace, endpoint_headers::patch))
        .routes(routes!(endpoint_secret::read))
        .routes(routes!(endpoint_secret::rotate))
        .routes(routes!(operate::stats))
        .routes(routes!(task::recover))
        .routes(routes!(example::send))
        .routes(routes!(attempt::messages_of_endpoint))
        .routes(routes!(message::list, message::create))
        .routes(routes!(message::read))
        .routes(routes!(message::expunge))
        .routes(routes!(attempt::endpoints_of_message))
        .routes(routes!(operate::resend))
        .routes(routes!(attempt::read))
        .routes(routes!(attempt::expunge))
        .routes(routes!(attempt::of_endpoint))
        .routes(routes!(attempt::of_message))
        .routes(routes!(portal::access))
        .routes(routes!(portal::logout))
        .merge(more())
}

/// Returns the routes of operations that Svix has in its cloud alone.
fn more() -> OpenApiRouter<Service> {
    OpenApiRouter::default()
        .routes(routes!(audit::list))
        .routes(routes!(scrape::scrape))
        .routes(routes!(portal::whoami))
        .routes(routes!(key::expire_sessions))
        .routes(routes!(key::list, key::create))
        .routes(routes!(key::read, key::rename))
        .routes(routes!(key::expire))
        .routes(routes!(task::list))
        .routes(routes!(task::show))
        .routes(routes!(task::replay_missing))
        .routes(routes!(task::bulk_replay))
        .routes(routes!(task::cancel))
        .routes(routes!(batch::create))
        .routes(routes!(content::precheck))
        .routes(routes!(content::expunge))
        .routes(routes!(content::raw))
        .routes(routes!(content::attempt_headers))
        .merge(operational())
}

/// Returns the routes of operational endpoints.
fn operational() -> OpenApiRouter<Service> {
    OpenApiRouter::default()
        .routes(routes!(operational_endpoint::list, operational_endpoint::create))
        .routes(routes!(
            operational_endpoint::read,
            operational_endpoint::replace,
            operational_endpoint::delete
        ))
        .routes(routes!(operational_endpoint::secret))
        .routes(routes!(operational_endpoint::rotate))
        .routes(routes!(operational_endpoint::headers, operational_endpoint::replace_headers))
}
