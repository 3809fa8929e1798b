//! The extractor for axum.

use std::fmt;
use std::marker::PhantomData;

use axum::Json;
use axum::extract::{FromRef, FromRequest, Request};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::provider::AnyScheme;
use crate::receiver::Receiver;
use crate::rejection::Rejection;
use crate::webhook::Webhook;

/// A verified webhook, as the argument of a handler.
///
/// The state of the router is the [`Receiver`], or contains one (axum's `FromRef`). `P` is the
/// [`Provider`](crate::provider::Provider) if the receiver has one. Inside a
/// [`ReceiveLayer`](crate::ReceiveLayer) of the same receiver nothing is verified twice.
///
/// # Example
/// ```
/// use axum::{Json, Router, routing::post};
/// use serde::Deserialize;
/// use webhooks_receive::{provider::Standard, Receiver, VerifiedWebhook};
/// use webhooks_sign::Key;
///
/// #[derive(Deserialize)]
/// struct Invoice { number: u64 }
///
/// async fn hook(VerifiedWebhook { body: Json(invoice), .. }: VerifiedWebhook<Json<Invoice>, Standard>) {
///     println!("invoice {}", invoice.number);
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let secret = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
/// let receiver = Receiver::<Standard>::from_keys(Key::standard(secret)?)?;
/// let app: Router = Router::new().route("/hook", post(hook)).with_state(receiver);
/// # Ok(())
/// # }
/// ```
pub struct VerifiedWebhook<T = Bytes, P = AnyScheme> {
    /// The body, as `T`.
    pub body: T,
    /// Private, so that only this crate can make a `VerifiedWebhook`.
    webhook: Webhook,
    provider: PhantomData<fn() -> P>,
}

impl<T, P> VerifiedWebhook<T, P> {
    /// Returns the webhook itself, with its id, time and tenant.
    pub fn webhook(&self) -> &Webhook {
        &self.webhook
    }
}

impl<S, T, P> FromRequest<S> for VerifiedWebhook<T, P>
where
    S: Send + Sync,
    Receiver<P>: FromRef<S>,
    T: FromWebhook,
    P: 'static,
{
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        let receiver = Receiver::<P>::from_ref(state);
        // Only a webhook of the same receiver counts: a layer of another receiver may be outside, which
        // has other keys.
        let webhook = match request.extensions().get::<Webhook>() {
            Some(webhook) if webhook.is_verified_by(receiver.settings()) => webhook.clone(),
            _ => receiver.receive(request).await?.into_body(),
        };
        let body = T::from_webhook(&webhook);
        let body = body.inspect_err(|rejection| webhook.receiver().report_rejection(rejection))?;
        Ok(Self { body, webhook, provider: PhantomData })
    }
}

impl<T, P> fmt::Debug for VerifiedWebhook<T, P> {
    /// Leaves out the body, as [`Webhook`] does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedWebhook").field("webhook", &self.webhook).finish_non_exhaustive()
    }
}

/// A type that a verified body can become.
#[diagnostic::on_unimplemented(
    message = "a verified body does not become `{Self}`: use `Bytes`, `Vec<u8>` or `Json<_>`, or implement \
               `FromWebhook`"
)]
pub trait FromWebhook: Sized {
    /// Makes the value from the webhook.
    ///
    /// # Errors
    /// [`Rejection`] when the body is not such a value.
    fn from_webhook(webhook: &Webhook) -> Result<Self, Rejection>;
}

impl FromWebhook for Bytes {
    fn from_webhook(webhook: &Webhook) -> Result<Self, Rejection> {
        Ok(webhook.body().clone())
    }
}

impl FromWebhook for Vec<u8> {
    fn from_webhook(webhook: &Webhook) -> Result<Self, Rejection> {
        Ok(webhook.body().to_vec())
    }
}

impl<T: DeserializeOwned> FromWebhook for Json<T> {
    fn from_webhook(webhook: &Webhook) -> Result<Self, Rejection> {
        webhook.json().map(Json)
    }
}
