//! A webhook that was verified.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use serde::de::DeserializeOwned;
use webhooks_core::Timestamp;
use webhooks_sign::{Key, Verified, scheme::Content};

use crate::content_type;
use crate::keys::FoundKeys;
use crate::rejection::{JsonError, Rejection};
use crate::settings::Settings;

/// A webhook whose signature is right. Only this crate can make one, from the [`Verified`] of
/// webhooks-sign, so that no unverified body can reach code that takes it.
///
/// It does not contain the headers: except for the id and the time, they are not signed.
#[derive(Clone)]
pub struct Webhook {
    body: Bytes,
    proof: Arc<Proof>,
}

/// The results of the verification.
struct Proof {
    id: Option<Box<str>>,
    timestamp: Option<u64>,
    key_index: usize,
    keys: FoundKeys,
    syntax: Syntax,
    /// Whether the sender compressed the body.
    is_encoded: bool,
    form: Option<SignedForm>,
    /// The settings of the receiver that verified the webhook.
    receiver: Arc<Settings>,
}

/// The syntax that the content type names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syntax {
    /// JSON, or a syntax on top of it (RFC 6839 §3.1).
    Json,
    Form,
    Other,
}

impl Syntax {
    fn of(headers: &HeaderMap) -> Self {
        let essence = content_type::essence(headers).to_ascii_lowercase();
        let subtype = essence.strip_prefix("application/").unwrap_or_default();
        if subtype == "json" || subtype.ends_with("+json") {
            Self::Json
        } else if essence == content_type::FORM {
            Self::Form
        } else {
            Self::Other
        }
    }
}

/// The signed parts of a webhook if its scheme signs forms: the fields, and the URL with the query.
pub(crate) struct SignedForm {
    pub(crate) query: Option<Box<str>>,
    /// Whether the body is a form. Otherwise its hash in the query is signed.
    pub(crate) is_body: bool,
}

impl Webhook {
    /// Joins the proof with its body, which was verified in chunks.
    pub(crate) fn new(
        verified: &Verified<'_, ()>,
        body: Bytes,
        (keys, receiver): (FoundKeys, Arc<Settings>),
        head: &Parts,
    ) -> Self {
        let syntax = Syntax::of(&head.headers);
        let form = (receiver.rules.scheme.content() == Content::Form).then(|| SignedForm {
            query: head.uri.query().map(Box::from),
            is_body: syntax == Syntax::Form,
        });
        let proof = Proof {
            id: verified.id().map(Box::from),
            timestamp: verified.timestamp(),
            key_index: verified.key_index(),
            keys,
            syntax,
            is_encoded: head.headers.contains_key(CONTENT_ENCODING),
            form,
            receiver,
        };
        Self { body, proof: Arc::new(proof) }
    }

    /// Returns the body, byte for byte as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Takes the body out.
    pub fn into_body(self) -> Bytes {
        self.body
    }

    /// Parses the body as JSON.
    ///
    /// # Errors
    /// [`Rejection::ContentType`] when the content type is not JSON (`application/json`, or one
    /// that ends in `+json`) and the receiver does not accept
    /// [any type](crate::Receiver::json_of_any_type), [`Rejection::Form`] when it is a form,
    /// [`Rejection::InvalidJson`] when the body is not what `T` expects.
    ///
    /// # Example
    /// ```
    /// use serde::Deserialize;
    /// use webhooks_receive::{Rejection, Webhook};
    ///
    /// #[derive(Deserialize)]
    /// #[serde(tag = "event_type")]
    /// enum Event {
    ///     #[serde(rename = "invoice.paid")]
    ///     InvoicePaid { payload: Invoice },
    ///     #[serde(other)]
    ///     Other,
    /// }
    ///
    /// #[derive(Deserialize)]
    /// struct Invoice { invoice: u64 }
    ///
    /// fn handle(webhook: &Webhook) -> Result<(), Rejection> {
    ///     match webhook.json()? {
    ///         Event::InvoicePaid { payload } => println!("invoice {} is paid", payload.invoice),
    ///         Event::Other => {} // what a sender adds later does no harm
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Rejection> {
        match self.proof.syntax {
            Syntax::Json => {}
            Syntax::Form => return Err(Rejection::Form),
            Syntax::Other if self.proof.receiver.takes_any_type => {}
            Syntax::Other => return Err(Rejection::ContentType),
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            let source = JsonError::from(&error);
            let source = if self.proof.is_encoded { source.of_encoded() } else { source };
            Rejection::InvalidJson { source }
        })
    }

    /// Returns the id, if the scheme signs one.
    pub fn id(&self) -> Option<&str> {
        self.proof.id.as_deref()
    }

    /// Returns the time at which the attempt was signed, if the scheme signs it.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.proof.timestamp.map(Timestamp::from_unix_seconds)
    }

    /// Returns the tenant whose keys verified it, if keys are looked up.
    pub fn tenant(&self) -> Option<&str> {
        self.proof.keys.tenant.as_deref()
    }

    /// Returns the index of the key in its ring, which shows when an old key is no longer used.
    pub fn key_index(&self) -> usize {
        self.proof.key_index
    }

    /// Returns the name of the scheme, such as `standard`.
    pub fn scheme(&self) -> &'static str {
        self.proof.receiver.rules.scheme.name()
    }

    /// Returns whether this receiver, or a clone with the same settings, verified the webhook.
    #[cfg(feature = "axum")]
    pub(crate) fn is_verified_by(&self, receiver: &Arc<Settings>) -> bool {
        // Not `is_same_receiver`: a setter may have made the other receiver stricter than the one that
        // verified the webhook.
        Arc::ptr_eq(&self.proof.receiver, receiver)
    }

    pub(crate) fn form(&self) -> Option<&SignedForm> {
        self.proof.form.as_ref()
    }

    /// Borrows the settings of the receiver that verified the webhook.
    pub(crate) fn receiver(&self) -> &Settings {
        &self.proof.receiver
    }

    /// Returns the key that verified it, for handshakes that sign the answer.
    pub(crate) fn key(&self) -> Option<&Key> {
        self.proof.keys.ring.iter().nth(self.proof.key_index)
    }
}

impl fmt::Debug for Webhook {
    /// Leaves out the body: the content of webhooks does not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("scheme", &self.scheme())
            .field("tenant", &self.tenant())
            .field("id", &self.id())
            .field("timestamp", &self.timestamp())
            .field("key_index", &self.key_index())
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;

    use super::*;

    #[test]
    fn json_is_known_by_one_content_type() {
        let check = |values: &[&'static str], expected: bool| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_TYPE, value.parse().unwrap());
            }
            assert_eq!(Syntax::of(&headers) == Syntax::Json, expected, "{values:?}");
        };
        check(&["application/json"], true);
        check(&["Application/JSON; charset=utf-8"], true);
        check(&["application/cloudevents+json"], true);
        check(&["text/json"], false);
        check(&["application/x-www-form-urlencoded"], false);
        check(&["application/jsonp"], false);
        check(&[], false);
        check(&["application/json", "application/json"], false);
    }
}
