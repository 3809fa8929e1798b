//! The class and the text of a failed exchange.

use std::error::Error;
use std::io;
use std::iter::successors;

use thiserror::Error;
use webhooks_dispatch::transport::{ErrorClass, TransportError};

use crate::proxy::ProxyFailed;
use crate::resolve::ResolveError;

/// How far an exchange had come when it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The connection was being made.
    Connecting {
        /// The addresses of the connection, as far as they are known.
        to: Option<String>,
        /// Whether the connection includes TLS.
        by_tls: bool,
    },
    /// The request or the response was being transferred.
    Exchanging,
}

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// An error of the HTTP client, with a text for the owner of an endpoint.
#[derive(Debug, Error)]
#[error("{public_text}")]
struct Cause {
    public_text: String,
    error: BoxError,
}

/// Returns the error for a failure before the head of the response has arrived.
pub(crate) fn failed(error: BoxError, stage: &Stage) -> TransportError {
    let internal = internal_cause(&*error);
    let (otherwise, cut) = match stage {
        // A failure to make the TCP connection has other kinds. A close or reset is in the handshake of TLS.
        Stage::Connecting { by_tls: true, .. } if internal.is_none() => {
            (ErrorClass::Connect, Some(ErrorClass::Tls))
        }
        Stage::Connecting { .. } => (ErrorClass::Connect, None),
        Stage::Exchanging => (ErrorClass::Other, Some(ErrorClass::Reset)),
    };
    let class = chain(&*error).find_map(|cause| classify(cause, cut)).unwrap_or(otherwise);
    let public_text = match (internal, stage, class) {
        (None, Stage::Connecting { to: Some(to), .. }, ErrorClass::Connect) => {
            cannot_connect(&*error, to)
        }
        (None, Stage::Connecting { to: Some(to), .. }, ErrorClass::Timeout) => {
            Some(format!("no connection to {to} in time"))
        }
        (None, Stage::Connecting { .. }, ErrorClass::Tls) if kinds(&*error).any(is_cut) => {
            Some("the connection was closed during the handshake".to_owned())
        }
        _ => None,
    };
    let public_text = public_text.unwrap_or_else(|| innermost(&*error));
    TransportError::new(class).caused_by(Cause { public_text, error })
}

/// Returns the text for a failed connection to these addresses. `None` if the cause is on our side, such
/// as a lack of files or ports.
fn cannot_connect(error: &(dyn Error + 'static), to: &str) -> Option<String> {
    kinds(error).find_map(|kind| match kind {
        io::ErrorKind::ConnectionRefused => Some(format!("connection refused by {to}")),
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::NetworkUnreachable => Some(format!("cannot connect to {to}")),
        _ => None,
    })
}

/// The reason why no receiver can have acted upon a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unprocessed {
    /// The receiver ended the connection before it processed the request.
    Ended,
    /// The receiver refused its stream.
    Refused,
}

/// Returns the reason why no receiver can have acted upon the request, if there is one. `was_read` is
/// whether the client has taken any of its body.
///
/// RFC 9113 §8.7: "The GOAWAY frame indicates the highest stream number that might have been
/// processed. Requests on streams with higher numbers are therefore guaranteed to be safe to retry",
/// and so are streams that were reset with `REFUSED_STREAM`. Streams up to that number get another error.
/// If a receiver refuses a stream for another reason, such as too many requests, the next attempt
/// repeats it.
///
/// A request that waits for a free stream when the connection ends has no stream: the client drops it,
/// with an error of its own. The same error is returned when the client itself is gone.
pub(crate) fn unprocessed(error: &(dyn Error + 'static), was_read: bool) -> Option<Unprocessed> {
    chain(error).find_map(|error| {
        if error.downcast_ref().is_some_and(is_dropped) {
            return (!was_read).then_some(Unprocessed::Ended);
        }
        let error = error.downcast_ref::<h2::Error>().filter(|error| error.is_remote())?;
        match error.reason()? {
            h2::Reason::NO_ERROR if error.is_go_away() => Some(Unprocessed::Ended),
            h2::Reason::REFUSED_STREAM if error.is_reset() => Some(Unprocessed::Refused),
            _ => None,
        }
    })
}

/// Returns whether the client dropped a request, because its connection or the client itself has ended.
fn is_dropped(error: &hyper::Error) -> bool {
    error.is_user()
}

/// Returns the error for a failure in a body that has to be read as a whole.
pub(crate) fn body_failed(error: BoxError) -> TransportError {
    TransportError::new(ErrorClass::Body)
        .caused_by(Cause { public_text: innermost(&*error), error })
}

/// Returns the text of the innermost error: the texts of the outer errors do not help the owner of an
/// endpoint.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let ended = chain(error).filter_map(<dyn Error>::downcast_ref).find_map(ended);
    let malformed = || chain(error).filter_map(<dyn Error>::downcast_ref).find_map(malformed);
    let last = || internal_cause(error).or_else(|| chain(error).last()).map(ToString::to_string);
    ended.or_else(|| malformed().map(str::to_owned)).or_else(last).unwrap_or_default()
}

/// Returns the cause for the end of an HTTP/2 stream or connection. The text of the library is not used,
/// since it repeats text of the receiver.
fn ended(error: &h2::Error) -> Option<String> {
    let reason = error.reason()?;
    match (error.is_remote(), error.is_library(), error.is_go_away()) {
        (true, _, true) => Some(format!("the receiver ended the HTTP/2 connection: {reason:?}")),
        (true, _, false) => Some(format!("the receiver reset the HTTP/2 stream: {reason:?}")),
        (_, true, _) => Some(format!("the receiver broke the rules of HTTP/2: {reason:?}")),
        _ => None,
    }
}

/// Returns the fault of an HTTP/1.1 response or of the connection. The texts of the library are about its
/// parser and its tasks, and for most kinds the text is the only way to recognize them.
fn malformed(error: &hyper::Error) -> Option<&'static str> {
    if is_dropped(error) {
        return Some("it ended while the request waited");
    }
    if error.is_parse_status() {
        return Some("its status is no number of three digits");
    }
    Some(match error.to_string().as_str() {
        // There is a method for this kind, but only in servers.
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

/// Returns the error of our resolver or proxy, if it is one. The errors inside it are about our network
/// and not for the owner of an endpoint.
fn internal_cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    chain(error).find(|cause| cause.is::<ProxyFailed>() || cause.is::<ResolveError>())
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    successors(Some(error), |&error: &&'e (dyn Error + 'static)| {
        // The `source` of an io::Error is that of the error which it wraps, so that one would be skipped.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

/// Returns the kinds of all I/O errors in the chain.
fn kinds(error: &(dyn Error + 'static)) -> impl Iterator<Item = io::ErrorKind> {
    chain(error).filter_map(<dyn Error>::downcast_ref).map(io::Error::kind)
}

fn is_cut(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof
    )
}

/// Returns the class of an error, if the error determines one. `cut` is the class of a connection that
/// was closed or reset.
fn classify(cause: &(dyn Error + 'static), cut: Option<ErrorClass>) -> Option<ErrorClass> {
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
        let is_cut = error.is_incomplete_message()
            || error.is_closed()
            || error.is_canceled()
            || is_dropped(error);
        return match (error.is_parse(), is_cut) {
            (true, _) => Some(ErrorClass::Protocol),
            (_, true) => Some(ErrorClass::Reset),
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        // RST_STREAM and GOAWAY, from the endpoint or from the client, which answers invalid frames.
        return match (error.is_remote(), error.is_library()) {
            (true, _) => Some(ErrorClass::Reset),
            (_, true) => Some(ErrorClass::Protocol),
            _ => None,
        };
    }
    match cause.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::TimedOut => Some(ErrorClass::Timeout),
        kind if is_cut(kind) => cut,
        _ => None,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_reached_is_said_to_be_so() {
        // The numbers of Linux: errno(3).
        for (number, expected) in [
            (101, "cannot connect to 192.0.2.1:80"), // ENETUNREACH
            (111, "connection refused by 192.0.2.1:80"),
            (113, "cannot connect to 192.0.2.1:80"), // EHOSTUNREACH
            (24, "Too many open files (os error 24)"), // EMFILE
            (99, "Cannot assign requested address (os error 99)"), // no port is left
            (104, "Connection reset by peer (os error 104)"),
        ] {
            let to = Some("192.0.2.1:80".to_owned());
            let error = io::Error::from_raw_os_error(number).into();
            let error = failed(error, &Stage::Connecting { to, by_tls: false });
            assert_eq!(error.class, ErrorClass::Connect);
            assert_eq!(error.source().unwrap().to_string(), expected);
        }
    }
}
