//! Payloads against the schemas of their event types, before they are published.

use std::sync::Arc;

use serde_json::Value;
use webhooks_admin::{Mismatch, PayloadSchema, SchemaEnforcement};
use webhooks_core::{Event, Payload};

use crate::error::ApiError;
use crate::schema_cache::Rule;
use crate::service::Service;

/// The most bytes of a payload, and the most schemas, that are checked without a thread of their own: a
/// thread of the runtime has other requests to serve.
const SMALL: (usize, usize) = (16 * 1024, 1_000);

impl Service {
    /// Checks the payload of an event that the body of a request has, if its type asks for it.
    pub(crate) async fn check_payload(&self, event: &Event) -> Result<(), ApiError> {
        self.check_payload_in(event, None).await
    }

    /// Checks the payload of an event, the one of this `number` in the body.
    pub(crate) async fn check_payload_in(
        &self,
        event: &Event,
        number: Option<usize>,
    ) -> Result<(), ApiError> {
        let rule = self.schemas().rule(self.admin(), event.event_type.as_str()).await?;
        let Some(rule) = rule else { return Ok(()) };
        let checked = check(&rule, &event.payload).await;
        let told = match (checked, rule.enforcement) {
            (Ok(()), _) | (_, SchemaEnforcement::Off) => return Ok(()),
            (Err(told), SchemaEnforcement::Refuse) => told,
            (Err(told), SchemaEnforcement::Warn) => {
                self.metrics().mismatch_published();
                if rule.tells() {
                    // The place may hold names of the payload, which may be private.
                    let (event_type, rule) =
                        (event.event_type.as_str(), told.map(|told| told.rule));
                    tracing::warn!(event_type, rule, "a payload does not match its schema");
                }
                return Ok(());
            }
        };
        self.metrics().mismatch_refused();
        let Some(told) = told else {
            let reason = "the schema of the event type cannot be used; store it anew";
            return Err(ApiError::value("eventType", reason));
        };
        let number = number.map(|number| number.to_string());
        let loc = ["body".to_owned()].into_iter().chain(number).chain(["payload".to_owned()]);
        Err(ApiError::field(loc.chain(told.place.clone()), told, "value_error.schema"))
    }
}

/// Checks a payload, a large one on another thread. The error is empty if it cannot be checked.
async fn check(rule: &Arc<Rule>, payload: &Payload) -> Result<(), Option<Mismatch>> {
    let schemas = rule.schema.as_ref().map_or(0, PayloadSchema::schemas);
    if payload.as_str().len() <= SMALL.0 && schemas <= SMALL.1 {
        let checked = check_now(rule, payload);
        // A batch has many of them.
        tokio::task::yield_now().await;
        return checked;
    }
    let (rule, payload) = (Arc::clone(rule), payload.clone());
    let checked = tokio::task::spawn_blocking(move || check_now(&rule, &payload));
    checked.await.unwrap_or(Err(None))
}

fn check_now(rule: &Rule, payload: &Payload) -> Result<(), Option<Mismatch>> {
    let schema = rule.schema.as_ref().ok_or(None)?;
    let payload: Value = serde_json::from_str(payload.as_str()).map_err(|_unreadable| None)?;
    schema.check(&payload).map_err(Some)
}
