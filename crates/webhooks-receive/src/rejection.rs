//! The reasons to refuse a request, and the answers to its sender.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::error::Category;
use thiserror::Error;

use crate::error::BoxError;
use crate::seen::SeenError;

/// How long a sender is asked to wait, in seconds, after a failure on this side.
const RETRY_SECONDS: u64 = 5;

/// The reason why a webhook did not reach its handler.
///
/// The sender gets a status and its name, and no more; the rest is for your log. Layers add the
/// rejection to the extensions of their response, as `Arc<Rejection>`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The headers break the scheme's grammar: 400.
    #[error("the webhook is malformed")]
    Malformed {
        /// The error in the headers.
        source: webhooks_sign::Error,
    },
    /// The body broke off: 400.
    #[error("the body broke off")]
    Interrupted {
        /// The error of the server.
        source: BoxError,
    },
    /// The body is not the JSON that is expected: 400.
    #[error("the body is not the JSON that is expected")]
    InvalidJson {
        /// The place and kind of the error.
        source: JsonError,
    },
    /// The signature is forged, or the webhook is stale: 401.
    #[error("the webhook is not authentic")]
    Unauthentic {
        /// The error that says which of the two.
        source: webhooks_sign::Error,
    },
    /// The request names an unknown tenant: 401, as for a wrong signature.
    #[error("the tenant is unknown")]
    UnknownTenant,
    /// The lookup found keys for another algorithm, or without the URL that is signed: 401, as for a
    /// wrong signature, since another status would show which tenants exist.
    #[error("the keys of the tenant {tenant:?} do not suit the scheme")]
    TenantKeys {
        /// The tenant.
        tenant: Arc<str>,
        /// The error of the verification.
        source: webhooks_sign::Error,
    },
    /// A handshake's token or origin is not the one expected: 403.
    #[error("the handshake is refused")]
    Handshake,
    /// The method is not allowed: 405, with the allowed methods.
    #[error("the method is not one of {allowed:?}")]
    Method {
        /// The allowed methods.
        allowed: Arc<[Method]>,
    },
    /// The body did not arrive in time: 408.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// The same webhook is being handled: 409, with the time after which to try again.
    #[error("the same webhook is being handled")]
    InProgress {
        /// How long until the lease of the running handler ends, if all clocks agree.
        retry_after: Duration,
    },
    /// The body is larger than the limit: 413.
    #[error("the body has more than {max} bytes; `Receiver::max_body` allows more")]
    TooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// The body is a form, and JSON is expected: 415. GitHub's default is a form.
    #[error("the body is a form: set the sender's content type to application/json")]
    Form,
    /// The content type is not JSON: 415.
    #[error("the content type is not JSON; `Receiver::json_of_any_type` accepts any type")]
    ContentType,
    /// The receiver or the guard is set up wrongly: 500.
    #[error("the receiver or its guard is set up wrongly")]
    Misuse {
        /// The error in the setup.
        source: MisuseError,
    },
    /// The keys could not be looked up: 503.
    #[error("the keys could not be looked up")]
    KeyLookupFailed {
        /// The error of the lookup.
        source: BoxError,
    },
    /// The seen store failed, so the handler was not run: 503.
    #[error("the seen store failed")]
    SeenStoreFailed {
        /// The error of the store.
        source: SeenError,
    },
    /// The handler took longer than its lease and was dropped, and its claim released: 503.
    #[error("the handler took longer than its lease of {lease:?}")]
    LeaseEnded {
        /// The lease.
        lease: Duration,
    },
    /// The same webhook was being handled when this one came, and that run failed: the status of that
    /// run, which is the handler's, or 503.
    #[error("an earlier run for the same webhook failed with {status}")]
    EarlierRunFailed {
        /// The status of that run.
        status: StatusCode,
    },
}

/// The error in the setup of a receiver or guard.
#[derive(Debug, Clone, Copy, Error)]
#[non_exhaustive]
pub enum MisuseError {
    /// The keys do not suit the scheme, or lack the URL that is signed.
    #[error("the keys do not suit the receiver's scheme")]
    Scheme {
        /// The error of the verification.
        source: webhooks_sign::Error,
    },
    /// The guard was made for another receiver than the one that verified the webhook.
    #[error("this webhook was verified by another receiver than the guard's")]
    OtherReceiver,
    /// The receiver's tolerance was widened after the guard was made, so that an id would be forgotten
    /// while its webhook still passes.
    #[error("the receiver's tolerance is longer than the guard remembers ids")]
    Tolerance,
}

impl Rejection {
    /// Returns the status for the sender.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed { .. } | Self::Interrupted { .. } | Self::InvalidJson { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::Unauthentic { .. } | Self::UnknownTenant | Self::TenantKeys { .. } => {
                StatusCode::UNAUTHORIZED
            }
            Self::Handshake => StatusCode::FORBIDDEN,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::InProgress { .. } => StatusCode::CONFLICT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Form | Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Misuse { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::KeyLookupFailed { .. }
            | Self::SeenStoreFailed { .. }
            | Self::LeaseEnded { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::EarlierRunFailed { status } => *status,
        }
    }

    /// Returns the name of the rejection in snake case, for metrics. If verification refused, it is the
    /// name of the [`Error`](webhooks_sign::Error).
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed { source } | Self::Unauthentic { source } => source.name(),
            Self::Interrupted { .. } => "interrupted",
            Self::InvalidJson { .. } => "invalid_json",
            Self::UnknownTenant => "unknown_tenant",
            Self::TenantKeys { .. } => "tenant_keys",
            Self::Handshake => "handshake",
            Self::Method { .. } => "method",
            Self::TimedOut => "timed_out",
            Self::InProgress { .. } => "in_progress",
            Self::TooLarge { .. } => "too_large",
            Self::Form => "form",
            Self::ContentType => "content_type",
            Self::Misuse { .. } => "misuse",
            Self::KeyLookupFailed { .. } => "key_lookup_failed",
            Self::SeenStoreFailed { .. } => "seen_store_failed",
            Self::LeaseEnded { .. } => "lease_ended",
            Self::EarlierRunFailed { .. } => "earlier_run_failed",
        }
    }

    /// Returns the response for the sender: the status and its name, and if it helps, when to try
    /// again or which methods are allowed.
    pub fn to_response(&self) -> Response<Full<Bytes>> {
        let status = self.status();
        let text = status.canonical_reason().unwrap_or("Refused");
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, plain);
        if let Some(seconds) = self.retry_seconds() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        // RFC 9110 §15.5.6: "The origin server MUST generate an Allow header field".
        if let Some(allowed) = self.allowed() {
            response.headers_mut().insert(ALLOW, allowed);
        }
        response
    }

    fn allowed(&self) -> Option<HeaderValue> {
        let Self::Method { allowed } = self else { return None };
        let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        HeaderValue::try_from(names.join(", ")).ok()
    }

    fn retry_seconds(&self) -> Option<u64> {
        match self {
            // Rounded up: an attempt that comes a moment too early would be refused again.
            Self::InProgress { retry_after } => {
                let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                Some(seconds.max(1))
            }
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => Some(RETRY_SECONDS),
            _ => None,
        }
    }
}

/// The place where a body is not the expected JSON. It does not show the text there, which is the
/// content of the webhook.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} at line {line} column {column}")]
#[non_exhaustive]
pub struct JsonError {
    /// The kind of the error: in the syntax, or in the data.
    pub what: &'static str,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
}

impl JsonError {
    /// Returns the error of a body that is compressed, which is then the cause.
    pub(crate) fn of_encoded(self) -> Self {
        Self {
            what: "a compressed body, which nothing between receiver and handler decompresses,",
            ..self
        }
    }
}

impl From<&serde_json::Error> for JsonError {
    fn from(error: &serde_json::Error) -> Self {
        let what = match error.classify() {
            Category::Data => "a value of another type or name than expected",
            Category::Eof => "the text ends too soon",
            Category::Io | Category::Syntax => "no JSON",
        };
        Self { what, line: error.line(), column: error.column() }
    }
}

impl From<webhooks_sign::Error> for Rejection {
    fn from(source: webhooks_sign::Error) -> Self {
        match source {
            _ if source.is_misuse() => Self::Misuse { source: MisuseError::Scheme { source } },
            _ if source.is_malformed() => Self::Malformed { source },
            _ => Self::Unauthentic { source },
        }
    }
}

impl From<SeenError> for Rejection {
    fn from(source: SeenError) -> Self {
        Self::SeenStoreFailed { source }
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for Rejection {
    fn into_response(self) -> axum::response::Response {
        let mut response = self.to_response().map(axum::body::Body::new);
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}
