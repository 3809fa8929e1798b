//! The ids of attempts: that of a delivery, and a number.

use webhooks_admin::IdKind;
use webhooks_core::DeliveryId;

use crate::error::ApiError;

/// Returns the id of an attempt: that of its delivery and its number.
pub(crate) fn attempt_id(delivery: DeliveryId, number: u32) -> String {
    IdKind::Attempt.id(u128::from(delivery.as_u64()) << 32 | u128::from(number))
}

/// Reads the id of an attempt.
pub(crate) fn read_id(id: &str) -> Result<(DeliveryId, u32), ApiError> {
    let unknown = || ApiError::unknown("attempt");
    let number = IdKind::Attempt.number(id).map_err(|_unreadable| unknown())?;
    let delivery = u64::try_from(number >> 32).map_err(|_unreadable| unknown())?;
    let number = u32::try_from(number & u128::from(u32::MAX)).map_err(|_unreadable| unknown())?;
    Ok((DeliveryId::from_u64(delivery), number))
}
