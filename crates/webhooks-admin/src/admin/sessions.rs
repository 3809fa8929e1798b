//! Sessions that are opened by one-time tokens.

use webhooks_core::Timestamp;

use super::Admin;
use crate::api_key::{ApiKey, ApiKeyHash};
use crate::audit::Actor;
use crate::collection::{AdminError, audit_row};
use crate::idempotency::hex;
use crate::one_time_token::OneTimeToken;
use crate::public_id::IdKind;
use crate::record::{RecordChange, RecordName};
use crate::resource::{Entry, Resource as _};

/// The tries of an exchange while others change its token or its session.
const TRIES: u32 = 5;

impl Admin {
    /// Adds a one-time token with this hash, for one more session like the one with the id `session`.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn add_one_time_token(
        &self,
        hash: &ApiKeyHash,
        session: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let token = OneTimeToken::new(session, expires_at);
        let entry = Entry::new(hex(hash.as_bytes()), token, now);
        let insert = RecordChange::Insert(self.one_time_tokens().record(&entry)?);
        Ok(self.records.write(vec![insert], now).await?)
    }

    /// Exchanges a one-time token for the key of a session with the hash `new`. Returns the session, or
    /// `None` if the token is not known, was used or has expired, or if its session has ended.
    ///
    /// # Errors
    /// [`AdminError`] when the store fails.
    pub async fn exchange(
        &self,
        hash: &ApiKeyHash,
        new: ApiKeyHash,
        actor: Actor,
        now: Timestamp,
    ) -> Result<Option<Entry<ApiKey>>, AdminError> {
        for _ in 0..TRIES {
            match self.exchange_once(hash, new, &actor, now).await {
                // Somebody used the session or the token, or ended the session, at the same time.
                Err(AdminError::Changed) => {}
                exchanged => return exchanged,
            }
        }
        Err(AdminError::Changed)
    }

    async fn exchange_once(
        &self,
        hash: &ApiKeyHash,
        new: ApiKeyHash,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<Entry<ApiKey>>, AdminError> {
        let (keys, tokens) = (self.keys(), self.one_time_tokens());
        let name = RecordName::Key(hex(hash.as_bytes()));
        let Some(mut token) = tokens.find(name, now).await? else { return Ok(None) };
        if token.value.is_used {
            return Ok(None);
        }
        let Some(session) = keys.look_up(&token.value.session, now).await? else {
            return Ok(None);
        };
        let Ok(grant) = session.value.check(now) else { return Ok(None) };
        let key = ApiKey::new(&session.value.name, new, grant.clone(), now).session();
        let key = ApiKey { expires_at: session.value.expires_at, ..key };
        let opened = Entry::new(IdKind::ApiKey.generate(), key, now);
        token.value.is_used = true;
        let actor = Actor { who: session.id.clone(), ..actor.clone() };
        let states = (None, Some(opened.value.shown()?));
        let changes = vec![
            // The version of the token lets only one of several requests at once get a session, and that of
            // the session none once it is ended.
            RecordChange::Replace(tokens.record_after(&token, now)?),
            RecordChange::Replace(keys.record_after(&session, now)?),
            RecordChange::Insert(keys.record(&opened)?),
            audit_row(&actor, (ApiKey::KIND.as_str(), "", &opened.id), states, now)?,
        ];
        self.records.write(changes, now).await?;
        Ok(Some(opened))
    }
}
