//! The trace context of a request: W3C Trace Context.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;
use webhooks_core::{EventId, TenantId, TraceContext};
use webhooks_dispatch::Publication;

#[cfg(feature = "otlp")]
use crate::otlp::PublishSpan;
use crate::service::Service;

/// The place of a request in a distributed trace, which the messages that it publishes pass on.
#[derive(Debug)]
pub(crate) struct RequestTrace {
    context: Option<TraceContext>,
    #[cfg(feature = "otlp")]
    span: Option<PublishSpan>,
}

impl RequestTrace {
    /// Reads the headers `traceparent` and `tracestate`. Those that are not valid are left out, as the
    /// specification asks. If spans are exported, that of the request begins.
    #[cfg_attr(not(feature = "otlp"), expect(unused_variables, reason = "no span begins"))]
    pub(crate) fn read(service: &Service, headers: &HeaderMap) -> Self {
        // "If there are multiple traceparent headers", none of them is valid.
        let mut parents = headers.get_all("traceparent").iter();
        let parent = parents.next().filter(|_| parents.next().is_none());
        let states = headers.get_all("tracestate").iter();
        // A value with other characters than visible ones is no valid state, and the empty one is none.
        let states = states.map(|state| state.to_str().unwrap_or("="));
        let parent = parent.and_then(|parent| parent.to_str().ok());
        let context = parent.and_then(|parent| TraceContext::parse(parent, states));
        #[cfg(feature = "otlp")]
        let (context, span) = PublishSpan::begin(service.spans(), context);
        Self {
            context,
            #[cfg(feature = "otlp")]
            span,
        }
    }

    /// Returns the publication with the trace of the request.
    pub(crate) fn with(&self, publication: Publication) -> Publication {
        match &self.context {
            Some(trace) => publication.trace(trace.clone()),
            None => publication,
        }
    }

    /// Notes that messages of a tenant were accepted; one of them is named.
    #[cfg_attr(
        not(feature = "otlp"),
        expect(unused_variables, clippy::unused_self, reason = "there is no span")
    )]
    pub(crate) fn accepted(&mut self, tenant: &TenantId, messages: usize, id: Option<&EventId>) {
        #[cfg(feature = "otlp")]
        if let Some(span) = &mut self.span {
            span.accepted(tenant, messages, id);
        }
    }
}

impl FromRequestParts<Service> for RequestTrace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Infallible> {
        Ok(Self::read(service, &parts.headers))
    }
}
