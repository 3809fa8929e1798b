//! What a failed exchange means.

use std::error::Error;
use std::io;
use std::iter::successors;

use thiserror::Error;
use webhooks_dispatch::{ErrorClass, TransportError};

use crate::proxy::ProxyFailed;
use crate::resolve::ResolveError;

/// How far an exchange had come when it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There was no connection yet; it was being made to these addresses, as far as is known.
    Connecting { to: Option<String> },
    /// The request was on its way, or the response.
    Exchanging,
}

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// An error of the HTTP client, told to the owner of an endpoint.
#[derive(Debug, Error)]
#[error("{told}")]
struct Cause {
    told: String,
    error: BoxError,
}

/// Returns what a failure before or within the response's head means.
pub(crate) fn failed(error: BoxError, stage: &Stage) -> TransportError {
    let connecting = matches!(stage, Stage::Connecting { .. });
    let otherwise = if connecting { ErrorClass::Connect } else { ErrorClass::Other };
    let class = chain(&*error).find_map(|cause| classify(cause, connecting)).unwrap_or(otherwise);
    let told = match (own(&*error), stage, class) {
        (None, Stage::Connecting { to: Some(to) }, ErrorClass::Connect) => {
            let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
            let refused = chain(&*error).filter_map(<dyn Error>::downcast_ref).any(is_refused);
            if refused { format!("connection refused by {to}") } else { format!("no way to {to}") }
        }
        (None, Stage::Connecting { to: Some(to) }, ErrorClass::Timeout) => {
            format!("no connection to {to} in time")
        }
        _ => root(&*error),
    };
    TransportError::new(class).caused_by(Cause { told, error })
}

/// Returns whether the receiver says that it did not process the request.
///
/// RFC 9113 §8.7: "The GOAWAY frame indicates the highest stream number that might have been
/// processed. Requests on streams with higher numbers are therefore guaranteed to be safe to retry",
/// and so is what was reset by `REFUSED_STREAM`. Streams up to that number get another error. What
/// a receiver refuses for another reason, such as too many requests, is left to the next attempt.
pub(crate) fn is_unprocessed(error: &(dyn Error + 'static)) -> bool {
    chain(error).filter_map(<dyn Error>::downcast_ref::<h2::Error>).any(|error| {
        let reason = error.reason();
        let is_refused = error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM);
        let is_gone = error.is_go_away() && reason == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (is_refused || is_gone)
    })
}

/// Returns what a failure within a body that has to be read as a whole means.
pub(crate) fn body_failed(error: BoxError) -> TransportError {
    TransportError::new(ErrorClass::Body).caused_by(Cause { told: root(&*error), error })
}

/// Returns what the innermost error says: the layers above it say nothing to the owner of an
/// endpoint.
fn root(error: &(dyn Error + 'static)) -> String {
    let malformed = chain(error).filter_map(<dyn Error>::downcast_ref).find_map(malformed);
    let root = || own(error).or_else(|| chain(error).last()).map(ToString::to_string);
    malformed.map(str::to_owned).or_else(root).unwrap_or_default()
}

/// Returns what is wrong with a response of HTTP/1.1. The library's words are about its parser, and it
/// tells most kinds apart by them alone.
fn malformed(error: &hyper::Error) -> Option<&'static str> {
    if error.is_parse_status() {
        return Some("its status is no number of three digits");
    }
    Some(match error.to_string().as_str() {
        // A method tells it too, but in servers alone.
        "message head is too large" => "its headers are too many or too large",
        "invalid content-length parsed" => {
            "its content-length is not a number, or there are several"
        }
        "invalid HTTP header parsed" => "a header of it has a character that none may hold",
        "unexpected transfer-encoding parsed" | "invalid transfer-encoding parsed" => {
            "its transfer-encoding is not one that a client can read"
        }
        _ if error.is_parse() => "it does not begin as a response of HTTP/1.1 does",
        _ => return None,
    })
}

/// Returns the failure of our resolver or proxy, if it is one: what is behind it is the sender's
/// affair.
fn own<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    chain(error).find(|cause| cause.is::<ProxyFailed>() || cause.is::<ResolveError>())
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    successors(Some(error), |&error: &&'e (dyn Error + 'static)| {
        // An io::Error passes over what it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

fn classify(cause: &(dyn Error + 'static), connecting: bool) -> Option<ErrorClass> {
    if let Some(error) = cause.downcast_ref::<ResolveError>() {
        return Some(match error {
            ResolveError::Refused(_) => ErrorClass::Blocked,
            ResolveError::RefusedAddress(_) => ErrorClass::BlockedAddress,
            _ => ErrorClass::Dns,
        });
    }
    if cause.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout) {
        return Some(ErrorClass::Timeout);
    }
    if cause.is::<rustls::Error>() {
        return Some(ErrorClass::Tls);
    }
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        let is_cut = error.is_incomplete_message() || error.is_closed() || error.is_canceled();
        return match (error.is_parse(), is_cut) {
            (true, _) => Some(ErrorClass::Protocol),
            (_, true) => Some(ErrorClass::Reset),
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        // RST_STREAM and GOAWAY: the endpoint's, or the client's answer to frames that make no sense.
        return match (error.is_remote(), error.is_library()) {
            (true, _) => Some(ErrorClass::Reset),
            (_, true) => Some(ErrorClass::Protocol),
            _ => None,
        };
    }
    let error = cause.downcast_ref::<io::Error>()?;
    let is_cut = matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof
    );
    match error.kind() {
        io::ErrorKind::TimedOut => Some(ErrorClass::Timeout),
        _ => (is_cut && !connecting).then_some(ErrorClass::Reset),
    }
}
