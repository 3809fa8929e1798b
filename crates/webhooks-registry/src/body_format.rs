//! The body of a delivery.

use serde::{Deserialize, Serialize};

/// The body that an endpoint gets. Its bytes are those that are signed, in every header profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "a body that nobody sends must not compile")]
pub enum BodyFormat {
    /// The event's JSON object, as [`Event::to_json`](webhooks_core::Event::to_json) writes it, with
    /// the payload in it.
    #[default]
    Event,
    /// The payload alone, byte for byte as it was published: for receivers that expect JSON of a form
    /// of their own.
    ///
    /// The body then says neither which event it is nor of which type. Under
    /// [`HeaderProfile::Standard`](crate::HeaderProfile::Standard) and
    /// [`Svix`](crate::HeaderProfile::Svix) the id and the time are in signed headers, and the type
    /// is nowhere. Under [`XWebhook`](crate::HeaderProfile::XWebhook) id, type and time are in
    /// headers that no signature covers, so a receiver cannot recognize a replayed request by its id.
    Payload,
    /// A CloudEvent of version 1.0 in structured mode, with the payload as its `data`:
    /// `{"specversion":"1.0","id":…,"source":…,"type":…,"time":…,"datacontenttype":"application/json",
    /// "data":…}`. The content type is `application/cloudevents+json`.
    ///
    /// `id`, `type` and `time` are those of the event. `source` is the event's source, with
    /// percent-encoded characters if it is no URI reference, and `/` with the tenant's id if it has
    /// none.
    CloudEvent,
    /// A CloudEvent of version 1.0 in binary mode: the payload alone, byte for byte, and the attributes
    /// `specversion`, `id`, `source`, `type` and `time` as headers with the prefix `ce-`, whose values
    /// are percent-encoded (CloudEvents 1.0.2, HTTP protocol binding §3.1). The content type is
    /// `application/json`.
    ///
    /// Signatures cover the body as in [`Payload`](Self::Payload), and none of these headers: a receiver
    /// that must trust the type or the source asks for [`CloudEvent`](Self::CloudEvent).
    CloudEventBinary,
}
