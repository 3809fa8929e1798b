//! Attempts at the messages of pollers, where many records are changed at once.

use std::time::Duration;

use webhooks_core::{TenantId, Timestamp};

use super::Admin;
use crate::collection::{AdminError, ListQuery, TRIES};
use crate::poller_attempt::PollerAttempt;
use crate::record::{RecordChange, RecordError};

/// The attempts of one step.
const STEP: usize = 100;

/// The change of attempts.
enum Change {
    Delete,
    ForgetResponse,
}

impl Admin {
    /// Deletes the responses of the attempts at a message, as its own content is deleted.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails; some are deleted then.
    pub async fn forget_poller_responses(
        &self,
        application: &TenantId,
        (accepted_at, event): (Timestamp, &str),
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let prefix = PollerAttempt::prefix(accepted_at, event);
        let keys = (prefix.as_str(), None);
        self.change_poller_attempts(application, keys, &Change::ForgetResponse, now).await
    }

    /// Deletes the responses of all attempts, of those reported so far, at an application's messages that were
    /// accepted up to a time.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails; some are deleted then.
    pub async fn forget_all_poller_responses(
        &self,
        application: &TenantId,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        // A message that was accepted at this very time is one of them.
        let end = PollerAttempt::key_at(until + Duration::from_micros(1));
        let keys = ("", Some(end.as_str()));
        self.change_poller_attempts(application, keys, &Change::ForgetResponse, now).await
    }

    /// Deletes an attempt, if it is there.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn delete_poller_attempt(
        &self,
        application: &TenantId,
        key: &str,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let place = self.poller_attempts(application).place(key.to_owned());
        Ok(self.records.write(vec![RecordChange::Delete(place)], now).await?)
    }

    /// Deletes all attempts at an application's messages.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails; some are deleted then.
    pub async fn delete_poller_attempts(
        &self,
        application: &TenantId,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        self.change_poller_attempts(application, ("", None), &Change::Delete, now).await
    }

    /// Changes the attempts whose keys have a start, and are before an end, a part of them in each write.
    async fn change_poller_attempts(
        &self,
        application: &TenantId,
        (prefix, end): (&str, Option<&str>),
        change: &Change,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let attempts = self.poller_attempts(application);
        let (mut after, mut tries) = (prefix.to_owned(), 0);
        loop {
            let iterator = Some(after.clone()).filter(|after| !after.is_empty());
            let query = ListQuery { limit: STEP, iterator, is_descending: false };
            let page = attempts.list(query, now).await?;
            let mut changes = Vec::new();
            let is_one = |key: &str| key.starts_with(prefix) && end.is_none_or(|end| key < end);
            let mut last = None;
            for mut found in page.items.into_iter().take_while(|found| is_one(&found.id)) {
                last = Some(found.id.clone());
                match change {
                    Change::Delete => {
                        changes.push(RecordChange::Delete(attempts.place(found.id.clone())));
                    }
                    Change::ForgetResponse if found.value.response.is_empty() => {}
                    Change::ForgetResponse => {
                        found.value.response.clear();
                        changes.push(RecordChange::Replace(attempts.record_after(&found, now)?));
                    }
                }
            }
            match self.records.write(changes, now).await {
                // One was reported again meanwhile: this part is read anew.
                Err(RecordError::Changed { .. }) if tries < TRIES => {
                    tries += 1;
                    continue;
                }
                written => written?,
            }
            tries = 0;
            match last {
                Some(last) if !page.is_last => after = last,
                _ => return Ok(()),
            }
        }
    }
}
