//! The status of a delivery or an attempt, as a number and a word.

use serde::Serialize;
use utoipa::ToSchema;
use webhooks_core::DeliveryStatus;

use crate::schema::StatusText;

/// A status in the two fields of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// The number of the status: 0 success, 1 pending, 2 fail, 3 sending, 4 canceled.
    #[schema(maximum = 4)]
    status: u8,
    /// The word for the status.
    #[schema(value_type = StatusText)]
    status_text: &'static str,
}

impl Status {
    pub(crate) const SUCCESS: Self = Self { status: 0, status_text: "success" };
    pub(crate) const PENDING: Self = Self { status: 1, status_text: "pending" };
    pub(crate) const FAIL: Self = Self { status: 2, status_text: "fail" };
    /// It failed, and will be tried again.
    pub(crate) const SENDING: Self = Self { status: 3, status_text: "sending" };
    pub(crate) const CANCELED: Self = Self { status: 4, status_text: "canceled" };

    pub(crate) fn of(status: DeliveryStatus) -> Self {
        match status {
            DeliveryStatus::Delivered => Self::SUCCESS,
            DeliveryStatus::Retrying => Self::SENDING,
            DeliveryStatus::Cancelled => Self::CANCELED,
            DeliveryStatus::Failed => Self::FAIL,
            _ => Self::PENDING,
        }
    }

    /// Returns the delivery status of a number.
    pub(crate) fn delivery_status(number: u8) -> Option<DeliveryStatus> {
        Some(match number {
            0 => DeliveryStatus::Delivered,
            1 => DeliveryStatus::Pending,
            2 => DeliveryStatus::Failed,
            3 => DeliveryStatus::Retrying,
            4 => DeliveryStatus::Cancelled,
            _ => return None,
        })
    }
}
