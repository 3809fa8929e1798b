//! What a failed exchange means.

use std::error::Error;
use std::io;
use std::iter::successors;

use thiserror::Error;
use webhooks_dispatch::{ErrorClass, TransportError};

use crate::resolve::ResolveError;

/// The error of the HTTP client, told by its root: the layers above it say nothing to the owner of
/// an endpoint, and the outermost would name the URL.
#[derive(Debug, Error)]
#[error("{}", root(.0))]
struct Cause(reqwest::Error);

/// Returns what a failure before or within the response's head means.
pub(crate) fn exchange_failed(error: reqwest::Error) -> TransportError {
    let class = classify(&error);
    TransportError::new(class).caused_by(Cause(error.without_url()))
}

/// Returns what a failure within the response's body means.
pub(crate) fn body_failed(error: reqwest::Error) -> TransportError {
    TransportError::new(ErrorClass::Body).caused_by(Cause(error.without_url()))
}

fn root(error: &reqwest::Error) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    successors(Some(error), |&error: &&'e (dyn Error + 'static)| {
        // An io::Error passes over what it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

fn classify(error: &reqwest::Error) -> ErrorClass {
    let otherwise = if error.is_connect() { ErrorClass::Connect } else { ErrorClass::Other };
    chain(error).find_map(|cause| classify_cause(cause, error.is_connect())).unwrap_or(otherwise)
}

fn classify_cause(cause: &(dyn Error + 'static), connecting: bool) -> Option<ErrorClass> {
    if let Some(error) = cause.downcast_ref::<ResolveError>() {
        return Some(match error {
            ResolveError::Blocked(_) => ErrorClass::Blocked,
            ResolveError::Lookup { .. } => ErrorClass::Dns,
        });
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
    (is_cut && !connecting).then_some(ErrorClass::Reset)
}
