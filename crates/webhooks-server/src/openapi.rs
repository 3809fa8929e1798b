//! The OpenAPI document, made of the routes themselves.

use std::borrow::Cow;
use std::sync::LazyLock;

use axum::extract::State;
use axum::response::{Html, IntoResponse};
use http::header;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{InfoBuilder, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api;
use crate::document::complete;
use crate::reference::page;
use crate::service::Service;

const TAGS: [(&str, &str); 15] = [
    ("Application", "The customers of the service, each with endpoints and messages of its own."),
    ("Endpoint", "The URLs to which the messages of an application go."),
    ("Event Type", "The kinds of messages, with schemas."),
    ("Message", "The events that are sent to endpoints."),
    ("Poller", "Readers that pull messages instead of getting them at a URL."),
    ("Message Attempt", "Deliveries of messages to endpoints, and the attempts at them."),
    ("Authentication", "Sessions for the people of an application."),
    ("API Key", "Keys for programs, with roles."),
    ("Statistics", "Counts of attempts, deliveries, applications and endpoints."),
    ("Environment", "The service as a whole."),
    ("Audit Log", "Changes, and who made them."),
    ("Webhook Endpoint", "The URLs to which the service sends what happens in it."),
    ("Background Task", "Replays of many messages, which go on after the answer."),
    ("Health", "Whether the service is well."),
    ("Documentation", "This document."),
];

/// The document in the forms in which it is served, made when it is first asked for.
static DOCUMENT: LazyLock<Document> = LazyLock::new(|| {
    let document = routes().into_openapi();
    let value = serde_json::to_value(&document).unwrap_or_default();
    Document { json: value.to_string(), page: page(&value) }
});

/// The document as JSON and as a page.
struct Document {
    json: String,
    page: String,
}

/// Returns all routes. There is none that the document does not have, since it is made of them.
pub(crate) fn routes() -> OpenApiRouter<Service> {
    let info = InfoBuilder::new()
        .title("Webhook service")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Sends the messages of applications to their endpoints."));
    let tags =
        TAGS.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build());
    let document = OpenApiBuilder::new().info(info).tags(Some(tags)).build();
    let mut routes = OpenApiRouter::with_openapi(document)
        .merge(api::routes())
        .routes(routes!(read))
        .routes(routes!(read_page));
    complete(routes.get_openapi_mut());
    routes
}

/// Returns this document.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    operation_id = "v1.openapi.get", tag = "Documentation", security(()),
    responses((status = 200, body = Object, content_type = "application/json")),
)]
async fn read(State(service): State<Service>) -> impl IntoResponse {
    let (json, base) = (DOCUMENT.json.as_str(), &service.settings().base_path);
    let json = match json.strip_prefix('{') {
        // Programs find the paths under it. Its characters need no escape.
        Some(rest) if !base.is_root() => {
            Cow::Owned(format!("{{\"servers\":[{{\"url\":\"{base}\"}}],{rest}"))
        }
        _ => Cow::Borrowed(json),
    };
    ([(header::CONTENT_TYPE, "application/json")], json)
}

/// Returns this document as a page for people.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "docs.get", tag = "Documentation", security(()),
    responses((status = 200, body = String, content_type = "text/html; charset=utf-8")),
)]
async fn read_page() -> Html<&'static str> {
    Html(DOCUMENT.page.as_str())
}
