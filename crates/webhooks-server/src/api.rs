//! The operations of the API, by what they are about.

mod application;
mod attempt;
mod attempt_feed;
mod attempt_out;
mod audit;
mod batch;
mod broadcast;
mod cloud_event;
mod content;
mod delivery_settings;
mod endpoint;
mod endpoint_access;
mod endpoint_headers;
mod endpoint_health;
mod endpoint_in;
mod endpoint_secret;
mod environment;
mod event_type;
mod event_type_openapi;
mod example;
mod feed;
mod health;
mod key;
mod limits;
mod message;
mod message_out;
mod operate;
mod operational_endpoint;
mod poller;
mod poller_attempt;
mod poller_read;
mod portal;
mod retry_schedule;
mod scrape;
mod search;
mod statistics;
mod status;
mod task;
mod test_attempt;

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
        .routes(routes!(portal::exchange))
        .routes(routes!(key::create_for_messages))
        .routes(routes!(event_type_openapi::import))
        .routes(routes!(event_type_openapi::export))
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
        .routes(routes!(broadcast::create))
        .routes(routes!(
            endpoint_access::read_oauth,
            endpoint_access::set_oauth,
            endpoint_access::delete_oauth
        ))
        .routes(routes!(endpoint_access::read_oauth_state))
        .routes(routes!(
            endpoint_access::read_mtls,
            endpoint_access::set_mtls,
            endpoint_access::delete_mtls
        ))
        .routes(routes!(endpoint_access::read_mtls_state))
        .routes(routes!(endpoint_access::read_ca, endpoint_access::set_ca))
        .routes(routes!(limits::read, limits::replace, limits::delete))
        .routes(routes!(retry_schedule::read, retry_schedule::replace))
        .routes(routes!(poller_read::events))
        .routes(routes!(poller_read::operational_events))
        .routes(routes!(poller_read::poll))
        .routes(routes!(poller_read::consume))
        .routes(routes!(poller_read::seek))
        .routes(routes!(poller_read::lease))
        .routes(routes!(poller_read::commit))
        .routes(routes!(poller::list, poller::create))
        .routes(routes!(poller::read, poller::replace, poller::delete))
        .routes(routes!(poller::rotate))
        .routes(routes!(poller_attempt::report))
        .routes(routes!(poller_attempt::list))
        .routes(routes!(content::precheck))
        .routes(routes!(content::expunge))
        .routes(routes!(content::raw))
        .routes(routes!(content::attempt_headers))
        .routes(routes!(content::expunge_all))
        .routes(routes!(search::search))
        .routes(routes!(test_attempt::send))
        .routes(routes!(operate::rate_limit))
        .routes(routes!(endpoint_health::read))
        .routes(routes!(attempt::count_of_endpoint))
        .routes(routes!(attempt_feed::ended))
        .routes(routes!(operate::cancel))
        .routes(routes!(environment::settings))
        .routes(routes!(environment::export))
        .routes(routes!(environment::import))
        .merge(counts())
        .merge(operational())
}

/// Returns the routes of statistics.
fn counts() -> OpenApiRouter<Service> {
    OpenApiRouter::default()
        .routes(routes!(statistics::app_attempts))
        .routes(routes!(statistics::attempts_by_event_type))
        .routes(routes!(statistics::active_apps))
        .routes(routes!(statistics::endpoints))
        .routes(routes!(statistics::usage))
        .routes(routes!(statistics::event_types))
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
