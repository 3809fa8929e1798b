//! Why an attempt failed, in a sentence.

use std::error::Error;
use std::fmt;
use std::fmt::Write as _;

use http::StatusCode;

use crate::{AttemptError, Response};

/// The longest such text, for what transports say is up to them.
pub(crate) const MAX_ERROR_CHARACTERS: usize = 512;

/// Says in a sentence why an attempt failed, for whoever owns the endpoint.
pub(crate) fn explain(outcome: &Result<Response, AttemptError>) -> String {
    let mut text = String::new();
    let written = match outcome {
        Ok(Response { status, .. }) => {
            let reason = StatusCode::from_u16(*status).ok();
            let reason = reason.and_then(|status| status.canonical_reason()).unwrap_or_default();
            write!(text, "endpoint answered {status} {reason}")
        }
        Err(error) => write_chain(&mut text, error),
    };
    if written.is_err() {
        text.push_str(" (and an error that cannot be shown)");
    }
    if let Some((end, _)) = text.char_indices().nth(MAX_ERROR_CHARACTERS) {
        text.truncate(end);
    }
    text.truncate(text.trim_end().len());
    text
}

fn write_chain(text: &mut String, error: &dyn Error) -> fmt::Result {
    write!(text, "{error}")?;
    let mut source = error.source();
    while let Some(error) = source {
        write!(text, ": {error}")?;
        source = error.source();
    }
    Ok(())
}
