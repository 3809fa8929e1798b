//! The trace context of a request: W3C Trace Context.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;
use webhooks_core::TraceContext;
use webhooks_dispatch::Publication;

/// The place of a request in a distributed trace, which the messages that it publishes pass on.
#[derive(Debug, Clone)]
pub(crate) struct RequestTrace(Option<TraceContext>);

impl RequestTrace {
    /// Reads the headers `traceparent` and `tracestate`. Those that are not valid are left out, as the
    /// specification asks.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        // "If there are multiple traceparent headers", none of them is valid.
        let mut parents = headers.get_all("traceparent").iter();
        let parent = parents.next().filter(|_| parents.next().is_none());
        let states = headers.get_all("tracestate").iter();
        // A value with other characters than visible ones is no valid state, and the empty one is none.
        let states = states.map(|state| state.to_str().unwrap_or("="));
        let parent = parent.and_then(|parent| parent.to_str().ok());
        Self(parent.and_then(|parent| TraceContext::parse(parent, states)))
    }

    /// Returns the publication with the trace of the request.
    pub(crate) fn with(&self, publication: Publication) -> Publication {
        match &self.0 {
            Some(trace) => publication.trace(trace.clone()),
            None => publication,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestTrace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::read(&parts.headers))
    }
}
