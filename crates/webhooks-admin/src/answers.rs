//! The answers to requests with idempotency keys, as they are recorded.

use webhooks_core::Timestamp;

use crate::admin::Admin;
use crate::collection::AdminError;
use crate::idempotency::{Begin, End, HELD, IdempotentRequest, KEPT, KeptAnswer, Run};
use crate::public_id::IdKind;
use crate::record::{RecordChange, RecordError, RecordName};
use crate::resource::Entry;

impl Admin {
    /// Asks whether a request with an idempotency key is to be carried out, and keeps its place for a minute if
    /// it is. One that was begun a minute ago or more and has no answer is carried out again, with its number.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn begin(
        &self,
        request: IdempotentRequest<'_>,
        now: Timestamp,
    ) -> Result<Begin, AdminError> {
        let answers = self.collection::<KeptAnswer>(String::new());
        let (body, held_until, until) = (request.body_hash(), now + HELD, now + KEPT);
        let number = IdKind::Task.generate();
        let held = KeptAnswer { body, answer: None, number, held_until, until };
        let entry = Entry::new(request.record_key(), held, now);
        match self.records.write(vec![RecordChange::Insert(answers.record(&entry)?)], now).await {
            Ok(()) => {
                return Ok(Begin::Run(Run { number: entry.value.number()?, is_again: false }));
            }
            Err(RecordError::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        // It may be gone since: then the next try is the first.
        let found = answers.find(RecordName::Key(entry.id), now).await?;
        let Some(found) = found else { return Ok(Begin::InProgress) };
        if found.value.body != entry.value.body {
            return Ok(Begin::OtherBody);
        }
        if let Some(answer) = found.value.answer {
            return Ok(Begin::Answered(answer));
        }
        if found.value.held_until > now {
            return Ok(Begin::InProgress);
        }
        let number = found.value.number()?;
        let again = Entry { value: KeptAnswer { held_until, ..found.value }, ..found };
        let replace = RecordChange::Replace(answers.record_after(&again, now)?);
        match self.records.write(vec![replace], now).await {
            Ok(()) => Ok(Begin::Run(Run { number, is_again: true })),
            // Another one was faster.
            Err(RecordError::Changed { .. }) => Ok(Begin::InProgress),
            Err(error) => Err(error.into()),
        }
    }

    /// Records the end of a request that was carried out: its answer is kept for a day.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn finish(
        &self,
        request: IdempotentRequest<'_>,
        end: End,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let answers = self.collection::<KeptAnswer>(String::new());
        let key = request.record_key();
        let answer = match end {
            End::Answered(answer) => Some(answer),
            End::Open => None,
            End::Refused => {
                let forget = RecordChange::Delete(answers.place(key));
                return Ok(self.records.write(vec![forget], now).await?);
            }
        };
        let (body, number) = (request.body_hash(), IdKind::Task.generate());
        answers
            .advance(&key, now, |before| {
                let number = before.map_or_else(|| number.clone(), |before| before.number);
                let (body, answer) = (body.clone(), answer.clone());
                Ok(KeptAnswer { body, answer, number, held_until: now, until: now + KEPT })
            })
            .await
            .map(drop)
    }
}

impl KeptAnswer {
    fn number(&self) -> Result<u128, AdminError> {
        let unreadable = |error| <serde_json::Error as serde::de::Error>::custom(error);
        Ok(IdKind::Task.number(&self.number).map_err(unreadable)?)
    }
}
