//! The answers to requests with idempotency keys, as they are recorded.

use webhooks_core::Timestamp;

use crate::admin::Admin;
use crate::collection::{AdminError, TRIES};
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
                let (number, version) = (entry.value.number()?, entry.version);
                return Ok(Begin::Run(Run { number, is_again: false, version }));
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
        let record = answers.record_after(&again, now)?;
        let version = record.version;
        match self.records.write(vec![RecordChange::Replace(record)], now).await {
            Ok(()) => Ok(Begin::Run(Run { number, is_again: true, version })),
            // Another one was faster.
            Err(RecordError::Changed { .. }) => Ok(Begin::InProgress),
            Err(error) => Err(error.into()),
        }
    }

    /// Records the end of a run of a request: its answer is kept for a day. The answer of any run of a request is
    /// kept, and the first one stays. A run that lost its place to another one ends in no other way.
    ///
    /// # Errors
    /// [`AdminError::Changed`] when the request has its answer, or another run has its place, and
    /// [`AdminError`] when the store fails. Then nothing is recorded.
    pub async fn finish(
        &self,
        request: IdempotentRequest<'_>,
        run: Run,
        end: End,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let answers = self.collection::<KeptAnswer>(String::new());
        let is_refused = end == End::Refused;
        let answer = match end {
            End::Answered(answer) => Some(answer),
            End::Open | End::Refused => None,
        };
        for _ in 0..TRIES {
            let name = RecordName::Key(request.record_key());
            let found = answers.find(name, now).await?.ok_or(AdminError::Changed)?;
            // A record with an answer has a version that no run has.
            let is_held = found.version == run.version;
            let is_first = answer.is_some() && found.value.answer.is_none();
            if found.value.number()? != run.number || !(is_held || is_first) {
                return Err(AdminError::Changed);
            }
            let (answer, until) = (answer.clone(), now + KEPT);
            let value = KeptAnswer { answer, held_until: now, until, ..found.value };
            let after = Entry { value, ..found };
            // It is replaced first, also to be deleted: that fails if it was changed meanwhile.
            let mut changes = vec![RecordChange::Replace(answers.record_after(&after, now)?)];
            if is_refused {
                changes.push(RecordChange::Delete(answers.place(after.id)));
            }
            match self.records.write(changes, now).await {
                Err(RecordError::Changed { .. }) => {}
                written => return Ok(written?),
            }
        }
        Err(AdminError::Changed)
    }
}

impl KeptAnswer {
    fn number(&self) -> Result<u128, AdminError> {
        let unreadable = |error| <serde_json::Error as serde::de::Error>::custom(error);
        Ok(IdKind::Task.number(&self.number).map_err(unreadable)?)
    }
}
