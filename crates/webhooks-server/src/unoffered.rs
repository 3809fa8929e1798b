//! The operations of Svix's cloud that this service does not offer: a clear answer in place of 404.

use axum::extract::FromRequestParts as _;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};

use crate::auth::Caller;
use crate::error::ApiError;
use crate::service::Service;

/// The first parts of paths, with `*` for any one part, and the name of what is not offered there.
const UNOFFERED: [(&str, &str); 26] = [
    ("/api/v1/app/*/alert-email", "mail about an application"),
    ("/api/v1/app/*/auto-config", "automatic configuration of endpoints"),
    ("/api/v1/app/*/destination", "destinations other than HTTP endpoints"),
    ("/api/v1/app/*/endpoint/*/auto-config", "automatic configuration of endpoints"),
    ("/api/v1/app/*/endpoint/*/connector", "connectors"),
    ("/api/v1/app/*/endpoint/*/transformation", "transformations"),
    ("/api/v1/app/*/inbound", "inbound webhooks"),
    ("/api/v1/app/*/integration", "integrations"),
    ("/api/v1/app/*/stream", "streaming"),
    ("/api/v1/auth/app/*/mcp-token", "tokens for the Model Context Protocol"),
    (
        "/api/v1/auth/app/*/poller/*/token",
        "a second look at a key, since it stores hashes; make a new one with POST …/token/rotate",
    ),
    ("/api/v1/auth/dashboard", "tokens for the Model Context Protocol"),
    ("/api/v1/auth/org-group-admin-token", "groups of organizations"),
    ("/api/v1/auth/stream", "streaming"),
    ("/api/v1/auth/stream-logout", "streaming"),
    ("/api/v1/auth/stream-portal-access", "streaming"),
    ("/api/v1/billing", "billing"),
    ("/api/v1/connector", "connectors"),
    ("/api/v1/management/billing", "billing"),
    ("/api/v1/management/environment", "more than one environment"),
    (
        "/api/v1/management/environment-settings/customer-otel",
        "OpenTelemetry for the customers of an environment",
    ),
    ("/api/v1/management/environment-settings", "a change of settings while the service runs"),
    ("/api/v1/management/organization", "organizations"),
    ("/api/v1/stream", "streaming"),
    ("/ingest", "ingest"),
    ("/api/v1/ingest", "ingest"),
];

/// Answers requests to paths without a route.
pub(crate) async fn answer(State(service): State<Service>, request: Request) -> Response {
    let Some(thing) = unoffered(request.uri().path()) else {
        return ApiError::unknown_path().into_response();
    };
    let (mut parts, _body) = request.into_parts();
    match Caller::from_request_parts(&mut parts, &service).await {
        Ok(_) => ApiError::not_implemented(thing).into_response(),
        Err(error) => error.into_response(),
    }
}

/// Returns the name of what a path stands for, if it is not offered.
fn unoffered(path: &str) -> Option<&'static str> {
    let is_below =
        |pattern: &str| {
            let mut parts = path.split('/');
            pattern.split('/').all(|wanted| {
                parts.next().is_some_and(|part| {
                    if wanted == "*" { !part.is_empty() } else { part == wanted }
                })
            })
        };
    UNOFFERED.iter().find(|(pattern, _)| is_below(pattern)).map(|(_, thing)| *thing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_by_its_first_parts() {
        for (path, expected) in [
            ("/ingest/api/v1/source", Some("ingest")),
            ("/ingested", None),
            ("/api/v1/stream", Some("streaming")),
            ("/api/v1/stream/one/sink/two", Some("streaming")),
            ("/api/v1/app/shop/stream/sink", Some("streaming")),
            ("/api/v1/app/stream", None),
            ("/api/v1/app//stream", None),
            ("/api/v1/app/shop/endpoint/crm/transformation/simulate", Some("transformations")),
            ("/api/v1/app/shop/endpoint/crm/headers", None),
            ("/api/v1/management/environment/one", Some("more than one environment")),
            ("/", None),
        ] {
            assert_eq!(unoffered(path), expected, "{path}");
        }
    }
}
