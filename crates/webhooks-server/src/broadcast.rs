//! One message for each application.

use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;
use webhooks_admin::{AdminError, Application, Broadcast, Entry, IdKind, number_of};
use webhooks_core::{Event, EventId, EventType, Payload, TenantId};
use webhooks_dispatch::clock::{Clock as _, SystemClock};
use webhooks_dispatch::{Conflict, Publication, PublishError, Published};

use crate::content_end::of_hours;
use crate::find::own_message_id;
use crate::service::Service;

/// The applications of one step, and of one commit.
const STEP: usize = 100;

/// The number of times that a step is tried while the store is away, and the time between two tries.
const TRIES: usize = 300;
const PAUSE: Duration = Duration::from_secs(1);

/// The most messages that the result lists; it counts all.
const MAX_LISTED: usize = 5_000;

/// The reason why a broadcast did not end.
#[derive(Debug, Error)]
pub(crate) enum BroadcastError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("the message cannot be read")]
    Damaged,
}

/// The messages of a broadcast so far.
#[derive(Default)]
struct Outcome {
    listed: Vec<Value>,
    created: u64,
    conflicts: u64,
}

impl Service {
    /// Publishes a message to each application. One that has it already, since an earlier process did not come
    /// to the end, gets nothing new.
    pub(crate) async fn broadcast(
        &self,
        job: &str,
        message: &Broadcast,
    ) -> Result<Value, BroadcastError> {
        let mut walk = self.admin().applications().walk(STEP);
        let mut outcome = Outcome::default();
        while let Some(page) = walk.next(Self::now()).await? {
            let publications = page.iter().map(|app| publication(job, message, app));
            let publications: Vec<Publication> =
                publications.collect::<Option<_>>().ok_or(BroadcastError::Damaged)?;
            let published = self.insist(publications).await?;
            let after = message.retention_hours.map(of_hours);
            let ends = page.iter().zip(&published).filter_map(|(app, published)| {
                let published = published.as_ref().ok()?;
                Some((TenantId::new(&app.id).ok()?, published.event.clone(), after?))
            });
            self.end_content(ends).await?;
            for (app, published) in page.iter().zip(published) {
                match published {
                    Ok(published) if outcome.listed.len() < MAX_LISTED => {
                        let id = published.event.to_string();
                        outcome.listed.push(json!({ "appId": app.id, "msgId": id }));
                        outcome.created += 1;
                    }
                    Ok(_) => outcome.created += 1,
                    // Its eventId has other content there.
                    Err(_conflict) => outcome.conflicts += 1,
                }
            }
        }
        let Outcome { listed, created, conflicts } = outcome;
        Ok(json!({ "messagesCreated": listed, "count": created, "conflicts": conflicts }))
    }
}

impl Service {
    /// Publishes, also if the store is away for some minutes.
    async fn insist(
        &self,
        publications: Vec<Publication>,
    ) -> Result<Vec<Result<Published, Conflict>>, PublishError> {
        let mut tries = 0;
        loop {
            let published = self.engine().publish_all(publications.clone()).await;
            self.note_publish(published.as_ref().err());
            tries += 1;
            match published {
                Err(PublishError::Store(_)) if tries < TRIES => SystemClock.sleep(PAUSE).await,
                published => return published,
            }
        }
    }
}

/// Returns the publication of a broadcast's message in an application. Its id follows from both.
fn publication(job: &str, message: &Broadcast, app: &Entry<Application>) -> Option<Publication> {
    let Broadcast { event_type, payload, event_id, channels, tags, deliver_at, .. } = message;
    let tenant = TenantId::new(&app.id).ok()?;
    let id = match event_id {
        Some(event_id) => own_message_id(&tenant, event_id),
        None => IdKind::Event.id(number_of(&[job, tenant.as_str()])),
    };
    let payload = Payload::from_json(payload.clone()).ok()?;
    let event = Event::new(EventType::new(event_type).ok()?, payload).ok()?;
    let event = event.channels(channels).ok()?.tags(tags).ok()?;
    let event = event.id(EventId::new(&id).ok()?).tenant(tenant);
    let event = match event_id {
        Some(event_id) => event.source(event_id),
        None => event,
    };
    let publication = Publication::new(&event);
    Some(match deliver_at {
        Some(at) => publication.deliver_at(*at),
        None => publication,
    })
}
