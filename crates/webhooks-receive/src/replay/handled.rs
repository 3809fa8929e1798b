//! What handlers return, and what became of them.

use std::convert::Infallible;

use http::{Response, StatusCode};

use super::store::SeenError;
use crate::Rejection;

/// What became of a webhook that was not refused.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "it was handled now or before")]
pub enum RunOutcome<R> {
    /// The handler ran.
    Ran {
        /// What it returned.
        result: R,
        /// Whether the store took note. If it did not, a repetition runs the handler again as soon
        /// as the claim has ended.
        remembered: Result<(), SeenError>,
    },
    /// The webhook was handled before: answer 200.
    Duplicate,
}

impl<R: HandlerResult> RunOutcome<R> {
    /// Returns what to answer: the handler's status, or 200 for a repetition.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Ran { result, .. } => result.status(),
            Self::Duplicate => StatusCode::OK,
        }
    }
}

/// What a handler returns: it tells whether it succeeded, which a status of 2xx says.
///
/// A [`Rejection`] stands for its own status, so that `webhook.json()?` answers 400 or 415. Another
/// error needs a status too, since no error can be known to be the sender's fault or yours: map it,
/// `.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)`, or implement this for your own.
///
/// # Example
/// ```
/// use http::StatusCode;
/// use webhooks_receive::{HandlerResult, Rejection};
///
/// enum Failed {
///     Refused(Rejection),
///     Storage(std::io::Error),
/// }
///
/// impl HandlerResult for Failed {
///     fn status(&self) -> StatusCode {
///         match self {
///             Self::Refused(rejection) => rejection.status(),
///             Self::Storage(_) => StatusCode::SERVICE_UNAVAILABLE,
///         }
///     }
/// }
///
/// let result: Result<(), Failed> = Err(Failed::Refused(Rejection::ContentType));
/// assert_eq!(result.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not tell whether the handler succeeded: return a `Response`, a \
               `StatusCode`, a `Rejection`, or a `Result` of these, or implement `HandlerResult`"
)]
pub trait HandlerResult {
    /// Returns the status that it stands for.
    fn status(&self) -> StatusCode;
}

impl<B> HandlerResult for Response<B> {
    fn status(&self) -> StatusCode {
        self.status()
    }
}

impl HandlerResult for StatusCode {
    fn status(&self) -> StatusCode {
        *self
    }
}

impl HandlerResult for () {
    fn status(&self) -> StatusCode {
        StatusCode::OK
    }
}

impl HandlerResult for Infallible {
    fn status(&self) -> StatusCode {
        match *self {}
    }
}

impl HandlerResult for Rejection {
    fn status(&self) -> StatusCode {
        self.status()
    }
}

impl<T: HandlerResult, E: HandlerResult> HandlerResult for Result<T, E> {
    fn status(&self) -> StatusCode {
        self.as_ref().map_or_else(HandlerResult::status, HandlerResult::status)
    }
}
