//! The inbox: verifies each request, forwards it, and tells of it.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use tokio::sync::mpsc;
use webhooks_core::Timestamp;
use webhooks_sign::scheme::Scheme;

use super::forward::{Forwarded, Forwarder};
use super::plan::{Answer, Manner, Plan};
use super::seen::{Names, Seen};
use crate::diagnosis::Case;

/// The inbox that all connections share.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) secrets: Vec<String>,
    pub(crate) scheme: Option<&'static Scheme>,
    /// The URL that is set at the sender, for schemes that sign it.
    pub(crate) url: String,
    pub(crate) plan: Mutex<Plan>,
    pub(crate) forwarder: Forwarder,
    pub(crate) seen: mpsc::Sender<Seen>,
}

/// A request that was taken, and what answers it.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) answer: Answer,
    pub(crate) status: StatusCode,
    pub(crate) seen: Seen,
}

impl Taken {
    /// Returns the receiver behind whose answer is the sender's, if there is one.
    pub(crate) fn behind(&self) -> Option<&Forwarded> {
        behind(&self.seen.forwarded)
    }
}

/// Returns the first receiver that did not succeed, or the first of all: a failure of any receiver behind is the
/// sender's to repeat.
fn behind(forwarded: &[Forwarded]) -> Option<&Forwarded> {
    let failed =
        forwarded.iter().find(|one| !one.status.as_ref().is_ok_and(StatusCode::is_success));
    failed.or_else(|| forwarded.first())
}

impl Inbox {
    /// Takes a request: verifies it, and forwards it.
    pub(crate) async fn take(&self, head: Parts, body: Bytes, names: Option<Names>) -> Taken {
        let at = Timestamp::now();
        let chance = fastrand::f64();
        let answer = self.plan.lock().unwrap_or_else(PoisonError::into_inner).next(chance);
        let names = names.unwrap_or_else(|| Names::find(&head.headers, &body));
        // The search for a cause hashes the body many times.
        let verified = tokio::task::block_in_place(|| self.verify(&head, &body, at));
        let event_type = names.event_type.as_deref();
        let forwarded = if answer.manner.forwards() {
            self.forwarder.forward(&head, &body, event_type).await
        } else {
            Vec::new()
        };
        let status = match answer.manner {
            Manner::Usual(usual) => match behind(&forwarded) {
                Some(one) => one.status.as_ref().copied().unwrap_or(StatusCode::BAD_GATEWAY),
                None => usual.unwrap_or_else(|| usual_status(verified.as_ref())),
            },
            Manner::Failure(status, _) => status,
            Manner::Gone => StatusCode::GONE,
            Manner::Redirect => StatusCode::TEMPORARY_REDIRECT,
            Manner::Hang | Manner::HugeBody | Manner::Reset | Manner::SlowBody => StatusCode::OK,
        };
        let (text, shown) = described(answer.manner, status);
        let seen = Seen { at, head, body, names, verified, answer: text, status: shown, forwarded };
        Taken { answer, status, seen }
    }

    /// Tells of a request that came.
    pub(crate) async fn tell(&self, seen: Seen) {
        // Nobody reads any longer when the command ends.
        let _ending = self.seen.send(seen).await;
    }

    fn verify(&self, head: &Parts, body: &[u8], at: Timestamp) -> Option<Result<(), String>> {
        if self.secrets.is_empty() {
            return None;
        }
        let diagnosis = Case {
            head,
            body,
            secrets: &self.secrets,
            scheme: self.scheme,
            url: &self.url,
            tolerance: None,
            now: at.as_unix_seconds(),
        }
        .diagnose();
        Some(if diagnosis.is_verified() { Ok(()) } else { Err(diagnosis.reason().to_owned()) })
    }
}

/// Returns the status with which a receiver answers usually: what does not verify is not taken.
fn usual_status(verified: Option<&Result<(), String>>) -> StatusCode {
    match verified {
        Some(Err(_)) => StatusCode::UNAUTHORIZED,
        Some(Ok(())) | None => StatusCode::OK,
    }
}

/// Returns the answer as it is printed, and its status if it has one.
fn described(manner: Manner, status: StatusCode) -> (String, Option<u16>) {
    let code = status.as_u16();
    let text = match manner {
        Manner::Usual(_) | Manner::Gone | Manner::Redirect => code.to_string(),
        Manner::Failure(_, Some(left)) => format!("{code} (by --fail, {left} left)"),
        Manner::Failure(_, None) => format!("{code} (a chosen failure)"),
        Manner::Hang => return ("no answer (by --hang)".to_owned(), None),
        Manner::Reset => return ("reset (by --reset)".to_owned(), None),
        Manner::HugeBody => format!("{code} with a huge body"),
        Manner::SlowBody => format!("{code} with a slow body"),
    };
    (text, Some(code))
}
