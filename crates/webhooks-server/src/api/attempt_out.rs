//! Attempts as answers show them.

use std::collections::HashMap;

use serde::Serialize;
use utoipa::ToSchema;
use webhooks_core::{DeliveryId, EndpointId, Timestamp};
use webhooks_dispatch::history::{AttemptRecord, Excerpt, HistoryStore as _};

use super::message_out::MessageOut;
use super::status::Status;
use crate::attempt_id::attempt_id;
use crate::error::ApiError;
use crate::find::App;
use crate::schema::Time;
use crate::service::Service;

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttemptOut {
    /// The id of the attempt.
    id: String,
    /// The id of the endpoint that it went to.
    endpoint_id: String,
    /// The id of the message.
    msg_id: String,
    /// The present URL of the endpoint; empty if it was deleted.
    url: String,
    /// The start of the response's body, in base64 if it is no text; without a response, the reason. Empty if it was
    /// deleted or is not shown.
    response: String,
    /// The status code of the response; 0 if there was no response.
    response_status_code: u16,
    /// The time that the attempt took, in milliseconds.
    response_duration_ms: u64,
    #[serde(flatten)]
    status: Status,
    /// The time at which the attempt started.
    #[schema(value_type = Time)]
    timestamp: Timestamp,
    /// The reason for the attempt: 0 if it followed the schedule, 1 if somebody asked for it.
    #[schema(maximum = 1)]
    trigger_type: u8,
    /// The message; present only if `with_msg` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    msg: Option<MessageOut>,
}

/// Whether an attempt succeeded.
pub(crate) fn is_success(record: &AttemptRecord) -> bool {
    record.attempt.error.is_none()
}

/// Shows attempts, and remembers what it has looked up for them.
pub(crate) struct AttemptShower<'s> {
    service: &'s Service,
    app: &'s App,
    /// Whether responses are shown.
    sees_content: bool,
    urls: HashMap<EndpointId, String>,
    replayed_after: HashMap<DeliveryId, u32>,
}

impl<'s> AttemptShower<'s> {
    pub(crate) fn new(service: &'s Service, app: &'s App, sees_content: bool) -> Self {
        let (urls, replayed_after) = (HashMap::new(), HashMap::new());
        Self { service, app, sees_content, urls, replayed_after }
    }

    pub(crate) async fn show(
        &mut self,
        record: AttemptRecord,
        msg: Option<MessageOut>,
    ) -> Result<AttemptOut, ApiError> {
        let url = self.url(&record.endpoint).await?;
        let before_replay = self.replayed_after(record.delivery).await?;
        let is_success = is_success(&record);
        let AttemptRecord { delivery, event, endpoint, number, attempt, .. } = record;
        let response = match attempt.excerpt() {
            _ if !self.sees_content => String::new(),
            // Without a response, the reason is what its owner looks for.
            Excerpt::Text("") if attempt.status_code.is_none() => {
                attempt.error.clone().unwrap_or_default()
            }
            Excerpt::Text(text) => text.to_owned(),
            Excerpt::Base64(text) => text,
        };
        Ok(AttemptOut {
            id: attempt_id(delivery, number),
            endpoint_id: endpoint.to_string(),
            msg_id: event.to_string(),
            url,
            response,
            response_status_code: attempt.status_code.unwrap_or_default(),
            response_duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
            status: if is_success { Status::SUCCESS } else { Status::FAIL },
            timestamp: attempt.started_at,
            trigger_type: (before_replay > 0 && number > before_replay).into(),
            msg,
        })
    }

    /// Returns the present URL of an endpoint; nothing once it is deleted.
    async fn url(&mut self, endpoint: &EndpointId) -> Result<String, ApiError> {
        if let Some(url) = self.urls.get(endpoint) {
            return Ok(url.clone());
        }
        let found = self.service.endpoints(self.app).get(endpoint.as_str()).await?;
        let url = found.map_or_else(String::new, |found| found.endpoint.url.to_string());
        self.urls.insert(endpoint.clone(), url.clone());
        Ok(url)
    }

    /// Returns the number of attempts that a delivery had when it was last replayed.
    async fn replayed_after(&mut self, delivery: DeliveryId) -> Result<u32, ApiError> {
        if let Some(attempts) = self.replayed_after.get(&delivery) {
            return Ok(*attempts);
        }
        let found = self.service.engine().history().delivery(delivery).await?;
        let attempts = found.map_or(0, |found| found.attempts_before_replay);
        self.replayed_after.insert(delivery, attempts);
        Ok(attempts)
    }
}
