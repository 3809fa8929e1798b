//! The errors of the API, in the form that client libraries of Svix read.

use std::fmt;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use webhooks_admin::{AdminError, Denial, FieldError, check_name};
use webhooks_dispatch::PublishError;
use webhooks_dispatch::store::{OperationError, StoreError};
use webhooks_registry::store::EndpointStoreError;
use webhooks_registry::{EndpointError, RegisterError};

/// The time after which a caller should try again when the store is away.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The time after which a caller should try again when there are too many requests.
const RETRY_BUSY: Duration = Duration::from_secs(1);

/// The text about an iterator that is none.
pub(crate) const NO_PAGE: &str = "no page of this list has it; give the iterator or prevIterator of another page of \
                                  the same list, or none for the first page";

/// An error of the API. Its text never holds a secret of the request.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
    /// The time after which the caller should try again.
    retry_after: Option<Duration>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ErrorBody {
    Plain(PlainError),
    Fields(FieldErrors),
}

/// An error of a request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlainError {
    /// The word by which programs tell errors apart, such as `not_found`.
    code: &'static str,
    /// The reason, for people.
    detail: String,
}

/// An error of fields of a request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldErrors {
    /// The field that is not valid: always one.
    #[schema(value_type = Vec<FieldFault>)]
    detail: [FieldFault; 1],
}

/// A field of a request that is not valid.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldFault {
    /// The way to the field: `body`, `path` or `query`, and then names and numbers.
    loc: Vec<String>,
    /// The reason, for people. It never holds a secret.
    msg: String,
    /// The kind of the fault: `value_error`, `value_error.missing` or `value_error.json`.
    r#type: &'static str,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let body = ErrorBody::Plain(PlainError { code, detail });
        Self { status, body, retry_after: None }
    }

    pub(crate) fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "authentication_failed", detail)
    }

    /// Returns the error for something that is not there.
    pub(crate) fn unknown(thing: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("There is no such {thing}."))
    }

    /// Returns the error for a path without a route.
    pub(crate) fn unknown_path() -> Self {
        let detail = "There is no such path; /docs lists all.";
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// Returns the error for a delivery with another status than those that the caller named.
    pub(crate) fn other_status(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "other_status", detail)
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    pub(crate) fn too_large(max: usize) -> Self {
        let detail = format!("The body has more than {max} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
    }

    pub(crate) fn unavailable() -> Self {
        let detail = "The store is not available, and the request was not finished; try again.";
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        Self { retry_after: Some(RETRY_AFTER), ..error }
    }

    pub(crate) fn no_worker() -> Self {
        let detail = "No worker runs in this process, although one was started.";
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_worker", detail);
        Self { retry_after: Some(RETRY_AFTER), ..error }
    }

    /// Logs an error that the caller can do nothing about.
    fn failed(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a request failed");
        Self::unavailable()
    }

    pub(crate) fn too_many(wait: Duration) -> Self {
        let detail =
            "The application publishes faster than its throttleRate. Nothing was published.";
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail);
        Self { retry_after: Some(wait), ..error }
    }

    /// Returns the error for an application whose messages of the day are used up.
    pub(crate) fn used_up(most: u64, rest: Duration) -> Self {
        let detail =
            format!("The application has published its {most} messages of this day (UTC).");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", detail);
        Self { retry_after: Some(rest), ..error }
    }

    /// Returns the error for something that this service deliberately does not have.
    pub(crate) fn not_implemented(thing: &str) -> Self {
        let detail = format!(
            "This service does not offer {thing}. Its operations are listed in /api/v1/openapi.json."
        );
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", detail)
    }

    /// Returns the error for an address whose keys were refused too often. It does not say whether this key is
    /// known.
    pub(crate) fn too_many_refusals(wait: Duration) -> Self {
        let detail = "Too many keys of this address were refused; try again later.";
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail);
        Self { retry_after: Some(wait), ..error }
    }

    /// Returns the error for a request beyond those that are in work.
    pub(crate) fn busy() -> Self {
        let detail = "Too many requests are in work, and this one was not begun; try again.";
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
        Self { retry_after: Some(RETRY_BUSY), ..error }
    }

    pub(crate) fn too_slow() -> Self {
        let detail = "The body took too long to arrive.";
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
    }

    pub(crate) fn is_unauthenticated(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    pub(crate) fn method_not_allowed() -> Self {
        let detail = "This path has no such method; the header Allow names those that it has.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    /// Returns the error of a field, by the way to it.
    pub(crate) fn field(
        loc: impl IntoIterator<Item = impl Into<String>>,
        reason: impl fmt::Display,
        kind: &'static str,
    ) -> Self {
        let loc = loc.into_iter().map(Into::into).collect();
        let detail = [FieldFault { loc, msg: reason.to_string(), r#type: kind }];
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            body: ErrorBody::Fields(FieldErrors { detail }),
            retry_after: None,
        }
    }

    /// Returns the error of a field of one message of several, by its number from 0.
    pub(crate) fn in_message(mut self, number: usize) -> Self {
        if let ErrorBody::Fields(FieldErrors { detail: [fault] }) = &mut self.body {
            fault.loc.insert(fault.loc.len().min(1), number.to_string());
        }
        self
    }

    /// Returns the error with another field of the body in place of its own.
    pub(crate) fn in_field(mut self, name: &str) -> Self {
        if let ErrorBody::Fields(FieldErrors { detail: [fault] }) = &mut self.body {
            fault.loc = vec!["body".to_owned(), name.to_owned()];
        }
        self
    }

    /// Checks a name in the path that a new thing is made for.
    pub(crate) fn check_path(parameter: &'static str, name: &str) -> Result<(), Self> {
        let checked = check_name(parameter, name);
        checked.map_err(|error| Self::field(["path", parameter], error.reason, "value_error"))
    }

    /// Returns the error of a value in the body.
    pub(crate) fn value(name: &str, reason: impl fmt::Display) -> Self {
        Self::field(["body", name], reason, "value_error")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(wait) = self.retry_after {
            // Whole seconds, at least one (RFC 9110 §10.2.3).
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §11.6.1 asks for it.
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        Self::value(error.field, error.reason)
    }
}

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Exists { kind, field, name } => Self::conflict(format!(
                "Another {} has the {field} {name:?}; choose another {field}, or change that one.",
                kind.thing()
            )),
            AdminError::NotFound(kind) => Self::unknown(kind.thing()),
            AdminError::NoPage => no_page(),
            AdminError::Changed => Self::conflict("It was changed at the same time; try again."),
            AdminError::Invalid(error) => error.into(),
            error => Self::failed(&error),
        }
    }
}

impl From<Denial> for ApiError {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::OtherApplication => Self::unknown("application"),
            denial => {
                let detail = format!("Not allowed: {denial}.");
                Self::new(StatusCode::FORBIDDEN, "insufficient access", detail)
            }
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::failed(&error)
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Conflict(_) => {
                Self::conflict("A message with this eventId or idempotency key has other content.")
            }
            PublishError::Endpoint { source } => source.into(),
            PublishError::Labels(error) => Self::value("channels", error),
            PublishError::TooFarAhead => Self::value("deliverAt", error),
            PublishError::TooLarge { max, .. } => Self::too_large(max),
            PublishError::Store(error) => error.into(),
            error => Self::failed(&error),
        }
    }
}

impl From<OperationError> for ApiError {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Store(error) => error.into(),
            OperationError::UnknownEvent { .. } => Self::unknown("message"),
            OperationError::UnknownEndpoint { .. } => Self::unknown("endpoint"),
            OperationError::UnknownDelivery { .. } => Self::unknown("delivery"),
            OperationError::DisabledEndpoint { .. } => {
                Self::conflict("The endpoint is disabled; enable it first.")
            }
            error => Self::conflict(format!("Not done: {error}.")),
        }
    }
}

impl From<EndpointStoreError> for ApiError {
    fn from(error: EndpointStoreError) -> Self {
        match error {
            EndpointStoreError::Register(RegisterError::Endpoint(error)) => error.into(),
            EndpointStoreError::Register(error) => Self::value("url", error),
            EndpointStoreError::Refused { source } => Self::value("url", with_causes(&*source)),
            EndpointStoreError::Unknown(_) => Self::unknown("endpoint"),
            EndpointStoreError::Changed { .. } => {
                Self::conflict("It was changed at the same time; try again.")
            }
            error => Self::failed(&error),
        }
    }
}

impl From<EndpointError> for ApiError {
    fn from(error: EndpointError) -> Self {
        let name = match &error {
            EndpointError::Authorization | EndpointError::Header(_) | EndpointError::UserName => {
                "headers"
            }
            EndpointError::Channels(_) => "channels",
            EndpointError::Secret(_)
            | EndpointError::TooManySecrets
            | EndpointError::ProfileNeedsStandardSecret { .. } => "secret",
            EndpointError::Subscription(_) | EndpointError::TooManySubscriptions => "eventTypes",
            EndpointError::OutOfRange { setting, .. } => setting,
            _ => "url",
        };
        Self::value(name, with_causes(&error))
    }
}

/// Returns the error for an iterator that is none.
pub(crate) fn no_page() -> ApiError {
    ApiError::bad_request(format!("iterator: {NO_PAGE}."))
}

/// Returns an error and its causes on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
