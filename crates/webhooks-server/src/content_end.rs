//! Content that is deleted at a time which its publisher chose.

use std::time::Duration;

use webhooks_admin::{AdminError, ContentEnd};
use webhooks_core::{EventId, TenantId};
use webhooks_dispatch::store::{OperationError, StoreError};

use crate::service::Service;

/// The time between two looks at what has ended.
const INTERVAL: Duration = Duration::from_secs(10);

/// The events of one step.
const STEP: usize = 250;

/// Returns a time of whole hours.
pub(crate) fn of_hours(hours: u32) -> Duration {
    Duration::from_secs(u64::from(hours) * 60 * 60)
}

impl Service {
    /// Stores when the content of messages ends, for those that were published with a time of their own.
    ///
    /// It comes after the publish: if the process dies in between, the caller gets no answer, and publishes
    /// again.
    pub(crate) async fn end_content(
        &self,
        messages: impl IntoIterator<Item = (TenantId, EventId, Duration)>,
    ) -> Result<(), AdminError> {
        let now = Self::now();
        // Other messages are themselves forgotten earlier.
        let ends = messages.into_iter().filter_map(|(tenant, event, after)| {
            let is_early = after < self.engine().settings().retention;
            is_early.then(|| ContentEnd { tenant, event, at: now + after })
        });
        let ends: Vec<ContentEnd> = ends.collect();
        if ends.is_empty() { Ok(()) } else { self.admin().add_content_ends(ends, now).await }
    }

    /// Deletes content that has ended, as long as the service is used.
    pub(crate) fn follow_content_ends(&self) {
        self.repeat(INTERVAL, "content that has ended is deleted later", |service| async move {
            service.delete_ended_content().await
        });
    }

    async fn delete_ended_content(&self) -> Result<(), Failure> {
        let mut walk = self.admin().content_ends().walk(STEP);
        while let Some(page) = walk.next(Self::now()).await? {
            let (now, len) = (Self::now(), page.len());
            let ended = page.into_iter().map(|entry| entry.value).filter(|end| end.at <= now);
            let ended: Vec<ContentEnd> = ended.collect();
            for ContentEnd { tenant, event, .. } in &ended {
                // One that is unknown is forgotten already, or its application was deleted.
                let _is_known = self.expunge_message::<Failure>(tenant, event).await?;
            }
            let is_all = ended.len() == len;
            if !ended.is_empty() {
                self.admin().forget_content_ends(ended, now).await?;
            }
            // Those that follow end later.
            if !is_all {
                break;
            }
        }
        Ok(())
    }
}

/// The reason why content was not deleted.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Operation(#[from] OperationError),
    #[error(transparent)]
    Store(#[from] StoreError),
}
