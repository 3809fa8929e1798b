//! The status and the result of a delivery: one event for one endpoint.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{EndpointId, EventId, Timestamp};

/// The status of a delivery: one event for one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DeliveryStatus {
    /// Not tried yet.
    Pending,
    /// The endpoint answered 2xx.
    Delivered,
    /// The last attempt failed and no retry is left.
    Failed,
    /// The last attempt failed; a retry is due.
    Retrying,
    /// Ended for a reason other than its attempts: the endpoint is gone or disabled, the delivery
    /// expired, or somebody cancelled it.
    Cancelled,
}

/// The error of a text that is no delivery status.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{text:?} is no delivery status; there are pending, delivered, failed, retrying and cancelled"
)]
pub struct DeliveryStatusError {
    text: String,
}

impl DeliveryStatus {
    /// All of them, in the order of life.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Delivered, Self::Failed, Self::Retrying, Self::Cancelled];

    /// Borrows the word that the wire, stores and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Retrying => "retrying",
            Self::Cancelled => "cancelled",
        }
    }
}

impl FromStr for DeliveryStatus {
    type Err = DeliveryStatusError;

    fn from_str(text: &str) -> Result<Self, DeliveryStatusError> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| DeliveryStatusError { text: text.to_owned() })
    }
}

impl fmt::Display for DeliveryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The result of a delivery after its last attempt.
///
/// # Example
/// ```
/// use webhooks_core::{DeliveryResult, DeliveryStatus};
///
/// let result: DeliveryResult = serde_json::from_str(
///     r#"{"webhook_id":"crm","event_id":"order-17","status":"failed","status_code":503,
///         "attempt":4,"error":"endpoint answered 503","timestamp":"2026-01-01T00:00:00Z"}"#,
/// )?;
/// assert_eq!(result.status, DeliveryStatus::Failed);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryResult {
    /// The endpoint; on the wire `webhook_id`. The header `webhook-id` of Standard Webhooks is
    /// something else: the event's id.
    #[serde(rename = "webhook_id")]
    pub endpoint_id: EndpointId,
    /// The event.
    pub event_id: EventId,
    /// The status in which it ended.
    pub status: DeliveryStatus,
    /// The status code of the last response, if there was one (RFC 9110 §15).
    pub status_code: Option<u16>,
    /// The number of the last attempt, from 1.
    pub attempt: u32,
    /// The reason why the last attempt failed, in a sentence; `None` if it did not fail.
    pub error: Option<String>,
    /// The time at which the last attempt ended.
    pub timestamp: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serializes_to_the_documented_names() {
        let result = DeliveryResult {
            endpoint_id: EndpointId::new("crm").unwrap(),
            event_id: EventId::new("order-17").unwrap(),
            status: DeliveryStatus::Delivered,
            status_code: Some(200),
            attempt: 1,
            error: None,
            timestamp: Timestamp::from_unix_seconds(0),
        };
        assert_eq!(
            serde_json::to_string(&result).unwrap(),
            concat!(
                r#"{"webhook_id":"crm","event_id":"order-17","status":"delivered","#,
                r#""status_code":200,"attempt":1,"error":null,"timestamp":"1970-01-01T00:00:00Z"}"#
            )
        );
    }

    #[test]
    fn every_status_has_its_word() {
        use DeliveryStatus::{Cancelled, Delivered, Failed, Pending, Retrying};

        for (status, word) in [
            (Pending, "pending"),
            (Delivered, "delivered"),
            (Failed, "failed"),
            (Retrying, "retrying"),
            (Cancelled, "cancelled"),
        ] {
            assert!(DeliveryStatus::ALL.contains(&status));
            assert_eq!(status.to_string(), word);
            assert_eq!(serde_json::to_value(status).unwrap(), word);
            assert_eq!(word.parse(), Ok(status));
        }
    }
}
