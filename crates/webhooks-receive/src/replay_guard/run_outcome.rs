//! The results of handlers, and the outcome of a run.

use std::convert::Infallible;

use http::{Response, StatusCode};

use crate::rejection::Rejection;
use crate::seen::SeenError;

/// The outcome of a webhook that was not refused.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "the handler ran now or before")]
pub enum RunOutcome<R> {
    /// The handler ran.
    Ran {
        /// The result of the handler.
        result: R,
        /// An error if the store did not record the result. A duplicate then runs the handler again
        /// as soon as the claim has ended.
        remembered: Result<(), SeenError>,
    },
    /// The webhook was handled before: answer 200.
    Duplicate,
}

impl<R: HandlerResult> RunOutcome<R> {
    /// Returns what to answer: the handler's status, or 200 if the webhook is a duplicate.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Ran { result, .. } => result.status(),
            Self::Duplicate => StatusCode::OK,
        }
    }
}

/// The result of a handler, which is a success if its status is 2xx.
///
/// A [`Rejection`] has its own status, so that `webhook.json()?` answers 400 or 415. Any other error
/// needs a status too, since the guard cannot know whether it is the sender's fault or yours: map it,
/// `.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)`, or implement this trait for your own error.
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
    /// Returns the status to answer.
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
